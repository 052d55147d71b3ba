"""`coppice why`, and what `coppice show` makes of supplements."""

import io
import re
from pathlib import Path

import pytest

from jobs.commands.show import list_records, show_trace
from jobs.commands.terminal import Terminal
from jobs.commands.why import tell_why
from pipeline.store import layout
from pipeline.store.commits import record_failed_attempt
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.plans import read_manifest
from pipeline.store.supplements import read_dead_keys, read_log
from pipeline.view.where import Choice
from schemas.errors import DamagedPlan, FailureKind, InputError
from schemas.runs import FailedAttempt, Key
from tests.jobs.conftest import Coppice
from tests.support import (
    SMALL,
    at_work,
    attempt_at,
    bring_back,
    fake_config,
    fake_method,
    plan_run,
    replace_object,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A run of 4 shards of 2 rollouts, one record each; shard 3 is not grown; all are dead."""
    store = open_store(str(tmp_path / "run"))
    method = fake_method(SMALL.model_copy(update={"dead_share": 1.0}))
    manifest = plan_run(store, 4, fake_config(method), rollouts_per_record=2, rollouts_per_shard=2)
    with at_work(store, manifest) as worker:
        for shard in range(3):
            worker.run_shard(attempt_at(shard, 2))
    return store


def dead(store: Store, shard: int) -> list[Key]:
    return list(read_dead_keys(store, read_log(store, shard)))


def why(store: Store, record: str, rollout: int | None = None) -> str:
    said = io.StringIO()
    tell_why(store.url, record, rollout, Terminal(said, width=80))
    return said.getvalue()


def show(store: Store, record: str, rollout: int = 0) -> str:
    said = io.StringIO()
    show_trace(store.url, record, rollout, Terminal(said, width=200), None)
    return said.getvalue()


def test_a_story_has_every_row_and_what_to_do_next(store: Store, tmp_path: Path):
    (record, _), (_, second) = dead(store, 1)
    manifest = read_manifest(store)
    bring_back(store, manifest, 1, tmp_path, num_keys=0, num_in_vain=1)
    bring_back(store, manifest, 1, tmp_path, num_keys=1)

    story = why(store, record[:9])

    assert f"planned in part 1, shard 1, rollouts 0 to 1: {manifest.plan.folder}/" in story
    assert re.search(r"^rollout 0: ok$", story, re.MULTILINE)
    assert re.search(rf"^rollout {second}: dead$", story, re.MULTILINE)
    assert f"{layout.traces_key(1)}: dead, 2 attempts" in story
    assert f"{layout.traces_key(1, 1)}: tried in vain by rerun some-rerun" in story
    assert f"{layout.traces_key(1, 2)}: ok, 1 attempt, rerun some-rerun" in story
    assert "by some-worker, attempt " in story
    assert f"coppice rerun {store.url} --record {record}" in story.replace("\n", " ")


def test_one_rollout_may_be_asked_for(store: Store, tmp_path: Path):
    (record, _), _ = dead(store, 1)
    bring_back(store, read_manifest(store), 1, tmp_path, num_keys=1)

    story = why(store, record, 0)

    assert "rollout 1:" not in story
    assert f"show {store.url} {record}" in story
    with pytest.raises(InputError, match="rollouts 0 to 1, and no 2"):
        why(store, record, 2)


def test_what_is_missing_is_said_with_the_attempts_that_failed(store: Store):
    manifest = read_manifest(store)
    with at_work(store, manifest) as worker:
        worker.run_shard(attempt_at(3, 2))
    (record, _), _ = dead(store, 3)
    store.delete(layout.traces_key(3))
    for number in (2, 1):
        note = FailedAttempt(
            shard=3,
            attempt_id=f"id-{number}",
            attempt=number,
            kind=FailureKind.TASK,
            reason="worker",
            message=f"burst \x1b[2J{number}",
            worker="node-7",
            ended_at=f"2026-01-0{number}T00:00:00+00:00",
        )
        record_failed_attempt(store, note)
    store.put(layout.attempt_key(3, "broken"), b"{")

    story = why(store, record)

    assert story.count(": missing") == 2
    assert f"{layout.traces_key(3)} is not there" in story
    assert "failed attempts at shard 3: 2" in story
    assert story.index("attempt 1 (id-1) on node-7: task, worker: burst") < story.index("(id-2)")
    assert "\x1b" not in story
    assert f"Next: coppice run {store.url}" in story


def test_a_damaged_object_does_not_hide_the_rest(store: Store, tmp_path: Path):
    (record, _), _ = dead(store, 1)
    bring_back(store, read_manifest(store), 1, tmp_path)
    store.put(layout.traces_key(1), b"something else")

    story = why(store, record)

    assert f"{layout.traces_key(1)} cannot be read" in story
    assert story.count(f"{layout.traces_key(1, 1)}: ok") == 2
    assert f"coppice verify {store.url} --deep" in story


def test_a_plan_that_cannot_be_read_is_named(store: Store):
    store.put(layout.plan_key(read_manifest(store).plan.folder, 2), b"something else")

    with pytest.raises(DamagedPlan, match=r"shard-00002\.parquet: .* coppice repair"):
        why(store, "abc")


def test_what_rows_say_cannot_move_the_cursor(store: Store):
    (record, _), _ = dead(store, 1)
    replace_object(
        store, 1, rows=lambda rows: [row | {"dead_message": "a\x1b[2Jb\u202ec"} for row in rows]
    )

    story = why(store, record)

    assert "a\\u001b[2Jb\\u202ec" in story
    assert "\x1b" not in story


def test_an_unknown_or_ambiguous_record_is_refused(store: Store):
    with pytest.raises(InputError, match="0 records"):
        why(store, "no such record")
    with pytest.raises(InputError, match=r"4 records .* give more digits"):
        why(store, "")


def test_show_finds_the_row_that_a_supplement_brought_back(store: Store, tmp_path: Path):
    (record, _), _ = dead(store, 1)
    assert "rollout 0: dead" in show(store, record)

    bring_back(store, read_manifest(store), 1, tmp_path, num_keys=1)

    assert "rollout 0: ok" in show(store, record)
    assert "rollout 1: dead" in show(store, record, 1)


def test_show_lists_each_key_once(store: Store, tmp_path: Path):
    bring_back(store, read_manifest(store), 1, tmp_path, num_keys=1)
    said = io.StringIO()

    list_records(store.url, Terminal(said, width=200), Choice())

    lines = re.findall(r"^ *([0-9a-f]{16} +\d) +(\w+)", said.getvalue(), re.MULTILINE)
    assert len(lines) == len(dict(lines)) == 6
    assert [status for _, status in lines].count("ok") == 1


def test_the_command_tells_the_story(store: Store, coppice: Coppice):
    (record, _), _ = dead(store, 1)

    answer = coppice("why", "run", record[:10], "--rollout", "1")

    assert answer.returncode == 0, answer.stderr
    assert "rollout 1: dead" in answer.stdout
    assert f"Next: coppice rerun run --record {record}" in answer.stdout
