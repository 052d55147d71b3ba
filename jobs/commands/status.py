"""What `coppice status` says, and what every run and rerun says when it ends."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from jobs.cluster.heartbeat import (
    DriverNote,
    DriverProgress,
    read_newest_driver,
    read_newest_progress,
)
from jobs.commands.live.line import Fact, Progress
from jobs.commands.live.runs import describe_dead
from jobs.commands.live.work import describe_work
from jobs.commands.records import current_rows
from jobs.commands.terminal import Terminal, as_typed, counted, size
from pipeline.store.footers import NUM_DEAD, SHARD
from pipeline.store.layout import TRACES
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.plans import read_manifest
from pipeline.store.status import RunStatus, Stock, status_of, take_stock
from pipeline.store.supplements import read_dead_keys, read_log
from pipeline.view.verdicts import TELLING_COLUMNS, most_telling
from schemas.errors import ExitCode
from schemas.runs import RunManifest

_TELLING_SHARDS = 4  # in which a trace is looked for that is worth a look
_SHARDS_ASKED = 256  # at most, for what their dead died of
_READERS = 16
_WATCH_SECONDS = 2.0


def show_status(
    url: str, terminal: Terminal, *, as_json: bool, gpu_hour_price: float | None = None
) -> ExitCode:
    """Print how far a run is. Returns the exit code that `coppice run` would end with."""
    store = open_store(url)
    manifest = read_manifest(store)
    if not as_json:
        _say_driver(read_newest_driver(store), read_newest_progress(store), terminal)
        return say_status(store, manifest, terminal, gpu_hour_price=gpu_hour_price)
    stock = take_stock(store, manifest)
    status = status_of(store, manifest, stock)
    driver, progress = read_newest_driver(store), read_newest_progress(store)
    code = _exit_code(status)
    more = {
        "num_missing": status.num_missing,
        "fingerprint": manifest.fingerprint,
        "exit_code": code.value,
        "dead_reasons": dict(dead_reasons(store, stock)),
        "rollouts_per_second": progress.rollouts_per_second if driver and progress else None,
        "driver": driver and {**driver[0].model_dump(), "actors": [*driver[1]]},
        "progress": progress and progress.model_dump(),
    }
    terminal.say_json(status.model_dump() | more)
    return code


def watch_status(url: str, terminal: Terminal, *, gpu_hour_price: float | None = None) -> ExitCode:
    """Follow a run until nothing is missing or nobody drives it; then say how it is."""
    store = open_store(url)
    with terminal.progress("reading the run") as line:
        while True:
            manifest = read_manifest(store)
            status = status_of(store, manifest, take_stock(store, manifest))
            driver, progress = read_newest_driver(store), read_newest_progress(store)
            line.show(_progress_of(status, progress))
            if driver is None or not status.num_missing:
                break
            time.sleep(_WATCH_SECONDS)
    return show_status(url, terminal, as_json=False, gpu_hour_price=gpu_hour_price)


def _progress_of(status: RunStatus, told: DriverProgress | None) -> Progress:
    """What is on storage, and what its driver says beside it."""
    num_settled = status.num_ok + status.num_dead
    facts = [Fact(text=f"{status.num_dead:,} dead", style="red")] if status.num_dead else []
    facts.append(Fact(text=f"{status.num_ok:,} ok", style="green"))
    facts.append(Fact(text=f"{status.num_committed:,} of {counted(status.num_shards, 'shard')}"))
    if told:
        facts.append(Fact(text=counted(told.num_actors, "actor")))
    return Progress(
        noun="rollouts",
        num_done=max(num_settled, told.num_finished if told else 0),
        num_all=status.num_planned,
        facts=facts,
    )


def _say_driver(
    driver: tuple[DriverNote, tuple[str, ...]] | None,
    progress: DriverProgress | None,
    terminal: Terminal,
) -> None:
    """Say who drives the run, how fast, and on which node and GPU each of its actors is."""
    if driver is None:
        return
    note, actors = driver
    rate = f"{progress.rollouts_per_second:.2g} rollouts per second, " if progress else ""
    terminal.say(
        f"Driver: process {note.pid} on {note.host} since {note.started_at}, unless it was killed; "
        f"{rate}{counted(len(actors), 'actor')}{':' if actors else '.'}",
        *(f"  {actor}" for actor in actors),
    )


def say_status(
    store: Store,
    manifest: RunManifest,
    terminal: Terminal,
    *,
    is_step: bool = False,
    gpu_hour_price: float | None = None,
) -> ExitCode:
    """Say what is on storage and, unless it is a step of other work, what to do next."""
    stock = take_stock(store, manifest)
    status = status_of(store, manifest, stock)
    counts = f"{status.num_ok:,} ok, {status.num_dead:,} dead"
    if status.num_missing:
        terminal.say(
            f"Incomplete: {counts}, {status.num_missing:,} of {status.num_planned:,} rollouts "
            f"missing; {status.num_committed:,} of {status.num_shards:,} shards are committed."
        )
    else:
        terminal.say(f"Complete: {counts}, in {counted(status.num_shards, 'shard')}.")
    if status.num_dead:
        reasons = dead_reasons(store, stock)
        more = " or more" if sum(reasons.values()) < status.num_dead else ""
        terminal.say(f"Why: {describe_dead(reasons)}{more}.")
    if status.num_committed:
        traces = f"{as_typed(store.url)}/{TRACES}/*.parquet"
        terminal.say(f"Traces: {traces}, {size(status.num_bytes)}")
    if progress := read_newest_progress(store):
        terminal.say(*describe_work(progress, gpu_hour_price))
    if not is_step:
        terminal.say(f"Next: {_next_command(store, status, stock)}")
    return _exit_code(status)


def dead_reasons(store: Store, stock: Stock) -> Counter[str]:
    """What the dead died of that nothing brought back: of the first `_SHARDS_ASKED` such shards."""
    shards = np.unique(stock.rows[stock.rows[:, NUM_DEAD] > 0, SHARD])[:_SHARDS_ASKED].tolist()
    with ThreadPoolExecutor(_READERS) as readers:
        dead = readers.map(lambda shard: read_dead_keys(store, read_log(store, shard)), shards)
        return Counter(key.reason for of_shard in dead for key in of_shard.values())


def _exit_code(status: RunStatus) -> ExitCode:
    if status.num_missing:
        return ExitCode.INCOMPLETE
    return ExitCode.COMPLETE_WITH_DEAD if status.num_dead else ExitCode.COMPLETE


def _next_command(store: Store, status: RunStatus, stock: Stock) -> str:
    if status.num_missing:
        return f"coppice run {as_typed(store.url)}"
    if status.num_dead:
        return f"coppice rerun {as_typed(store.url)}"
    telling = most_telling(
        row
        for shard in stock.committed()[:_TELLING_SHARDS]
        for row in current_rows(store, shard, columns=TELLING_COLUMNS)
    )
    if telling is None:
        return f"coppice show {as_typed(store.url)}"
    rollout = f" --rollout {telling['rollout_index']}" if telling["rollout_index"] else ""
    return f"coppice show {as_typed(store.url)} {telling['record_id']}{rollout}"
