"""Small files may hold anything: garbage, much, or nothing; or something else stands at their name.

Every command then says one sentence, or does without the file. None ends as a bug of ours does.
"""

import io
import json
import os
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from itertools import cycle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import main
from pipeline.plan.planning import extend_plan
from pipeline.scoring.find import find_scorer
from pipeline.scoring.sidecars import score_object
from pipeline.store import layout
from pipeline.store.commits import record_failed_attempt
from pipeline.store.open import open_store
from pipeline.store.plans import read_manifest
from pipeline.store.runs import open_run
from pipeline.store.status import keep_footers
from schemas.errors import ExitCode
from schemas.ids import record_id
from schemas.runs import FailedAttempt
from tests.support import fake_config, plan_run, prompt_set, run_all

Spoil = Callable[[Path], None]


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _endless_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _huge(path: Path) -> None:
    os.truncate(path, 2**33)  # sparse: it takes no room


def _another_parquet(path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), path)


def _text(text: str | bytes) -> Spoil:
    return lambda path: (
        path.write_bytes(text if isinstance(text, bytes) else text.encode()) and None
    )


KINDS: dict[str, Spoil] = {
    "nothing": _text(""),
    "garbage": _text(bytes(range(256)) * 3),
    "another kind of JSON": _text("[1, 2]"),
    "an empty object": _text("{}"),
    "brackets without end": _text("[" * 100_000),
    "values without end": _text('{"a":' * 100_000),
    "a newer version": _text(
        '{"run_format": 99, "version": "99", "count": "x", "trace_version": 99}'
    ),
    "numbers of any size": _text(
        '{"count": 1e999, "beat_seconds": 1e300, "shard": 1' + "0" * 400 + "}"
    ),
    "control characters": _text('{"\x1b[2J\\u001b]0;x\\u0007": "\\u202e\\ud800"}'),
    "half of it": lambda path: os.truncate(path, path.stat().st_size // 2),
    "very much": _huge,
    "another Parquet": _another_parquet,
    "a folder": _folder,
    "a link to itself": _endless_link,
    "a link to nothing": _link_to_nothing,
    "a pipe": _pipe,
}
FILES = {
    "run.json": "run.json",
    "an extension": layout.extension_key(2),
    "a driver": layout.driver_key(1),
    "a beat": layout.beat_key(1),
    "places": layout.actors_key(1),
    "a rerun": layout.rerun_key("some-rerun"),
    "an attempt": layout.attempt_key(0, "some-attempt"),
    "a trace object": layout.traces_key(1),
    "a sidecar": "scores/thoughts@1/shard-00001.parquet",
    "a log of footers": "_footers/*.parquet",
    "recipe": "../recipe.toml",
    "config": "../config.toml",
    "pack": "../pack.toml",
    "scorers": "../scorers.toml",
    "manifest of a set": "../set/manifest.json",
    "begin of a set": "../begun/started.json",
}
RECORD = record_id("prompt number 1")
COMMANDS = [
    ("status", "run"),
    ("status", "run", "--json"),
    ("verify", "run"),
    ("verify", "run", "--deep", "--json"),
    ("show", "run"),
    ("show", "run", RECORD),
    ("why", "run", RECORD),
    ("rerun", "run", "--dry-run"),
    ("gc", "run", "--dry-run", "--settle-seconds", "0"),
    ("gc", "run", "--settle-seconds", "0"),
    ("repair", "run", "--shards", "1"),
    ("plan", "prompts.txt", "run", "--config", "config.toml"),
    ("plan", "--extend", "run", "--rollouts", "2"),
    ("curate", "run", "set", "--recipe", "recipe.toml", "--dry-run"),
]
CONCERNED = {  # these always; the others in turn
    "recipe": [("curate", "run", "new", "--recipe", "recipe.toml", "--dry-run")],
    "config": [("plan", "prompts.txt", "new", "--config", "config.toml")],
    "pack": [("plan", "prompts.txt", "new", "--backend", "fake", "--pack", "pack.toml")],
    "scorers": [("score", "run", "--config", "scorers.toml")],
    "manifest of a set": [("curate", "run", "set", "--recipe", "recipe.toml")],
    "begin of a set": [("curate", "run", "begun", "--recipe", "recipe.toml")],
    "a driver": [("repair", "run", "--shards", "1"), ("status", "run")],
    "a beat": [("repair", "run", "--shards", "1"), ("status", "run")],
    "places": [("status", "run", "--json")],
    "a rerun": [("rerun", "run", "--dry-run"), ("rerun", "run")],
    "an attempt": [("why", "run", RECORD)],
    "a sidecar": [("curate", "run", "new", "--recipe", "recipe.toml", "--dry-run")],
    "a log of footers": [("status", "run"), ("gc", "run", "--settle-seconds", "0")],
    "a trace object": [("status", "run"), ("show", "run"), ("verify", "run")],
    "run.json": [("status", "run"), ("plan", "prompts.txt", "run", "--config", "config.toml")],
    "an extension": [("status", "run"), ("plan", "--extend", "run", "--rollouts", "2")],
}
RECIPE = """
name = "some"
about = "some"
pictures = "tokens"
scorers = ["thoughts@1"]
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("template"))


def make_run(folder: Path) -> Path:
    """A complete run of two parts with all that can lie beside its traces, and files for it."""
    folder.mkdir(exist_ok=True)
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "config.toml").write_text(
        '[method]\nbackend = "fake"\n[method.fake]\nimage_size = 32\n'
    )
    pack = Path("pipeline/twig/templates/default.toml").read_text()
    (folder / "pack.toml").write_text(pack)
    (folder / "scorers.toml").write_text("[scorers.thoughts]\n")
    (folder / "prompts.txt").write_text("prompt number 0\nprompt number 1\n")
    store = open_store(str(folder / "run"))
    plan_run(store, 3, fake_config(beat_seconds=0.01), rollouts_per_shard=2)
    extend_plan(store, prompt_set(4), sources=["more.txt"], rollouts_per_record=1)
    manifest = read_manifest(store)
    run_all(store, manifest)
    keep_footers(store, manifest, worth=1)
    for source in (run := open_run(store.url)).objects:
        score_object(run.store, source, find_scorer("thoughts"))
    note = {"driver_id": "a", "host": "b", "pid": 1, "beat_seconds": 0.01, "started_at": "now"}
    store.put(layout.driver_key(1), json.dumps(note).encode())
    store.put(layout.beat_key(1), b'{"count": 1}')
    store.put(layout.actors_key(1), b'{"actors": ["somewhere"]}')
    rerun = {"rerun_id": "some-rerun", "run_id": manifest.run_id, "wish": {}, "keys": {}}
    store.put(layout.rerun_key("some-rerun"), json.dumps(rerun | {"created_at": "now"}).encode())
    failed = FailedAttempt(
        shard=0,
        attempt_id="some-attempt",
        attempt=1,
        kind="task",
        reason="worker",
        message="broke",
        worker="host/1",
        ended_at="now",
    )
    record_failed_attempt(store, failed)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        code, output = said(("curate", "run", "set", "--recipe", "recipe.toml"))
    assert code == 0, output
    (folder / "begun").mkdir()
    shutil.copy(folder / "set/manifest.json", folder / "begun/started.json")
    return folder


def said(words: tuple[str, ...]) -> tuple[int, str]:
    """How a command ends in this process, and what it says."""
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output), pytest.raises(SystemExit) as end:
        main(words)
    return int(end.value.code or 0), output.getvalue()


@pytest.mark.parametrize("name", FILES)
def test_whatever_stands_there_a_command_says_a_sentence(
    template: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for kind in KINDS:
        spoiled(template, tmp_path / kind, name, kind, monkeypatch)
        check(CONCERNED[name][0])


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_whatever_stands_there_every_other_command_does_so_too(
    template: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    others = cycle(COMMANDS)
    for kind in KINDS:
        spoiled(template, tmp_path / kind, name, kind, monkeypatch)
        for words in [*CONCERNED[name][1:], next(others), next(others)]:
            check(words)


def spoiled(
    template: Path, folder: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Make a copy in which one file is something else, and go there."""
    shutil.copytree(template, folder)
    monkeypatch.chdir(folder)
    place = Path(os.path.normpath(folder / "run" / FILES[name]))
    (path,) = place.parent.glob(place.name)
    KINDS[kind](path)


def check(words: tuple[str, ...]) -> None:
    code, output = said(words)
    assert code in set(ExitCode) - {ExitCode.BUG}, (words, output)
    assert "Traceback" not in output
    assert "\x1b" not in output
