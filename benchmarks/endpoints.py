"""Does drawing wait for a critic? One actor's rollouts, with a critic that takes a second.

`python -m benchmarks.endpoints [fake|toy]`: 192 rollouts in flight, critiques by an endpoint in a
process of its own that answers each after one second, everything else by the backend that draws.
Busy is the share of time in which that backend was at work, from when all rollouts are in flight
until none is left to take up. Painting, for the critic to look at, is told apart.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks.harness import Rows, environment, show
from pipeline.engine.backends import LoadedBackends, open_backends
from pipeline.pictures import Pixels
from pipeline.plan.configs import resolve
from pipeline.twig.drive import Rollout, drive
from pipeline.twig.programs import PROGRAMS, Settings
from pipeline.twig.requests import Answer, Backend, Codes, Request, RequestId
from schemas.errors import RolloutError
from schemas.ids import record_id
from schemas.json_values import JsonObject

_IN_FLIGHT = 192
_NUM_ROLLOUTS = {"fake": 288, "toy": 3 * _IN_FLIGHT}
_ANSWER_SECONDS = 1.0
_FAKE_SECONDS = (
    0.06  # of each request of the fake: 2.4 rollouts a second, as Janus-Pro-7B on an H200
)
_SERVER = """
import sys, time
from tests.stand_in_server import StandIn, good_answer
from dataclasses import replace
server = StandIn(lambda asked: replace(good_answer(asked), delay_seconds=float(sys.argv[1])))
print(server.url, flush=True)
sys.stdin.read()
"""


def main() -> None:
    names = sys.argv[1:] or ["fake", "toy"]
    rows: Rows = {"benchmark": "endpoints", **environment(), "in_flight": _IN_FLIGHT}
    rows["critic_answer_seconds"] = _ANSWER_SECONDS
    with _critic() as url:
        for name in names:
            rows |= {f"{name}_{key}": value for key, value in _measured(name, url).items()}
    show(rows)
    out = Path(__file__).with_name("results") / "endpoints.json"
    out.write_text(json.dumps(rows, indent=1) + "\n")


def _measured(name: str, url: str) -> Rows:
    resolved = resolve(_tables(name, url))
    config, meter = resolved.config, _Meter()
    loaded = meter.metered(open_backends(config))
    settings = Settings(method=config.method, pack=resolved.pack, geometry=resolved.facts.geometry)
    source = _Source(_NUM_ROLLOUTS[name], settings, meter)
    started_at = time.perf_counter()
    for outcome in drive(source, loaded.backends, max_live=_IN_FLIGHT):
        assert outcome.error is None, outcome.error
    seconds = time.perf_counter() - started_at
    usage = loaded.endpoints["critic"].client.usage
    loaded.close()
    window, busy, painting = source.window
    return {
        "rollouts": _NUM_ROLLOUTS[name],
        "seconds": round(seconds, 1),
        "window_seconds": round(window, 1),
        "busy_percent": round(100 * busy / window, 1),
        "painting_percent": round(100 * painting / window, 1),
        "drawing_ms_per_rollout": round(1000 * meter.seconds / _NUM_ROLLOUTS[name], 1),
        "critiques": usage.num_calls,
        "critique_seconds": round(usage.seconds / max(1, usage.num_calls), 2),
    }


def _tables(name: str, url: str) -> JsonObject:
    method: JsonObject = {
        "backends": {"reflect": "critic"},
        "endpoints": {"critic": {"model": "stand-in"}},
    }
    if name == "fake":
        method |= {"backend": "fake", "fake": {"image_size": 128, "delay_seconds": _FAKE_SECONDS}}
    endpoint: JsonObject = {"url": url, "concurrency": _IN_FLIGHT}
    return {"method": method, "execution": {"endpoints": {"critic": endpoint}}}


class _Source:
    """Rollouts to take up, and when the first so many were, and the last."""

    def __init__(self, num_rollouts: int, settings: Settings, meter: "_Meter") -> None:
        self._settings, self._meter = settings, meter
        self._num_left = num_rollouts
        self._marks: list[tuple[float, float, float]] = []

    def take(self, *, wait: bool) -> Rollout | None:
        del wait
        if not self._num_left:
            return None
        self._num_left -= 1
        meter = self._meter
        self._marks.append((time.perf_counter(), meter.seconds, meter.painting_seconds))
        prompt = f"a red circle above a blue square, picture {self._num_left}"
        method = self._settings.method
        return Rollout(
            record_id=record_id(prompt),
            rollout_index=0,
            run_seed=0,
            program=PROGRAMS[method.program](prompt, self._settings),
        )

    @property
    def window(self) -> tuple[float, float, float]:
        """From when all were in flight until the last was taken up: seconds, those in which the
        backend was at work, and those in which it painted.
        """
        before, after = self._marks[_IN_FLIGHT], self._marks[-1]
        seconds, busy, painting = (b - a for a, b in zip(before, after, strict=True))
        return seconds, busy, painting


class _Meter:
    """Adds up the seconds in which the drawing backend is at work."""

    def __init__(self) -> None:
        self.seconds = self.painting_seconds = 0.0

    def metered(self, loaded: LoadedBackends) -> LoadedBackends:
        paint = loaded.painter.paint

        def painting(canvases: Sequence[Codes]) -> list[Pixels]:
            started_at = time.perf_counter()
            pictures = paint(canvases)
            self.painting_seconds += time.perf_counter() - started_at
            return pictures

        loaded.painter.paint = painting
        by_name = {
            name: backend if name in loaded.endpoints else _Metered(backend, self)
            for name, backend in loaded.backends.by_name.items()
        }
        return replace(loaded, backends=replace(loaded.backends, by_name=by_name))

    @contextmanager
    def counting(self) -> Iterator[None]:
        started_at = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started_at


class _Metered:
    def __init__(self, backend: Backend, meter: _Meter) -> None:
        self._backend, self._meter = backend, meter

    def submit(self, request_id: RequestId, request: Request) -> None:
        with self._meter.counting():
            self._backend.submit(request_id, request)

    def poll(self) -> Sequence[tuple[RequestId, Answer | RolloutError]]:
        with self._meter.counting():
            return self._backend.poll()


@contextmanager
def _critic() -> Iterator[str]:
    """The address of a critic in a process of its own."""
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(_ANSWER_SECONDS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    try:
        yield server.stdout.readline().strip()
    finally:
        server.communicate()


if __name__ == "__main__":
    main()
