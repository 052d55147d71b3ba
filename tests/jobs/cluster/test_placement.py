"""How many actors a cluster holds, and what is said while some have no place."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.cluster.placement import (
    Cluster,
    Node,
    NodeType,
    decide_device,
    need_of,
    num_fitting,
    num_held,
    num_reachable,
    num_wanted,
    ruled_out,
    waits_for,
)
from schemas.config import ExecutionConfig

DEFAULT = ExecutionConfig()
ON_GPUS = need_of(DEFAULT, "gpu")


def node(number: int, *, gpus: float = 0, cpus: float = 8, **more: float) -> Node:
    resources = {"CPU": cpus, "memory": 1e9, **more} | ({"GPU": gpus} if gpus else {})
    return Node(node_id=f"node-{number}", name=f"host-{number}", resources=resources)


def nodes(*gpus: float) -> Cluster:
    return Cluster(nodes=tuple(node(number, gpus=each) for number, each in enumerate(gpus)))


def autoscaled(*gpus: float, per_node: float = 4, max_nodes: int = 2) -> Cluster:
    """A head without a place for actors, GPU nodes that stand, and what can be brought."""
    head = Node(node_id="head", name="head", resources={"CPU": 0.0}, is_head=True)
    workers = tuple(node(number, gpus=each) for number, each in enumerate(gpus))
    kind = NodeType(
        name="gpu-worker", resources={"CPU": 48.0, "GPU": per_node}, max_nodes=max_nodes
    )
    return Cluster(nodes=(head, *workers), node_types=(kind,), max_nodes=max_nodes)


def test_what_others_took_of_a_node_holds_no_actor():
    cluster = replace(nodes(4, 2), taken={"node-0": {"GPU": 3.0}, "node-1": {"GPU": 2.0}})
    brought = replace(autoscaled(4, 4), taken={"node-1": {"GPU": 1.0}})

    assert num_held(ON_GPUS, nodes(4, 2)) == 6
    assert num_held(ON_GPUS, cluster) == 1
    assert num_reachable(ON_GPUS, brought) == 7
    assert num_wanted(ON_GPUS, cluster, DEFAULT, num_shards=99) == 1
    all_taken = replace(nodes(2), taken={"node-0": {"GPU": 2.0}})
    assert waits_for(ON_GPUS, all_taken, 1) == "waiting for 1 GPU: this Ray has 0"
    assert decide_device(DEFAULT, all_taken, None) == "gpu"


@pytest.mark.parametrize(
    ("settings", "resources", "number"),
    [
        ({}, {"GPU": 4, "CPU": 8}, 4),
        ({}, {"GPU": 4, "CPU": 3}, 3),
        ({"gpus_per_actor": 2}, {"GPU": 3, "CPU": 8}, 1),
        ({"gpus_per_actor": 0.5}, {"GPU": 2, "CPU": 8}, 4),
        ({"gpus_per_actor": 0.4}, {"GPU": 2, "CPU": 8}, 4),  # not 5: none is of two GPUs
        ({"gpus_per_actor": 0.1, "cpus_per_actor": 0.1}, {"GPU": 1, "CPU": 8}, 10),
        ({"cpus_per_actor": 0.3}, {"GPU": 4, "CPU": 0.9}, 3),
        ({"resources": {"drawer": 1}}, {"GPU": 4, "CPU": 8}, 0),
        ({"resources": {"drawer": 1}}, {"GPU": 4, "CPU": 8, "drawer": 2}, 2),
    ],
)
def test_a_node_holds_as_many_actors_as_each_of_its_resources(
    settings: dict[str, object], resources: dict[str, float], number: int
):
    assert num_fitting(need_of(ExecutionConfig(**settings), "gpu"), resources) == number


def test_a_node_that_goes_or_is_left_alone_holds_none():
    going = Node(node_id="node-9", name="x", resources={"GPU": 8, "CPU": 8}, is_draining=True)
    cluster = Cluster(nodes=(node(0, gpus=2), node(1, gpus=3), going))

    assert num_held(ON_GPUS, cluster) == 5
    assert num_held(ON_GPUS, cluster, {"node-1"}) == 2


@pytest.mark.parametrize(
    ("cluster", "before", "device"),
    [
        (nodes(0, 0), None, "cpu"),
        (nodes(0, 1), None, "gpu"),
        (nodes(0, 1), "cpu", "gpu"),
        (nodes(0), "gpu", "gpu"),  # the spot nodes went, and will come again
        (autoscaled(), None, "gpu"),
        (autoscaled(per_node=0), None, "cpu"),
        (autoscaled(max_nodes=0), None, "cpu"),
    ],
)
def test_auto_means_gpus_once_there_are_some_or_can_be(
    cluster: Cluster, before: str | None, device: str
):
    assert decide_device(DEFAULT, cluster, before) == device
    assert decide_device(ExecutionConfig(device="cpu"), cluster, before) == "cpu"
    assert decide_device(ExecutionConfig(device="gpu"), cluster, before) == "gpu"


@pytest.mark.parametrize(
    ("cluster", "settings", "wanted"),
    [
        (nodes(), {}, 1),  # one that waits for the first node
        (nodes(4, 4), {}, 8),
        (nodes(4, 4), {"num_actors": 3}, 3),
        (nodes(1), {"num_actors": 3}, 3),  # nobody tells what can come: what was asked for
        (nodes(1), {"min_actors": 5}, 5),
        (autoscaled(), {}, 8),
        (autoscaled(), {"num_actors": 3}, 3),
        (autoscaled(), {"num_actors": 30}, 8),
        (autoscaled(4), {"min_actors": 9}, 9),
        (autoscaled(max_nodes=0), {}, 1),
    ],
)
def test_as_many_actors_as_there_is_room_for_or_can_be(
    cluster: Cluster, settings: dict[str, int], wanted: int
):
    execution = ExecutionConfig(**settings)

    assert num_wanted(ON_GPUS, cluster, execution, num_shards=99) == wanted
    assert num_wanted(ON_GPUS, cluster, execution, num_shards=2) == min(wanted, 2)
    assert num_wanted(ON_GPUS, cluster, execution, num_shards=0) == 0


def test_types_together_bring_no_more_nodes_than_the_cluster_may_have():
    kinds = (
        NodeType(name="small", resources={"CPU": 8, "GPU": 1}, max_nodes=10),
        NodeType(name="large", resources={"CPU": 8, "GPU": 8}, max_nodes=2),
    )

    assert num_reachable(ON_GPUS, Cluster(nodes=(), node_types=kinds, max_nodes=5)) == 19
    assert num_reachable(ON_GPUS, Cluster(nodes=(), node_types=kinds)) == 26
    assert num_reachable(ON_GPUS, Cluster(nodes=())) is None


@given(
    st.lists(st.integers(0, 8), max_size=6),
    st.one_of(st.none(), st.integers(1, 20)),
    st.one_of(st.none(), st.integers(1, 20)),
    st.integers(0, 30),
)
def test_there_are_never_more_actors_than_asked_for_or_than_shards(
    gpus: list[int], least: int | None, most: int | None, num_shards: int
):
    execution = ExecutionConfig(min_actors=least, num_actors=most)
    wanted = num_wanted(ON_GPUS, nodes(*gpus), execution, num_shards=num_shards)

    assert wanted <= num_shards
    assert most is None or wanted <= most
    assert (wanted > 0) == (num_shards > 0)


@pytest.mark.parametrize(
    ("cluster", "settings", "number", "line"),
    [
        (nodes(0), {}, 2, "waiting for 2 GPUs: this Ray has 0"),
        (nodes(), {}, 1, "waiting for 1 GPU: this Ray has 0"),
        (
            nodes(1, 1),
            {"gpus_per_actor": 2},
            1,
            "waiting for a node with 2 GPUs: more than any node of this Ray has, 1 at most",
        ),
        (nodes(2, 1), {}, 4, "waiting for 4 GPUs: this Ray has 3"),
        (
            autoscaled(),
            {},
            8,
            "waiting for 8 GPUs: this Ray has 0; its autoscaler can bring 8",
        ),
        (
            nodes(1),
            {"resources": {"drawer": 1}},
            1,
            "waiting for 1 of drawer: this Ray has 0",
        ),
        (
            Cluster(nodes=(node(0, gpus=1), node(1, drawer=1))),
            {"resources": {"drawer": 1}},
            1,
            "waiting for a node that has 1 GPU, 1 CPU and 1 of drawer together: this Ray has none",
        ),
        (
            Cluster(nodes=(node(0, gpus=2),), free={"GPU": 0.5}),
            {},
            1,
            "waiting for 1 GPU: this Ray has 2, 0.5 of them free",
        ),
    ],
)
def test_what_is_waited_for_is_said_and_what_there_is(
    cluster: Cluster, settings: dict[str, object], number: int, line: str
):
    need = need_of(ExecutionConfig(**settings), "gpu")

    assert waits_for(need, cluster, number) == line


def test_more_cpus_than_any_node_has_are_waited_for_by_name():
    need = need_of(ExecutionConfig(cpus_per_actor=512), "cpu")

    assert waits_for(need, nodes(0), 1) == (
        "waiting for a node with 512 CPUs: more than any node of this Ray has, 8 at most"
    )


def test_only_node_types_rule_something_out():
    two = need_of(ExecutionConfig(gpus_per_actor=2), "gpu")

    assert ruled_out(two, nodes(1, 1)) is None
    assert ruled_out(two, autoscaled()) is None
    assert ruled_out(two, autoscaled(2, per_node=1)) is None  # a node by hand has them
    reason = ruled_out(two, autoscaled(1, per_node=1))
    assert reason is not None
    assert "needs 2 GPUs and 1 CPU" in reason
    assert "gpu-worker (at most 2 nodes) has 48 CPUs and 1 GPU" in reason
