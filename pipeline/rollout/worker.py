"""One worker: grows the rollouts of its open shards together, and commits each shard when complete.

Each open shard has a thread of its own, the caller's, which encodes pictures, writes the Parquet
file and commits it; the models have theirs, see `pipeline.rollout.model_thread`. Nothing of an open
shard is durable. A worker that dies loses its open shards and nothing else.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from pipeline.engine.backends import LoadedBackends
from pipeline.file_names import quoted
from pipeline.plan.packs import settings_of
from pipeline.plan.thoughts import thoughts_of
from pipeline.rollout.judgement import Endings, doubt_model, doubt_run, doubt_worker
from pipeline.rollout.meter import Meter, Phase
from pipeline.rollout.model_thread import ModelThread, OpenShard
from pipeline.rollout.reports import crashed_keys, report_of
from pipeline.rollout.traces import ends_of, make_trace, prepare_to_trace
from pipeline.store.commits import Commit, check_run, commit_shard, record_failed_attempt
from pipeline.store.objects import Store
from pipeline.store.patient import patient_store
from pipeline.store.plans import PlanRow, read_plan_shard
from pipeline.store.supplements import (
    DeadKey,
    commit_supplement,
    read_dead_keys,
    read_log,
)
from pipeline.store.traces import ShardOrigin, TraceWriter, read_footer, try_read_footer
from pipeline.store.trouble.scratch import ScratchDisk, sweep_scratch
from pipeline.twig.drive import Outcome, Rollout
from pipeline.twig.given import with_thoughts
from pipeline.twig.programs import PROGRAMS
from schemas import __version__
from schemas.errors import (
    DamagedObject,
    DamagedPlan,
    FailureKind,
    FatalFailure,
    InfrastructureFailure,
    ObjectBlocked,
    RecordFailure,
    RolloutError,
    StoreError,
    TooManyDead,
)
from schemas.runs import (
    Assignment,
    Attempt,
    BringBack,
    Ends,
    FailedAttempt,
    Grow,
    Key,
    Probe,
    Remedy,
    RunEvidence,
    RunManifest,
    ShardEnd,
    ShardFailure,
    ShardFooter,
    ShardReport,
    Work,
    WorkerStatus,
)
from schemas.trace import Status, Trace


class Worker:
    """Runs shards of one run on one set of models. `run_shard` may be called from many threads.

    Waits for its store as long as the run's config says.
    """

    def __init__(
        self,
        store: Store,
        manifest: RunManifest,
        loaded: LoadedBackends,
        *,
        name: str,
        meter: Meter | None = None,
    ) -> None:
        self._store = patient_store(store, manifest)
        self._disk = ScratchDisk(patience_seconds=manifest.config.execution.store_patience_seconds)
        sweep_scratch()
        self._manifest = manifest
        self._stack = loaded.stack
        self._name = name
        self._settings = settings_of(manifest)
        prepare_to_trace()
        self._meter = meter or Meter()
        self._model_thread = ModelThread(loaded, manifest.config, self._meter)
        self._is_sick = False

    def status(self) -> WorkerStatus:
        """How it is doing."""
        return WorkerStatus(
            ends=self._model_thread.ends,
            store_wait=self._store.wait or self._disk.wait,
            endpoints_away=self._model_thread.endpoints_away,
            endpoints=self._model_thread.endpoint_usage,
            work=self._work(),
            num_rows_busy=self._model_thread.num_rows_busy,
        )

    def _work(self) -> Work:
        return self._meter.read(store_seconds=self._store.spent_seconds)

    def run_shard(self, assignment: Assignment) -> ShardReport:
        """Do what is assigned, unless it is done already. Blocks until that is settled.

        A failure of the shard or the worker comes back as a report with its kind, and leaves a
        note under `_attempts`. Nothing of a failed shard is kept.
        """
        return replace(self._settle(assignment), work=self._work())

    def _settle(self, assignment: Assignment) -> ShardReport:
        try:
            return self._try(assignment)
        except RolloutError as error:
            return self._failed(assignment.attempt, error.kind, error.reason, error)
        except TooManyDead as error:
            return self._failed(assignment.attempt, FailureKind.FATAL, "too_many_dead", error)
        except StoreError as error:
            return self._failed(assignment.attempt, FailureKind.INFRASTRUCTURE, "store", error)
        except OSError as error:  # of the temporary file: stores turn theirs into StoreError
            return self._failed(assignment.attempt, FailureKind.INFRASTRUCTURE, "disk", error)

    def close(self) -> None:
        """Stop growing. Shards that are still open fail."""
        self._model_thread.close()

    def _try(self, assignment: Assignment) -> ShardReport:
        probe = assignment if isinstance(assignment, Probe) else None
        whole = assignment.whole if isinstance(assignment, Probe) else assignment
        match whole:
            case Grow():
                return self._grow(whole, probe)
            case BringBack():
                return self._bring_back(whole, probe)

    def _grow(self, grow: Grow, probe: Probe | None) -> ShardReport:
        """Make the base of a shard, or probe a part of it, unless it is committed."""
        attempt, shard = grow.attempt, grow.attempt.shard
        footer = try_read_footer(self._store, shard)
        if footer is not None:
            self._check_run(footer)
            return report_of(attempt, ShardEnd.ALREADY, footer)
        if try_read_footer(self._store, shard, 1) is not None:
            raise DamagedObject(
                f"the base of shard {shard} is gone while its supplement stands: growing it again "
                "would double rows; run: coppice repair "
                f"{quoted(self._store.url)} --shards {shard}",
                reason="base_vanished",
            )
        row_of = self._planned_rows(shard)
        if probe:
            return self._probe(probe, list(row_of), row_of)
        with self._scratch() as path:
            footer, endings, ends = self._write_base(attempt, row_of, path)
            self._judge(grow, footer, endings)
            commit = commit_shard(self._store, path, footer)
            num_bytes = path.stat().st_size
        if commit is Commit.LOST:  # what counts is what the other attempt committed
            return report_of(attempt, ShardEnd.ALREADY, read_footer(self._store, shard))
        return report_of(attempt, ShardEnd.COMMITTED, footer, num_bytes, ends=ends)

    def _write_base(
        self, attempt: Attempt, row_of: Mapping[Key, PlanRow], path: Path
    ) -> tuple[ShardFooter, Endings, Ends]:
        """Grow all rollouts of a shard into a file. The file holds every planned key, once."""
        writer = TraceWriter(path, self._origin(attempt), self._disk.open)
        endings: dict[str | None, set[str]] = {}
        ends = Ends()
        for trace in self._traces(row_of, crashed_keys(attempt, list(row_of)), attempt.attempt_id):
            writer.add(replace(trace, attempts=attempt.number))
            endings.setdefault(trace.dead_reason, set()).add(trace.record_id)
            ends += ends_of(trace.events, trace.dead_reason)
        return writer.close(__version__), endings, ends

    def _bring_back(self, bring_back: BringBack, probe: Probe | None) -> ShardReport:
        """Try dead keys of a committed shard again, or probe some of them.

        Those that come out well are committed.
        """
        attempt, shard = bring_back.attempt, bring_back.attempt.shard
        log = read_log(self._store, shard)
        self._check_run(log.base)
        dead = read_dead_keys(self._store, log)
        wanted = {key: dead[key] for key in bring_back.keys if key in dead}
        if not wanted:  # other reruns were faster
            return report_of(attempt, ShardEnd.ALREADY, log.base, num_ok=0, num_dead=0)
        planned = self._planned_rows(shard)
        if unplanned := wanted.keys() - planned.keys():
            raise DamagedPlan(
                f"the plan file of shard {shard} names other keys than its base, such as "
                f"{min(unplanned)}: see which one is damaged with: "
                f"coppice verify {quoted(self._store.url)} --deep",
                reason="damaged_plan",
            )
        row_of = {key: planned[key] for key in wanted}
        if probe:
            return self._probe(probe, bring_back.keys, row_of)
        with self._scratch() as path:
            origin = replace(
                self._origin(attempt),
                supplement=len(log.supplements) + 1,
                rerun_id=bring_back.rerun_id,
            )
            footer, ends = self._write_supplement(bring_back, wanted, row_of, origin, path)
            committed = commit_supplement(self._store, path, footer, origin)
            num_bytes = path.stat().st_size
        if committed is None:
            return report_of(attempt, ShardEnd.ALREADY, log.base, num_ok=0, num_dead=0)
        num_dead = len(committed.in_vain)
        return report_of(
            attempt, ShardEnd.COMMITTED, committed, num_bytes, num_dead=num_dead, ends=ends
        )

    def _write_supplement(
        self,
        bring_back: BringBack,
        wanted: Mapping[Key, DeadKey],
        row_of: Mapping[Key, PlanRow],
        origin: ShardOrigin,
        path: Path,
    ) -> tuple[ShardFooter, Ends]:
        """Grow dead keys into a file of those that are ok now; its footer names the others."""
        writer, in_vain, ends = TraceWriter(path, origin, self._disk.open), [], Ends()
        attempt = bring_back.attempt
        crashed = crashed_keys(attempt, bring_back.keys)
        for trace in self._traces(row_of, crashed, attempt.attempt_id):
            key = trace.record_id, trace.rollout_index
            ends += ends_of(trace.events, trace.dead_reason)
            if trace.status is Status.OK:
                writer.add(replace(trace, attempts=wanted[key].num_attempts + 1))
            else:
                in_vain.append(key)
        return writer.close(__version__, in_vain=in_vain), ends

    def _probe(
        self, probe: Probe, keys: Sequence[Key], row_of: Mapping[Key, PlanRow]
    ) -> ShardReport:
        """Grow some rollouts to see whether the process outlives them.

        `keys` are what positions count; a rerun leaves out those that are not in `row_of` any more.
        """
        attempt = probe.attempt
        suspects = keys[probe.start : probe.stop]
        suspect_rows = {key: row_of[key] for key in suspects if key in row_of}
        for _ in self._traces(suspect_rows, crashed_keys(attempt, keys), ""):
            pass
        return ShardReport(
            shard=attempt.shard, attempt_id=attempt.attempt_id, end=ShardEnd.SURVIVED
        )

    def _traces(
        self,
        row_of: Mapping[Key, PlanRow],
        crashed: Mapping[Key, str],
        attempt_id: str,
    ) -> Iterator[Trace]:
        """Grow rollouts, and yield the trace of each as it ends. Those that crashed are dead.

        Under an attempt's id they are counted as its work; empty: they are none.
        """
        left = set(row_of)
        for key, message in crashed.items():
            if key in left:
                left.remove(key)
                yield self._crashed(key, row_of[key], message)
        with self._model_thread.opened_shard(attempt_id) as shard:
            self._model_thread.feed(
                self._rollout(key, row_of[key], shard) for key in row_of if key in left
            )
            while left:
                outcome, pixels, ended_at = shard.next_grown()
                key = (outcome.rollout.record_id, outcome.rollout.rollout_index)
                left.remove(key)
                with self._meter.timing(Phase.ENCODE):
                    trace = make_trace(
                        outcome,
                        row_of[key],
                        pixels,
                        pictures=self._manifest.config.method.pictures,
                        started_at=ended_at - outcome.duration_seconds,
                    )
                yield trace

    def _crashed(self, key: Key, row: PlanRow, message: str) -> Trace:
        """The trace of a rollout that ends every process that tries it."""
        outcome = Outcome(
            rollout=self._rollout(key, row, None),
            codes=(),
            schedule=None,
            events=(),
            error=RecordFailure(message, reason="crash"),
            duration_seconds=0.0,
        )
        pictures = self._manifest.config.method.pictures
        return make_trace(outcome, row, [], pictures=pictures, started_at=time.time())

    def _rollout(self, key: Key, row: PlanRow, shard: OpenShard | None) -> Rollout:
        method = self._manifest.config.method
        program = PROGRAMS[method.program](row.prompt, self._settings)
        if method.thoughts == "given":
            program = with_thoughts(program, thoughts_of(row.metadata))
        return Rollout(
            record_id=key[0],
            rollout_index=key[1],
            run_seed=method.seed,
            program=program,
            tag=shard,
        )

    def _judge(self, grow: Grow, footer: ShardFooter, endings: Endings) -> None:
        """Refuse to commit what looks like a broken worker, model or run, not like bad records."""
        has_done_well = self._model_thread.num_ok > 0
        try:
            doubt_worker(grow, footer, has_done_well=has_done_well)
        except InfrastructureFailure:
            self._is_sick = True
            raise
        doubt_model(grow, footer, endings, self._manifest, has_done_well=has_done_well)
        doubt_run(grow, footer, self._manifest, self._store.url)

    def _origin(self, attempt: Attempt) -> ShardOrigin:
        return ShardOrigin(
            run_id=self._manifest.run_id,
            fingerprint=self._manifest.fingerprint,
            method=self._manifest.config.method,
            shard=attempt.shard,
            attempt=attempt.number,
            attempt_id=attempt.attempt_id,
            worker=self._name,
            stack=self._stack,
            evidence=RunEvidence.of(self._manifest, attempt.shard),
        )

    def _planned_rows(self, shard: int) -> dict[Key, PlanRow]:
        """The keys of a shard in their order, each with its row."""
        rows = read_plan_shard(self._store, self._manifest, shard)
        return {key: row for row in rows for key in row.rollout_keys()}

    def _check_run(self, footer: ShardFooter) -> None:
        run_id, fingerprint = self._manifest.run_id, self._manifest.fingerprint
        check_run(self._store, footer, run_id=run_id, fingerprint=fingerprint)

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        with self._disk.folder() as folder:
            yield folder / "shard.parquet"

    def _failed(
        self, attempt: Attempt, kind: FailureKind, reason: str, error: Exception
    ) -> ShardReport:
        note = FailedAttempt(
            shard=attempt.shard,
            attempt=attempt.number,
            attempt_id=attempt.attempt_id,
            kind=kind,
            reason=reason,
            message=str(error),
            worker=self._name,
            ended_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        with suppress(StoreError):  # the note is for people, and not waited for
            record_failed_attempt(self._store.impatient, note)
        return ShardReport(
            shard=attempt.shard,
            attempt_id=attempt.attempt_id,
            end=ShardEnd.FAILED,
            failure=ShardFailure(
                kind=kind,
                reason=reason,
                message=str(error),
                remedy=self._remedy_for(error, kind),
            ),
        )

    def _remedy_for(self, error: Exception, kind: FailureKind) -> Remedy:
        """What the driver is to do. Nothing else decides it."""
        match error:
            case TooManyDead():
                return Remedy.STOP_FOR_DEAD
            case DamagedObject() | ObjectBlocked():
                return Remedy.GIVE_UP
            case StoreError():
                return Remedy.STOP_FOR_STORE
            case FatalFailure():
                return Remedy.STOP
        if not self._is_sick and self._model_thread.broken is None:
            return Remedy.GIVE_BACK
        return Remedy.SUSPECT_RECORDS if kind is FailureKind.TASK else Remedy.REPLACE_WORKER
