"""The benchmark of judges, dry: the script for a GPU walks through the same code in small."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_script_measures_every_judge_and_keeps_each_figure(tmp_path: Path):
    environment = {"PYTHON": sys.executable, "OUT": str(tmp_path), "SIZE": "tiny"}
    answer = subprocess.run(
        [ROOT / "benchmarks" / "judges.sh", "--dry-run"],
        env=os.environ | environment | {"DTYPE": "float32"},
        capture_output=True,
        text=True,
        check=True,
    )

    figures = json.loads(answer.stdout.splitlines()[-1])
    assert json.loads((tmp_path / "judges.json").read_text()) == figures
    for judge in ("hps", "pickscore", "clipscore", "detector", "git_vqa", "blip_vqa", "lmm_yes"):
        assert figures[f"{judge}_pictures_per_second"] > 0
        assert 0 < figures[f"{judge}_share_outside_the_model"] < 1
        assert "no_picture" not in figures[f"{judge}_outcomes"]
