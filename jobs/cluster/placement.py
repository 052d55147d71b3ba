"""How many actors a cluster holds, how many there should be, and what they wait for.

Pure: what Ray says of itself comes in as a `Cluster`, and no clock is read.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from pipeline.engine.soundness import Device
from schemas.config import ExecutionConfig

Resources: TypeAlias = Mapping[str, float]
"""Amounts by Ray's names: CPU, GPU, or a name that the cluster made up."""

_TINY = 1e-6  # Ray counts in steps of 0.0001
_ROUNDED = 0.0001


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A node that is alive."""

    node_id: str  # Ray's
    name: str  # of its machine, for people
    resources: Resources  # all that it has, in use or not
    is_head: bool = False
    is_draining: bool = False  # it is about to go, and takes nothing new


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeType:
    """What an autoscaler can bring."""

    name: str
    resources: Resources
    max_nodes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """What a Ray has, and what its autoscaler can bring."""

    nodes: tuple[Node, ...]
    node_types: tuple[NodeType, ...] | None = None  # None: Ray does not tell
    max_nodes: int | None = None  # of all types together
    free: Resources | None = None  # of all nodes; None: not known
    taken: Mapping[str, Resources] = field(default_factory=dict)  # by others, of nodes by their ids

    def left_on(self, node: Node) -> Resources:
        """What a node has beside what others took of it for as long as the run lasts."""
        taken = self.taken.get(node.node_id, {})
        return {name: all_ - taken.get(name, 0.0) for name, all_ in node.resources.items()}


def decide_device(execution: ExecutionConfig, cluster: Cluster, before: Device | None) -> Device:
    """What actors compute on. `auto` means GPUs once there are some, or can be; and for good."""
    if execution.device != "auto":
        return execution.device
    kinds = [node.resources for node in cluster.nodes]
    kinds += [kind.resources for kind in cluster.node_types or () if kind.max_nodes > 0]
    has_gpus = any(resources.get("GPU", 0) > 0 for resources in kinds)
    return "gpu" if has_gpus or before == "gpu" else "cpu"


def need_of(execution: ExecutionConfig, device: Device) -> dict[str, float]:
    """What one actor takes of its node."""
    gpus = {"GPU": execution.gpus_per_actor} if device == "gpu" else {}
    return {**gpus, "CPU": execution.cpus_per_actor, **execution.resources}


def num_fitting(need: Resources, resources: Resources) -> int:
    """How many actors a node with these resources holds. A share of a GPU is of one GPU."""
    return min(
        (
            _num_shares(amount, resources.get(name, 0.0), is_whole=name == "GPU")
            for name, amount in need.items()
            if amount > 0
        ),
        default=0,
    )


def num_held(need: Resources, cluster: Cluster, left_alone: Collection[str] = ()) -> int:
    """How many actors the nodes hold that there are, without those that are left alone."""
    return sum(num_fitting(need, cluster.left_on(node)) for node in usable(cluster, left_alone))


def usable(cluster: Cluster, left_alone: Collection[str] = ()) -> list[Node]:
    """The nodes that new actors may go to."""
    return [
        node for node in cluster.nodes if not node.is_draining and node.node_id not in left_alone
    ]


def num_reachable(need: Resources, cluster: Cluster) -> int | None:
    """How many actors there can be once the autoscaler brought all it may; None: nobody tells."""
    if cluster.node_types is None:
        return None
    fitting = sorted(
        ((num_fitting(need, kind.resources), kind.max_nodes) for kind in cluster.node_types),
        reverse=True,
    )
    num_left = math.inf if cluster.max_nodes is None else cluster.max_nodes
    total = sum(num_fitting(need, node.resources) for node in cluster.nodes if node.is_head)
    total -= sum(
        num_fitting(need, node.resources) - num_fitting(need, cluster.left_on(node))
        for node in cluster.nodes
    )
    for num_actors, max_nodes in fitting:
        num_nodes = int(min(max_nodes, num_left))
        num_left -= num_nodes
        total += num_actors * num_nodes
    return max(total, num_held(need, cluster))


def num_wanted(
    need: Resources,
    cluster: Cluster,
    execution: ExecutionConfig,
    *,
    num_shards: int,
    left_alone: Collection[str] = (),
) -> int:
    """How many actors there should be for so many shards that are not settled.

    As many as there is room for now, and as an autoscaler can make room for; where nobody tells how
    much that is, as many as were asked for. At least one, so that something waits for the first
    node; and never more than shards, or than were asked for.
    """
    most = execution.num_actors
    reachable = num_reachable(need, cluster)
    asked_for = (most or 0) if reachable is None else reachable
    wanted = max(num_held(need, cluster, left_alone), asked_for, execution.min_actors or 1)
    return min(wanted, num_shards, wanted if most is None else most)


def ruled_out(need: Resources, cluster: Cluster) -> str | None:
    """Why no node that there is or can be holds an actor; None: one may, or nobody tells."""
    if cluster.node_types is None or num_held(need, cluster) or num_reachable(need, cluster):
        return None
    kinds = "; ".join(
        f"{kind.name} (at most {_counted(kind.max_nodes, 'node')}) has {_listed(kind.resources)}"
        for kind in cluster.node_types
    )
    return (
        f"an actor needs {_listed(need)}, which no node of this Ray has and none of its "
        f"autoscaler's node types: {kinds}"
    )


def waits_for(
    need: Resources, cluster: Cluster, num_waiting: int, *, may_be_starting: bool = False
) -> str:
    """`waiting for 2 GPUs: this Ray has 0`, for so many actors without a place.

    Ray counts as used what it gave to an actor whose process is only being started.
    """
    standing = [cluster.left_on(node) for node in cluster.nodes if not node.is_draining]
    lacking = [
        name
        for name, amount in need.items()
        if max((resources.get(name, 0.0) for resources in standing), default=0.0) < amount - _TINY
    ]
    if lacking:
        name = lacking[0]
        return _waits_for_more(name, need[name], num_waiting, cluster)
    if not any(num_fitting(need, resources) for resources in standing):
        return f"waiting for a node that has {_listed(need)} together: this Ray has none"
    name = "GPU" if "GPU" in need else next(iter(need))
    amount, total = need[name] * num_waiting, _total(name, standing)
    free = "" if cluster.free is None else f", {_number(cluster.free.get(name, 0.0))} of them free"
    starting = ", or for processes to start" if may_be_starting else ""
    return (
        f"waiting for {_amount(amount, name)}{starting}: this Ray has {_number(total)}{free}"
        f"{_at_most(name, cluster)}"
    )


def _waits_for_more(name: str, amount: float, num_waiting: int, cluster: Cluster) -> str:
    """No node has enough of this for one actor."""
    amounts = [
        cluster.left_on(node).get(name, 0.0) for node in cluster.nodes if not node.is_draining
    ]
    largest = max(amounts, default=0.0)
    can_have = _at_most(name, cluster)
    if largest == 0:
        return f"waiting for {_amount(amount * num_waiting, name)}: this Ray has 0{can_have}"
    return (
        f"waiting for a node with {_amount(amount, name)}: more than any node of this Ray has, "
        f"{_number(largest)} at most{can_have}"
    )


def _at_most(name: str, cluster: Cluster) -> str:
    """How much an autoscaler can bring of a resource, where Ray tells."""
    if cluster.node_types is None:
        return ""
    most = sum(kind.resources.get(name, 0.0) * kind.max_nodes for kind in cluster.node_types)
    return f"; its autoscaler can bring {_number(most)}"


def _num_shares(amount: float, total: float, *, is_whole: bool) -> int:
    if is_whole and amount < 1:  # shares of one GPU are never of two
        return int(total + _TINY) * int(1 / amount + _TINY)
    return int(total / amount + _TINY)


def _total(name: str, kinds: Iterable[Resources]) -> float:
    return sum(resources.get(name, 0.0) for resources in kinds)


def _listed(resources: Resources) -> str:
    """`1 GPU, 8 CPUs and 1 drawer`, without what every node of Ray has."""
    parts = [
        _amount(amount, name)
        for name, amount in resources.items()
        if name not in ("memory", "object_store_memory") and not name.startswith("node:")
    ]
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def _amount(amount: float, name: str) -> str:
    """`1 GPU`, `0.5 GPUs`, `3 of drawer`."""
    if name not in ("CPU", "GPU"):
        return f"{_number(amount)} of {name}"
    return f"{_number(amount)} {name}{'' if amount == 1 else 's'}"


def _number(amount: float) -> str:
    return f"{round(amount / _ROUNDED) * _ROUNDED:,.4f}".rstrip("0").rstrip(".")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
