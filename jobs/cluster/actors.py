"""The Ray actor: a process with one set of models, pinned to its GPUs. It adds only the place."""

import os
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.engine.backends import open_backends
from pipeline.rollout.worker import Worker
from pipeline.store.open import open_store
from pipeline.store.patient import patient_store
from pipeline.store.plans import read_manifest
from schemas.errors import InputError
from schemas.runs import Assignment, RunManifest, ShardReport, WorkerStatus


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where an actor is."""

    node_id: str  # Ray's
    pid: int


class RolloutActor:
    """Grows shards of one run. Its methods run on threads of their own, one an open shard."""

    def __init__(self, url: str, manifest: RunManifest) -> None:
        self._url = url
        self._manifest = manifest
        self._worker: Worker | None = None

    def open(self) -> Place:
        """Check that this node sees the run, then load the models. Raises InputError."""
        store = open_store(self._url)
        seen = read_manifest(patient_store(store, self._manifest))
        if seen.run_id != self._manifest.run_id:
            raise InputError(
                f"on node {socket.gethostname()}, {self._url} holds run {seen.run_id}, not "
                f"{self._manifest.run_id}: give a path that all nodes share, or an s3:// URL"
            )
        opened = open_backends(self._manifest.config)
        name = f"{socket.gethostname()}/{os.getpid()}"
        self._worker = Worker(store, self._manifest, opened, name=name)
        return Place(node_id=ray.get_runtime_context().get_node_id(), pid=os.getpid())

    def run_shard(self, assignment: Assignment) -> ShardReport:
        """Grow and commit one shard. Blocks; see `Worker.run_shard`."""
        assert self._worker is not None, "open() comes first"
        return self._worker.run_shard(assignment)

    def status(self) -> WorkerStatus:
        """How it is doing."""
        return self._worker.status() if self._worker else WorkerStatus()


def start_actor(url: str, manifest: RunManifest, *, on_gpu: bool) -> Any:
    """Ask Ray for an actor. It never restarts by itself: the driver must know of every death."""
    execution = manifest.config.execution
    options: dict[str, Any] = {
        "num_cpus": execution.cpus_per_actor,
        "num_gpus": execution.gpus_per_actor if on_gpu else 0,
        "max_restarts": 0,
        "max_concurrency": execution.open_shards_per_actor + 1,  # and status()
    }
    return ray.remote(RolloutActor).options(**options).remote(url, manifest)


def end_actor(handle: Any, place: Place | None) -> None:
    """End an actor's process, also one that is frozen and hears nothing.

    Such a process would keep its GPU, so it gets a SIGKILL from a task on its own node.
    """
    ray.kill(handle)
    if place:
        there = NodeAffinitySchedulingStrategy(place.node_id, soft=False)
        ray.remote(_end_process).options(num_cpus=0, scheduling_strategy=there).remote(place.pid)


def _end_process(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
