"""Rays of several nodes on this machine, with logical GPUs. What ends them ends no other Ray."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

READY_SECONDS = 120


@contextmanager
def joined_cluster() -> Iterator[Cluster]:
    """This process on a Ray of a head that holds no actor. Nodes are added by the test."""
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def drain(cluster: Cluster, node: Any, seconds: float) -> None:
    """Give a node notice, as an autoscaler does whose spot node is about to be taken away."""
    from ray._raylet import GcsClient
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason

    deadline_ms = int((time.time() + seconds) * 1000)
    client = GcsClient(address=cluster.gcs_address)
    reason = DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION
    is_accepted, why = client.drain_node(node.node_id, reason, "taken away", deadline_ms)
    assert is_accepted, why


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started_head(
    *arguments: str,
    autoscaling: Callable[[str], Mapping[str, Any]] | None = None,
    **environment: str,
) -> Iterator[tuple["subprocess.Popen[bytes]", dict[str, str]]]:
    """`ray start --head --block` on loopback: its process, and the environment of its clients.

    `autoscaling` makes the config of an autoscaler from its address.
    """
    address = f"127.0.0.1:{free_port()}"
    client = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    client["RAY_ADDRESS"] = address
    folder = tempfile.mkdtemp(prefix="ray-")  # short: a socket's path holds 107 characters at most
    command = [
        str(Path(sys.executable).with_name("ray")),
        *("start", "--head", "--block", "--disable-usage-stats", "--include-dashboard=false"),
        f"--port={address.rpartition(':')[2]}",
        *("--node-ip-address=127.0.0.1", f"--temp-dir={folder}", *arguments),
    ]
    if autoscaling:
        config = Path(folder) / "cluster.yaml"
        config.write_text(json.dumps(autoscaling(address)))  # which is YAML, too
        command.append(f"--autoscaling-config={config}")
    kept = {name: value for name, value in client.items() if name != "RAY_ADDRESS"}
    with (Path(folder) / "log").open("w") as log:
        head = subprocess.Popen(
            command, env=kept | environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            _wait_for(head, Path(log.name))
            yield head, client
        finally:
            end_group(head)
            shutil.rmtree(folder, ignore_errors=True)


def end_group(head: "subprocess.Popen[bytes]") -> None:
    """End a head and all that it started: they are a process group of their own.

    Ray's own way to end takes half a minute, and nothing here is to be kept.
    """
    with suppress(ProcessLookupError):
        os.killpg(head.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        head.wait(2)
    with suppress(ProcessLookupError):
        os.killpg(head.pid, signal.SIGKILL)
    head.wait(30)


def pid_of(name: str, head: "subprocess.Popen[bytes]") -> int:
    """The process of this name in a head's group: `gcs_server` or `raylet`."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ProcessLookupError):
            program = (entry / "cmdline").read_bytes().split(b"\0")[0]
            if program.endswith(name.encode()) and os.getpgid(int(entry.name)) == head.pid:
                return int(entry.name)
    raise AssertionError(f"no {name} in the group of {head.pid}")


def _wait_for(head: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and head.poll() is None:
        if "Ray runtime started" in log.read_text():
            return
        time.sleep(0.1)
    raise RuntimeError(f"the Ray head did not come up:\n{log.read_text()}")
