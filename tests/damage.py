"""Every kind of damage to what lies on a disk, and the command line in this process, without Ray.

A site is a folder with prompts, a run that was extended, rerun and scored, and a set made of it.
"""

import io
import os
import re
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from pipeline.plan.reruns import OpenRerun
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.plans import read_manifest
from pipeline.store.runs import RunSource
from pipeline.store.status import take_stock
from schemas.errors import DAMAGED_REASONS, StoreUnavailable, fatal_failure
from schemas.runs import Key, Remedy, RunManifest, ShardReport
from tests.support import SMALL, at_work, attempt_at, bring_back, rerun_of

RUN, SET, PROMPTS = "run", "set", "prompts.txt"
_SHAPE = " ".join(
    f"--set method.fake.{name}={value}"
    for name, value in {
        **SMALL.model_dump(include={"image_size", "patch_size", "num_codes"})
    }.items()
)
PLAN = (
    f"plan {PROMPTS} {RUN} --backend fake {_SHAPE} --set method.fake.dead_share=0.5 "
    "--set execution.max_dead_fraction=1 --set execution.store_patience_seconds=0 "
    "--set execution.beat_seconds=0.2 --shard-rollouts 3 --pictures final"
)
_COMMAND = re.compile(
    r"\bcoppice (?:run|rerun|repair|plan|verify|status|show|score|why|gc|curate)\b[^\n]*"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a command printed on both outputs, and how it ended."""

    text: str
    code: int

    def advice(self) -> list[str]:
        """The commands in what was printed that can be given as they are, without `coppice`."""
        commands = []
        for match in _COMMAND.finditer(self.text):
            words = match[0].partition("coppice ")[2]
            command = re.split(r"[;,:]|\.$|\. | or |\bthen\b|`| and ", words)[0].strip()
            is_whole = not re.search(r"\b[A-Z]{3,}\b|\.\.\.", command)  # RECORD is to be filled in
            if is_whole and command not in commands:
                commands.append(command)
        return commands


@dataclass(frozen=True, slots=True)
class Site:
    """A folder in which commands are given."""

    folder: Path

    def coppice(self, command: str) -> Answer:
        """Give a command here, in this process. What is no error of ours is raised."""
        from jobs.cli import main

        printed = io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            redirect_stdout(printed),
            redirect_stderr(printed),
        ):
            patch.chdir(self.folder)
            patch.setattr(sys, "argv", ["coppice", *shlex.split(command)])
            patch.setattr("jobs.commands.runs._drive", _drive)
            patch.setattr("jobs.commands.plan.preflight", lambda store: None)
            patch.setattr("jobs.cluster.connect.on_ray", lambda address: nullcontext())
            patch.setattr("jobs.commands.score._score_on_ray", _score)
            with pytest.raises(SystemExit) as ended:
                main()
        return Answer(text=printed.getvalue(), code=int(ended.value.code or 0))

    def path(self, name: str) -> Path:
        """The first file or folder of this name, which may have stars."""
        return next(iter(sorted((self.folder / RUN).glob(name))))

    def copied(self, folder: Path) -> "Site":
        shutil.copytree(self.folder, folder)
        return Site(folder)

    def rows(self) -> Counter[tuple[str, int, str]]:
        """Keys and states in all trace files that DuckDB reads, those in quarantine left out."""
        rows: Counter[tuple[str, int, str]] = Counter()
        for path in sorted((self.folder / RUN / "traces").glob("*.parquet")):
            rows.update(_rows_in(path))
        return rows

    def ok_keys(self) -> set[Key]:
        return {key[:2] for key in self.rows() if key[2] == "ok"}

    def keys_set_aside(self) -> set[Key]:
        """Keys in files of the quarantine that can be read."""
        paths = (self.folder / RUN / "_quarantine").glob("*/shard-*.parquet")
        return {(row[0], row[1]) for path in paths for row in _rows_in(path)}

    def doubled(self) -> set[Key]:
        """Keys with two rows that are ok."""
        return {key[:2] for key, times in self.rows().items() if key[2] == "ok" and times > 1}


def make_site(folder: Path) -> Site:
    """A site that nothing is wrong with: 12 rollouts in 4 shards, some of them dead, one shard with
    a supplement.
    """
    folder.mkdir(parents=True)
    site = Site(folder)
    (folder / PROMPTS).write_text("\n".join(f"a red cube number {n}" for n in range(6)))
    (folder / "mine.toml").write_text('name = "mine"\npictures = "tokens"')
    _do(site, PLAN, f"plan --extend {RUN} --rollouts 2", f"run {RUN}")
    store = open_store(str(folder / RUN))
    bring_back(store, read_manifest(store), 0, folder)
    _do(site, f"score {RUN} --scorer thoughts", f"curate {RUN} {SET} --recipe mine.toml")
    return site


def _do(site: Site, *commands: str) -> None:
    for command in commands:
        answer = site.coppice(command)
        assert answer.code in (0, 4), answer.text


# Damage


def _spoil(pattern: str, change: Callable[[bytes], bytes]) -> Callable[[Site], None]:
    def spoil(site: Site) -> None:
        path = site.path(pattern)
        path.write_bytes(change(path.read_bytes()))

    return spoil


def _remove(pattern: str) -> Callable[[Site], None]:
    def remove(site: Site) -> None:
        path = site.path(pattern)
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return remove


def _copy(pattern: str, over: str) -> Callable[[Site], None]:
    def copy(site: Site) -> None:
        source = site.path(pattern)
        target = site.folder / RUN / over if "*" not in over else site.path(over)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)

    return copy


def _folder_at(pattern: str) -> Callable[[Site], None]:
    def replace(site: Site) -> None:
        path = site.path(pattern)
        path.unlink()
        path.mkdir()

    return replace


def _cut(body: bytes) -> bytes:
    return body[:-50]


def _flip_page(body: bytes) -> bytes:
    return body[:80] + bytes([body[80] ^ 0x40]) + body[81:]


def _flip_statistics(body: bytes) -> bytes:
    """A greatest or least value of the states: a reader that believes it skips rows."""
    at = body.rindex(b"dead")
    return body[:at] + b"tead" + body[at + 4 :]


def _nothing(body: bytes) -> bytes:
    del body
    return b""


def _garbage(body: bytes) -> bytes:
    return b"something else " * (1 + len(body) // 15)


_FILES = {
    "a plan file": "plan/0001-*/shard-00001.parquet",
    "a plan file of an extension": "plan/0002-*/shard-00002.parquet",
    "a base": "traces/shard-00001.parquet",
    "a base with a supplement": "traces/shard-00000.parquet",
    "a supplement": "traces/shard-00000.s1.parquet",
    "a sidecar": "scores/*/shard-00001.parquet",
    "a file of a set": f"../{SET}/sft/*/*-00000.parquet",
}
_WAYS = {
    "is cut": _cut,
    "is empty": _nothing,
    "is garbage": _garbage,
    "has another bit": _flip_page,
}

DAMAGE: dict[str, Callable[[Site], None]] = {
    **{
        f"{what} {way}": _spoil(pattern, change)
        for what, pattern in _FILES.items()
        for way, change in _WAYS.items()
    },
    **{f"{what} is gone": _remove(pattern) for what, pattern in _FILES.items()},
    **{f"{what} is a folder": _folder_at(pattern) for what, pattern in _FILES.items()},
    "statistics have another bit": _spoil(_FILES["a base"], _flip_statistics),
    "a plan file is another shard's": _copy(
        "plan/0001-*/shard-00000.parquet", "plan/0001-*/shard-00001.parquet"
    ),
    "a plan file is of another part": _copy(
        "plan/0002-*/shard-00002.parquet", "plan/0001-*/shard-00001.parquet"
    ),
    "a base is another shard's": _copy("traces/shard-00000.parquet", "traces/shard-00001.parquet"),
    "a base stands beyond the plan": _copy(
        "traces/shard-00000.parquet", "traces/shard-00009.parquet"
    ),
    "run.json is gone": _remove("run.json"),
    "an extension is gone": _remove("plan/0002.json"),
    "a plan folder is gone": _remove("plan/0001-*"),
    "all plans are gone": _remove("plan"),
    "traces are gone": _remove("traces"),
    "scores are gone": _remove("scores"),
    "digests are gone": _remove("_digests"),
    "notes of drivers are gone": _remove("_drivers"),
}


# Following advice

FIRST = (f"verify {RUN} --deep", f"status {RUN}", f"run {RUN}", f"rerun {RUN}", f"verify {SET}")
"""The commands that walks begin with."""

_MAX_COMMANDS = 12  # of one walk


def is_told(answer: Answer) -> bool:
    """Ended with a code that means something, and a word about it."""
    return answer.code not in (1, 130) and bool(answer.text.strip())


def walk(site: Site, first: str) -> list[tuple[str, int]]:
    """Give a command, and whatever is advised then, until nothing new is: with their exit codes.

    Asserts that no key is lost or doubled, and that each command ends well, on any step.
    """
    kept = site.ok_keys() | site.keys_set_aside()
    waiting, given = [first], list[tuple[str, int]]()
    while waiting and len(given) < _MAX_COMMANDS:
        command = waiting.pop(0)
        answer = site.coppice(command)
        given.append((command, answer.code))
        assert is_told(answer), f"no word: {given}"
        assert not site.doubled(), f"twice: {given}"
        assert kept <= site.ok_keys() | site.keys_set_aside(), f"lost: {given}"
        names = [name for name, _ in given]
        waiting += [advised for advised in answer.advice() if names.count(advised) < 2]
    return given


# The command line without Ray


def _drive(store: Store, manifest: RunManifest, terminal: Any, stop: Any, **more: Any) -> bool:
    """What `jobs.commands.runs._drive` does, by one worker in this process."""
    del stop
    rerun: OpenRerun | None = more.get("rerun")
    with at_work(store, manifest) as worker:
        if rerun:
            reports = [worker.run_shard(rerun_of(shard, rerun)) for shard in rerun.left]
            return any([_settle(report, terminal) for report in reports])
        stock = take_stock(store, manifest)
        left = {*range(manifest.num_shards)} - {*stock.committed(), *stock.damage}
        reports = [worker.run_shard(attempt_at(shard, 2)) for shard in sorted(left)]
        return any([_settle(report, terminal) for report in reports])


def _settle(report: ShardReport, terminal: Any) -> bool:
    """Say or raise what failed. Whether that is damage."""
    failure = report.failure
    if failure is None:
        return False
    if failure.remedy is Remedy.STOP:
        raise fatal_failure(failure.message, reason=failure.reason)
    if failure.remedy is Remedy.STOP_FOR_STORE:
        raise StoreUnavailable(failure.message)
    terminal.say(f"Gave up on shard {report.shard}: {failure.message}")
    return failure.reason in DAMAGED_REASONS


def _score(run: RunSource, scorers: Any, work: dict[int, list[int]], *_: Any) -> tuple[int, int]:
    """What `jobs.commands.score._score_on_ray` does, by one actor in this process."""
    from jobs.commands.score import Scoring, _error_of

    counts = Counter[str]()
    scoring = Scoring(run.store.url, tuple(scorers), "cpu", os.getcwd())
    for index, numbers in work.items():
        of_object = scoring({"object": np.array([index]), "scorers": [np.array(numbers)]})
        if of_object["failure"][0]:
            raise _error_of(of_object["kind"][0], of_object["failure"][0])
        counts["sidecars"] += of_object["num_sidecars"][0]
        counts["scores"] += of_object["num_scores"][0]
    return counts["sidecars"], counts["scores"]


def _rows_in(path: Path) -> list[tuple[str, int, str]]:
    with suppress(duckdb.Error):
        query = "select record_id, rollout_index, status from read_parquet(?)"
        return duckdb.execute(query, [str(path)]).fetchall()
    return []
