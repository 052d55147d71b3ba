"""One worker: grows the rollouts of its open shards together, and commits each shard when complete.

The models belong to one thread, which drives the rollouts of all open shards at once: the
stragglers of one shard share the machine with the first rollouts of the next. Each open shard has a
thread of its own, the caller's, which encodes pictures, writes the Parquet file and commits it.
Nothing of an open shard is durable. A worker that dies loses its open shards and nothing else.
"""

import queue
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pipeline.backends import Opened
from pipeline.packs import load_pack
from pipeline.pictures import Pixels
from pipeline.store.commits import Commit, check_run, commit_shard, record_failed_attempt
from pipeline.store.objects import Store, repeat
from pipeline.store.plans import PlanRow, read_plan_shard
from pipeline.store.traces import Origin, TraceWriter, read_footer, try_read_footer
from pipeline.traces import canvases_to_keep, make_trace
from pipeline.twig.drive import Outcome, Rollout, drive
from pipeline.twig.programs import PROGRAMS, Settings
from schemas import __version__
from schemas.errors import (
    FailureKind,
    InputError,
    RolloutError,
    StoreError,
    TaskFailure,
)
from schemas.geometry import Geometry
from schemas.runs import Assignment, FailedAttempt, RunManifest, ShardEnd, ShardFooter, ShardReport


class Worker:
    """Runs shards of one run on one set of models. `run_shard` may be called from many threads."""

    def __init__(self, store: Store, manifest: RunManifest, opened: Opened, *, name: str) -> None:
        self._store = store
        self._manifest = manifest
        self._opened = opened
        self._name = name
        self._settings = load_settings(manifest)
        self._feed = _Feed()
        self._lock = threading.Lock()
        self._open: list[_OpenShard] = []
        self._broken: TaskFailure | None = None
        self.num_finished = 0  # rollouts since the worker began; for a progress line
        self._grower = threading.Thread(target=self._grow, name="grower", daemon=True)
        self._grower.start()

    def run_shard(self, assignment: Assignment) -> ShardReport:
        """Grow a shard and commit it, unless it is committed. Blocks until that is settled.

        A failure of the shard or the worker comes back as a report with its kind, and leaves a
        note under `_attempts`. Nothing of a failed shard is kept.
        """
        started = time.monotonic()
        try:
            report = self._try_shard(assignment)
        except RolloutError as error:
            report = self._failed(assignment, error.kind, error.reason, error)
        except StoreError as error:
            report = self._failed(assignment, FailureKind.INFRASTRUCTURE, "store", error)
        except OSError as error:  # of the temporary file: stores turn theirs into StoreError
            report = self._failed(assignment, FailureKind.INFRASTRUCTURE, "disk", error)
        return report.model_copy(update={"duration_seconds": time.monotonic() - started})

    def close(self) -> None:
        """Stop growing. Shards that are still open fail."""
        self._feed.close()
        self._grower.join()

    def _try_shard(self, assignment: Assignment) -> ShardReport:
        patience = self._manifest.config.execution.store_patience_seconds
        shard = assignment.shard
        there = repeat(lambda: try_read_footer(self._store, shard), patience_seconds=patience)
        if there is not None:
            run_id, fingerprint = self._manifest.run_id, self._manifest.fingerprint
            check_run(self._store, there, run_id=run_id, fingerprint=fingerprint)
            return _report(assignment, ShardEnd.ALREADY, there)
        rows = repeat(
            lambda: read_plan_shard(self._store, self._manifest, shard),
            patience_seconds=patience,
        )
        with tempfile.TemporaryDirectory(prefix="coppice-") as folder:
            path = Path(folder) / "shard.parquet"
            footer = self._write_shard(assignment, rows, path)
            commit = commit_shard(self._store, path, footer, patience_seconds=patience)
            num_bytes = path.stat().st_size
        if commit is Commit.LOST:  # what counts is what the other attempt committed
            there = repeat(lambda: read_footer(self._store, shard), patience_seconds=patience)
            return _report(assignment, ShardEnd.ALREADY, there)
        return _report(assignment, ShardEnd.COMMITTED, footer, num_bytes)

    def _write_shard(self, assignment: Assignment, rows: list[PlanRow], path: Path) -> ShardFooter:
        """Grow all rollouts of a shard into a file. The file holds every planned key, once."""
        pictures = self._manifest.config.method.pictures
        row_of = {key: row for row in rows for key in row.rollout_keys()}
        writer = TraceWriter(path, self._origin(assignment))
        with self._opened_shard() as shard:
            self._feed.add(self._rollout(key, row.prompt, shard) for key, row in row_of.items())
            while row_of:
                outcome, pixels, ended_at = shard.next_grown()
                key = (outcome.rollout.record_id, outcome.rollout.rollout_index)
                started_at = ended_at - outcome.duration_seconds
                row = row_of.pop(key)
                writer.add(
                    make_trace(outcome, row, pixels, pictures=pictures, started_at=started_at)
                )
        return writer.close(__version__)

    def _rollout(self, key: tuple[str, int], prompt: str, shard: "_OpenShard") -> Rollout:
        method = self._manifest.config.method
        return Rollout(
            record_id=key[0],
            rollout_index=key[1],
            run_seed=method.seed,
            program=PROGRAMS[method.program](prompt, self._settings),
            tag=shard,
        )

    def _origin(self, assignment: Assignment) -> Origin:
        return Origin(
            run_id=self._manifest.run_id,
            fingerprint=self._manifest.fingerprint,
            method=self._manifest.config.method,
            worker=self._name,
            stack=self._opened.stack,
            **asdict(assignment),
        )

    @contextmanager
    def _opened_shard(self) -> "Iterator[_OpenShard]":
        shard = _OpenShard()
        with self._lock:
            if self._broken:
                raise self._broken
            self._open.append(shard)
        try:
            yield shard
        finally:
            shard.is_abandoned = True  # what of it still runs is dropped
            with self._lock:
                self._open.remove(shard)

    def _grow(self) -> None:
        """The thread that owns the models: drive whatever is fed, and hand outcomes to shards."""
        reason = "the worker was closed"
        try:
            max_live = self._manifest.config.execution.live_rollouts_per_actor
            for outcome in drive(self._feed, self._opened.backends, max_live=max_live):
                self._hand_over(outcome)
        except Exception as error:  # a bug or a device error: no open shard can end here any more
            reason = f"{type(error).__name__}: {error}"
        with self._lock:
            self._broken = TaskFailure(f"the models stopped: {reason}", reason="worker")
            for shard in self._open:
                shard.fail(self._broken)

    def _hand_over(self, outcome: Outcome) -> None:
        shard: _OpenShard = outcome.rollout.tag
        if shard.is_abandoned:
            return
        if outcome.error and outcome.error.kind is not FailureKind.RECORD:
            shard.fail(outcome.error)
            return
        canvases = canvases_to_keep(outcome, self._manifest.config.method.pictures)
        shard.add(outcome, self._opened.painter.paint(canvases))
        self.num_finished += 1

    def _failed(
        self, assignment: Assignment, kind: FailureKind, reason: str, error: Exception
    ) -> ShardReport:
        note = FailedAttempt(
            **asdict(assignment),
            kind=kind,
            reason=reason,
            message=str(error),
            worker=self._name,
            ended_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        with suppress(StoreError):  # the note is for people; the report below is what counts
            record_failed_attempt(self._store, note)
        return ShardReport(
            shard=assignment.shard,
            attempt_id=assignment.attempt_id,
            end=ShardEnd.FAILED,
            kind=kind,
            reason=reason,
            message=str(error),
        )


@dataclass(slots=True, eq=False)
class _OpenShard:
    """Where the grower leaves what a shard's own thread waits for."""

    is_abandoned: bool = False
    _grown: "queue.SimpleQueue[tuple[Outcome, list[Pixels], float] | RolloutError]" = field(
        default_factory=queue.SimpleQueue
    )

    def add(self, outcome: Outcome, pixels: list[Pixels]) -> None:
        self._grown.put((outcome, pixels, time.time()))

    def fail(self, error: RolloutError) -> None:
        self._grown.put(error)

    def next_grown(self) -> tuple[Outcome, list[Pixels], float]:
        """An ended rollout, its pictures, and when it ended. Raises what the shard failed with."""
        grown = self._grown.get()
        if isinstance(grown, RolloutError):
            raise grown
        return grown


class _Feed:
    """Rollouts that wait to be taken up: those of older shards first, abandoned ones skipped."""

    def __init__(self) -> None:
        self._waiting: deque[Rollout] = deque()
        self._changed = threading.Condition()
        self._is_closed = False

    def add(self, rollouts: Iterable[Rollout]) -> None:
        with self._changed:
            self._waiting.extend(rollouts)
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def take(self, *, wait: bool) -> Rollout | None:
        with self._changed:
            while not self._is_closed:
                while self._waiting:
                    rollout = self._waiting.popleft()
                    if not rollout.tag.is_abandoned:
                        return rollout
                if not wait:
                    break
                self._changed.wait()
        return None


def load_settings(manifest: RunManifest) -> Settings:
    """What the programs of a run share. Raises InputError if the template pack is another one."""
    method = manifest.config.method
    pack = load_pack(method.pack.name)
    if pack.digest != method.pack.digest:
        raise InputError(
            f"template pack {pack.name} is {pack.digest} here, and the run was planned with "
            f"{method.pack.digest}: put the same file on every node"
        )
    geometry = Geometry(**manifest.geometry.model_dump())
    return Settings(method=method, pack=pack, geometry=geometry)


def _report(
    assignment: Assignment, end: ShardEnd, footer: ShardFooter, num_bytes: int = 0
) -> ShardReport:
    return ShardReport(
        shard=assignment.shard,
        attempt_id=assignment.attempt_id,
        end=end,
        num_ok=footer.num_ok,
        num_dead=footer.num_dead,
        num_bytes=num_bytes,
    )
