"""A run on a cluster that comes and goes under it."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from jobs.cluster.actors import ActorAddress
from jobs.cluster.driver import Driver
from jobs.cluster.snapshot import Snapshot, Summary
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.verify import Verification
from schemas.runs import RunManifest
from tests.jobs.raylets import drain, joined_cluster, started_head
from tests.support import SMALL, fake_config, fake_method, plan_run

pytestmark = [pytest.mark.ray]

QUICK = {
    "live_rollouts_per_actor": 2,
    "open_shards_per_actor": 1,
    "node_check_seconds": 20,
    "grace_seconds": 2.0,
    "cpus_per_actor": 0.5,
}
GREEDY_NODE = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100"}


class Story:
    """What is done to a cluster, step by step, and what a run said and held meanwhile."""

    def __init__(self, *steps: Callable[[Snapshot], bool]) -> None:
        self._steps = list(steps)
        self.said: list[str] = []
        self.waited_for: list[str] = []
        self.held: set[tuple[str, str]] = set()  # node and GPU

    def show(self, snapshot: Snapshot) -> None:
        self.waited_for.append(snapshot.waiting)
        if self._steps and self._steps[0](snapshot):
            self._steps.pop(0)

    def publish(self, addresses: Sequence[ActorAddress]) -> None:
        pairs = [(address.node_id, gpu) for address in addresses for gpu in address.gpus]
        assert len(pairs) == len(set(pairs)), f"a GPU in two actors' hands: {pairs}"
        self.held.update(pairs)

    def play(self, store: Store, manifest: RunManifest) -> Summary:
        driver = Driver(
            store,
            manifest,
            show=self.show,
            is_stopping=lambda: False,
            note=self.said.append,
            publish=self.publish,
        )
        summary = driver.run()
        assert not self._steps, f"{len(self._steps)} steps were never done; said: {self.said}"
        assert not summary.given_up, summary.given_up
        assert summary.snapshot.num_committed == manifest.num_shards
        assert summary.snapshot.num_dead == 0
        assert not list(Verification(store, manifest, is_deep=True).findings())
        return summary


def step(
    is_time: Callable[[Snapshot], bool], act: Callable[[Snapshot], None]
) -> Callable[[Snapshot], bool]:
    """Something that is done once, as soon as it is time; True then."""

    def take(snapshot: Snapshot) -> bool:
        if not is_time(snapshot):
            return False
        act(snapshot)
        return True

    return take


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with joined_cluster() as cluster:
        yield cluster


def plan(store: Store, num_prompts: int, delay: float = 0.02, **execution: Any) -> RunManifest:
    fake = SMALL.model_copy(update={"delay_seconds": delay})
    config = fake_config(fake_method(fake), **(QUICK | execution))
    return plan_run(store, num_prompts, config, rollouts_per_shard=2)


@pytest.mark.slow
def test_a_run_waits_for_the_first_gpu_and_outlives_the_node_that_it_was_on(
    cluster: Cluster, tmp_path: Path
):
    nodes: list[Any] = []

    def add_one(snapshot: Snapshot) -> bool:
        if "waiting for 1 GPU: this Ray has 0" not in snapshot.waiting:
            return False
        nodes.append(cluster.add_node(num_cpus=1, num_gpus=1))
        return True

    def swap(snapshot: Snapshot) -> bool:
        if snapshot.num_committed < 2:
            return False
        nodes.append(cluster.add_node(num_cpus=1, num_gpus=1))
        cluster.remove_node(nodes[0], allow_graceful=False)
        return True

    story = Story(add_one, swap)
    store = open_store(str(tmp_path))
    story.play(store, plan(store, 24, device="gpu"))

    assert {node for node, _ in story.held} == {node.node_id for node in nodes}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_follows_its_cluster_through_everything_that_ray_does(
    cluster: Cluster, tmp_path: Path
):
    nodes: list[Any] = []
    marks: dict[str, int] = {}

    def add(number: int, **more: Any) -> None:
        nodes.extend(cluster.add_node(num_cpus=1, num_gpus=1, **more) for _ in range(number))

    def kill_one(snapshot: Snapshot) -> None:
        cluster.remove_node(nodes[1], allow_graceful=False)
        marks["killed"] = snapshot.num_committed

    def has_few_left(snapshot: Snapshot) -> bool:
        return snapshot.num_actors == 1 and snapshot.num_committed >= marks["killed"] + 4

    def has_the_last(snapshot: Snapshot) -> bool:
        return snapshot.num_actors >= 2 and (nodes[4].node_id, "0") in story.held

    story = Story(
        step(lambda seen: "for 1 GPU: this Ray has 0" in seen.waiting, lambda _: add(3)),
        step(
            lambda seen: seen.num_actors == 3 and seen.num_committed >= 6,
            lambda _: drain(cluster, nodes[0], seconds=60),
        ),
        step(lambda seen: seen.num_actors == 2, kill_one),
        step(has_few_left, lambda _: add(1, env_vars=GREEDY_NODE)),
        step(lambda _: "memory monitor" in "".join(story.said), lambda _: add(1)),
        step(has_the_last, lambda _: None),
    )
    store = open_store(str(tmp_path))
    story.play(store, plan(store, 240, 0.05, device="gpu"))

    unused = {node.node_id for node in nodes} - {node for node, _ in story.held}
    assert unused <= {nodes[3].node_id}  # whose actors are ended before they say where they are
    assert any("Ray takes a node away" in line for line in story.said)


@pytest.mark.slow
def test_an_actors_own_resources_choose_its_nodes_and_shares_share_a_gpu(
    cluster: Cluster, tmp_path: Path
):
    cluster.add_node(num_cpus=2, num_gpus=1)
    drawer = cluster.add_node(num_cpus=2, num_gpus=1, resources={"drawer": 2})
    settings = {"gpus_per_actor": 0.5, "resources": {"drawer": 1.0}}
    held: list[list[ActorAddress]] = []
    store = open_store(str(tmp_path))
    manifest = plan(store, 24, **settings)
    Driver(
        store,
        manifest,
        show=lambda _: None,
        is_stopping=lambda: False,
        publish=lambda addresses: held.append(list(addresses)),
    ).run()

    assert max(map(len, held)) == 2
    places = {(each.node_id, each.gpus) for addresses in held for each in addresses}
    assert len(places) == 1
    assert next(iter(places))[0] == drawer.node_id


def fake_cluster_file(address: str) -> dict[str, Any]:
    """A head that only drives, and up to two nodes with a GPU, as processes of this machine."""
    return {
        "cluster_name": "coppice-test",
        "max_workers": 2,
        "idle_timeout_minutes": 0.1,
        "upscaling_speed": 100,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": address,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "gpu-worker": {
                "resources": {"CPU": 1, "GPU": 1},
                "node_config": {},
                "min_workers": 0,
                "max_workers": 2,
            },
        },
        "head_node_type": "ray.head.default",
        # `ray up` fills these in; `ray start` takes the file as it is.
        **{name: {} for name in ("auth", "docker", "file_mounts")},
        **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
        **{f"{step}_commands": [] for step in ("initialization", "setup")},
        **{f"{kind}_setup_commands": [] for kind in ("head", "worker")},
        **{f"{kind}_start_ray_commands": [] for kind in ("head", "worker")},
        "file_mounts_sync_continuously": False,
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_pending_actors_bring_nodes_and_idle_ones_go(tmp_path: Path):
    environment = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    store = open_store(str(tmp_path))
    manifest = plan(store, 60, 0.05)
    with started_head("--num-cpus=0", autoscaling=fake_cluster_file, **environment) as (_, client):
        run = [sys.executable, "-m", "jobs.cli", "run", str(tmp_path)]
        answer = subprocess.run(run, env=client, capture_output=True, text=True, check=False)

        assert answer.returncode == 0, answer.stdout + answer.stderr
        waited = "waiting for 2 GPUs: this Ray has 0; its autoscaler can bring 2"
        assert waited in answer.stdout.splitlines()
        assert len(set(re.findall(r"Actor on \S+ \(.*process (\d+)\), GPU 0", answer.stdout))) == 2
        assert not list(Verification(store, manifest, is_deep=True).findings())
        deadline = time.monotonic() + 150
        while num_nodes(client) > 1:
            assert time.monotonic() < deadline, "nodes stay that nobody uses"


def num_nodes(client: dict[str, str]) -> int:
    """How many nodes a Ray has now, asked by a process of its own."""
    ask = (
        "import ray; ray.init(logging_level='ERROR', log_to_driver=False); "
        "print(sum(node['Alive'] for node in ray.nodes()))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", ask], env=client, capture_output=True, text=True, check=True
    )
    return int(answer.stdout.split()[-1])
