"""`coppice score` on a real Ray."""

import gc
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from jobs.commands.live.line import Pace, whole_line
from jobs.commands.score import ScoreRequest, Scoring, plan_scorers, progress_of
from pipeline.scoring.scorers import Score, ScoringInput
from pipeline.store.open import open_store
from pipeline.store.runs import open_run, unscored
from schemas.scores import SCORES_KEY, parse_scorer
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


OWN = """
import os
from coppice import Score

class Own:
    name, version = "own", "1"
    subjects = frozenset({"trace"})
    needs_pictures = True
    columns = {"value": "float32", "says": "string"}

    def __init__(self, least: int = 0):
        self.least = least

    def load(self, device):
        self.device = device

    def score(self, batch):
        if self.least > 100:
            raise KeyError("weights")
        return [Score(value=float(self.least), parts={"says": self.device}) for _ in batch]
"""


@pytest.mark.slow
@pytest.mark.ray
def test_scorers_of_the_working_directory_take_settings_from_a_file_and_from_brackets(
    coppice_on_ray: Coppice, tmp_path: Path
):
    store = open_store(str(tmp_path / "run"))
    run_all(store, plan_run(store, 4, rollouts_per_shard=2))
    (tmp_path / "own_scorers.py").write_text(OWN)
    (tmp_path / "judges.toml").write_text('[scorers."own_scorers:Own"]\nleast = 3\n')
    by_file = coppice_on_ray("score", "run", "--config", "judges.toml")
    brackets = coppice_on_ray("score", "run", "--scorer", "own_scorers:Own[least=4]")
    broken = coppice_on_ray("score", "run", "--scorer", "own_scorers:Own[least=101]")

    assert by_file.returncode == brackets.returncode == 0, by_file.stderr + brackets.stderr
    assert "Made 2 sidecars with 4 scores." in by_file.stdout
    assert "of 2 shards scored, " in by_file.stdout
    folders = sorted(path.name for path in (tmp_path / "run/scores").iterdir())
    assert len(folders) == 2
    told = []
    for folder in folders:
        assert re.fullmatch(r"own@1-[0-9a-f]{8}", folder)
        assert f"Scored by {folder}: run/scores/{folder}/" in by_file.stdout + brackets.stdout
        table = pq.read_table(tmp_path / "run/scores" / folder)
        assert set(table["says"].to_pylist()) == {"cpu"}
        told.append((sorted(set(table["value"].to_pylist())), footer_of(tmp_path, folder)))
    assert sorted(told, key=str) == [([3.0], {"least": 3}), ([4.0], {"least": 4})]
    assert broken.returncode == 2
    assert "Traceback" not in broken.stderr
    assert "failed (KeyError: 'weights' (own_scorers.py line" in broken.stderr


def footer_of(folder: Path, scorer: str) -> Any:
    """The settings that the first sidecar of a scorer was made with."""
    path = folder / "run/scores" / scorer / "shard-00000.parquet"
    return json.loads(pq.read_metadata(path).metadata[SCORES_KEY])["settings"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--scorer", "own_scorers:Own"], "declares column 'value' of kind 'float'"),
        (["--scorer", "tokens[least=3]"], "has no settings, and was given least"),
        (["--scorer", "tokens["], "is no scorer"),
        (["--config", "nowhere.toml"], "cannot be read"),
        ([], "name a scorer with --scorer"),
    ],
)
def test_what_cannot_score_is_one_sentence_before_ray_starts(
    coppice: Coppice, tmp_path: Path, arguments: list[str], complaint: str
):
    (tmp_path / "own_scorers.py").write_text(OWN.replace('"float32"', '"float"'))
    answer = coppice("score", "run", *arguments)  # a run that is not there is looked for later

    assert answer.returncode == 2
    assert complaint in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


class Memory:
    """Room for so many scorers at once, as a GPU has."""

    room = 0
    held: ClassVar[list["Heavy"]] = []


class Heavy:
    """A scorer with weights that take a room."""

    subjects = frozenset({"trace"})
    needs_pictures = False
    columns: ClassVar[dict[str, str]] = {"value": "float32"}
    version = "1"

    def __init__(self, number: int = 0) -> None:
        self.name = f"heavy{number}"

    def load(self, device: str) -> None:
        alive = [other for other in gc.get_objects() if type(other) is Heavy and other.is_loaded]
        if len(alive) >= Memory.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.is_loaded = True

    is_loaded = False

    def score(self, batch: Sequence[ScoringInput]) -> list[Score]:
        return [Score(value=1.0) for _ in batch]


@pytest.mark.parametrize(
    "room", [3, *(pytest.param(room, marks=pytest.mark.slow) for room in (2, 1)), 0]
)
def test_scorers_that_do_not_fit_together_take_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
):
    monkeypatch.setattr(Memory, "room", room)
    store = open_store(str(tmp_path / "run"))
    run_all(store, plan_run(store, 4, rollouts_per_shard=2))
    request = ScoreRequest(
        run=store.url,
        scorers=[f"tests.jobs.commands.test_score:Heavy[number={n}]" for n in range(3)],
        config=None,
        num_workers=1,
        num_gpus=0,
        address=None,
    )
    scorers = plan_scorers(request)
    scoring = Scoring(store.url, scorers, "cpu", str(tmp_path))
    batch = {"object": np.array([0, 1]), "scorers": [[0, 1, 2], [0, 2]]}
    counts = scoring(batch)  # type: ignore[arg-type]

    if not room:
        assert counts["num_sidecars"] == [0, 0]
        assert counts["kind"] == ["InputError"] * 2
        assert "does not fit into memory" in counts["failure"][0]
        return
    assert counts["failure"] == ["", ""]
    assert counts["num_sidecars"] == [3, 2]
    assert counts["num_scores"] == [6, 4]
    run = open_run(store.url)
    assert [len(unscored(run, scorer.id)) for scorer in scorers] == [0, 1, 0]
    gc.collect()


def test_progress_is_of_shards_and_tells_the_scores():
    line = whole_line(progress_of(3, 12, 1234), Pace(most=3))

    assert line == "3 of 12 shards scored, 1,234 scores"


@pytest.mark.slow
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
