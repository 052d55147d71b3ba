"""Reruns: dead rollouts tried again, kept in a log that any number of writers may append to."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.plan.reruns import OpenRerun, RerunSelection, choose, open_rerun
from pipeline.store import layout
from pipeline.store.objects import Source, Store
from pipeline.store.open import open_store
from pipeline.store.status import read_status
from pipeline.store.supplements import read_dead_keys, read_log
from pipeline.store.traces import read_rows
from pipeline.twig.requests import Request
from schemas.errors import InputError, RecordFailure, RolloutError, StoreUnavailable
from schemas.ids import record_id
from schemas.runs import Probe, RunManifest, ShardEnd, ShardReport
from tests.support import Wrapped, at_work, attempt_at, plan_run, rerun_of, run_all

NUM_PROMPTS = 6
BAD = {1: "too_long", 2: "timeout", 4: "timeout"}
"""Which prompts die the first time, and why."""


def failing(numbers: Iterable[int]) -> Any:
    def script(request: Request) -> RolloutError | None:
        for number in numbers:
            if f"prompt number {number}" in repr(request):
                return RecordFailure("it died", reason=BAD.get(number, "other"))
        return None

    return script


def prompt_id(number: int) -> str:
    return record_id(f"prompt number {number}")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "run"))


@pytest.fixture
def manifest(store: Store) -> RunManifest:
    return grown(store)


def grown(store: Store) -> RunManifest:
    """A run of two shards with three dead rollouts."""
    manifest = plan_run(store, NUM_PROMPTS, rollouts_per_shard=3)
    with at_work(store, manifest, script=failing(BAD)) as worker:
        for shard in range(2):
            worker.run_shard(attempt_at(shard))
    return manifest


def bring_back(
    store: Store, manifest: RunManifest, opened: OpenRerun, *, still_bad: Iterable[int] = ()
) -> list[ShardReport]:
    with at_work(store, manifest, script=failing(still_bad)) as worker:
        return [worker.run_shard(rerun_of(shard, opened)) for shard in opened.left]


def rerun(
    store: Store, manifest: RunManifest, selection: RerunSelection | None = None, **how: Any
) -> OpenRerun:
    opened = open_rerun(store, manifest, selection or RerunSelection())
    assert opened
    bring_back(store, manifest, opened, **how)
    return opened


def states(store: Store, manifest: RunManifest) -> Counter[tuple[str, str]]:
    """How often each record has a row of each status, in all data objects."""
    found: Counter[tuple[str, str]] = Counter()
    for shard in range(manifest.num_shards):
        for number in range(len(read_log(store, shard).supplements) + 1):
            for row in read_rows(store, shard, number, columns=["record_id", "status"]):
                found[row["record_id"], row["status"]] += 1
    return found


def assert_each_ok_once(store: Store, manifest: RunManifest) -> None:
    found = states(store, manifest)
    assert all(found[prompt_id(n), "ok"] == 1 for n in range(NUM_PROMPTS))


def test_what_died_comes_back_and_nothing_else_is_touched(store: Store, manifest: RunManifest):
    before = [store.read(layout.traces_key(shard)) for shard in range(2)]

    rerun(store, manifest)

    assert_each_ok_once(store, manifest)
    assert [store.read(layout.traces_key(shard)) for shard in range(2)] == before
    status = read_status(store, manifest)
    assert (status.num_ok, status.num_dead, status.num_missing) == (NUM_PROMPTS, 0, 0)


def test_rows_that_came_back_are_as_if_they_had_never_died(store: Store, tmp_path: Path):
    manifest = grown(store)
    rerun(store, manifest)
    other = open_store(str(tmp_path / "undisturbed"))
    run_all(other, plan_run(other, NUM_PROMPTS, rollouts_per_shard=3))

    columns = ["record_id", "codes", "status"]
    expected = {row["record_id"]: row["codes"] for row in read_rows(other, 0, columns=columns)}
    for row in read_rows(store, 0, 1, columns=columns):
        assert row["codes"] == expected[row["record_id"]]


@pytest.mark.parametrize(
    ("selection", "numbers"),
    [
        (RerunSelection(), {1, 2, 4}),
        (RerunSelection(reasons=("timeout",)), {2, 4}),
        (RerunSelection(shards=(0,)), {1, 2}),
        (RerunSelection(records=(prompt_id(4)[:8],)), {4}),
        (RerunSelection(reasons=("timeout",), shards=(0,)), {2}),
        (RerunSelection(reasons=("nothing of the kind",)), set()),
    ],
)
def test_a_selection_chooses(
    store: Store, manifest: RunManifest, selection: RerunSelection, numbers: set[int]
):
    chosen = choose(store, manifest, selection)

    ids = {key[0] for keys in chosen.values() for key in keys}
    assert ids == {prompt_id(number) for number in numbers}


def test_a_shard_that_is_not_planned_is_refused(store: Store, manifest: RunManifest):
    with pytest.raises(InputError, match="no shard 2"):
        choose(store, manifest, RerunSelection(shards=(0, 2)))


def test_what_dies_again_stays_dead_and_counts_its_tries(store: Store, manifest: RunManifest):
    rerun(store, manifest, still_bad=[1])

    log = read_log(store, 0)
    ((key, dead),) = read_dead_keys(store, log).items()
    assert (key, dead.num_attempts) == ((prompt_id(1), 0), 2)
    assert log.supplements[0].in_vain == (key,)

    rerun(store, manifest)
    assert_each_ok_once(store, manifest)
    assert [row["attempts"] for row in read_rows(store, 0, 2)] == [3]


def test_a_rerun_resumes_what_it_had_not_tried(store: Store, manifest: RunManifest):
    opened = open_rerun(store, manifest, RerunSelection())
    first = OpenRerun(rerun=opened.rerun, left={0: opened.left[0]}, is_resumed=False)
    bring_back(store, manifest, first, still_bad=[1])

    again = open_rerun(store, manifest, RerunSelection())

    assert again.is_resumed
    assert (again.rerun, list(again.left)) == (opened.rerun, [1])
    bring_back(store, manifest, again)
    new = open_rerun(store, manifest, RerunSelection())
    assert not new.is_resumed
    assert new.left == {0: ((prompt_id(1), 0),)}


def test_nothing_dead_is_nothing_to_rerun(store: Store, manifest: RunManifest):
    rerun(store, manifest)

    assert open_rerun(store, manifest, RerunSelection()) is None


class Overtaken(Wrapped):
    """Before the first supplement is put, others bring back some rollouts."""

    def __init__(self, store: Store, manifest: RunManifest, *steps: list[int]) -> None:
        super().__init__(store)
        self.manifest = manifest
        self.steps = list(steps)

    def put_if_absent(self, key: str, source: Source) -> bool:
        if ".s" in key and self.steps:
            numbers = self.steps.pop(0)
            ids = tuple(prompt_id(number) for number in numbers)
            rerun(self.store, self.manifest, RerunSelection(records=ids))
        return self.store.put_if_absent(key, source)


@pytest.mark.parametrize(
    ("steps", "end"),
    [
        ([[1]], ShardEnd.COMMITTED),
        ([[1], [2]], ShardEnd.ALREADY),
        ([[1, 2]], ShardEnd.ALREADY),
        ([[2]], ShardEnd.COMMITTED),
    ],
)
def test_two_reruns_at_once_leave_each_key_ok_once(
    store: Store, manifest: RunManifest, steps: list[list[int]], end: ShardEnd
):
    opened = open_rerun(store, manifest, RerunSelection(shards=(0,)))

    (report,) = bring_back(Overtaken(store, manifest, *steps), manifest, opened)

    assert report.end is end
    assert read_log(store, 0).num_dead == 0
    ok = [row["record_id"] for n in (1, 2) if _has(store, n) for row in read_rows(store, 0, n)]
    assert sorted(ok) == sorted([prompt_id(1), prompt_id(2)])


def test_a_rollout_given_up_on_is_the_same_after_another_rerun_took_one_before_it(
    store: Store, manifest: RunManifest
):
    opened = open_rerun(store, manifest, RerunSelection(shards=(0,)))
    assert [key[0] for key in opened.left[0]] == [prompt_id(1), prompt_id(2)]
    rerun(store, manifest, RerunSelection(records=(prompt_id(1),)))

    with at_work(store, manifest) as worker:
        probe = Probe(whole=rerun_of(0, opened, 4), start=0, stop=1)  # of what came back
        assert worker.run_shard(probe).end is ShardEnd.SURVIVED
        report = worker.run_shard(rerun_of(0, opened, 5, crashed={1: "killed"}))

    assert (report.end, report.num_ok, report.num_dead) == (ShardEnd.COMMITTED, 0, 1)
    assert read_log(store, 0).supplements[-1].in_vain == ((prompt_id(2), 0),)


def _has(store: Store, number: int) -> bool:
    return number <= len(read_log(store, 0).supplements)


def test_a_rerun_overtaken_in_all_writes_nothing(store: Store, manifest: RunManifest):
    opened = open_rerun(store, manifest, RerunSelection(shards=(0,)))
    rerun(store, manifest)

    (report,) = bring_back(store, manifest, opened)

    assert (report.end, report.num_ok) == (ShardEnd.ALREADY, 0)
    assert len(read_log(store, 0).supplements) == 1


class Unanswered(Wrapped):
    """Every first put of a key lands, and its answer is lost."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.seen: set[str] = set()

    def put_if_absent(self, key: str, source: Source) -> bool:
        is_created = self.store.put_if_absent(key, source)
        if key not in self.seen:
            self.seen.add(key)
            raise StoreUnavailable("the answer was lost")
        return is_created


def test_a_supplement_whose_answer_was_lost_is_there_once(store: Store, monkeypatch: Any):
    monkeypatch.setattr("pipeline.store.objects.FIRST_PAUSE_SECONDS", 0.001)
    manifest = grown(store)
    execution = manifest.config.execution.model_copy(update={"store_patience_seconds": 5.0})
    config = manifest.config.model_copy(update={"execution": execution})
    patient = manifest.model_copy(update={"config": config})
    opened = open_rerun(store, manifest, RerunSelection())

    reports = bring_back(Unanswered(store), patient, opened)

    assert [report.end for report in reports] == [ShardEnd.COMMITTED] * 2
    assert_each_ok_once(store, manifest)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.sets(st.sampled_from(sorted(BAD))), st.sets(st.sampled_from(sorted(BAD)))),
        max_size=4,
    )
)
def test_any_reruns_leave_no_key_twice(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[set[int], set[int]]]
):
    store = open_store(str(tmp_path_factory.mktemp("runs")))
    manifest = grown(store)
    dead = set(BAD)
    for asked, still_bad in steps:
        selection = RerunSelection(records=tuple(sorted(prompt_id(number) for number in asked)))
        opened = open_rerun(store, manifest, selection)
        if opened:
            bring_back(store, manifest, opened, still_bad=still_bad)
            meant = asked or set(BAD)
            dead -= meant - still_bad

    found = states(store, manifest)
    assert max(found[prompt_id(n), "ok"] for n in range(NUM_PROMPTS)) == 1
    assert {n for n in range(NUM_PROMPTS) if not found[prompt_id(n), "ok"]} == dead
    assert read_status(store, manifest).num_dead == len(dead)
