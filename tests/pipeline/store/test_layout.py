"""What the objects of a run are called, and that nothing else spells it."""

import ast
import re
from collections.abc import Iterator

import pytest

from pipeline.store import layout
from schemas.scores import parse_scorer
from tests.test_imports import module_paths

_IN_A_RUN = re.compile(
    r"/?(?:(?:traces|plan|scores)/|(?:_attempts|_reruns|_drivers|_footers|_quarantine|_preflight|_tmp)\b"
    r"|run\.json)"
)


def literals(tree: ast.Module) -> Iterator[str]:
    """The texts of a module that are no docstrings; of an f-string, what stands between braces."""
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in docstrings:
            yield node.value


@pytest.mark.parametrize("shard", [0, 42, 99_999, 100_000, 1_234_567])
def test_a_data_object_is_told_by_its_name(shard: int):
    assert layout.try_shard_of(layout.traces_key(shard)) == shard
    assert layout.try_traces_of(layout.traces_key(shard)) == (shard, 0)
    assert layout.try_traces_of(layout.traces_key(shard, 12)) == (shard, 12)


@pytest.mark.parametrize(
    "key",
    [
        "traces/shard-00042.s1.parquet",
        "traces/shard-00042.parquet.tmp",
        "plan/0001-abc/shard-00042.parquet",
        "traces/shard-42.parquet",
        "traces/old/shard-00042.parquet",
    ],
)
def test_nothing_else_is_taken_for_a_data_object(key: str):
    assert layout.try_shard_of(key) is None


@pytest.mark.parametrize("name", ["shard-00042.s0", "shard-00042.s01", "shard-000042", "shard-42"])
def test_a_data_object_has_one_name(name: str):
    assert layout.try_traces_of(layout.traces_object_key(f"{name}.parquet")) is None


def test_a_sidecar_is_called_as_its_data_object_is():
    name = layout.object_name(layout.traces_key(42, 3))

    assert name == layout.traces_object_name(42, 3) == "shard-00042.s3.parquet"
    assert layout.traces_object_key(name) == layout.traces_key(42, 3)
    assert layout.sidecar_key(name, parse_scorer("toy@1")) == f"scores/toy@1/{name}"


def test_no_other_module_spells_a_key():
    spelt = [
        (module, text)
        for module, path in module_paths().items()
        if module.startswith(("pipeline.", "jobs.")) and module != layout.__name__
        for text in literals(ast.parse(path.read_text()))
        if _IN_A_RUN.match(text)
    ]

    assert spelt == []
    assert [text for text in literals(ast.parse('"""plan/"""\nf"{run}/plan/{number}"'))] == [
        "/plan/"
    ]
