"""What `coppice run` and `coppice rerun` do: make what is missing, try again what is dead."""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from jobs.cluster.heartbeat import DriverHeartbeat, DriverProgress, read_newest_progress
from jobs.commands.live.runs import progress_of
from jobs.commands.live.work import as_kept
from jobs.commands.shard_lists import as_shards
from jobs.commands.status import say_damage, say_status
from jobs.commands.stopping import Stop, hangups_held
from jobs.commands.terminal import ProgressLine, Terminal, as_typed, counted, duration
from pipeline.file_names import quoted
from pipeline.plan.reruns import OpenRerun, RerunSelection, choose, open_rerun
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.patient import patient_store
from pipeline.store.plans import read_manifest
from pipeline.store.status import keep_footers
from schemas.errors import DamagedObject, ExitCode
from schemas.runs import Key, RunManifest

if TYPE_CHECKING:
    from jobs.cluster.actors import ActorAddress
    from jobs.cluster.head_watch import HeadWatch
    from jobs.cluster.snapshot import Snapshot, Summary


def grow_run(
    url: str,
    manifest: RunManifest,
    terminal: Terminal,
    *,
    address: str | None,
    is_step: bool = False,
    gpu_hour_price: float | None = None,
) -> ExitCode:
    """Make what is missing of a planned run, on Ray. Returns how it ended.

    As a step of other work it says nothing of what could be done next.

    Raises DriverAlive while another driver is at work.
    """
    store = open_store(url)
    stock = keep_footers(store, manifest)
    if not stock.num_missing:
        terminal.say("Nothing is missing.")
        return say_status(store, manifest, terminal, is_step=is_step)

    beat_seconds = manifest.config.execution.beat_seconds
    try:
        with (
            Stop(terminal, f"coppice run {as_typed(store.url)}") as stop,
            DriverHeartbeat(patient_store(store, manifest), beat_seconds=beat_seconds) as heartbeat,
        ):
            is_damaged = _drive(
                store, manifest, terminal, stop, address=address, heartbeat=heartbeat
            )
    except KeyboardInterrupt:  # of Stop: what there is to say was said
        return ExitCode.INCOMPLETE
    manifest = read_manifest(store)
    code = say_status(store, manifest, terminal, is_step=is_step, gpu_hour_price=gpu_hour_price)
    return ExitCode.DAMAGED if is_damaged else code


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
    damage: dict[int, str] = {}  # what cannot be read is left out, and told of

    def note(shard: int, error: DamagedObject) -> None:
        damage[shard] = str(error)

    if is_dry:
        terminal.say(_describe_keys(choose(store, manifest, selection, note)))
        say_damage(damage, terminal)
        return ExitCode.DAMAGED if damage else ExitCode.COMPLETE
    opened = open_rerun(store, manifest, selection, note)
    say_damage(damage, terminal)
    if opened is None:
        terminal.say("Nothing to rerun: no such rollout is dead.")
        code = say_status(store, manifest, terminal)
        return ExitCode.DAMAGED if damage else code
    verb = "Goes on with" if opened.is_resumed else "Begins"
    terminal.say(f"{verb} rerun {opened.rerun.rerun_id}. {_describe_keys(opened.left)}")
    try:
        with Stop(terminal, _rerun_command(store, selection)) as stop:
            is_damaged = _drive(store, manifest, terminal, stop, address=address, rerun=opened)
            code = say_status(store, read_manifest(store), terminal)
            return ExitCode.DAMAGED if damage or is_damaged else code
    except KeyboardInterrupt:  # of Stop: what there is to say was said
        return ExitCode.INCOMPLETE


def _drive(
    store: Store,
    manifest: RunManifest,
    terminal: Terminal,
    stop: Stop,
    *,
    address: str | None,
    rerun: OpenRerun | None = None,
    heartbeat: DriverHeartbeat | None = None,
) -> bool:
    """Grow on Ray until all is settled that is planned by then, and say what came of it. Returns
    whether a shard was given up on since an object of it is damaged.
    """
    with ExitStack() as stack:
        line = stack.enter_context(terminal.progress("starting Ray"))
        from jobs.cluster.connect import on_ray
        from jobs.cluster.driver import Driver
        from jobs.cluster.footer_keeper import FooterKeeper
        from jobs.cluster.serving.fleet import served

        with hangups_held():
            stack.enter_context(on_ray(address))
        stack.enter_context(stop.committing())
        line.doing("starting actors and loading models")
        show = _Shown(store, manifest, line, heartbeat)
        watch = _watch_head(terminal, line, stop, heartbeat)
        is_head_there = stack.enter_context(watch.watching()).is_there if watch else lambda: True
        servers = served(
            manifest.config, manifest.run_id, is_local=address is None, note=terminal.say
        )
        fleet = stack.enter_context(servers)
        if fleet:
            fleet.wait(stop.is_asked)
        publish = _Places(terminal, heartbeat, is_told=address is not None)
        while True:
            driver = Driver(
                store,
                manifest,
                show=show,
                is_stopping=stop.is_asked,
                note=terminal.say,
                publish=publish,
                is_head_there=is_head_there,
                rerun=rerun,
                fleet=fleet,
            )
            with FooterKeeper(store, manifest):
                summary = driver.run()
            show.end(summary.snapshot)
            _say_grown(summary, terminal)
            num_driven, manifest = manifest.num_shards, _as_planned_now(store, manifest)
            is_more = manifest.num_shards > num_driven
            if rerun or summary.was_stopped or summary.given_up or not is_more:
                return summary.is_damaged
            terminal.say(
                f"The plan was extended meanwhile, to {counted(manifest.num_shards, 'shard')}."
            )


def _watch_head(
    terminal: Terminal, line: ProgressLine, stop: Stop, heartbeat: DriverHeartbeat | None
) -> "HeadWatch | None":
    """What ends this process when Ray's head is gone; None where nobody tells where the head is."""
    from jobs.cluster.head_watch import HeadWatch
    from jobs.cluster.ray_state import head_address

    def end(silent_seconds: float) -> None:
        line.stop()
        terminal.say(
            f"Ray's head has not answered for {silent_seconds:.0f} s: it is gone, and the actors "
            f"with it. What is committed stays. Next: {stop.next_command}"
        )
        if heartbeat:
            heartbeat.say_over()
        os._exit(ExitCode.INCOMPLETE)  # the main thread may wait in Ray for what never comes

    address = head_address()
    return HeadWatch(address, end) if address else None


class _Shown:
    """Shows every snapshot of a driver: on the terminal, in Ray's metrics, on the store."""

    def __init__(
        self,
        store: Store,
        manifest: RunManifest,
        line: ProgressLine,
        heartbeat: DriverHeartbeat | None,
    ) -> None:
        from jobs.cluster.metrics import RunMetrics

        self._line = line
        self._heartbeat = heartbeat
        self._execution = manifest.config.execution
        self._metrics = RunMetrics(manifest.run_id)
        self._before = read_newest_progress(store) if heartbeat else None

    def __call__(self, snapshot: "Snapshot") -> None:
        if self._heartbeat:
            self._heartbeat.check()
            self._heartbeat.tell(self._kept(snapshot))
        self._metrics.tell(snapshot)
        if snapshot.num_actors or snapshot.num_new:
            self._line.show(progress_of(snapshot))
        elif snapshot.waiting:
            self._line.doing(snapshot.waiting)

    def end(self, snapshot: "Snapshot") -> None:
        """Show the last one of a driver; another one may follow."""
        self(snapshot)
        self._before = self._kept(snapshot)

    def _kept(self, snapshot: "Snapshot") -> DriverProgress:
        rate = self._line.per_second
        return as_kept(snapshot, self._execution, per_second=rate, before=self._before)


class _Places:
    """Tells where actors are: on the store for others, and in the log of a run on a cluster."""

    def __init__(
        self, terminal: Terminal, heartbeat: DriverHeartbeat | None, *, is_told: bool
    ) -> None:
        self._terminal = terminal
        self._heartbeat = heartbeat
        self._is_told = is_told
        self._known: set[ActorAddress] = set()

    def __call__(self, addresses: "Sequence[ActorAddress]") -> None:
        if self._heartbeat:
            self._heartbeat.publish(map(str, addresses))
        if self._is_told:
            new = [address for address in addresses if address not in self._known]
            self._terminal.say(*(f"Actor on {address}." for address in new))
        self._known = set(addresses)


def _say_grown(summary: "Summary", terminal: Terminal) -> None:
    for shard, message in summary.given_up.items():
        terminal.say(*f"Gave up on shard {shard}: {message}".split("\n"))
    grown = summary.snapshot
    terminal.say(
        f"Grew {counted(grown.num_new, 'rollout')} in {duration(grown.growing_seconds)}: "
        f"{grown.rollouts_per_second:.2f} rollouts per second."
    )


def _as_planned_now(store: Store, manifest: RunManifest) -> RunManifest:
    """The run with the parts that were added meanwhile, and the execution asked for."""
    return manifest.model_copy(update={"extensions": read_manifest(store).extensions})


def _describe_keys(keys_by_shard: Mapping[int, Sequence[Key]]) -> str:
    num_keys = sum(len(keys) for keys in keys_by_shard.values())
    shards = f" (shards {as_shards(keys_by_shard)})" if keys_by_shard else ""
    return f"{counted(num_keys, 'dead rollout')} to try again{shards}."


def _rerun_command(store: Store, selection: RerunSelection) -> str:
    """The command that goes on with a rerun."""
    words = [word for reason in selection.reasons for word in ("--reason", reason)]
    words += ["--shards", as_shards(selection.shards)] if selection.shards else []
    words += [word for record in selection.records for word in ("--record", record)]
    return " ".join(["coppice rerun", as_typed(store.url), *map(quoted, words)])
