"""What `coppice status` says, and what every run and rerun says when it ends."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from jobs.cluster.heartbeat import DriverNote, read_newest_driver
from jobs.commands.shard_lists import as_shards
from jobs.commands.terminal import Terminal, as_typed, counted, size
from pipeline.store.layout import TRACES
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.plans import damaged_plans, read_manifest, read_plan_shard
from pipeline.store.status import RunStatus, read_status, read_usage
from schemas.errors import ExitCode
from schemas.runs import EndpointUsage, RunManifest

_NAMED = 5  # of many damaged shards


def show_status(url: str, terminal: Terminal, *, as_json: bool) -> ExitCode:
    """Print how far a run is. Returns the exit code that `coppice run` would end with."""
    store = open_store(url)
    manifest = read_manifest(store)
    driver = read_newest_driver(store)
    if not as_json:
        _say_driver(driver, terminal)
        return say_status(store, manifest, terminal)
    look = _look(store, manifest)
    more = {
        "num_missing": look.status.num_missing,
        "damaged_plans": look.damaged_plans,
        "fingerprint": manifest.fingerprint,
        "exit_code": look.code.value,
        "driver": driver and {**driver[0].model_dump(), "actors": [*driver[1]]},
        "endpoints": {
            name: usage.model_dump() | {"price": _price(manifest, name, usage)}
            for name, usage in read_usage(store, manifest).items()
        },
    }
    terminal.say_json(look.status.model_dump(mode="json") | more)
    return look.code


@dataclass(frozen=True, kw_only=True, slots=True)
class _Look:
    """What is on storage."""

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
    status = read_status(store, manifest)
    if status.num_unplanned:  # by a part that was added meanwhile, perhaps
        manifest = read_manifest(store)
        status = read_status(store, manifest)
    plans = {} if status.num_missing else damaged_plans(store, manifest)
    return _Look(status=status, damaged_plans=plans)


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
    """Say what is on storage and what to do next. Nothing is called complete that is damaged."""
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
    if status.num_committed:
        traces = f"{as_typed(store.url)}/{TRACES}/*.parquet"
        terminal.say(f"Traces: {traces}, {size(status.num_bytes)}")
    terminal.say(*_describe_endpoints(store, manifest))
    terminal.say(f"Next: {_next_command(store, manifest, look)}")
    return look.code


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


def _next_command(store: Store, manifest: RunManifest, look: _Look) -> str:
    url = as_typed(store.url)
    if look.status.damage:
        return f"coppice repair {url} --shards {as_shards(look.status.damage)}"
    if look.damaged_plans:
        return f"coppice repair {url} --plan"
    if look.status.num_unplanned:
        return f"coppice verify {url}"
    if look.status.num_missing:
        return f"coppice run {url}"
    record_id = read_plan_shard(store, manifest, 0)[0].record_id
    return f"coppice show {url} {record_id}"
