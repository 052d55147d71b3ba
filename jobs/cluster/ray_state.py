"""What a Ray says of itself. The only module that reads what Ray keeps in private modules.

Each such reading has an answer for a Ray that has it elsewhere, or not at all: nothing is draining,
no node type is known.
"""

import importlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import grpc
import ray
import yaml
from ray.exceptions import RayError

from jobs.cluster.placement import Cluster, Node, NodeType, Resources
from schemas.json_values import JsonMapping, JsonObject, JsonValue

_HEAD = "node:__internal_head__"
_MONITOR = "--autoscaling-config="  # how Ray's monitor, on the head, is told of its node types
_ANSWER_SECONDS = 3.0
_UNTOLD = (
    *(ImportError, AttributeError),  # private: an older or newer Ray may not have it; nor ray://
    *(RayError, RuntimeError, OSError, grpc.RpcError),  # a head that is gone, a Ray that is not up
)

Autoscaler: TypeAlias = tuple[tuple[NodeType, ...] | None, int | None]
"""The node types that can be brought, None if nobody tells; and how many nodes of all of them."""


def read_cluster(autoscaler: Autoscaler, *, with_free: bool) -> Cluster:
    """The nodes that are alive now, beside what the autoscaler can bring. Asks Ray's head."""
    draining = draining_nodes()
    nodes = tuple(
        Node(
            node_id=node["NodeID"],
            name=node["NodeManagerHostname"],
            resources=node["Resources"],
            is_head=_HEAD in node["Resources"],
            is_draining=node["NodeID"] in draining,
        )
        for node in ray.nodes()
        if node["Alive"]
    )
    node_types, max_nodes = autoscaler
    free: Resources | None = ray.available_resources() if with_free else None
    return Cluster(nodes=nodes, node_types=node_types, max_nodes=max_nodes, free=free)


def living_nodes() -> set[str]:
    """Ray's ids of the nodes that its head believes alive."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def draining_nodes() -> set[str]:
    """Ray's ids of the nodes that were given notice. Nobody tells an actor."""
    with suppress(*_UNTOLD):
        from ray._private.state import state

        return set(state.get_draining_nodes())
    return set()


def own_node() -> str:
    """Ray's id of the node that this process is attached to; empty if it is attached to none."""
    with suppress(*_UNTOLD):
        return str(ray.get_runtime_context().get_node_id())
    return ""


def own_address() -> str:
    """The address at which other nodes reach this one."""
    return str(ray.util.get_node_ip_address())


def head_address() -> str | None:
    """Where the head of this Ray keeps the cluster's state; None where that is not told."""
    with suppress(*_UNTOLD):
        return str(ray.get_runtime_context().gcs_address)
    return None


def is_head_answering(address: str) -> bool:
    """Whether the head's store of cluster state answers, within a few seconds or not at all."""
    try:
        client = importlib.import_module("ray._raylet").GcsClient(address=address)
        client.internal_kv_get(b"session_name", b"session", timeout=_ANSWER_SECONDS)
    except _UNTOLD:
        return False
    return True


def node_types_of(config: JsonMapping) -> Autoscaler:
    """The node types of an autoscaler's config, without the head's, and how many nodes at most."""
    most, head = config.get("max_workers"), config.get("head_node_type")
    max_nodes = most if isinstance(most, int) else None
    kinds = config.get("available_node_types")
    return (
        tuple(
            _node_type(name, kind, max_nodes)
            for name, kind in (kinds.items() if isinstance(kinds, dict) else ())
            if isinstance(kind, dict) and name != head
        ),
        max_nodes,
    )


def _node_type(name: str, kind: JsonMapping, max_nodes: int | None) -> NodeType:
    resources, most = kind.get("resources"), kind.get("max_workers", max_nodes)
    amounts = resources.items() if isinstance(resources, dict) else ()
    return NodeType(
        name=name,
        resources={
            key: float(amount) for key, amount in amounts if isinstance(amount, int | float)
        },
        max_nodes=most if isinstance(most, int) else 0,
    )


def read_autoscaler() -> Autoscaler:
    """What Ray's head was told, or what stands in the autoscaler's config if this is its machine.

    Reads a file and every process of this machine: not for every look.
    """
    with suppress(*_UNTOLD):
        from ray._private.state import state

        if (config := state.get_cluster_config()) and config.node_group_configs:
            return tuple(
                NodeType(
                    name=group.name,
                    resources={key: float(amount) for key, amount in group.resources.items()},
                    max_nodes=group.max_count if group.max_count >= 0 else 10**6,
                )
                for group in config.node_group_configs
            ), None
    with suppress(OSError, yaml.YAMLError):
        for path in _autoscaler_configs(head_address()):
            loaded: JsonValue = yaml.safe_load(path.read_text())
            if isinstance(loaded, dict) and "available_node_types" in loaded:
                config_file: JsonObject = loaded
                return node_types_of(config_file)
    return None, None


def _autoscaler_configs(address: str | None) -> Iterator[Path]:
    """What the monitor of this Ray was given to read, if it runs on this machine."""
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if f"--gcs-address={address}" not in words:
            continue
        for word in words:
            if word.startswith(_MONITOR):
                yield Path(os.path.expanduser(word.removeprefix(_MONITOR)))
