"""What `coppice status` says, and what every run and rerun says when it ends."""

from jobs.cluster.heartbeat import DriverNote, read_newest_driver
from jobs.commands.records import current_rows
from jobs.commands.terminal import Terminal, as_typed, counted, size
from pipeline.store.layout import TRACES
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.plans import read_manifest
from pipeline.store.status import RunStatus, committed_shards, read_status
from pipeline.view.verdicts import TELLING_COLUMNS, most_telling
from schemas.errors import ExitCode
from schemas.runs import RunManifest

_TELLING_SHARDS = 4  # in which a trace is looked for that is worth a look


def show_status(url: str, terminal: Terminal, *, as_json: bool) -> ExitCode:
    """Print how far a run is. Returns the exit code that `coppice run` would end with."""
    store = open_store(url)
    manifest = read_manifest(store)
    driver = read_newest_driver(store)
    if not as_json:
        _say_driver(driver, terminal)
        return say_status(store, manifest, terminal)
    status = read_status(store, manifest)
    code = _exit_code(status)
    more = {
        "num_missing": status.num_missing,
        "fingerprint": manifest.fingerprint,
        "exit_code": code.value,
        "driver": driver and {**driver[0].model_dump(), "actors": [*driver[1]]},
    }
    terminal.say_json(status.model_dump() | more)
    return code


def _say_driver(driver: tuple[DriverNote, tuple[str, ...]] | None, terminal: Terminal) -> None:
    """Say who drives the run, and on which node and GPU each of its actors is."""
    if driver is None:
        return
    note, actors = driver
    terminal.say(
        f"Driver: process {note.pid} on {note.host} since {note.started_at}, unless it was killed; "
        f"{counted(len(actors), 'actor')}{':' if actors else '.'}",
        *(f"  {actor}" for actor in actors),
    )


def say_status(store: Store, manifest: RunManifest, terminal: Terminal) -> ExitCode:
    """Say what is on storage and what to do next."""
    status = read_status(store, manifest)
    counts = f"{status.num_ok:,} ok, {status.num_dead:,} dead"
    if status.num_missing:
        terminal.say(
            f"Incomplete: {counts}, {status.num_missing:,} of {status.num_planned:,} rollouts "
            f"missing; {status.num_committed:,} of {status.num_shards:,} shards are committed."
        )
    else:
        terminal.say(f"Complete: {counts}, in {counted(status.num_shards, 'shard')}.")
    if status.num_committed:
        traces = f"{as_typed(store.url)}/{TRACES}/*.parquet"
        terminal.say(f"Traces: {traces}, {size(status.num_bytes)}")
    terminal.say(f"Next: {_next_command(store, manifest, status)}")
    return _exit_code(status)


def _exit_code(status: RunStatus) -> ExitCode:
    if status.num_missing:
        return ExitCode.INCOMPLETE
    return ExitCode.COMPLETE_WITH_DEAD if status.num_dead else ExitCode.COMPLETE


def _next_command(store: Store, manifest: RunManifest, status: RunStatus) -> str:
    if status.num_missing:
        return f"coppice run {as_typed(store.url)}"
    shards = sorted(committed_shards(store, manifest))[:_TELLING_SHARDS]
    telling = most_telling(
        row for shard in shards for row in current_rows(store, shard, columns=TELLING_COLUMNS)
    )
    if telling is None:
        return f"coppice show {as_typed(store.url)}"
    rollout = f" --rollout {telling['rollout_index']}" if telling["rollout_index"] else ""
    return f"coppice show {as_typed(store.url)} {telling['record_id']}{rollout}"
