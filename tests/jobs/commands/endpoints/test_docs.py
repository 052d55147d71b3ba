"""The configs in docs/teacher.md are configs."""

import re
import tomllib
from pathlib import Path

from pipeline.plan.endpoints import endpoint_of

TEACHER = Path(__file__).parents[4] / "docs" / "teacher.md"


def test_every_config_of_the_page_has_endpoints_that_can_be_used():
    blocks = re.findall(r"```toml\n(.*?)```", TEACHER.read_text(), re.DOTALL)
    tables = [tomllib.loads(block) for block in blocks]

    assert len(tables) == 4
    for table in tables:
        (name,) = table["method"]["endpoints"]
        method, execution = endpoint_of(table, name, may_be_served=True)
        assert method.model.startswith("Qwen/")
        assert bool(execution.url) != bool(execution.serve)
