"""What a worker promises of the shards that it is given, and what it leaves when it cannot."""

import json
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.engine.fake import Fake
from pipeline.pictures import decode_picture
from pipeline.store import layout, objects
from pipeline.store.objects import Source, Store
from pipeline.store.open import open_store
from pipeline.store.plans import commit_manifest, read_plan_shard
from pipeline.store.status import read_status
from pipeline.store.traces import read_footer, read_rows, try_read_footer
from pipeline.twig.requests import Answer, Codes, Request, RequestId, Text
from schemas.config import PackConfig, Pictures
from schemas.errors import (
    FailureKind,
    FatalFailure,
    InfrastructureFailure,
    InputError,
    RecordFailure,
    RolloutError,
    StoreRefused,
    StoreUnavailable,
    TaskFailure,
)
from schemas.runs import FailedAttempt, Remedy, RunManifest, ShardEnd
from schemas.trace import Role
from tests.support import (
    SMALL,
    Unanswered,
    Wrapped,
    all_rows,
    at_work,
    attempt_at,
    failure_of,
    fake_config,
    fake_method,
    plan_run,
    run_all,
)

REDRAWN = SMALL.model_copy(update={"revise_share": 1.0})
WAIT_SECONDS = 20.0  # for another thread; only a bug takes so long


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "FIRST_PAUSE_SECONDS", 0.001)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "run"))


def planned_keys(store: Store, manifest: RunManifest) -> list[tuple[str, int]]:
    return [
        key
        for shard in range(manifest.num_shards)
        for row in read_plan_shard(store, manifest, shard)
        for key in row.rollout_keys()
    ]


def keys(rows: Sequence[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(row["record_id"], row["rollout_index"]) for row in rows]


def tokens(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, int], Any]:
    """All that a model said and drew, by key."""
    return {
        key: [row["codes"], *([event["token_ids"], event["codes"]] for event in row["events"])]
        for key, row in zip(keys(rows), rows, strict=True)
    }


def notes_of(store: Store, shard: int) -> list[FailedAttempt]:
    folder = f"_attempts/{layout.shard_name(shard)}"
    return [
        FailedAttempt.model_validate_json(store.read(entry.key))
        for entry in store.list_folder(folder)
    ]


def is_asked_about(request: Request, prompt: str) -> bool:
    """Whether a question or a thought goes back to this prompt."""
    return isinstance(request, Text) and any(prompt in turn.text for turn in request.messages)


def assert_conserved(store: Store, manifest: RunManifest) -> None:
    status = read_status(store, manifest)
    assert status.num_planned == status.num_ok + status.num_dead + status.num_missing
    assert min(status.num_ok, status.num_dead, status.num_missing) >= 0


# Every key, once


@pytest.mark.parametrize("rollouts_per_shard", [1, 4, 100])
def test_every_planned_key_has_exactly_one_row(store: Store, rollouts_per_shard: int):
    manifest = plan_run(store, 3, rollouts_per_record=3, rollouts_per_shard=rollouts_per_shard)

    run_all(store, manifest)

    assert sorted(keys(all_rows(store, manifest))) == sorted(planned_keys(store, manifest))
    assert {row["status"] for row in all_rows(store, manifest)} == {"ok"}
    assert_conserved(store, manifest)


def test_rows_say_which_attempt_at_which_run_they_are_from(store: Store):
    manifest = plan_run(store, ["un caf\u00e9"])
    grow = attempt_at(0)

    with at_work(store, manifest) as worker:
        worker.run_shard(grow)

    (row,) = read_rows(store, 0)
    assert row["prompt"] == "un caf\u00e9"
    assert json.loads(row["metadata"]) == {"line": 1}
    assert (row["run_id"], row["fingerprint"]) == (manifest.run_id, manifest.fingerprint)
    assert (row["attempt_id"], row["worker"]) == (grow.attempt.attempt_id, "some-worker")
    assert row["stack"]["device"] == "none"


def test_a_report_says_what_was_committed(store: Store):
    config = fake_config(fake_method(SMALL.model_copy(update={"dead_share": 0.5})))
    manifest = plan_run(store, 12, config)
    grow = attempt_at(0)

    with at_work(store, manifest) as worker:
        report = worker.run_shard(grow)

    rows = all_rows(store, manifest)
    assert (report.shard, report.attempt_id) == (0, grow.attempt.attempt_id)
    assert (report.end, report.failure) == (ShardEnd.COMMITTED, None)
    assert report.num_ok == sum(row["status"] == "ok" for row in rows) > 0
    assert report.num_dead == sum(row["status"] == "dead" for row in rows) > 0
    assert report.num_bytes == store.size(layout.traces_key(0))


def test_the_tokens_are_the_same_however_the_work_is_spread(tmp_path: Path):
    def grown(name: str, live: int, **sizes: int) -> dict[tuple[str, int], Any]:
        store = open_store(str(tmp_path / name))
        config = fake_config(live_rollouts_per_actor=live)
        manifest = plan_run(store, 3, config, rollouts_per_record=2, **sizes)
        run_all(store, manifest)
        return tokens(all_rows(store, manifest))

    alone = grown("alone", live=1)

    assert len(alone) == 6
    assert grown("together", live=64) == alone
    assert grown("cut small", live=2, rollouts_per_shard=1) == alone
    assert grown("cut across records", live=3, rollouts_per_shard=3) == alone


def test_several_shards_may_be_open_at_once(store: Store):
    manifest = plan_run(store, 8, rollouts_per_shard=2)
    together = threading.Barrier(4, timeout=WAIT_SECONDS)

    def run(shard: int) -> ShardEnd:
        together.wait()
        return worker.run_shard(attempt_at(shard)).end

    with at_work(store, manifest) as worker, ThreadPoolExecutor(4) as threads:
        ends = list(threads.map(run, range(4)))

    assert ends == [ShardEnd.COMMITTED] * 4
    assert sorted(keys(all_rows(store, manifest))) == sorted(planned_keys(store, manifest))


def test_shards_that_are_open_together_hold_the_same_as_one_after_the_other(tmp_path: Path):
    in_turn, at_once = (open_store(str(tmp_path / name)) for name in ("in_turn", "at_once"))
    manifest = plan_run(in_turn, 6, rollouts_per_shard=3)
    run_all(in_turn, manifest)
    plan_run(at_once, 6, rollouts_per_shard=3)

    with at_work(at_once, manifest) as worker, ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda shard: worker.run_shard(attempt_at(shard)), range(2)))

    assert tokens(all_rows(at_once, manifest)) == tokens(all_rows(in_turn, manifest))


# Committed once


def refuse_everything(request: Request) -> RolloutError:
    raise AssertionError("nothing was to be grown")


def test_a_committed_shard_is_not_grown_again(store: Store):
    manifest = plan_run(store, 4)
    run_all(store, manifest)
    before = store.read(layout.traces_key(0))

    with at_work(store, manifest, script=refuse_everything) as worker:
        report = worker.run_shard(attempt_at(0))

    assert report.end is ShardEnd.ALREADY
    assert (report.num_ok, report.num_dead) == (4, 0)
    assert store.read(layout.traces_key(0)) == before


class Overtaken(Wrapped):
    """Another worker commits each shard just before this one would."""

    def __init__(self, store: Store, manifest: RunManifest, **changes: Any) -> None:
        super().__init__(store)
        self.manifest, self.changes = manifest, changes

    def put_if_absent(self, key: str, source: Source) -> bool:
        shard = layout.try_shard_of(key)
        assert shard is not None
        with at_work(self.store, self.manifest, **self.changes) as other:
            assert other.run_shard(attempt_at(shard)).end is ShardEnd.COMMITTED
        return bool(self.store.put_if_absent(key, source))


def kill_the_first(request: Request) -> RolloutError | None:
    if is_asked_about(request, "prompt number 0"):
        return RecordFailure("it was told to", reason="scripted")
    return None


def test_a_lost_race_changes_nothing_and_counts_what_the_winner_committed(store: Store):
    manifest = plan_run(store, 3)
    grow = attempt_at(0)

    with at_work(Overtaken(store, manifest, script=kill_the_first), manifest) as worker:
        report = worker.run_shard(grow)

    assert report.end is ShardEnd.ALREADY
    assert (report.num_ok, report.num_dead) == (2, 1)
    assert read_footer(store, 0).attempt_id != grow.attempt.attempt_id
    assert_conserved(store, manifest)


def test_a_commit_whose_answer_was_lost_counts_as_won(store: Store):
    manifest = plan_run(store, 3, fake_config(store_patience_seconds=WAIT_SECONDS))
    grow = attempt_at(0)

    with at_work(Unanswered(store), manifest) as worker:
        report = worker.run_shard(grow)

    assert report.end is ShardEnd.COMMITTED
    assert read_footer(store, 0).attempt_id == grow.attempt.attempt_id
    assert len(keys(all_rows(store, manifest))) == 3


class Late(Wrapped):
    """A put-if-absent that is under way: it may land long after its caller gave up."""

    def put_if_absent(self, key: str, source: Source) -> bool:
        self.under_way = (key, source.read_bytes() if isinstance(source, Path) else source)
        raise StoreUnavailable("no answer")

    def land(self) -> bool:
        return bool(self.store.put_if_absent(*self.under_way))


def test_a_commit_that_lands_after_its_worker_gave_up_is_the_one_that_stands(store: Store):
    manifest, late, first = plan_run(store), Late(store), attempt_at(0)
    with at_work(late, manifest) as worker:
        assert worker.run_shard(first).end is ShardEnd.FAILED
    assert late.land()

    with at_work(store, manifest) as worker:
        assert worker.run_shard(attempt_at(0)).end is ShardEnd.ALREADY

    assert read_footer(store, 0).attempt_id == first.attempt.attempt_id


def test_a_commit_that_lands_after_another_one_is_dropped(store: Store):
    manifest, late, second = plan_run(store), Late(store), attempt_at(0)
    with at_work(late, manifest) as worker:
        worker.run_shard(attempt_at(0))

    with at_work(store, manifest) as worker:
        assert worker.run_shard(second).end is ShardEnd.COMMITTED

    assert not late.land()
    assert read_footer(store, 0).attempt_id == second.attempt.attempt_id


def replanned(store: Store) -> RunManifest:
    """Another run in the folder of a complete one."""
    manifest = plan_run(store)
    run_all(store, manifest)
    store.delete(layout.MANIFEST)
    return commit_manifest(store, manifest.model_copy(update={"run_id": "another"}))


def test_a_shard_of_another_run_is_fatal_before_anything_is_grown(store: Store):
    manifest = replanned(store)
    before = store.read(layout.traces_key(0))

    with at_work(store, manifest, script=refuse_everything) as worker:
        report = worker.run_shard(attempt_at(0))

    failure = failure_of(report)
    assert (failure.kind, failure.remedy) == (FailureKind.FATAL, Remedy.STOP)
    assert "two runs share a folder" in failure.message
    assert store.read(layout.traces_key(0)) == before


def test_a_shard_of_another_run_that_comes_first_is_fatal(store: Store):
    manifest = plan_run(store)
    other = manifest.model_copy(update={"run_id": "another-run"})

    with at_work(Overtaken(store, other), manifest) as worker:
        report = worker.run_shard(attempt_at(0))

    assert failure_of(report).kind is FailureKind.FATAL
    assert read_footer(store, 0).run_id == "another-run"


def test_an_object_that_is_no_shard_file_is_fatal(store: Store):
    manifest = plan_run(store)
    store.put(layout.traces_key(0), b"something else")

    with at_work(store, manifest) as worker:
        report = worker.run_shard(attempt_at(0))

    failure = failure_of(report)
    assert (failure.kind, failure.reason) == (FailureKind.FATAL, "damaged_object")
    assert store.read(layout.traces_key(0)) == b"something else"


# Rollouts that fail


@pytest.mark.parametrize("num_thoughts", [0, 1, 2])
def test_a_rollout_that_cannot_be_made_is_a_dead_row_with_its_events_so_far(
    store: Store, num_thoughts: int
):
    config = fake_config(fake_method(REDRAWN, pictures=Pictures.ALL))
    manifest = plan_run(store, 2, config)

    def script(request: Request) -> RolloutError | None:
        is_next = request.role is Role.THINK and request.region == num_thoughts
        if is_next and is_asked_about(request, "prompt number 0"):
            return RecordFailure("too many\ntokens", reason="too_long")
        return None

    with at_work(store, manifest, script=script) as worker:
        report = worker.run_shard(attempt_at(0))

    assert (report.num_ok, report.num_dead) == (1, 1)
    rows = {row["prompt"]: row for row in all_rows(store, manifest)}
    dead, ok = rows["prompt number 0"], rows["prompt number 1"]
    assert (dead["status"], ok["status"]) == ("dead", "ok")
    assert (dead["dead_reason"], dead["dead_message"]) == ("too_long", "too many\ntokens")
    assert (ok["dead_reason"], ok["dead_message"]) == (None, None)
    assert [(event["role"], event["region"]) for event in dead["events"]] == [
        (role, region)
        for region in range(num_thoughts)
        for role in ("think", "draw", "reflect", "draw")
    ]
    assert (dead["codes"], dead["final_picture"]) == ([], None)
    assert len(dead["images"]) == 2 * num_thoughts
    assert dead["region_stops"] == ok["region_stops"]
    assert_conserved(store, manifest)


@pytest.mark.parametrize("kind", [TaskFailure, InfrastructureFailure, FatalFailure])
def test_any_other_failure_fails_its_shard_and_no_other(store: Store, kind: type[RolloutError]):
    manifest = plan_run(store, 4, rollouts_per_shard=2)
    grow = attempt_at(0)

    def script(request: Request) -> RolloutError | None:
        if is_asked_about(request, "prompt number 1"):
            return kind("it broke", reason="scripted")
        return None

    with at_work(store, manifest, script=script) as worker:
        failed, other = worker.run_shard(grow), worker.run_shard(attempt_at(1))

    failure = failure_of(failed)
    assert (failure.kind, failure.reason) == (kind.kind, "scripted")
    assert failure.remedy is (Remedy.STOP if kind is FatalFailure else Remedy.GIVE_BACK)
    assert (failed.num_ok, failed.num_dead, failed.num_bytes) == (0, 0, 0)
    assert other.end is ShardEnd.COMMITTED
    assert try_read_footer(store, 0) is None
    (note,) = notes_of(store, 0)
    assert note.attempt_id == grow.attempt.attempt_id
    assert (note.kind, note.reason) == (kind.kind, "scripted")
    assert (note.message, note.worker) == ("it broke", "some-worker")
    assert_conserved(store, manifest)


def test_a_shard_that_failed_can_be_grown_by_the_next_attempt(store: Store):
    manifest = plan_run(store, 3)
    faults = iter([TaskFailure("it broke", reason="scripted")])

    with at_work(store, manifest, script=lambda request: next(faults, None)) as worker:
        ends = [worker.run_shard(attempt_at(0)).end for _ in range(2)]

    assert ends == [ShardEnd.FAILED, ShardEnd.COMMITTED]
    assert sorted(keys(all_rows(store, manifest))) == sorted(planned_keys(store, manifest))


def test_what_is_left_of_a_failed_shard_is_not_grown(store: Store):
    config = fake_config(live_rollouts_per_actor=1)
    manifest = plan_run(store, 9, config, rollouts_per_shard=8)
    has_returned = threading.Event()
    asked: set[str] = set()

    def script(request: Request) -> RolloutError | None:
        asked.update(f"{n}" for n in range(9) if is_asked_about(request, f"prompt number {n}"))
        if is_asked_about(request, "prompt number 0"):
            return TaskFailure("it broke", reason="scripted")
        has_returned.wait(WAIT_SECONDS)
        return None

    with at_work(store, manifest, script=script) as worker:
        failed = worker.run_shard(attempt_at(0))
        has_returned.set()
        other = worker.run_shard(attempt_at(1))

    assert (failed.end, other.end) == (ShardEnd.FAILED, ShardEnd.COMMITTED)
    assert asked <= {"0", "1", "8"}


# Models that fail


class Breaking(Fake):
    """Answers nothing, and raises once it has been asked about all of some prompts."""

    def __init__(self, *prompts: str) -> None:
        super().__init__(SMALL)
        self.awaited = set(prompts)

    def submit(self, request_id: RequestId, request: Request) -> None:
        self.awaited = {prompt for prompt in self.awaited if not is_asked_about(request, prompt)}

    def poll(self) -> Sequence[tuple[RequestId, Answer | RolloutError]]:
        if not self.awaited:
            raise RuntimeError("device-side assert")
        return []


def test_models_that_break_fail_every_open_shard_and_those_that_come_later(store: Store):
    manifest = plan_run(store, 3, rollouts_per_shard=1)
    backend = Breaking("prompt number 0", "prompt number 1")

    with at_work(store, manifest, backend=backend) as worker, ThreadPoolExecutor(2) as threads:
        reports = list(threads.map(lambda shard: worker.run_shard(attempt_at(shard)), range(2)))
        reports.append(worker.run_shard(attempt_at(2)))

    failures = [failure_of(report) for report in reports]
    assert {failure.kind for failure in failures} == {FailureKind.TASK}
    assert {failure.remedy for failure in failures} == {Remedy.SUSPECT_RECORDS}
    assert all("device-side assert" in failure.message for failure in failures)
    assert [len(notes_of(store, shard)) for shard in range(3)] == [1, 1, 1]
    assert read_status(store, manifest).num_missing == 3


def test_a_painter_that_breaks_fails_the_shard(store: Store):
    class Colourblind(Fake):
        def paint(self, canvases: Sequence[Codes]) -> list[np.ndarray]:
            raise RuntimeError("out of memory")

    manifest = plan_run(store)

    with at_work(store, manifest, backend=Colourblind(SMALL)) as worker:
        report = worker.run_shard(attempt_at(0))

    failure = failure_of(report)
    assert failure.kind is FailureKind.TASK
    assert "out of memory" in failure.message


def test_a_worker_that_was_closed_fails_what_comes_later(store: Store):
    manifest = plan_run(store, 2, rollouts_per_shard=1)

    with at_work(store, manifest) as worker:
        before = worker.run_shard(attempt_at(0))
        worker.close()
        after = worker.run_shard(attempt_at(1))

    assert before.end is ShardEnd.COMMITTED
    failure = failure_of(after)
    assert (failure.kind, failure.reason) == (FailureKind.TASK, "worker")


# Stores that fail


class Failing(Wrapped):
    """Raises for some verbs."""

    def __init__(self, store: Store, error: Exception, *verbs: str) -> None:
        super().__init__(store)
        self.error, self.verbs = error, verbs

    def __getattr__(self, name: str) -> Any:
        if name in self.verbs:
            return self.fail
        return super().__getattr__(name)

    def fail(self, *_: object) -> Any:
        raise self.error


DOWN = StoreUnavailable("connection refused")
READ_ONLY = StoreRefused("access denied")


@pytest.mark.parametrize("error", [DOWN, READ_ONLY])
@pytest.mark.parametrize("verb", ["read", "size", "put_if_absent"])
def test_a_store_that_fails_is_no_fault_of_the_shard(store: Store, error: Exception, verb: str):
    manifest = plan_run(store)

    with at_work(Failing(store, error, verb), manifest) as worker:
        report = worker.run_shard(attempt_at(0))

    failure = failure_of(report)
    assert (failure.kind, failure.reason) == (FailureKind.INFRASTRUCTURE, "store")
    assert failure.remedy is Remedy.STOP_FOR_STORE
    assert str(error) in failure.message
    (note,) = notes_of(store, 0)
    assert (note.kind, note.message) == ("infrastructure", failure.message)
    assert try_read_footer(store, 0) is None


def test_a_store_that_takes_no_note_either_still_gets_its_report(store: Store):
    manifest = plan_run(store)

    with at_work(Failing(store, DOWN, "put", "put_if_absent"), manifest) as worker:
        report = worker.run_shard(attempt_at(0))

    assert failure_of(report).kind is FailureKind.INFRASTRUCTURE
    assert notes_of(store, 0) == []


def test_a_store_that_was_away_gets_the_shard_when_it_is_back(store: Store):
    manifest = plan_run(store)
    failing = Failing(store, DOWN, "read", "size", "put_if_absent")

    with at_work(failing, manifest) as worker:
        first = worker.run_shard(attempt_at(0))
        failing.verbs = ()
        second = worker.run_shard(attempt_at(0))

    assert (first.end, second.end) == (ShardEnd.FAILED, ShardEnd.COMMITTED)
    assert len(all_rows(store, manifest)) == 3


def test_a_disk_without_room_for_the_file_is_no_fault_of_the_shard(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    manifest = plan_run(store)
    with at_work(store, manifest) as worker:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "not-mounted"))
        first = worker.run_shard(attempt_at(0))
        monkeypatch.undo()
        second = worker.run_shard(attempt_at(0))

    failure = failure_of(first)
    assert (failure.kind, failure.reason) == (FailureKind.INFRASTRUCTURE, "disk")
    assert failure.remedy is Remedy.GIVE_BACK
    assert "not-mounted" in failure.message
    assert len(notes_of(store, 0)) == 1
    assert second.end is ShardEnd.COMMITTED


# Pictures


def grown(store: Store, pictures: Pictures) -> tuple[list[dict[str, Any]], Fake]:
    manifest = plan_run(store, 2, fake_config(fake_method(REDRAWN, pictures=pictures)))
    run_all(store, manifest)
    return all_rows(store, manifest), Fake(REDRAWN)


def test_without_pictures_tokens_are_all_that_is_kept(store: Store):
    rows, _ = grown(store, Pictures.NONE)

    assert all(row["images"] == [] and row["final_picture"] is None for row in rows)
    assert all(len(row["codes"]) == 16 for row in rows)


def test_the_final_picture_shows_the_finished_tokens(store: Store):
    rows, painter = grown(store, Pictures.FINAL)

    for row in rows:
        (image,) = row["images"]
        (expected,) = painter.paint([row["codes"]])
        assert row["final_picture"] == 0
        assert (decode_picture(image["bytes"]) == expected).all()
        assert {event["picture"] for event in row["events"]} == {None}


def test_all_pictures_show_the_canvas_after_each_drawing(store: Store):
    rows, painter = grown(store, Pictures.ALL)

    for row in rows:
        drawings = [event for event in row["events"] if event["role"] == "draw"]
        assert [event["picture"] for event in drawings] == list(range(6))
        kept: list[int] = []
        for first, again in zip(drawings[::2], drawings[1::2], strict=True):
            for event in (first, again):
                (expected,) = painter.paint([(*kept, *event["codes"])])
                shown = decode_picture(row["images"][event["picture"]]["bytes"])
                assert (shown == expected).all()
            kept += again["codes"]
        assert kept == row["codes"]
        assert row["final_picture"] == 5


def test_names_of_pictures_are_unique(store: Store):
    rows, _ = grown(store, Pictures.ALL)

    paths = [image["path"] for row in rows for image in row["images"]]
    assert len(set(paths)) == len(paths) == 12


# A worker that must not begin


def test_a_pack_that_is_not_the_planned_one_is_refused(store: Store):
    manifest = plan_run(
        store, config=fake_config(fake_method(pack=PackConfig(name="default", digest="0" * 16)))
    )

    with pytest.raises(InputError, match="0000000000000000"), at_work(store, manifest):
        pass
