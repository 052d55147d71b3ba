"""Processes killed on every line of what writes to a store, and started again.

Each line gets a process of its own, forked and ended by SIGKILL when it first comes there; nothing
cleans up after it, as when a machine stops. Another process then does the same work again.
"""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

from pipeline.plan import reruns
from pipeline.plan.planning import extend_plan
from pipeline.plan.reruns import RerunSelection, open_rerun
from pipeline.rollout import worker as worker_module
from pipeline.store import commits, layout, local, plans, repair, s3, supplements
from pipeline.store.evidence import digests, rebuild
from pipeline.store.evidence.rebuild import lost_plans, lost_run, put_plan, put_run
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.plans import read_manifest
from pipeline.store.repair import find_damage, move_aside, move_object
from schemas.errors import InputError, RecordFailure, StoreUnavailable
from schemas.runs import Remedy, RunManifest
from tests.chaos.ledger import Ledger, Tokens, tokens_in
from tests.support import (
    SMALL,
    at_work,
    attempt_at,
    fake_config,
    fake_method,
    plan_run,
    prompt_set,
    rerun_of,
    run_all,
)

_MODULES = (local, s3, commits, plans, reruns, supplements, repair, worker_module, digests, rebuild)
_FILES = {module.__file__ for module in _MODULES}
_PROMPTS = 4
_KILLED = -signal.SIGKILL


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """Something that writes: what must be there before it, and how its run is made whole after."""

    kind: str
    prepare: Callable[[Store], None]
    do: Callable[[Store], None]
    finish: Callable[[Store], None]


def kill_on_lines(ledger: Ledger, work: Work, fresh: Callable[[], str], *, step: int = 1) -> None:
    """Do the work once for every line of it, or every `step`-th one, and die there."""
    whole = open_store(fresh())
    for part in (work.prepare, work.do, work.finish):  # here, so that no child imports anything
        part(whole)
    expected: Tokens = tokens_in(whole)
    counted = open_store(fresh())
    _child_must(lambda: work.prepare(counted))
    for line in range(1, _count_lines(lambda: work.do(counted)) + 1, step):
        store = open_store(fresh())
        _child_must(lambda store=store: work.prepare(store))
        with ledger.injecting(f"killed on a line of {work.kind}"):
            ended = _in_child(lambda store=store: work.do(store), die_on=line)
            assert ended == _KILLED, f"{work.kind}: line {line} was not reached ({ended})"
            _child_must(lambda store=store: work.finish(store))
        ledger.check(store, expected, f"{work.kind}, line {line}")


def all_works() -> list[Work]:
    """Everything that writes, on its way from the first byte to the last."""
    return [
        Work(kind="a plan", prepare=_nothing, do=_plan, finish=_plan_and_run),
        Work(kind="an extension", prepare=_plan, do=_extend, finish=_extend_and_run),
        Work(kind="a commit", prepare=_plan, do=_run_first, finish=_run),
        Work(kind="a rerun", prepare=_plan_and_fail, do=_rerun, finish=_rerun),
        Work(kind="a repair", prepare=_plan_run_damage, do=_repair, finish=_repair_and_run),
        Work(
            kind="a repair of plans",
            prepare=_plan_run_swap,
            do=_repair_plans,
            finish=_repair_plans,
        ),
        Work(kind="a repair of a run", prepare=_lose_run, do=_repair_run, finish=_repair_run),
    ]


# The works


def _nothing(store: Store) -> None:
    del store


def _plan(store: Store) -> None:
    plan_run(store, _PROMPTS, fake_config(fake_method(SMALL)), rollouts_per_shard=2)


def _run(store: Store) -> None:
    run_all(store, read_manifest(store))


def _plan_and_run(store: Store) -> None:
    _plan(store)
    _run(store)


def _extend(store: Store) -> None:
    extend_plan(store, prompt_set(_PROMPTS + 2), sources=["more.txt"], rollouts_per_record=2)


def _extend_and_run(store: Store) -> None:
    _extend(store)
    _run(store)


def _run_first(store: Store) -> None:
    _grow(store, read_manifest(store), [0])


def _grow(store: Store, manifest: RunManifest, shards: list[int], script: Any = None) -> None:
    with at_work(store, manifest, script=script) as worker:
        for shard in shards:
            report = worker.run_shard(attempt_at(shard, 2))
            if report.failure and report.failure.remedy is Remedy.STOP_FOR_STORE:
                raise StoreUnavailable(report.failure.message)
            assert report.failure is None, report


def _plan_and_fail(store: Store) -> None:
    """A run of which two rollouts are dead."""

    def fail(request: Any) -> Any:
        is_bad = "number 0" in repr(request) or "number 1" in repr(request)
        return RecordFailure("not now", reason="scripted") if is_bad else None

    _plan(store)
    _grow(store, read_manifest(store), [0, 1], fail)


def _rerun(store: Store) -> None:
    manifest = read_manifest(store)
    opened = open_rerun(store, manifest, RerunSelection())
    if opened is None:
        return
    with at_work(store, manifest) as worker:
        for shard in opened.left:
            worker.run_shard(rerun_of(shard, opened))


def _plan_run_damage(store: Store) -> None:
    _plan_and_run(store)
    key = layout.traces_key(1)
    store.put(key, store.read(key)[:-100])


def _repair(store: Store) -> None:
    for damage in find_damage(store, read_manifest(store), [1]):
        list(move_aside(store, damage))


def _repair_and_run(store: Store) -> None:
    with suppress(InputError):  # it had been moved already
        _repair(store)
    _run(store)


def _plan_run_swap(store: Store) -> None:
    """A run of which one plan file is a copy of the other."""
    _plan_and_run(store)
    folder = read_manifest(store).plan.folder
    store.put(layout.plan_key(folder, 1), store.read(layout.plan_key(folder, 0)))


def _repair_plans(store: Store) -> None:
    manifest = read_manifest(store)
    for lost in lost_plans(store, manifest):
        if lost.is_there:
            move_object(store, lost.key)
        put_plan(store, manifest, lost)


def _lose_run(store: Store) -> None:
    """Traces of two parts of a plan, and nothing that commits either."""
    _plan(store)
    _extend_and_run(store)
    store.delete(layout.MANIFEST)
    store.delete(layout.extension_key(2))


def _repair_run(store: Store) -> None:
    put_run(store, lost_run(store))


# Processes


def _child_must(call: Callable[[], object]) -> None:
    ended = _in_child(call)
    assert ended == 0, f"a process ended with {ended}"


def _in_child(call: Callable[[], object], *, die_on: int = 0) -> int:
    """Call in a process of its own; how it ended. `die_on` is the line that it is killed on."""
    child = os.fork()
    if child == 0:
        try:
            if die_on:
                _trace(_Killer(die_on))
            call()
            os._exit(0)
        except BaseException:  # whatever it is: the parent must not go on here
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _trace(killer: "_Killer") -> None:
    """In calls of a store, too, which have threads of their own."""
    sys.settrace(killer.trace)
    threading.settrace(killer.trace)


def _count_lines(call: Callable[[], object]) -> int:
    """How many different lines a call comes by, in the modules that write."""
    reader, writer = os.pipe()

    def count() -> None:
        counter = _Killer(sys.maxsize)
        _trace(counter)
        call()
        sys.settrace(None)
        os.write(writer, str(len(counter.seen)).encode())

    _child_must(count)
    os.close(writer)
    with os.fdopen(reader) as answer:
        return int(answer.read())


class _Killer:
    """Ends the process when it comes to its n-th new line."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.seen: set[tuple[str, int]] = set()

    def trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        del argument
        if frame.f_code.co_filename not in _FILES:
            return None
        if event == "line":
            self.seen.add((frame.f_code.co_filename, frame.f_lineno))
            if len(self.seen) == self._number:
                os.kill(os.getpid(), signal.SIGKILL)
        return self.trace
