"""The metrics of a run, as Ray's own Prometheus endpoint of every node tells them.

Each process tells of itself: an actor of its work, once it was asked how it is doing, and the
driver of what a person would look for on its line. Ray puts `ray_` before every name, and adds its
own tags; they come some ten seconds late.
"""

from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge

from jobs.cluster.snapshot import Snapshot
from schemas.runs import EndpointUsage, Ends, Work, WorkerStatus

_ENDS = "How rollouts ended: accepted, revised, or dead_ and why"


class WorkMetrics:
    """An actor's: what its work took. Counters are told what was added since the last time."""

    def __init__(self, run_id: str) -> None:
        self._told = Work()
        self._tags = {"run": run_id}
        self._rollouts = _counter("coppice_rollouts_total", _ENDS, "end")
        self._tokens = _counter("coppice_tokens_total", "Tokens chosen, image codes too", "role")
        self._seconds = _counter(
            "coppice_phase_seconds_total", "Seconds of an actor by phase", "phase", "device"
        )
        self._store = _counter(
            "coppice_store_wait_seconds_total", "Seconds of threads in calls of the store"
        )
        self._endpoints: Mapping[str, EndpointUsage] = {}
        self._answers = _counter("coppice_endpoint_answers_total", "Answers", "endpoint")
        self._retries = _counter("coppice_endpoint_retries_total", "Tries in vain", "endpoint")
        self._waits = _counter("coppice_endpoint_seconds_total", "Seconds of answers", "endpoint")
        self._words = _counter(
            "coppice_endpoint_tokens_total", "Tokens of its own", "endpoint", "direction"
        )
        self._rows = _gauge("coppice_rows_busy", "Requests that models work at")

    def tell(self, status: WorkerStatus) -> None:
        """Tell what is new in a status of this process."""
        told, self._told = self._told, status.work
        work = status.work
        for name, number in _by_end(work.ends).items():
            self._add(self._rollouts, number - _by_end(told.ends).get(name, 0), end=name)
        for role, number in work.tokens.items():
            self._add(self._tokens, number - told.tokens.get(role, 0), role=role)
        for (phase, device), seconds in work.seconds.items():
            new = seconds - told.seconds.get((phase, device), 0.0)
            self._add(self._seconds, new, phase=phase, device=device)
        self._add(self._store, work.store_seconds - told.store_seconds)
        self._rows.set(status.num_rows_busy, self._tags)
        for name, usage in status.endpoints.items():
            self._tell_endpoint(name, usage, self._endpoints.get(name, EndpointUsage()))
        self._endpoints = status.endpoints

    def _tell_endpoint(self, name: str, now: EndpointUsage, told: EndpointUsage) -> None:
        num_input = now.prompt_tokens - told.prompt_tokens
        num_output = now.completion_tokens - told.completion_tokens
        self._add(self._answers, now.num_calls - told.num_calls, endpoint=name)
        self._add(self._retries, now.num_retries - told.num_retries, endpoint=name)
        self._add(self._waits, now.seconds - told.seconds, endpoint=name)
        self._add(self._words, num_input, endpoint=name, direction="input")
        self._add(self._words, num_output, endpoint=name, direction="output")

    def _add(self, counter: Counter, number: float, **tags: str) -> None:
        if number > 0:  # Ray takes no other
            counter.inc(number, self._tags | tags)


class RunMetrics:
    """A driver's: how far its run is."""

    def __init__(self, run_id: str) -> None:
        self._tags = {"run": run_id}
        self._planned = _gauge("coppice_rollouts_planned", "Rollouts of the plan")
        self._finished = _gauge("coppice_rollouts_finished", "Rollouts that ended, ok or dead")
        self._shards = _gauge("coppice_shards_committed", "Shards on the store")
        self._actors = _gauge("coppice_actors", "Actors with their models loaded")
        self._is_away = _gauge("coppice_store_away", "1 while an actor waits for the store")

    def tell(self, snapshot: Snapshot) -> None:
        """Tell where a run stands."""
        self._planned.set(snapshot.num_planned, self._tags)
        self._finished.set(snapshot.num_finished, self._tags)
        self._shards.set(snapshot.num_committed, self._tags)
        self._actors.set(snapshot.num_actors, self._tags)
        self._is_away.set(int(snapshot.store_wait is not None), self._tags)


def _by_end(ends: Ends) -> dict[str, int]:
    dead = {f"dead_{reason}": number for reason, number in ends.dead.items()}
    return {"accepted": ends.num_accepted, "revised": ends.num_revised, **dead}


def _counter(name: str, description: str, *tags: str) -> Counter:
    return Counter(name, description=description, tag_keys=("run", *tags))


def _gauge(name: str, description: str) -> Gauge:
    return Gauge(name, description=description, tag_keys=("run",))
