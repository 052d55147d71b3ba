"""`coppice score` on a real Ray."""

from pathlib import Path

import pytest

from pipeline.store.open import open_store
from pipeline.store.runs import open_run, unscored
from schemas.scores import parse_scorer
from tests.jobs.conftest import Coppice
from tests.support import plan_run, run_all


@pytest.mark.ray
def test_a_run_is_scored_on_ray_and_a_hole_is_filled(coppice_on_ray: Coppice, tmp_path: Path):
    store = open_store(str(tmp_path / "run"))
    run_all(store, plan_run(store, 4, rollouts_per_shard=2))
    first = coppice_on_ray("score", "run", "--scorer", "thoughts", "--scorer", "tokens")
    (tmp_path / "run/scores/tokens@1/shard-00001.parquet").unlink()
    second = coppice_on_ray("score", "run", "--scorer", "tokens")

    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert "Made 4 sidecars" in first.stdout
    assert "Made 1 sidecar " in second.stdout
    run = open_run(store.url)
    assert not unscored(run, parse_scorer("tokens@1"))
    assert not unscored(run, parse_scorer("thoughts@1"))


def test_an_unknown_scorer_is_refused_before_ray_starts(coppice: Coppice, tmp_path: Path):
    store = open_store(str(tmp_path / "run"))
    run_all(store, plan_run(store, 2))
    answer = coppice("score", "run", "--scorer", "tokenz")

    assert answer.returncode == 2
    assert "did you mean 'tokens'" in answer.stderr


BROKEN = """
from pipeline.scoring.scorers import Score

class Broken:
    name, version = "broken", "1"
    subjects = frozenset({"trace"})
    needs_pictures = False
    columns = {"value": "float32"}

    def score(self, batch):
        return [Score(value=float("inf")) for _ in batch]
"""


@pytest.mark.ray
def test_a_scorer_that_gives_infinity_is_refused_in_one_sentence(
    coppice_on_ray: Coppice, tmp_path: Path
):
    store = open_store(str(tmp_path / "run"))
    run_all(store, plan_run(store, 2))
    (tmp_path / "broken_scorer.py").write_text(BROKEN)
    answer = coppice_on_ray("score", "run", "--scorer", "broken_scorer:Broken")

    assert answer.returncode == 2, answer.stderr
    (said,) = (line for line in answer.stderr.splitlines() if "coppice: " in line)
    assert "Traceback" not in answer.stderr
    assert "broken@1 gave inf as value of trace" in said
    assert not list((tmp_path / "run").glob("scores/**/*.parquet"))
