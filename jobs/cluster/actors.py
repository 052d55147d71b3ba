"""The Ray actor, and what the driver knows of one.

`RolloutActor` is a process with one set of models, pinned to its GPUs; it adds to a `Worker` only
where it is. `RemoteActor` is the driver's end of it: first it has no place, then a place and no
models, then it is ready; and it is leaving when it is to take nothing new any more.
"""

import math
import os
import signal
import socket
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from jobs.cluster.metrics import WorkMetrics
from pipeline.engine.backends import open_backends
from pipeline.engine.soundness import Device
from pipeline.rollout.meter import Meter, Phase
from pipeline.rollout.worker import Worker
from pipeline.store.open import open_store
from pipeline.store.patient import patient_store
from pipeline.store.plans import read_manifest
from schemas.config import RunConfig
from schemas.errors import InputError
from schemas.runs import Assignment, Ends, RunManifest, ShardReport, Wait, WorkerStatus

_ASK_SECONDS = 2.0  # between two questions how an actor is doing

Handle: TypeAlias = Any
"""Ray's handle of a `RolloutActor`, which makes its methods up: `handle.status.remote()`."""

Reference: TypeAlias = ray.ObjectRef[Any]
"""What an actor's call will answer: an address, a status or a report."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ActorAddress:
    """The process that an actor runs in, and what it was given there."""

    node_id: str  # Ray's
    host: str
    pid: int
    gpus: tuple[str, ...]  # as Ray numbers them on that node; a shared one has several actors

    def __str__(self) -> str:
        on = f"GPU {' and '.join(self.gpus)}" if self.gpus else "CPU"
        return f"{self.host} (node {self.node_id[:8]}, process {self.pid}), {on}"


class RolloutActor:
    """Grows shards of one run. Its methods run on threads of their own, one an open shard."""

    def __init__(
        self, url: str, manifest: RunManifest, device: Device, keys: Mapping[str, str]
    ) -> None:
        """`device` is what the driver decided on: no actor guesses it. `keys` are those that were
        made for the run's own servers, by the variables that the config names.
        """
        os.environ.update(keys)
        self._url = url
        self._manifest = manifest
        self._device = device
        self._worker: Worker | None = None
        self._meter = Meter(device)
        self._metrics = WorkMetrics(manifest.run_id)

    def where(self) -> ActorAddress:
        """Answers as soon as Ray found a place for it."""
        context = ray.get_runtime_context()
        return ActorAddress(
            node_id=context.get_node_id(),
            host=socket.gethostname(),
            pid=os.getpid(),
            gpus=tuple(context.get_accelerator_ids().get("GPU", ())),
        )

    def open(self) -> None:
        """Check that this node sees the run, then load the models on the device decided on.

        Raises InputError.
        """
        store = open_store(self._url)
        seen = read_manifest(patient_store(store, self._manifest))
        if seen.run_id != self._manifest.run_id:
            raise InputError(
                f"on node {socket.gethostname()}, {self._url} holds run {seen.run_id}, not "
                f"{self._manifest.run_id}: give a path that all nodes share, or an s3:// URL"
            )
        with self._meter.timing(Phase.LOAD):
            loaded = open_backends(self._manifest.config, device=self._device)
        name = f"{socket.gethostname()}/{os.getpid()}"
        self._worker = Worker(store, self._manifest, loaded, name=name, meter=self._meter)

    def run_shard(self, assignment: Assignment) -> ShardReport:
        """Do what is assigned. Blocks; see `Worker.run_shard`."""
        assert self._worker is not None, "open() comes first"
        return self._worker.run_shard(assignment)

    def status(self) -> WorkerStatus:
        """How it is doing, which its metrics are told, too."""
        status = self._worker.status() if self._worker else WorkerStatus()
        self._metrics.tell(status)
        return status


@dataclass(slots=True, eq=False)
class RemoteActor:
    """An actor as its driver knows it: what it was asked, and what it said last."""

    handle: Handle
    opening: Reference | None  # None: its models are loaded
    placing: Reference | None = None  # None: it has a place
    device: Device = "cpu"
    config: RunConfig | None = None  # that it was started with
    started_at: float = 0.0  # on the driver's clock
    shunned: frozenset[str] = frozenset()  # Ray's ids of nodes that it is not to be placed on
    asking: Reference | None = None  # how it is doing
    asked_at: float = -math.inf  # on the driver's clock
    growing: dict[Reference, Assignment] = field(default_factory=dict)
    address: ActorAddress | None = None
    ends: Mapping[str, Ends] = field(default_factory=dict)  # as it told last, by attempt id
    store_wait: Wait | None = None  # None: it does not wait for the store
    endpoints_away: tuple[str, ...] = ()
    leaving_by: float | None = None  # on the driver's clock; None: it may take shards

    @property
    def is_ready(self) -> bool:
        return self.opening is None

    @property
    def is_placed(self) -> bool:
        return self.placing is None

    @property
    def is_leaving(self) -> bool:
        return self.leaving_by is not None

    @property
    def node_id(self) -> str:
        """Ray's; empty: the actor did not say where it is."""
        return self.address.node_id if self.address else ""

    @property
    def open_shards(self) -> list[Assignment]:
        return list(self.growing.values())

    @property
    def open_ends(self) -> Ends:
        """How rollouts ended there, in shards that are open."""
        told = (self.ends.get(assignment.attempt.attempt_id) for assignment in self.open_shards)
        return sum(filter(None, told), Ends())

    def references(self) -> list[Reference]:
        """All that it has not answered."""
        asked = (self.placing, self.opening, self.asking, *self.growing)
        return [reference for reference in asked if reference is not None]

    def has_room(self, max_open_shards: int) -> bool:
        """Whether it can take a shard. One that takes a shard alone has no room for others."""
        is_alone = any(assignment.attempt.is_alone for assignment in self.open_shards)
        is_free = self.is_ready and not self.is_leaving and not is_alone
        return is_free and len(self.growing) < max_open_shards

    def hand(self, assignment: Assignment) -> None:
        """Have it do what is assigned."""
        self.growing[self.handle.run_shard.remote(assignment)] = assignment

    def ask(self, now: float) -> None:
        """Ask how it is doing, now and then, unless its models are not loaded."""
        is_due = self.asking is None and now - self.asked_at >= _ASK_SECONDS
        if self.is_ready and is_due:
            self.asking, self.asked_at = self.handle.status.remote(), now

    def silent_seconds(self, now: float) -> float:
        """For how long it has not said how it is doing."""
        return now - self.asked_at if self.asking else 0.0

    def note_status(self, status: WorkerStatus) -> None:
        self.asking = None
        self.ends, self.store_wait = status.ends, status.store_wait
        self.endpoints_away = status.endpoints_away

    def end(self) -> None:
        """End its process, also one that is frozen and hears nothing.

        Such a process would keep its GPU, so it gets a SIGKILL from a task on its own node.
        """
        ray.kill(self.handle)
        if self.address:
            on_its_node = NodeAffinitySchedulingStrategy(self.address.node_id, soft=False)
            kill = ray.remote(_end_process).options(num_cpus=0, scheduling_strategy=on_its_node)
            kill.remote(self.address.pid)

    def drop(self) -> None:
        """Have Ray end it, or ask no more for a place for it."""
        ray.kill(self.handle)


def start_actor(
    url: str,
    manifest: RunManifest,
    *,
    device: Device,
    need: Mapping[str, float],
    shunned: Collection[str] = (),
    keys: Mapping[str, str] = MappingProxyType({}),
) -> RemoteActor:
    """Ask Ray for an actor that computes on this device, and is given it by Ray.

    `need` is what it takes of its node, which is none of those that are shunned. It never restarts
    by itself: the driver must know of every death. `keys` are as an actor has them.
    """
    others = {name: amount for name, amount in need.items() if name not in ("CPU", "GPU")}
    elsewhere = {"ray.io/node-id": f"!in({','.join(sorted(shunned))})"} if shunned else None
    handle: Handle = (
        ray.remote(RolloutActor)
        .options(
            num_cpus=need["CPU"],
            num_gpus=need.get("GPU", 0),
            resources=others or None,
            label_selector=elsewhere,
            scheduling_strategy="SPREAD",  # a lost node costs as few actors as can be
            max_restarts=0,
            max_concurrency=manifest.config.execution.open_shards_per_actor + 1,  # and status()
        )
        .remote(url, manifest, device, dict(keys))
    )
    return RemoteActor(
        handle,
        placing=handle.where.remote(),
        opening=handle.open.remote(),
        device=device,
        config=manifest.config,
        shunned=frozenset(shunned),
    )


def _end_process(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
