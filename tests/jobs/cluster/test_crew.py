"""Which actors a driver takes on and sends off, over clusters that are made up."""

from collections.abc import Collection, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.cluster import crew as crew_module
from jobs.cluster.actors import ActorAddress, RemoteActor
from jobs.cluster.crew import LEFT_ALONE_SECONDS, Crew
from jobs.cluster.placement import Cluster, Node, NodeType
from pipeline.store.open import open_store
from schemas.errors import InputError
from schemas.runs import Attempt, Grow, RunManifest
from tests.pipeline.store.test_objects import FakeTime
from tests.support import fake_config, plan_run


class Scene:
    """A crew on a cluster that the test changes, and what it had said."""

    def __init__(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        fleet: Any = None,
        **execution: Any,
    ) -> None:
        self.time = FakeTime()
        self.cluster = Cluster(nodes=())
        self.said: list[str] = []
        self.dropped: list[RemoteActor] = []
        monkeypatch.setattr(crew_module, "read_cluster", lambda known, with_free: self.cluster)
        monkeypatch.setattr(crew_module, "read_autoscaler", lambda: (None, None))
        monkeypatch.setattr(crew_module, "own_node", lambda: "head")
        monkeypatch.setattr(crew_module, "start_actor", self.start)
        monkeypatch.setattr(RemoteActor, "drop", lambda actor: self.dropped.append(actor))
        manifest = plan_run(open_store(str(folder)), 3, fake_config(**execution))
        self.crew = Crew("run", manifest, clock=self.time.clock, note=self.said.append, fleet=fleet)

    def start(
        self,
        url: str,
        manifest: RunManifest,
        *,
        device: Any,
        need: Mapping[str, float],
        shunned: Collection[str],
        keys: Mapping[str, str],
    ) -> RemoteActor:
        return RemoteActor(
            SimpleNamespace(),
            placing=f"placing {self.time.now}",
            opening="opening",
            device=device,
            config=manifest.config,
            shunned=frozenset(shunned),
        )

    def has(self, *nodes: Node, **more: Any) -> None:
        self.cluster = Cluster(nodes=nodes, **more)

    def follow(self, num_shards: int = 99) -> list[RemoteActor]:
        self.time.now += 2
        self.crew.follow(num_shards)
        self.crew.pop_gone()
        return self.crew.actors

    def place(self, actor: RemoteActor, node_id: str) -> None:
        actor.placing = actor.opening = None
        actor.address = ActorAddress(node_id=node_id, host=node_id, pid=1, gpus=("0",))


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(tmp_path, monkeypatch)


def gpu_node(name: str, gpus: int = 1, *, is_draining: bool = False) -> Node:
    resources = {"CPU": 8.0, "GPU": float(gpus)}
    return Node(node_id=name, name=name, resources=resources, is_draining=is_draining)


HEAD = Node(node_id="head", name="head", resources={"CPU": 2.0}, is_head=True)
BARE_HEAD = Node(node_id="head", name="head", resources={"CPU": 0.0}, is_head=True)


def test_actors_are_added_as_gpus_appear_and_what_is_waited_for_is_said_until_then(scene: Scene):
    scene.has(BARE_HEAD)
    assert len(scene.follow()) == 1
    assert scene.crew.waiting == "waiting for 1 CPU: this Ray has 0"

    scene.has(BARE_HEAD, gpu_node("a", 2), gpu_node("b"))
    actors = scene.follow()
    assert [actor.device for actor in actors] == ["gpu"] * 3
    assert scene.crew.waiting == ""


def test_a_run_that_began_on_cpus_goes_over_to_gpus(scene: Scene):
    scene.has(HEAD)
    for actor in scene.follow():
        scene.place(actor, "head")
    assert [actor.device for actor in scene.crew.actors] == ["cpu", "cpu"]
    busy = scene.crew.actors[0]
    busy.growing["shard"] = Grow(attempt=Attempt(shard=0, number=1, attempt_id="a"))

    scene.has(HEAD, gpu_node("a"))
    assert [(actor.device, actor.is_leaving) for actor in scene.follow()] == [
        ("cpu", True),
        ("gpu", False),
    ]
    assert not busy.has_room(8)
    assert "There are GPUs now" in scene.said[0]

    scene.time.now += 60  # it had its grace
    assert [actor.device for actor in scene.follow()] == ["gpu"]


def test_actors_of_a_draining_node_leave_and_others_take_their_place(scene: Scene):
    scene.has(gpu_node("a"), gpu_node("b"))
    for actor, name in zip(scene.follow(), "ab", strict=True):
        scene.place(actor, name)

    scene.has(gpu_node("a", is_draining=True), gpu_node("b"), gpu_node("c"))
    actors = scene.follow()
    assert [actor.node_id for actor in actors if actor.is_placed] == ["b"]
    assert len(actors) == 2
    assert "Ray takes a node away" in scene.said[0]
    assert not scene.crew.is_own_node_going

    scene.has(Node(node_id="head", name="head", resources={}, is_draining=True), gpu_node("b"))
    scene.follow()
    assert scene.crew.is_own_node_going


def test_servers_of_the_run_keep_their_gpus_and_actors_follow_one_that_has_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    addresses = [fake_config(cpus_per_actor=1.0)]
    fleet = SimpleNamespace(
        addressed=lambda: addresses[-1], taken=lambda: {"a": {"GPU": 2.0}}, keys={"KEY": "secret"}
    )
    scene = Scene(tmp_path, monkeypatch, fleet)
    scene.has(gpu_node("a", 2))
    (actor,) = scene.follow()
    assert scene.crew.waiting == (
        "waiting for 1 GPU: this Ray has 0, beside what the servers of this run hold"
    )

    scene.has(gpu_node("a", 3))
    scene.place(actor, "a")
    assert scene.follow() == [actor]

    addresses.append(fake_config(cpus_per_actor=2.0))  # stands for another address
    assert [other.config for other in scene.follow()] == [addresses[-1]]
    assert scene.dropped == [actor]


def test_actors_that_no_shard_is_left_for_go(scene: Scene):
    scene.has(gpu_node("a", 4))
    for actor in scene.follow():
        scene.place(actor, "a")
    scene.crew.actors[0].growing["shard"] = Grow(attempt=Attempt(shard=0, number=1, attempt_id="a"))

    assert len(scene.follow(num_shards=2)) == 2
    assert scene.crew.actors[0].growing


def test_a_node_that_fails_twice_in_a_row_is_left_alone_for_a_while(scene: Scene):
    scene.has(gpu_node("a"), gpu_node("b"))
    for _ in range(2):
        for actor, name in zip(scene.follow(), "ab", strict=True):
            scene.place(actor, name)
        lost = next(actor for actor in scene.crew.actors if actor.node_id == "a")
        scene.crew.actors.remove(lost)
        scene.crew.failed_on("a")

    (actor,) = scene.follow()
    assert actor.node_id == "b"
    assert "left alone for 300 s" in scene.said[-1]

    scene.has(gpu_node("a"), gpu_node("b"), gpu_node("c"))
    assert [actor.shunned for actor in scene.follow()][1:] == [frozenset("a")]

    scene.time.now += LEFT_ALONE_SECONDS
    assert [actor.shunned for actor in scene.follow()][1:] == [frozenset(), frozenset()]


def test_a_node_that_does_well_in_between_is_not_left_alone(scene: Scene):
    scene.has(gpu_node("a"), gpu_node("b"))
    scene.crew.failed_on("a")
    scene.crew.did_well_on("a")
    scene.crew.failed_on("a")

    assert len(scene.follow()) == 2


def test_the_only_node_there_is_is_never_left_alone(scene: Scene):
    scene.has(gpu_node("a"))
    scene.crew.failed_on("a", is_hopeless=True)

    assert [actor.shunned for actor in scene.follow()] == [frozenset()]


def test_what_no_node_type_holds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    scene = Scene(tmp_path, monkeypatch, gpus_per_actor=2)
    kind = NodeType(name="small", resources={"CPU": 8, "GPU": 1}, max_nodes=4)
    scene.has(BARE_HEAD, node_types=(kind,), max_nodes=4)

    with pytest.raises(InputError, match=r"needs 2 GPUs and 1 CPU.*small \(at most 4 nodes\)"):
        scene.follow()


def test_ray_is_not_asked_for_thousands_of_actors_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scene = Scene(tmp_path, monkeypatch, num_actors=5000)
    scene.has(HEAD, gpu_node("a"))

    assert len(scene.follow(num_shards=5000)) == 64
    for actor in scene.crew.actors[:10]:
        scene.place(actor, "a")
    assert len(scene.follow(num_shards=5000)) == 74


def test_gpus_that_others_hold_are_waited_for_and_ones_that_are_free_are_not(scene: Scene):
    scene.has(gpu_node("a"), free={"CPU": 7.0, "GPU": 1.0})
    for _ in range(4):
        scene.follow()
    assert scene.crew.waiting == ""  # Ray is starting a process

    scene.has(gpu_node("a"), free={"CPU": 7.0, "GPU": 0.0})
    scene.follow()
    assert scene.crew.waiting == (
        "waiting for 1 GPU, or for processes to start: this Ray has 1, 0 of them free"
    )
