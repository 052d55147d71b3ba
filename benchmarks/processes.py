"""CPU time of a process and all that it starts, sampled from `/proc` while they live."""

import os
import subprocess
import time
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import numpy as np

_MARK = "COPPICE_BENCHMARK"  # a variable that children inherit
_TICKS = os.sysconf("SC_CLK_TCK")
_SAMPLE_SECONDS = 0.25


@dataclass(slots=True)
class Sampled:
    """One process: its title as it was last, and its CPU seconds as time went by."""

    title: str = ""
    times: list[float] = field(default_factory=list)  # of time.monotonic, one a sample
    totals: list[float] = field(default_factory=list)  # the process
    threads: list[dict[int, float]] = field(default_factory=list)  # its threads, by id

    def between(self, start: float, stop: float) -> float:
        """CPU seconds from `start` to `stop`."""
        return self._at(stop, self.totals) - self._at(start, self.totals)

    def busiest_thread(self, start: float, stop: float) -> float:
        """CPU seconds from `start` to `stop` of the thread that took most."""
        names = {name for threads in self.threads for name in threads}
        spent = []
        for name in names:
            # A process that ends is seen without threads that ended before it.
            seconds = list(accumulate((seen.get(name, 0.0) for seen in self.threads), max))
            spent.append(self._at(stop, seconds) - self._at(start, seconds))
        return max(spent, default=0.0)

    def _at(self, moment: float, seconds: list[float]) -> float:
        return float(np.interp(moment, self.times, seconds)) if self.times else 0.0


def run_sampled(command: list[str], environment: dict[str, str]) -> tuple[int, dict[int, Sampled]]:
    """Run a command to its end. Its own id, and it and all that it started, by their ids.

    What a process does between its last sample and its end is not seen: a quarter of a second.
    """
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    root = subprocess.Popen(
        command, env=os.environ | environment | {_MARK: mark}, stdout=subprocess.DEVNULL
    )
    sampled = {root.pid: Sampled()}
    others: set[int] = set()
    while root.poll() is None:
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            if pid in others:
                continue
            if pid not in sampled:
                if not _has_mark(pid, mark):
                    others.add(pid)
                    continue
                sampled[pid] = Sampled()
            _sample(pid, sampled[pid])
        time.sleep(_SAMPLE_SECONDS)
    if root.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {root.returncode}")
    return root.pid, sampled


def _has_mark(pid: int, mark: str) -> bool:
    try:
        return f"{_MARK}={mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # it ended
        return False


def _sample(pid: int, sampled: Sampled) -> None:
    folder = Path(f"/proc/{pid}")
    try:
        title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        threads = {int(task.name): _seconds(task) for task in (folder / "task").iterdir()}
        total = _seconds(folder)
    except OSError:  # it ended
        return
    sampled.title = title or sampled.title
    sampled.times.append(time.monotonic())
    sampled.totals.append(total)
    sampled.threads.append(threads)


def _seconds(folder: Path) -> float:
    """CPU seconds of a process or thread since it began."""
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
