"""One worker: grows the rollouts of its open shards together, and commits each shard when complete.

Each open shard has a thread of its own, the caller's, which encodes pictures, writes the Parquet
file and commits it; the models have theirs, see `pipeline.rollout.model_thread`. Nothing of an open
shard is durable. A worker that dies loses its open shards and nothing else.
"""

import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from pipeline.engine.backends import LoadedBackends
from pipeline.plan.packs import settings_of
from pipeline.rollout.model_thread import ModelThread, OpenShard
from pipeline.rollout.traces import make_trace
from pipeline.store.commits import Commit, check_run, commit_shard, record_failed_attempt
from pipeline.store.objects import Store
from pipeline.store.patient import patient_store
from pipeline.store.plans import PlanRow, read_plan_shard
from pipeline.store.supplements import (
    DeadKey,
    ShardLog,
    commit_supplement,
    read_dead_keys,
    read_log,
)
from pipeline.store.traces import ShardOrigin, TraceWriter, read_footer, try_read_footer
from pipeline.twig.drive import Outcome, Rollout
from pipeline.twig.programs import PROGRAMS
from schemas import __version__
from schemas.errors import (
    FailureKind,
    FatalFailure,
    InfrastructureFailure,
    RecordFailure,
    RolloutError,
    StoreError,
)
from schemas.runs import (
    Assignment,
    FailedAttempt,
    Key,
    RunManifest,
    ShardEnd,
    ShardFooter,
    ShardReport,
    WorkerStatus,
)
from schemas.trace import Status, Trace

_JUDGED_FROM = 200  # finished rollouts: a dead fraction of fewer says little


class Worker:
    """Runs shards of one run on one set of models. `run_shard` may be called from many threads."""

    def __init__(
        self, store: Store, manifest: RunManifest, opened: LoadedBackends, *, name: str
    ) -> None:
        self._store = patient_store(store, manifest)
        self._manifest = manifest
        self._stack = opened.stack
        self._name = name
        self._settings = settings_of(manifest)
        self._model_thread = ModelThread(opened, manifest.config)
        self._is_sick = False

    def status(self) -> WorkerStatus:
        """How it is doing."""
        return WorkerStatus(
            num_finished=self._model_thread.num_finished, is_store_away=self._store.is_away
        )

    def run_shard(self, assignment: Assignment) -> ShardReport:
        """Grow a shard and commit it, unless it is committed. Blocks until that is settled.

        A failure of the shard or the worker comes back as a report with its kind, and leaves a
        note under `_attempts`. Nothing of a failed shard is kept.
        """
        started = time.monotonic()
        try:
            report = self._try(assignment)
        except RolloutError as error:
            report = self._failed(assignment, error.kind, error.reason, error)
        except StoreError as error:
            report = self._failed(assignment, FailureKind.INFRASTRUCTURE, "store", error)
        except OSError as error:  # of the temporary file: stores turn theirs into StoreError
            report = self._failed(assignment, FailureKind.INFRASTRUCTURE, "disk", error)
        return report.model_copy(update={"duration_seconds": time.monotonic() - started})

    def close(self) -> None:
        """Stop growing. Shards that are still open fail."""
        self._model_thread.close()

    def _try(self, assignment: Assignment) -> ShardReport:
        if assignment.rerun_id:
            return self._bring_back(assignment)
        shard = assignment.shard
        there = try_read_footer(self._store, shard)
        if there is not None:
            self._check_run(there)
            return _report(assignment, ShardEnd.ALREADY, there)
        if try_read_footer(self._store, shard, 1) is not None:
            raise FatalFailure(
                f"the base of shard {shard} is gone while its supplement stands: growing it again "
                f"would double rows; run: coppice repair {self._store.url} --shards {shard}",
                reason="base_vanished",
            )
        rows = self._plan_rows(shard)
        if assignment.only:
            return self._probe(assignment, rows)
        with self._scratch() as path:
            footer = self._write_base(assignment, rows, path)
            self._judge(assignment, footer)
            commit = commit_shard(self._store, path, footer)
            num_bytes = path.stat().st_size
        if commit is Commit.LOST:  # what counts is what the other attempt committed
            there = read_footer(self._store, shard)
            return _report(assignment, ShardEnd.ALREADY, there)
        return _report(assignment, ShardEnd.COMMITTED, footer, num_bytes)

    def _probe(self, assignment: Assignment, rows: list[PlanRow]) -> ShardReport:
        """Grow some rollouts to see whether the process outlives them."""
        keys = _keys_of(rows)
        if assignment.keys:
            keys = {key: keys[key] for key in assignment.keys}
        for _ in self._traces(assignment, keys):
            pass
        return ShardReport(
            shard=assignment.shard, attempt_id=assignment.attempt_id, end=ShardEnd.SURVIVED
        )

    def _write_base(self, assignment: Assignment, rows: list[PlanRow], path: Path) -> ShardFooter:
        """Grow all rollouts of a shard into a file. The file holds every planned key, once."""
        writer = TraceWriter(path, self._origin(assignment))
        for trace in self._traces(assignment, _keys_of(rows)):
            writer.add(replace(trace, attempts=assignment.attempt))
        return writer.close(__version__)

    def _bring_back(self, assignment: Assignment) -> ShardReport:
        """Try dead keys of a committed shard again, and commit those that come out well."""
        shard = assignment.shard
        log = read_log(self._store, shard)
        self._check_run(log.base)
        dead = read_dead_keys(self._store, log)
        wanted = {key: dead[key] for key in assignment.keys if key in dead}
        if not wanted:  # other reruns were faster
            return _report(assignment, ShardEnd.ALREADY, log.base, num_ok=0, num_dead=0)
        if assignment.only:
            return self._probe(replace(assignment, keys=tuple(wanted)), self._plan_rows(shard))
        with self._scratch() as path:
            origin = replace(
                self._origin(assignment),
                supplement=len(log.supplements) + 1,
                rerun_id=assignment.rerun_id,
            )
            footer = self._write_supplement(assignment, log, wanted, origin, path)
            committed = commit_supplement(self._store, path, footer, origin)
            num_bytes = path.stat().st_size
        if committed is None:
            return _report(assignment, ShardEnd.ALREADY, log.base, num_ok=0, num_dead=0)
        return _report(
            assignment, ShardEnd.COMMITTED, committed, num_bytes, num_dead=len(committed.in_vain)
        )

    def _write_supplement(
        self,
        assignment: Assignment,
        log: ShardLog,
        wanted: dict[Key, DeadKey],
        origin: ShardOrigin,
        path: Path,
    ) -> ShardFooter:
        """Grow dead keys into a file of those that are ok now; its footer names the others."""
        row_of = _keys_of(self._plan_rows(log.base.shard))
        writer, in_vain = TraceWriter(path, origin), []
        for trace in self._traces(assignment, {key: row_of[key] for key in wanted}):
            key = trace.record_id, trace.rollout_index
            if trace.status is Status.OK:
                writer.add(replace(trace, attempts=wanted[key].num_attempts + 1))
            else:
                in_vain.append(key)
        return writer.close(__version__, in_vain=in_vain)

    def _traces(self, assignment: Assignment, row_of: dict[Key, PlanRow]) -> Iterator[Trace]:
        """Grow rollouts, and yield the trace of each as it ends. Those that crashed are dead."""
        method = self._manifest.config.method
        places = dict(enumerate(row_of))
        start, stop = assignment.only or (0, len(places))
        left = {places[place] for place in range(start, stop)}
        for place, what in assignment.crashed.items():
            if places[place] in left:
                left.remove(places[place])
                yield self._crashed(places[place], row_of[places[place]], what)
        with self._model_thread.opened_shard(is_counted=not assignment.only) as shard:
            self._model_thread.feed(
                self._rollout(key, row_of[key].prompt, shard) for key in row_of if key in left
            )
            while left:
                outcome, pixels, ended_at = shard.next_grown()
                key = (outcome.rollout.record_id, outcome.rollout.rollout_index)
                left.remove(key)
                started_at = ended_at - outcome.duration_seconds
                yield make_trace(
                    outcome, row_of[key], pixels, pictures=method.pictures, started_at=started_at
                )

    def _crashed(self, key: Key, row: PlanRow, what: str) -> Trace:
        """The trace of a rollout that ends every process that tries it."""
        outcome = Outcome(
            rollout=self._rollout(key, row.prompt, None),
            codes=(),
            schedule=None,
            events=(),
            error=RecordFailure(what, reason="crash"),
            duration_seconds=0.0,
        )
        pictures = self._manifest.config.method.pictures
        return make_trace(outcome, row, [], pictures=pictures, started_at=time.time())

    def _rollout(self, key: Key, prompt: str, shard: OpenShard | None) -> Rollout:
        method = self._manifest.config.method
        return Rollout(
            record_id=key[0],
            rollout_index=key[1],
            run_seed=method.seed,
            program=PROGRAMS[method.program](prompt, self._settings),
            tag=shard,
        )

    def _judge(self, assignment: Assignment, footer: ShardFooter) -> None:
        """Refuse to commit what looks like a broken worker or a broken run, not like bad records.

        A worker on which nothing has ended well yet may itself be what is wrong: the shard is left
        to another one, and believed only when its second try comes out the same.
        """
        if not footer.num_ok and not self._model_thread.num_ok and assignment.attempt == 1:
            self._is_sick = True
            raise InfrastructureFailure(
                f"all {footer.num_dead} rollouts failed on a worker on which none has ended well",
                reason="sick_worker",
            )
        num_dead = assignment.num_dead + footer.num_dead
        num_finished = assignment.num_ok + assignment.num_dead + footer.num_rows
        limit = self._manifest.config.execution.max_dead_fraction
        if num_finished >= _JUDGED_FROM and num_dead > limit * num_finished:
            raise FatalFailure(
                f"{num_dead:,} of {num_finished:,} rollouts are dead, more than "
                f"{limit:.0%}; see why with: coppice show {self._store.url}, and go on in spite of "
                "it with: --max-dead-fraction 1",
                reason="too_many_dead",
            )

    def _origin(self, assignment: Assignment) -> ShardOrigin:
        return ShardOrigin(
            run_id=self._manifest.run_id,
            fingerprint=self._manifest.fingerprint,
            method=self._manifest.config.method,
            shard=assignment.shard,
            attempt=assignment.attempt,
            attempt_id=assignment.attempt_id,
            worker=self._name,
            stack=self._stack,
        )

    def _plan_rows(self, shard: int) -> list[PlanRow]:
        return read_plan_shard(self._store, self._manifest, shard)

    def _check_run(self, there: ShardFooter) -> None:
        run_id, fingerprint = self._manifest.run_id, self._manifest.fingerprint
        check_run(self._store, there, run_id=run_id, fingerprint=fingerprint)

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="coppice-") as folder:
            yield Path(folder) / "shard.parquet"

    def _failed(
        self, assignment: Assignment, kind: FailureKind, reason: str, error: Exception
    ) -> ShardReport:
        note = FailedAttempt(
            shard=assignment.shard,
            attempt=assignment.attempt,
            attempt_id=assignment.attempt_id,
            kind=kind,
            reason=reason,
            message=str(error),
            worker=self._name,
            ended_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        with suppress(StoreError):  # the note is for people, and not waited for
            record_failed_attempt(self._store.inner, note)
        return ShardReport(
            shard=assignment.shard,
            attempt_id=assignment.attempt_id,
            end=ShardEnd.FAILED,
            kind=kind,
            reason=reason,
            message=str(error),
            is_worker_broken=self._is_sick or self._model_thread.broken is not None,
        )


def _keys_of(rows: Iterable[PlanRow]) -> dict[Key, PlanRow]:
    """The keys of a shard in their order, each with its row."""
    return {key: row for row in rows for key in row.rollout_keys()}


def _report(
    assignment: Assignment,
    end: ShardEnd,
    footer: ShardFooter,
    num_bytes: int = 0,
    *,
    num_ok: int | None = None,
    num_dead: int | None = None,
) -> ShardReport:
    return ShardReport(
        shard=assignment.shard,
        attempt_id=assignment.attempt_id,
        end=end,
        num_ok=footer.num_ok if num_ok is None else num_ok,
        num_dead=footer.num_dead if num_dead is None else num_dead,
        num_bytes=num_bytes,
    )
