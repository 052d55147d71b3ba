"""What `coppice status` says, and what every run and rerun says when it ends."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

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
from jobs.commands.shard_lists import as_shards
from jobs.commands.terminal import Terminal, as_typed, counted, size
from pipeline.store.footers import NUM_DEAD, SHARD
from pipeline.store.layout import TRACES
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.plans import damaged_plans, read_manifest
from pipeline.store.status import RunStatus, Stock, read_usage, status_of, take_stock
from pipeline.store.supplements import read_dead_keys, read_log
from pipeline.view.verdicts import TELLING_COLUMNS, most_telling
from schemas.errors import ExitCode
from schemas.runs import EndpointUsage, RunManifest

_NAMED = 5  # of many damaged shards
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
    driver, progress = read_newest_driver(store), read_newest_progress(store)
    if not as_json:
        _say_driver(driver, progress, terminal)
        return say_status(store, manifest, terminal, gpu_hour_price=gpu_hour_price)
    look = _look(store, manifest)
    more = {
        "num_missing": look.status.num_missing,
        "damaged_plans": look.damaged_plans,
        "fingerprint": manifest.fingerprint,
        "exit_code": look.code.value,
        "dead_reasons": dict(dead_reasons(store, look.stock)),
        "rollouts_per_second": progress.rollouts_per_second if driver and progress else None,
        "driver": driver and {**driver[0].model_dump(), "actors": [*driver[1]]},
        "progress": progress and progress.model_dump(),
        "endpoints": {
            name: usage.model_dump() | {"price": _price(manifest, name, usage)}
            for name, usage in read_usage(store, manifest).items()
        },
    }
    terminal.say_json(look.status.model_dump(mode="json") | more)
    return look.code


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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Look:
    """What is on storage."""

    stock: Stock
    status: RunStatus
    damaged_plans: dict[int, str]  # what was found in their place; looked for if none is missing

    @property
    def code(self) -> ExitCode:
        if self.status.damage or self.damaged_plans or self.status.num_unplanned:
            return ExitCode.DAMAGED
        if self.status.num_missing:
            return ExitCode.INCOMPLETE
        return ExitCode.COMPLETE_WITH_DEAD if self.status.num_dead else ExitCode.COMPLETE


def _look(store: Store, manifest: RunManifest) -> _Look:
    stock = take_stock(store, manifest)
    if stock.num_unplanned:  # by a part that was added meanwhile, perhaps
        manifest = read_manifest(store)
        stock = take_stock(store, manifest)
    plans = {} if stock.num_missing else damaged_plans(store, manifest)
    status = status_of(store, manifest, stock)
    return _Look(stock=stock, status=status, damaged_plans=plans)


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
    """Say what is on storage and, unless it is a step of other work, what to do next. Nothing is
    called complete that is damaged.
    """
    look = _look(store, manifest)
    status = look.status
    counts = f"{status.num_ok:,} ok, {status.num_dead:,} dead"
    if status.num_missing:
        terminal.say(
            f"Incomplete: {counts}, {status.num_missing:,} of {status.num_planned:,} rollouts "
            f"missing; {status.num_committed:,} of {status.num_shards:,} shards are committed."
        )
    elif look.code is not ExitCode.DAMAGED:
        terminal.say(f"Complete: {counts}, in {counted(status.num_shards, 'shard')}.")
    if look.code is ExitCode.DAMAGED:
        _say_damaged(look, counts, terminal)
    if status.num_dead:
        reasons = dead_reasons(store, look.stock)
        more = " or more" if sum(reasons.values()) < status.num_dead else ""
        terminal.say(f"Why: {describe_dead(reasons)}{more}.")
    if status.num_committed:
        traces = f"{as_typed(store.url)}/{TRACES}/*.parquet"
        terminal.say(f"Traces: {traces}, {size(status.num_bytes)}")
    terminal.say(*_describe_endpoints(store, manifest))
    if progress := read_newest_progress(store):
        terminal.say(*describe_work(progress, gpu_hour_price))
    if not is_step:
        terminal.say(f"Next: {_next_command(store, look)}")
    return look.code


def dead_reasons(store: Store, stock: Stock) -> Counter[str]:
    """What the dead died of that nothing brought back: of the first `_SHARDS_ASKED` such shards."""
    shards = np.unique(stock.rows[stock.rows[:, NUM_DEAD] > 0, SHARD])[:_SHARDS_ASKED].tolist()
    with ThreadPoolExecutor(_READERS) as readers:
        dead = readers.map(lambda shard: read_dead_keys(store, read_log(store, shard)), shards)
        return Counter(key.reason for of_shard in dead for key in of_shard.values())


def _say_damaged(look: _Look, counts: str, terminal: Terminal) -> None:
    status = look.status
    say_damage(status.damage, terminal)
    say_damage(look.damaged_plans, terminal)
    if status.num_unplanned:
        terminal.say(
            f"{counted(status.num_unplanned, 'object')} in {TRACES}/ of shards that no part of "
            "the plan has."
        )
    num_damaged = len(status.damage.keys() | look.damaged_plans.keys())
    lost = f", {status.num_unreadable:,} cannot be read" if status.num_unreadable else ""
    terminal.say(
        f"Damaged: {counted(num_damaged, 'shard')}; of {status.num_planned:,} rollouts "
        f"{counts}{lost}."
    )


def _describe_endpoints(store: Store, manifest: RunManifest) -> Iterator[str]:
    """A line for each endpoint that answered, with what its committed answers took."""
    for name, usage in read_usage(store, manifest).items():
        price = _price(manifest, name, usage)
        mean = usage.seconds / max(1, usage.num_calls)
        yield (
            f"Endpoint {name}: {counted(usage.num_calls, 'answer')} with "
            f"{usage.prompt_tokens:,} tokens in and {usage.completion_tokens:,} out, {mean:.2f} s "
            f"each, asked again {counted(usage.num_retries, 'time')}"
            + ("" if price is None else f", price {price:,.4f}")
        )


def _price(manifest: RunManifest, name: str, usage: EndpointUsage) -> float | None:
    """In the currency of the config's prices; None: it names none."""
    execution = manifest.config.execution.endpoints.get(name)
    if execution is None or (execution.input_price, execution.output_price) == (None, None):
        return None
    of_input = (execution.input_price or 0.0) * usage.prompt_tokens
    return (of_input + (execution.output_price or 0.0) * usage.completion_tokens) / 1e6


def say_damage(damage: Mapping[int, str], terminal: Terminal) -> None:
    """Tell of damaged shards, the first few of them."""
    terminal.say(*islice(damage.values(), _NAMED))
    if len(damage) > _NAMED:
        terminal.say(f"... and {len(damage) - _NAMED:,} more")


def _next_command(store: Store, look: _Look) -> str:
    url = as_typed(store.url)
    if look.status.damage:
        return f"coppice repair {url} --shards {as_shards(look.status.damage)}"
    if look.damaged_plans:
        return f"coppice repair {url} --plan"
    if look.status.num_unplanned:
        return f"coppice verify {url}"
    if look.status.num_missing:
        return f"coppice run {url}"
    if look.status.num_dead:
        return f"coppice rerun {url}"
    telling = most_telling(
        row
        for shard in look.stock.committed()[:_TELLING_SHARDS]
        for row in current_rows(store, shard, columns=TELLING_COLUMNS)
    )
    if telling is None:
        return f"coppice show {url}"
    rollout = f" --rollout {telling['rollout_index']}" if telling["rollout_index"] else ""
    return f"coppice show {url} {telling['record_id']}{rollout}"
