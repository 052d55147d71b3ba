"""Nodes that come late, are drained, or are short of memory under a run."""

from collections.abc import Callable
from typing import Any

from jobs.cluster.driver import Driver
from jobs.cluster.snapshot import Snapshot
from tests.chaos.cluster import Site, quick_config
from tests.jobs.raylets import drain
from tests.support import plan_run

_SHORT_OF_MEMORY = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100"}
_ROUNDS_BETWEEN = 3  # commits


def late_nodes(site: Site, number: int) -> None:
    """A node joins, works, and is taken away on notice; then the next one."""
    nodes: list[Any] = []

    def change(snapshot: Snapshot) -> None:
        with site.ledger.injecting("a node comes late"):
            nodes.append(site.cluster.add_node(num_cpus=1))

    def leave(snapshot: Snapshot) -> None:
        with site.ledger.injecting("a node is drained"):
            drain(site.cluster, nodes[-1], seconds=5)

    steps = [change, leave] * number
    _play(site, "nodes that come and go", steps, num_prompts=30 * number)
    for node in nodes:
        site.cluster.remove_node(node)


def memory_monitor(site: Site, number: int) -> None:
    """A node on which Ray's memory monitor ends every actor, again and again."""
    kind = "Ray's memory monitor ends an actor"
    nodes: list[Any] = []
    deaths: list[str] = []

    def add(_: Snapshot) -> None:
        nodes.append(site.cluster.add_node(num_cpus=1, env_vars=_SHORT_OF_MEMORY))

    def note(line: str) -> None:
        if "memory monitor" in line:
            deaths.append(line)

    for _ in range(2 * number):
        with site.ledger.injecting(kind, 0):
            _play(site, kind, [add], num_prompts=240, note=note)
        for node in nodes:
            site.cluster.remove_node(node)
        nodes.clear()
        site.ledger.count(kind, len(deaths))
        deaths.clear()
        if site.ledger.faults[kind] >= number:
            return


def _play(
    site: Site,
    name: str,
    steps: list[Callable[[Snapshot], None]],
    *,
    num_prompts: int,
    note: Callable[[str], None] = lambda line: None,
) -> None:
    store = site.fresh()
    # Two actors fill the head, so that the others go to nodes that come.
    config = quick_config(num_actors=4, cpus_per_actor=1.0, node_check_seconds=20)
    manifest = plan_run(store, num_prompts, config, rollouts_per_shard=2)
    left, seen = list(steps), [0]

    def show(snapshot: Snapshot) -> None:
        if left and snapshot.num_committed >= seen[0] + _ROUNDS_BETWEEN:
            seen[0] = snapshot.num_committed
            left.pop(0)(snapshot)

    summary = Driver(store, manifest, show=show, is_stopping=lambda: False, note=note).run()
    assert not summary.given_up, summary.given_up
    site.ledger.check(store, site.undisturbed(num_prompts), name)
