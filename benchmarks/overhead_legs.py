"""What `benchmarks.overhead` measures, each in a process of its own, which says when it grew what.

`python -m benchmarks.overhead_legs LEG URL MARKS`: writes what it has measured into the file MARKS.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from benchmarks.harness import Rows
from pipeline.engine.backends import LoadedBackends, open_backends
from pipeline.pictures import Painter, Pixels
from pipeline.plan.packs import settings_of
from pipeline.rollout.traces import canvases_to_keep
from pipeline.rollout.worker import Worker
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.plans import read_manifest, read_plan_shard
from pipeline.twig.drive import Given, Rollout, drive
from pipeline.twig.programs import PROGRAMS
from pipeline.twig.requests import Answer, Backend, Codes, Request, RequestId
from schemas.errors import RolloutError
from schemas.runs import Attempt, Grow, RunManifest

_SETTLING_SECONDS = 5.0  # Ray starts processes and looks around
_SITTING_SECONDS = 40.0


def main() -> None:
    leg, url, marks = sys.argv[1:]
    Path(marks).write_text(json.dumps(_LEGS[leg](url)))
    os._exit(0)  # what threads of torch do when Python ends is not what is measured


# In this process


def grow_bare(url: str) -> Rows:
    """`drive` over the engine. Pictures are painted, as a worker does, and thrown away."""
    store, manifest, loaded, meter = _opened(url)
    method, execution = manifest.config.method, manifest.config.execution
    rollouts = list(_rollouts(store, manifest))
    with _marked(meter, threading.current_thread()) as marks:
        for outcome in drive(
            Given(rollouts), loaded.backends, max_live=execution.live_rollouts_per_actor
        ):
            assert outcome.error is None, outcome.error
            loaded.painter.paint(canvases_to_keep(outcome, method.pictures))
    return marks


def grow_in_worker(url: str) -> Rows:
    """One worker, with as many open shards as an actor has."""
    store, manifest, loaded, meter = _opened(url)
    attempts = [
        Attempt(shard=shard, number=1, attempt_id=f"{shard:016x}")
        for shard in range(manifest.num_shards)
    ]
    worker = Worker(store, manifest, loaded, name="overhead")
    (models,) = (thread for thread in threading.enumerate() if thread.name == "models")
    with (
        _marked(meter, models) as marks,
        ThreadPoolExecutor(manifest.config.execution.open_shards_per_actor) as pool,
    ):
        for report in pool.map(worker.run_shard, [Grow(attempt=attempt) for attempt in attempts]):
            assert report.failure is None, report.failure
    worker.close()
    return marks


def _opened(url: str) -> tuple[Store, RunManifest, LoadedBackends, "_Meter"]:
    store = open_store(url)
    manifest = read_manifest(store)
    meter = _Meter()
    return store, manifest, meter.metered(open_backends(manifest.config)), meter


def _rollouts(store: Store, manifest: RunManifest) -> Iterator[Rollout]:
    method, settings = manifest.config.method, settings_of(manifest)
    for shard in range(manifest.num_shards):
        for row in read_plan_shard(store, manifest, shard):
            for record_id, rollout_index in row.rollout_keys():
                yield Rollout(
                    record_id=record_id,
                    rollout_index=rollout_index,
                    run_seed=method.seed,
                    program=PROGRAMS[method.program](row.prompt, settings),
                )


class _Meter:
    """Counts the CPU seconds that backends take, whichever thread calls them."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def metered(self, loaded: LoadedBackends) -> LoadedBackends:
        """The same backends, counted."""
        by_name = {
            name: _MeteredBackend(backend, self)
            for name, backend in loaded.backends.by_name.items()
        }
        return replace(
            loaded,
            backends=replace(loaded.backends, by_name=by_name),
            painter=_MeteredPainter(loaded.painter, self),
        )

    @contextmanager
    def counting(self) -> Iterator[None]:
        started = time.thread_time()
        yield
        self.seconds += time.thread_time() - started


class _MeteredBackend:
    def __init__(self, backend: Backend, meter: _Meter) -> None:
        self._backend, self._meter = backend, meter

    def submit(self, request_id: RequestId, request: Request) -> None:
        with self._meter.counting():
            self._backend.submit(request_id, request)

    def poll(self) -> Sequence[tuple[RequestId, Answer | RolloutError]]:
        with self._meter.counting():
            return self._backend.poll()


class _MeteredPainter:
    def __init__(self, painter: Painter, meter: _Meter) -> None:
        self._painter, self._meter = painter, meter

    def paint(self, canvases: Sequence[Codes]) -> list[Pixels]:
        with self._meter.counting():
            return self._painter.paint(canvases)


@contextmanager
def _marked(meter: _Meter, models: threading.Thread) -> Iterator[Rows]:
    """CPU seconds of what is done meanwhile: of the thread of the models, and of all."""
    assert models.ident is not None
    clock = time.pthread_getcpuclockid(models.ident)
    marks: Rows = {"ready": time.monotonic()}
    before = (meter.seconds, time.clock_gettime(clock), time.process_time())
    yield marks
    after = (meter.seconds, time.clock_gettime(clock), time.process_time())
    marks["ended"] = time.monotonic()
    for name, first, last in zip(("engine", "models", "all"), before, after, strict=True):
        marks[name] = last - first


# On Ray


def grow_on_ray(url: str) -> Rows:
    """`coppice run`. Its driver marks when the actor is ready, and when all is done."""
    from jobs import cli
    from jobs.cluster import driver
    from jobs.cluster.snapshot import Snapshot, Summary

    marks: Rows = {}

    class MarkedDriver(driver.Driver):
        def snapshot(self) -> Snapshot:
            snapshot = super().snapshot()
            if snapshot.num_actors:
                marks.setdefault("ready", time.monotonic())
            return snapshot

        def run(self) -> Summary:
            summary = super().run()
            assert summary.snapshot.num_ok == summary.snapshot.num_planned, summary
            marks["ended"] = time.monotonic()
            return summary

    driver.Driver = MarkedDriver  # type: ignore[misc]
    sys.argv = ["coppice", "run", url]
    with suppress(SystemExit):  # one that has not grown everything leaves no mark
        cli.main()
    return marks


def sit_on_ray(url: str) -> Rows:
    """A driver and an actor that do nothing: what Ray itself takes in such processes."""
    import ray

    class RolloutActor:
        def is_there(self) -> bool:
            return True

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    actor = ray.remote(RolloutActor).remote()
    ray.get(actor.is_there.remote())
    time.sleep(_SETTLING_SECONDS)
    ready = time.monotonic()
    time.sleep(_SITTING_SECONDS)
    return {"ready": ready, "ended": time.monotonic()}


_LEGS: dict[str, Callable[[str], Rows]] = {
    "idle": sit_on_ray,
    "engine": grow_bare,
    "worker": grow_in_worker,
    "fake": grow_in_worker,
    "ray": grow_on_ray,
    "s3": grow_on_ray,
}


if __name__ == "__main__":
    main()
