"""The Ray actor: a process with one set of models, pinned to its GPUs. It adds only the place."""

import os
import socket
from typing import Any

import ray

from pipeline.backends import open_backends
from pipeline.store.objects import open_store
from pipeline.store.plans import read_manifest
from pipeline.worker import Worker
from schemas.errors import InputError
from schemas.runs import Assignment, Pulse, RunManifest, ShardReport


class RolloutActor:
    """Grows shards of one run. Its methods run on threads of their own, one an open shard."""

    def __init__(self, url: str, manifest: RunManifest) -> None:
        self._url = url
        self._manifest = manifest
        self._worker: Worker | None = None

    def open(self) -> str:
        """Check that this node sees the run, then load the models; the node's id for Ray.

        Raises InputError.
        """
        store = open_store(self._url)
        there = read_manifest(store)
        if there.run_id != self._manifest.run_id:
            raise InputError(
                f"on node {socket.gethostname()}, {self._url} holds run {there.run_id}, not "
                f"{self._manifest.run_id}: give a path that all nodes share, or an s3:// URL"
            )
        opened = open_backends(self._manifest.config)
        name = f"{socket.gethostname()}/{os.getpid()}"
        self._worker = Worker(store, self._manifest, opened, name=name)
        node_id: str = ray.get_runtime_context().get_node_id()
        return node_id

    def run_shard(self, assignment: Assignment) -> ShardReport:
        """Grow and commit one shard. Blocks; see `Worker.run_shard`."""
        assert self._worker is not None, "open() comes first"
        return self._worker.run_shard(assignment)

    def pulse(self) -> Pulse:
        """How it is doing."""
        return self._worker.pulse() if self._worker else Pulse()


def start_actor(url: str, manifest: RunManifest, *, on_gpu: bool) -> Any:
    """Ask Ray for an actor. It never restarts by itself: the driver must know of every death."""
    execution = manifest.config.execution
    options: dict[str, Any] = {
        "num_cpus": execution.cpus_per_actor,
        "num_gpus": execution.gpus_per_actor if on_gpu else 0,
        "max_restarts": 0,
        "max_concurrency": execution.open_shards_per_actor + 1,  # and pulse()
    }
    return ray.remote(RolloutActor).options(**options).remote(url, manifest)
