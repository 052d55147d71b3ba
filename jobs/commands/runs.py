"""What `coppice plan`, `run` and `status` do, and what they print."""

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from rich.console import Console

from jobs.cluster.heartbeat import DriverHeartbeat
from jobs.commands.selection import as_shards
from jobs.commands.terminal import ProgressLine, as_typed, counted, duration, size
from jobs.commands.terminal import say as _say
from pipeline.plan.configs import (
    Resolved,
    Tables,
    read_config_file,
    resolve,
    validated,
    with_settings,
)
from pipeline.plan.models import prompt_limit
from pipeline.plan.planning import Plan, check_method, commit_plan, extend_plan, make_plan
from pipeline.plan.prompt_files import PromptSet, read_prompts
from pipeline.plan.reruns import OpenRerun, RerunSelection, choose, open_rerun
from pipeline.store.layout import TRACES, rejects_key
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.patient import patient_store
from pipeline.store.plans import read_manifest, read_plan_shard
from pipeline.store.preflight import preflight
from pipeline.store.status import RunStatus, read_status
from schemas.config import RunConfig
from schemas.errors import ExitCode
from schemas.runs import Key, RunManifest

_WARN_SHARD_BYTES = 10**9
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanRequest:
    """What the user asked for, unchecked."""

    sources: list[str]
    url: str
    rollouts_per_record: int = 1
    rollouts_per_shard: int | None = None
    skip_bad: bool = False
    config_file: str | None = None
    settings: list[str]  # NAME=VALUE

    def tables(self, under: Tables) -> Tables:
        """The config asked for, over the one that stands."""
        base = read_config_file(self.config_file) if self.config_file else under
        return with_settings(base, self.settings)


def plan_run(request: PlanRequest, console: Console) -> RunManifest:
    """Read the prompts, resolve the config, and commit the plan. Returns it as asked for now."""
    resolved = resolve(request.tables({}))
    limit = prompt_limit(resolved.facts, resolved.config.method, resolved.pack)
    prompts = read_prompts(request.sources, limit=limit, skip_bad=request.skip_bad)
    plan = make_plan(
        prompts,
        resolved.config,
        resolved.facts,
        sources=request.sources,
        rollouts_per_record=request.rollouts_per_record,
        rollouts_per_shard=request.rollouts_per_shard,
    )
    store = open_store(request.url)
    preflight(store)
    manifest = commit_plan(store, plan, prompts, resolved.config, resolved.facts)
    _say(console, _describe_plan(store.url, manifest, plan, resolved))
    return manifest.model_copy(update={"config": resolved.config})


def extend_run(request: PlanRequest, console: Console) -> RunManifest:
    """Add to a plan what it lacks of what is asked for. Raises ConfigMismatch, InputError."""
    before = load_run(request)
    store = open_store(request.url)
    prompts = PromptSet(prompts=[], num_duplicates=0, rejects=[])
    if request.sources:
        resolved = resolve(before.config.model_dump(mode="json"))
        limit = prompt_limit(resolved.facts, resolved.config.method, resolved.pack)
        prompts = read_prompts(request.sources, limit=limit, skip_bad=request.skip_bad)
    after = extend_plan(
        store,
        prompts,
        sources=request.sources,
        rollouts_per_record=request.rollouts_per_record,
        rollouts_per_shard=request.rollouts_per_shard,
    )
    added = [part for part in after.parts if part not in before.parts]
    num_rollouts = sum(part.num_rollouts for part in added)
    num_shards = sum(part.num_shards for part in added)
    place = as_typed(store.url)
    _say(
        console,
        f"Added {counted(num_rollouts, 'rollout')} in {counted(num_shards, 'shard')}: "
        f"{place} has {after.num_rollouts:,} in {after.num_shards:,} now.\n"
        f"Next: coppice run {place}"
        if added
        else f"Nothing to add: {place} has at least {request.rollouts_per_record} of each.",
    )
    return after


def load_run(request: PlanRequest) -> RunManifest:
    """A run that is planned, with the execution asked for now. Raises ConfigMismatch."""
    store = open_store(request.url)
    manifest = read_manifest(store)
    preflight(store)
    planned = manifest.config.model_dump(mode="json")
    asked = request.tables(planned)
    if asked.get("method") != planned["method"]:
        resolved = resolve(asked)  # reads the model's files, so only when it can matter
        check_method(manifest, resolved.config, store.url)
        return manifest.model_copy(update={"config": resolved.config})
    config = validated(RunConfig, asked)
    return manifest.model_copy(update={"config": config})


def grow_run(url: str, manifest: RunManifest, console: Console, *, address: str | None) -> ExitCode:
    """Make what is missing of a planned run, on Ray. Returns how it ended."""
    store = open_store(url)
    if not read_status(store, manifest).num_missing:
        _say(console, "Nothing is missing.")
        return _finish(store, manifest, console)

    beat_seconds = manifest.config.execution.beat_seconds
    with DriverHeartbeat(patient_store(store, manifest), beat_seconds=beat_seconds) as heartbeat:
        _drive(store, manifest, console, address=address, check=heartbeat.check)
    return _finish(store, manifest, console)


def rerun_dead(
    url: str,
    manifest: RunManifest,
    selection: RerunSelection,
    console: Console,
    *,
    address: str | None,
    is_dry: bool = False,
) -> ExitCode:
    """Try dead rollouts of a run again, on Ray. Returns how it ended."""
    store = open_store(url)
    if is_dry:
        _say(console, _describe_keys(choose(store, manifest, selection)))
        return ExitCode.COMPLETE
    opened = open_rerun(store, manifest, selection)
    if opened is None:
        _say(console, "Nothing to rerun: no such rollout is dead.")
        return _finish(store, manifest, console)
    verb = "Goes on with" if opened.is_resumed else "Begins"
    _say(console, f"{verb} rerun {opened.rerun.rerun_id}. {_describe_keys(opened.left)}")
    _drive(store, manifest, console, address=address, rerun=opened)
    return _finish(store, manifest, console)


def _drive(
    store: Store,
    manifest: RunManifest,
    console: Console,
    *,
    address: str | None,
    rerun: OpenRerun | None = None,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Grow on Ray until all is settled, and say what came of it."""
    from jobs.cluster.connect import on_ray
    from jobs.cluster.driver import Driver
    from jobs.cluster.snapshot import Snapshot

    with on_ray(address), _Stop(console) as stop, ProgressLine(console) as line:

        def show(snapshot: Snapshot) -> None:
            check()
            line.show(snapshot)

        driver = Driver(store, manifest, show=show, is_stopping=stop.is_asked, rerun=rerun)
        summary = driver.run()
    for shard, message in summary.given_up.items():
        _say(console, f"Gave up on shard {shard}: {message}")
    grown = summary.snapshot
    _say(
        console,
        f"Grew {counted(grown.num_new, 'rollout')} in {duration(grown.growing_seconds)}: "
        f"{grown.rollouts_per_second:.2f} rollouts per second.",
    )


def _describe_keys(keys: Mapping[int, Sequence[Key]]) -> str:
    num_keys = sum(len(some) for some in keys.values())
    places = f" (shards {as_shards(keys)})" if keys else ""
    return f"{counted(num_keys, 'dead rollout')} to try again{places}."


def show_status(url: str, console: Console, *, as_json: bool) -> ExitCode:
    """Print how far a run is. Returns the exit code that `coppice run` would end with."""
    store = open_store(url)
    manifest = read_manifest(store)
    if not as_json:
        return _finish(store, manifest, console)
    status = read_status(store, manifest)
    code = _exit_code(status)
    more = {
        "num_missing": status.num_missing,
        "fingerprint": manifest.fingerprint,
        "exit_code": code.value,
    }
    console.print_json(data=status.model_dump() | more)
    return code


def _finish(store: Store, manifest: RunManifest, console: Console) -> ExitCode:
    """Say what is on storage and what to do next."""
    status = read_status(store, manifest)
    code = _exit_code(status)
    counts = f"{status.num_ok:,} ok, {status.num_dead:,} dead"
    if status.num_missing:
        _say(
            console,
            f"Incomplete: {counts}, {status.num_missing:,} of {status.num_planned:,} rollouts "
            f"missing; {status.num_committed:,} of {status.num_shards:,} shards are committed.",
        )
    else:
        _say(console, f"Complete: {counts}, in {counted(status.num_shards, 'shard')}.")
    if status.num_committed:
        sizes = [entry.size_bytes for entry in store.list_folder(TRACES)]
        _say(console, f"Traces: {as_typed(store.url)}/{TRACES}/*.parquet, {size(sum(sizes))}")
    _say(console, f"Next: {_next_command(store, manifest, status)}")
    return code


def _exit_code(status: RunStatus) -> ExitCode:
    if status.num_missing:
        return ExitCode.INCOMPLETE
    return ExitCode.COMPLETE_WITH_DEAD if status.num_dead else ExitCode.COMPLETE


def _next_command(store: Store, manifest: RunManifest, status: RunStatus) -> str:
    if status.num_missing:
        return f"coppice run {as_typed(store.url)}"
    record_id = read_plan_shard(store, manifest, 0)[0].record_id
    return f"coppice show {as_typed(store.url)} {record_id}"


def _describe_plan(url: str, manifest: RunManifest, plan: Plan, resolved: Resolved) -> str:
    method, part, place = resolved.config.method, manifest.plan, as_typed(url)
    estimate = f"about {size(plan.num_bytes)}"
    if plan.actor_seconds >= 1:
        estimate += f" and {duration(plan.actor_seconds)} of one GPU"
    lines = [
        f"Run {manifest.run_id} at {place}: {method.program.value} with {method.model.name} "
        f"({method.backend}), fingerprint {manifest.fingerprint}.",
        f"Planned: {counted(part.num_records, 'record')} x "
        f"{counted(part.rollouts_per_record, 'rollout')} in {counted(part.num_shards, 'shard')} "
        f"of up to {part.rollouts_per_shard}, {estimate}.",
    ]
    if part.num_duplicates or part.num_rejects:
        rejects = f"; rejects: {place}/{rejects_key(part.folder)}" if part.num_rejects else ""
        lines.append(
            f"Left out: {counted(part.num_duplicates, 'exact duplicate')}, "
            f"{counted(part.num_rejects, 'unusable prompt')}{rejects}."
        )
    if part.rollouts_per_shard * plan.rollout_bytes > _WARN_SHARD_BYTES:
        shard = size(part.rollouts_per_shard * plan.rollout_bytes)
        lines.append(f"Warning: a shard may reach {shard}, and a lost worker loses whole shards.")
    return "\n".join(lines)


class _Stop:
    """The first Ctrl-C, SIGTERM or drain notice asks; the second one ends the process at once."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._is_asked = False

    def is_asked(self) -> bool:
        return self._is_asked

    def __enter__(self) -> Self:
        self._before = {name: signal.signal(name, self._ask) for name in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for name, handler in self._before.items():
            signal.signal(name, handler)

    def _ask(self, *_: object) -> None:
        if self._is_asked:
            raise KeyboardInterrupt
        self._is_asked = True
        _say(self._console, "Stopping: committing what is nearly done. Once more to stop at once.")
