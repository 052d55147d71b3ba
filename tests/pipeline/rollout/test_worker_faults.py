"""Workers that hang, break or lie, records that end processes, and what a shard makes of them."""

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.engine.fake import Fake
from pipeline.engine.soundness import not_finite
from pipeline.pictures import Pixels
from pipeline.store import layout
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.traces import try_read_footer
from pipeline.twig.requests import Answer, Codes, Request, RequestId, VisualAnswer
from schemas.config import Pictures
from schemas.errors import FailureKind, RecordFailure, RolloutError
from schemas.runs import Probe, Remedy, RunManifest, ShardEnd
from tests.support import (
    SMALL,
    all_rows,
    at_work,
    attempt_at,
    failure_of,
    fake_config,
    fake_method,
    plan_run,
    run_all,
    some_origin,
    some_trace,
    write_shard,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "run"))


def tokens(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {row["prompt"]: row["codes"] for row in rows}


def undisturbed(tmp_path: Path, num_prompts: int) -> dict[str, Any]:
    store = open_store(str(tmp_path / "undisturbed"))
    manifest = plan_run(store, num_prompts)
    run_all(store, manifest)
    return tokens(all_rows(store, manifest))


def refuse(request: Request) -> RolloutError:
    return RecordFailure("not today", reason="scripted")


# Hangs


class Silent(Fake):
    """Never answers what is asked about one prompt."""

    def submit(self, request_id: RequestId, request: Request) -> None:
        if "prompt number 1" not in repr(request):
            super().submit(request_id, request)


def test_a_rollout_that_gets_no_answer_is_dead_and_its_mates_are_not(store: Store):
    manifest = plan_run(store, 3, fake_config(rollout_timeout_seconds=0.3))

    with at_work(store, manifest, backend=Silent(SMALL)) as worker:
        report = worker.run_shard(attempt_at(0))

    assert (report.num_ok, report.num_dead) == (2, 1)
    (dead,) = (row for row in all_rows(store, manifest) if row["status"] == "dead")
    assert (dead["prompt"], dead["dead_reason"]) == ("prompt number 1", "timeout")


class Hanging(Fake):
    """Does not come back from a poll until it is let go."""

    def __init__(self) -> None:
        super().__init__(SMALL)
        self.is_let_go = threading.Event()

    def poll(self) -> Sequence[tuple[RequestId, Answer | RolloutError]]:
        self.is_let_go.wait()
        return super().poll()


def test_models_that_hang_fail_their_shards_and_end_the_worker(store: Store):
    manifest = plan_run(store, 3, fake_config(no_progress_seconds=0.2))
    backend = Hanging()

    with at_work(store, manifest, backend=backend) as worker:
        hung, later = (worker.run_shard(attempt_at(0)) for _ in range(2))
        backend.is_let_go.set()

    failures = [failure_of(hung), failure_of(later)]
    assert (failures[0].kind, failures[0].reason) == (FailureKind.TASK, "hung")
    assert {failure.remedy for failure in failures} == {Remedy.SUSPECT_RECORDS}
    assert try_read_footer(store, 0) is None


def test_a_worker_without_work_does_not_hang(store: Store):
    manifest = plan_run(store, 2, fake_config(no_progress_seconds=0.05), rollouts_per_shard=1)

    with at_work(store, manifest) as worker:
        first = worker.run_shard(attempt_at(0))
        threading.Event().wait(0.3)
        second = worker.run_shard(attempt_at(1))

    assert (first.end, second.end) == (ShardEnd.COMMITTED, ShardEnd.COMMITTED)


# Doubt


def test_a_worker_that_fails_everything_commits_nothing_and_a_second_one_is_believed(
    store: Store,
):
    manifest = plan_run(store, 3)

    with at_work(store, manifest, script=refuse) as worker:
        report = worker.run_shard(attempt_at(0))
    failure = failure_of(report)
    assert (failure.kind, failure.reason) == (FailureKind.INFRASTRUCTURE, "sick_worker")
    assert failure.remedy is Remedy.REPLACE_WORKER
    assert try_read_footer(store, 0) is None

    with at_work(store, manifest, script=refuse) as worker:
        report = worker.run_shard(attempt_at(0, 2))
    assert (report.end, report.num_dead) == (ShardEnd.COMMITTED, 3)


def test_a_worker_that_did_well_before_is_believed_at_once(store: Store):
    manifest = plan_run(store, 4, rollouts_per_shard=2)

    def fail_the_second_shard(request: Request) -> RolloutError | None:
        bad = ("number 2", "number 3")
        return refuse(request) if any(name in repr(request) for name in bad) else None

    with at_work(store, manifest, script=fail_the_second_shard) as worker:
        reports = [worker.run_shard(attempt_at(shard)) for shard in range(2)]

    assert [report.num_dead for report in reports] == [0, 2]


@pytest.mark.parametrize(("num_dead", "is_refused"), [(100, False), (101, True)])
def test_a_shard_that_makes_too_many_dead_is_not_committed(
    store: Store, num_dead: int, is_refused: bool
):
    manifest = plan_run(store, 2)

    with at_work(store, manifest) as worker:
        report = worker.run_shard(attempt_at(0, num_ok=98, num_dead=num_dead))

    assert (report.failure is not None) == is_refused
    assert (try_read_footer(store, 0) is None) == is_refused
    if is_refused:
        failure = failure_of(report)
        assert (failure.kind, failure.reason) == (FailureKind.FATAL, "too_many_dead")
        assert failure.remedy is Remedy.STOP_FOR_DEAD


def test_few_rollouts_are_not_judged(store: Store):
    manifest = plan_run(store, 2)

    with at_work(store, manifest, script=refuse) as worker:
        report = worker.run_shard(attempt_at(0, 2, num_dead=197))

    assert report.end is ShardEnd.COMMITTED


# Numbers that are none


def broken_numbers(request: Request) -> RolloutError:
    return not_finite("the logits of token 3")


def test_a_model_of_which_nothing_is_a_number_ends_the_run_in_one_sentence(store: Store):
    manifest = plan_run(store, 3)

    failures = []
    for number in (1, 2):
        with at_work(store, manifest, script=broken_numbers) as worker:
            failures.append(failure_of(worker.run_shard(attempt_at(0, number))))

    assert [failure.reason for failure in failures] == ["sick_worker", "too_many_dead"]
    assert failures[1].remedy is Remedy.STOP_FOR_DEAD
    assert "all 3 rollouts of shard 0 died of not_finite" in failures[1].message
    assert "coppice plan" in failures[1].message
    assert try_read_footer(store, 0) is None


@pytest.mark.parametrize(
    ("num_prompts", "num_ok", "max_dead_fraction", "is_alone"),
    [(1, 0, 0.5, True), (3, 1, 0.5, True), (3, 0, 1.0, True), (3, 0, 0.5, False)],
    ids=["one record", "others did well", "any number of dead", "another reason as well"],
)
def test_records_are_believed_to_be_at_fault_where_the_model_may_be_sound(
    store: Store, num_prompts: int, num_ok: int, max_dead_fraction: float, is_alone: bool
):
    config = fake_config(max_dead_fraction=max_dead_fraction)
    manifest = plan_run(store, num_prompts, config, rollouts_per_record=2)

    def script(request: Request) -> RolloutError:
        is_other = not is_alone and "number 1" in repr(request)
        return refuse(request) if is_other else broken_numbers(request)

    with at_work(store, manifest, script=script) as worker:
        report = worker.run_shard(attempt_at(0, 2, num_ok=num_ok))

    assert (report.end, report.num_dead) == (ShardEnd.COMMITTED, 2 * num_prompts)
    reasons = {row["dead_reason"] for row in all_rows(store, manifest)}
    assert reasons == ({"not_finite"} if is_alone else {"not_finite", "scripted"})


class Unlikely(Fake):
    """Draws once with log-probabilities of which one is none."""

    def __init__(self, value: float, column: str) -> None:
        super().__init__(SMALL)
        self._change: tuple[str, float] | None = (column, value)

    def submit(self, request_id: RequestId, request: Request) -> None:
        super().submit(request_id, request)
        number, answer = self._answers[-1]
        if isinstance(answer, VisualAnswer) and self._change:
            (column, value), self._change = self._change, None
            logps = (value, *(answer.logp_cond or ())[1:])
            self._answers[-1] = (number, replace(answer, **{column: logps}))


@pytest.mark.parametrize("column", ["logp_sample", "logp_cond"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_no_trace_holds_a_log_probability_that_is_none(store: Store, column: str, value: float):
    manifest = plan_run(store, 3)

    with at_work(store, manifest, backend=Unlikely(value, column)) as worker:
        report = worker.run_shard(attempt_at(0))

    assert (report.num_ok, report.num_dead) == (2, 1)
    rows = all_rows(store, manifest)
    (dead,) = (row for row in rows if row["status"] == "dead")
    assert (dead["dead_reason"], dead["codes"]) == ("not_finite", [])
    for row in rows:
        for event in row["events"]:
            assert math.isfinite(sum(event[column] or ()))


class Unpainted(Fake):
    """Has no pixels for the canvases of one prompt."""

    unpainted: tuple[int, ...] = ()

    def paint(self, canvases: Sequence[Codes]) -> list[Pixels]:
        if self.unpainted in [codes[:3] for codes in canvases]:
            raise not_finite("the pixels of a canvas")
        return super().paint(canvases)


@pytest.mark.parametrize("pictures", [Pictures.FINAL, Pictures.ALL])
def test_a_picture_without_pixels_is_a_dead_row_and_not_a_black_one(
    store: Store, pictures: Pictures
):
    manifest = plan_run(store, 3, fake_config(fake_method(pictures=pictures)))
    backend = Unpainted(SMALL)
    with at_work(store, manifest, backend=Fake(SMALL)) as worker:
        worker.run_shard(attempt_at(0))
    backend.unpainted = tuple(all_rows(store, manifest)[0]["codes"][:3])
    store.delete(layout.traces_key(0))

    with at_work(store, manifest, backend=backend) as worker:
        report = worker.run_shard(attempt_at(0))

    assert (report.num_ok, report.num_dead) == (2, 1)
    (dead,) = (row for row in all_rows(store, manifest) if row["status"] == "dead")
    assert (dead["dead_reason"], dead["images"], dead["final_picture"]) == ("not_finite", [], None)
    assert {event["picture"] for event in dead["events"]} == {None}
    assert dead["events"]


# Records that end processes


def test_what_crashed_is_dead_and_the_rest_is_as_ever(store: Store, tmp_path: Path):
    manifest = plan_run(store, 5)

    with at_work(store, manifest) as worker:
        report = worker.run_shard(attempt_at(0, 9, crashed={1: "killed", 4: "hung"}))

    rows = all_rows(store, manifest)
    dead = {row["prompt"]: row["dead_message"] for row in rows if row["status"] == "dead"}
    assert (report.num_ok, report.num_dead) == (3, 2)
    assert dead == {"prompt number 1": "killed", "prompt number 4": "hung"}
    assert {row["dead_reason"] for row in rows} == {None, "crash"}
    assert {row["attempts"] for row in rows} == {9}
    ok = tokens([row for row in rows if row["status"] == "ok"])
    whole = undisturbed(tmp_path, 5)
    assert ok == {prompt: whole[prompt] for prompt in ok}


def test_a_probe_grows_only_its_part_and_commits_nothing(store: Store):
    manifest = plan_run(store, 6)
    backend = Asked()

    with at_work(store, manifest, backend=backend) as worker:
        whole = attempt_at(0, crashed={3: "killed"})
        report = worker.run_shard(Probe(whole=whole, start=2, stop=5))

    assert report.end is ShardEnd.SURVIVED
    assert backend.numbers == {2, 4}
    assert try_read_footer(store, 0) is None


class Asked(Fake):
    """Notes which prompts it is asked about."""

    def __init__(self) -> None:
        super().__init__(SMALL)
        self.numbers: set[int] = set()

    def submit(self, request_id: RequestId, request: Request) -> None:
        self.numbers |= {n for n in range(9) if f"prompt number {n}" in repr(request)}
        super().submit(request_id, request)


# A base that vanished


def test_a_base_that_vanished_is_not_made_again_beside_its_supplement(store: Store, tmp_path: Path):
    manifest = plan_run(store, 2)
    run_all(store, manifest)
    footer = {"run_id": manifest.run_id, "fingerprint": manifest.fingerprint}
    path = tmp_path / "supplement"
    write_shard(path, some_trace(), origin=some_origin(supplement=1, **footer))
    store.put(layout.traces_key(0, 1), path)
    store.delete(layout.traces_key(0))

    with at_work(store, manifest) as worker:
        report = worker.run_shard(attempt_at(0))

    failure = failure_of(report)
    assert (failure.kind, failure.reason) == (FailureKind.FATAL, "base_vanished")
    assert "coppice repair" in failure.message
    assert list(_names(store)) == ["traces/shard-00000.s1.parquet"]


def _names(store: Store) -> Iterator[str]:
    return (entry.key for entry in store.list_folder(layout.TRACES))


def test_counts_of_an_open_shard_are_gone_once_it_is_settled(store: Store):
    manifest: RunManifest = plan_run(store, 3)

    with at_work(store, manifest) as worker:
        worker.run_shard(attempt_at(0))
        assert worker.status().ends == {}
