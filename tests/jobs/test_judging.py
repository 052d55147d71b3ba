"""Judges as a user has them: scored on Ray, killed and gone on with, and a set that comes of it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.jobs.conftest import Coppice
from tests.jobs.raylets import started_head
from tests.pipeline.conftest import grow_toy
from tests.pipeline.scoring.judges import checkpoints

pytestmark = [pytest.mark.ray, pytest.mark.slow]

JUDGES = {
    "hps": 'model = "{clip}"\nbase = "{clip}"',
    "pickscore": 'model = "{clip}"',
    "clipscore": 'model = "{clip}"\nlook = "draw"',
    "detector": 'model = "{grounding_dino}"',
    "git_vqa": 'model = "{git}"',
    "blip_vqa": 'model = "{blip}"\nimage_size = 32\nlook = "crop"',
    "lmm_yes": 'model = "{qwen3_vl}"',
    "layout": 'model = "{grounding_dino}"\ndepth = "{dpt}"',
}
CHECKS = ("thoughts", "critiques", "tokens", "phash", "prompt_filter", "own_critic")


@pytest.fixture(scope="module")
def head() -> Iterator[dict[str, str]]:
    """The environment of a client of a head without a dashboard: it is up in half of the time."""
    with started_head("--num-cpus=2") as (_, client):
        yield client


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with all judges, on tiny random checkpoints, and all checks."""
    folder = tmp_path_factory.mktemp("judges")
    names = ("clip", "grounding_dino", "git", "blip", "qwen3_vl", "dpt")
    places = {name: str(getattr(checkpoints, name)(folder / name)) for name in names}
    tables = [f"[scorers.{name}]\n{table}" for name, table in JUDGES.items()]
    tables += [f"[scorers.{name}]" for name in CHECKS]
    path = folder / "judges.toml"
    path.write_text("\n".join(tables).format(**places))
    return path


def start(folder: Path, environment: dict[str, str], *words: str) -> "subprocess.Popen[bytes]":
    """A command in a process group of its own."""
    environment = environment | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *words],
        cwd=folder,
        env=environment,
        start_new_session=True,
        stdout=(folder / "said").open("ab"),
        stderr=subprocess.STDOUT,
    )


def kill_when(process: "subprocess.Popen[bytes]", folder: Path, pattern: str) -> None:
    """SIGKILL, as soon as there is such a file."""
    while not list(folder.glob(pattern)):
        assert process.poll() is None, f"it ended before there was {pattern}"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(3)  # its actors end with it


def sidecars(run: Path) -> dict[str, int]:
    """When each was written."""
    return {
        str(path.relative_to(run)): path.stat().st_mtime_ns
        for path in run.glob("scores/*/*.parquet")
    }


def scores(run: Path) -> dict[str, list[dict[str, Any]]]:
    """What each scorer says of each trace, whatever the traces are called in this run."""
    files = sorted(run.glob("traces/*.parquet"))
    traces = {row["trace_id"]: row for file in files for row in pq.read_table(file).to_pylist()}
    told: dict[str, list[dict[str, Any]]] = {}
    for file in sorted(run.glob("scores/*/*.parquet")):
        for row in pq.read_table(file).to_pylist():
            trace = traces[row.pop("trace_id")]
            key = {"record": trace["record_id"], "rollout": trace["rollout_index"]}
            told.setdefault(file.parent.name, []).append({**key, **row})
    return told


@pytest.mark.timeout(1800)
def test_runs_are_judged_alike_whatever_they_kept_also_through_a_kill_and_make_a_set(
    coppice_on_ray: Coppice, head: dict[str, str], config: Path, tmp_path: Path
):
    told = {}
    for kept in ("none", "final", "all"):
        folder, score = tmp_path / kept, ("score", f"{kept}/run", "--config", str(config))
        folder.mkdir()
        grow_toy(folder, num_records=3, num_rollouts=2, rollouts_per_shard=2, pictures=kept)
        before = {}
        if kept == "none":
            kill_when(start(tmp_path, head, *score), folder, "run/scores/*/*.parquet")
            before = sidecars(folder / "run")
            assert len(before) < 3 * len((*JUDGES, *CHECKS))

        assert start(tmp_path, head, *score).wait(600) == 0

        after = sidecars(folder / "run")
        assert len(after) == 3 * len((*JUDGES, *CHECKS))
        assert before.items() <= after.items(), "nothing is scored twice"
        told[kept] = scores(folder / "run")
    assert told["none"] == told["final"] == told["all"]
    has_value = {
        name for name, rows in told["all"].items() if any(row.get("value") for row in rows)
    }
    assert {name.partition("@")[0] for name in has_value} >= set(JUDGES) - {"layout"}

    curate = ("curate", "all/run")
    judged = coppice_on_ray(*curate, "judged", "--recipe", "twig-50k", "--export", "trl")
    others = ("--judge", "hps.logit", "--judge", "blip_vqa.value", "--held-out", "detector.value")
    named = coppice_on_ray(*curate, "named", "--recipe", "twig-50k", *others)
    alone = coppice_on_ray(*curate, "alone", "--recipe", "twig-50k-self", "--dry-run")

    assert alone.returncode == 0, alone.stderr
    for answer, made, held_out in ((judged, "judged", "pickscore"), (named, "named", "detector")):
        assert answer.returncode == 0, answer.stderr
        assert f"Held out, {held_out}.value" in answer.stdout
        check_shape(tmp_path / made)


@pytest.mark.timeout(1800)
def test_an_evaluation_that_was_killed_goes_on_to_the_same_table(
    head: dict[str, str], config: Path, tmp_path: Path
):
    """GenEval, by a tiny detector and a tiny CLIP."""
    clauses = [{"class": "dog", "count": 1}, {"class": "cup", "count": 2, "color": "red"}]
    rows = [
        {"tag": "single_object", "include": clauses[:1], "prompt": "a photo of a dog"},
        {"tag": "colors", "include": clauses, "prompt": "a dog and two red cups"},
        {"tag": "counting", "include": clauses[1:], "prompt": "a photo of two red cups"},
    ]
    (tmp_path / "prompts").mkdir()
    file = tmp_path / "prompts" / "evaluation_metadata.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    models = config.parent
    judge = f"geneval[model={models}/grounding_dino,clip={models}/clip,threshold=0.1]"
    command = ("--suite", "geneval", "--prompts", "prompts", "--images-per-prompt", "2")
    command += ("--scorer", judge, "--backend", "fake", "--set", "method.fake.image_size=96")

    kill_when(start(tmp_path, head, "eval", "run", *command), tmp_path, "run/traces/*.parquet")
    assert not (tmp_path / "run" / "eval").exists()
    assert start(tmp_path, head, "eval", "run", *command).wait(600) == 0
    assert start(tmp_path, head, "eval", "whole", *command).wait(600) == 0

    resumed, whole = (
        json.loads((tmp_path / run / "eval" / "geneval.json").read_text())
        for run in ("run", "whole")
    )
    assert resumed.pop("run_id") != whole.pop("run_id")
    assert resumed == whole
    assert resumed["num_pictures"] == 6
    lines = {line["class"]: line["num_pictures"] for line in resumed["lines"]}
    assert lines.items() >= {("single_object", 2), ("colors", 2), ("counting", 2)}


def check_shape(made: Path) -> None:
    """Nine tasks, 17 to 17 to 16, by a judge whose held-out colleague was asked."""
    files = json.loads((made / "manifest.json").read_text())["files"]
    rows = Counter[str]()
    for key, stream in files.items():
        if key.startswith("sft/"):
            rows[key.split("/")[1].partition("_")[0]] += stream["num_rows"]
    tasks = {key.split("/")[1] for key in files if key.startswith("sft/")}
    assert tasks == {f"{role}_{n}" for role in ("think", "reflect", "draw") for n in (1, 2, 3)}
    assert rows["think"] == rows["reflect"]
    assert rows["draw"] == int(rows["think"] / 17 * 16 + 1e-9)
    opinions = json.loads((made / "guards.json").read_text())["opinions"]
    assert {opinion["part"] for opinion in opinions} >= {"together", "judge", "held_out", "critic"}
    decisions = pq.read_table(made / "decisions.parquet")
    assert sum(rows.values()) == sum(decisions["is_kept"].to_pylist())
