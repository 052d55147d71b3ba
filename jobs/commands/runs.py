"""What `coppice run` and `coppice rerun` do: make what is missing, try again what is dead."""

import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Self

from jobs.cluster.heartbeat import DriverHeartbeat
from jobs.commands.shard_lists import as_shards
from jobs.commands.status import say_status
from jobs.commands.terminal import Terminal, counted, duration
from pipeline.plan.reruns import OpenRerun, RerunSelection, choose, open_rerun
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.patient import patient_store
from pipeline.store.status import keep_footers
from schemas.errors import ExitCode
from schemas.runs import Key, RunManifest

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def grow_run(
    url: str, manifest: RunManifest, terminal: Terminal, *, address: str | None
) -> ExitCode:
    """Make what is missing of a planned run, on Ray. Returns how it ended.

    Raises DriverAlive while another driver is at work.
    """
    store = open_store(url)
    stock = keep_footers(store, manifest)
    if stock.num_ok + stock.num_dead == manifest.num_rollouts:
        terminal.say("Nothing is missing.")
        return say_status(store, manifest, terminal)

    beat_seconds = manifest.config.execution.beat_seconds
    with DriverHeartbeat(patient_store(store, manifest), beat_seconds=beat_seconds) as heartbeat:
        _drive(store, manifest, terminal, address=address, check=heartbeat.check)
    return say_status(store, manifest, terminal)


def rerun_dead(
    url: str,
    manifest: RunManifest,
    selection: RerunSelection,
    terminal: Terminal,
    *,
    address: str | None,
    is_dry: bool = False,
) -> ExitCode:
    """Try dead rollouts of a run again, on Ray. Returns how it ended."""
    store = open_store(url)
    if is_dry:
        terminal.say(_describe_keys(choose(store, manifest, selection)))
        return ExitCode.COMPLETE
    opened = open_rerun(store, manifest, selection)
    if opened is None:
        terminal.say("Nothing to rerun: no such rollout is dead.")
        return say_status(store, manifest, terminal)
    verb = "Goes on with" if opened.is_resumed else "Begins"
    terminal.say(f"{verb} rerun {opened.rerun.rerun_id}. {_describe_keys(opened.left)}")
    _drive(store, manifest, terminal, address=address, rerun=opened)
    return say_status(store, manifest, terminal)


def _drive(
    store: Store,
    manifest: RunManifest,
    terminal: Terminal,
    *,
    address: str | None,
    rerun: OpenRerun | None = None,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Grow on Ray until all is settled, and say what came of it."""
    from jobs.cluster.connect import on_ray
    from jobs.cluster.driver import Driver
    from jobs.cluster.footer_keeper import FooterKeeper
    from jobs.cluster.snapshot import Snapshot

    with (
        FooterKeeper(store, manifest),
        on_ray(address),
        _Stop(terminal) as stop,
        terminal.progress() as line,
    ):

        def show(snapshot: Snapshot) -> None:
            check()
            line.show(snapshot)

        driver = Driver(store, manifest, show=show, is_stopping=stop.is_asked, rerun=rerun)
        summary = driver.run()
    for shard, message in summary.given_up.items():
        terminal.say(*f"Gave up on shard {shard}: {message}".split("\n"))
    grown = summary.snapshot
    terminal.say(
        f"Grew {counted(grown.num_new, 'rollout')} in {duration(grown.growing_seconds)}: "
        f"{grown.rollouts_per_second:.2f} rollouts per second."
    )


def _describe_keys(keys_by_shard: Mapping[int, Sequence[Key]]) -> str:
    num_keys = sum(len(keys) for keys in keys_by_shard.values())
    shards = f" (shards {as_shards(keys_by_shard)})" if keys_by_shard else ""
    return f"{counted(num_keys, 'dead rollout')} to try again{shards}."


class _Stop:
    """The first Ctrl-C, SIGTERM or drain notice asks; the second one ends the process at once."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
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
        self._terminal.say("Stopping: committing what is nearly done. Once more to stop at once.")
