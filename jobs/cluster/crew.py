"""The actors of a driver: taken on as the cluster grows, sent off as nodes go.

How many there should be is decided in `placement`; where each one runs is Ray's choice, save for
nodes on which actors failed again and again. Pending actors are what an autoscaler sees: nothing
else is asked of it, so that nothing stays asked for when a driver is killed.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from jobs.cluster.actors import RemoteActor, start_actor
from jobs.cluster.placement import (
    Cluster,
    decide_device,
    need_of,
    num_fitting,
    num_held,
    num_reachable,
    num_wanted,
    ruled_out,
    waits_for,
)
from jobs.cluster.ray_state import Autoscaler, own_node, read_autoscaler, read_cluster
from jobs.cluster.serving.fleet import Fleet
from pipeline.engine.soundness import Device
from schemas.errors import InputError
from schemas.runs import RunManifest

FAILURES_IN_A_ROW = 2
"""Actors that a node may lose one after the other; then it is left alone for a while."""

LEFT_ALONE_SECONDS = 300.0

_LOOK_SECONDS = 2.0  # between two looks at the cluster
_AUTOSCALER_SECONDS = 60.0  # between two looks at what its autoscaler can bring
_PLACED_SECONDS = 5.0  # Ray starts a process within; one that takes longer waits for room
_MAX_ASKED = 64  # actors without a place at a time


class Crew:
    """The actors that a driver has, and what they wait for. Ray must be initialised."""

    def __init__(
        self,
        url: str,
        manifest: RunManifest,
        *,
        clock: Callable[[], float],
        note: Callable[[str], None],
        fleet: Fleet | None = None,
    ) -> None:
        """`fleet` are the run's own servers, which have a share of the cluster of their own."""
        self._fleet = fleet
        self._url = url
        self._manifest = manifest
        self._execution = manifest.config.execution
        self._clock = clock
        self._note = note
        self._looked_at = self._autoscaler_at = -math.inf
        self._autoscaler: Autoscaler = (None, None)
        self._device: Device | None = None
        self._failures: Counter[str] = Counter()  # in a row, by node
        self._left_alone_until: dict[str, float] = {}
        self._shunned: frozenset[str] = frozenset()
        self.actors: list[RemoteActor] = []
        self.waiting = ""  # for what, in words; empty: for nothing
        self.is_own_node_going = False  # the one that this process is on

    def follow(self, num_shards: int) -> None:
        """Have as many actors as the cluster holds now and that many unsettled shards can use.

        Raises InputError where nothing that this Ray is or can become holds an actor.
        """
        now = self._clock()
        if now - self._looked_at < _LOOK_SECONDS:
            return
        self._looked_at = now
        if self._fleet:
            self._manifest = self._manifest.model_copy(update={"config": self._fleet.addressed()})
        cluster = self._look(now)
        before, self._device = self._device, decide_device(self._execution, cluster, self._device)
        if before not in (None, self._device):
            self._note("There are GPUs now: actors on CPUs end, and others begin on GPUs.")
        need = need_of(self._execution, self._device)
        reason = ruled_out(need, cluster)
        if reason and not any(actor.is_ready for actor in self.actors):
            raise InputError(
                f"{reason}{self._beside()}; ask for less (--set execution.gpus_per_actor=1, "
                "execution.cpus_per_actor, --resources), or add a node type"
            )
        self._shunned = self._nodes_to_shun(need, cluster, now)
        wanted = num_wanted(
            need, cluster, self._execution, num_shards=num_shards, left_alone=self._shunned
        )
        self._send_off(cluster, wanted, now)
        self._take_on(need, wanted, now)
        waiting = self._waits_for(need, cluster, now)
        self.waiting = waiting and waiting + self._beside()

    def failed_on(self, node_id: str, *, is_hopeless: bool = False) -> None:
        """An actor failed on a node, by no fault of a record's. Empty: nobody knows which node."""
        if not node_id:
            return
        self._failures[node_id] += FAILURES_IN_A_ROW if is_hopeless else 1
        if self._failures[node_id] >= FAILURES_IN_A_ROW:
            self._left_alone_until[node_id] = self._clock() + LEFT_ALONE_SECONDS

    def did_well_on(self, node_id: str) -> None:
        """An actor committed something there."""
        self._failures.pop(node_id, None)
        self._left_alone_until.pop(node_id, None)

    def pop_gone(self) -> list[RemoteActor]:
        """Actors that are to leave and have nothing open, or had time enough. They are ended."""
        now = self._clock()
        gone = [
            actor
            for actor in self.actors
            if actor.leaving_by is not None and (not actor.growing or now >= actor.leaving_by)
        ]
        for actor in gone:
            self.actors.remove(actor)
            actor.drop()
        return gone

    def _beside(self) -> str:
        """Why a cluster may have less than it seems to."""
        return ", beside what the servers of this run hold" if self._fleet else ""

    def _look(self, now: float) -> Cluster:
        if now - self._autoscaler_at >= _AUTOSCALER_SECONDS:
            self._autoscaler, self._autoscaler_at = read_autoscaler(), now
        is_waiting = any(not actor.is_placed for actor in self.actors)
        cluster = read_cluster(self._autoscaler, with_free=is_waiting)
        return replace(cluster, taken=self._fleet.taken()) if self._fleet else cluster

    def _send_off(self, cluster: Cluster, wanted: int, now: float) -> None:
        """Decide which actors are to leave: their node goes, or they are of no use any more."""
        draining = {node.node_id for node in cluster.nodes if node.is_draining}
        self.is_own_node_going = bool(draining) and own_node() in draining
        for actor in self._staying():
            if actor.node_id in draining:
                self._note(f"Ray takes a node away: the actor on {actor.address} is to leave.")
                self._leave(actor, now)
            elif self._is_outdated(actor):
                self._leave(actor, now)
        staying = self._staying()
        useless = [actor for actor in staying if not actor.is_placed]
        useless += [actor for actor in staying if actor.is_ready and not actor.growing]
        for actor in useless[: max(0, len(staying) - wanted)]:
            self._leave(actor, now)

    def _is_outdated(self, actor: RemoteActor) -> bool:
        """Whether it is not what would be started now: also if a server of the run has moved."""
        has_moved = self._fleet is not None and actor.config != self._manifest.config
        return actor.device != self._device or has_moved or self._is_misplaced(actor)

    def _is_misplaced(self, actor: RemoteActor) -> bool:
        """Whether it still waits for a place, and might be given one that it should not have."""
        return not actor.is_placed and actor.shunned != self._shunned

    def _leave(self, actor: RemoteActor, now: float) -> None:
        actor.leaving_by = now + self._execution.grace_seconds

    def _take_on(self, need: dict[str, float], wanted: int, now: float) -> None:
        staying = self._staying()
        num_asked = sum(not actor.is_placed for actor in staying)
        for _ in range(min(wanted - len(staying), _MAX_ASKED - num_asked)):
            actor = start_actor(
                self._url,
                self._manifest,
                device=self._device or "cpu",
                need=need,
                shunned=self._shunned,
                keys=self._fleet.keys if self._fleet else {},
            )
            actor.started_at = now
            self.actors.append(actor)

    def _staying(self) -> list[RemoteActor]:
        return [actor for actor in self.actors if not actor.is_leaving]

    def _nodes_to_shun(
        self, need: dict[str, float], cluster: Cluster, now: float
    ) -> frozenset[str]:
        """Nodes on which actors failed lately, unless there is no other place to go."""
        until = self._left_alone_until
        shunned = frozenset(
            node.node_id for node in cluster.nodes if until.get(node.node_id, now) > now
        )
        has_others = num_held(need, cluster, shunned) > 0
        can_have_others = (num_reachable(need, cluster) or 0) > num_held(need, cluster)
        shunned = shunned if has_others or can_have_others else frozenset()
        for node in cluster.nodes:
            if node.node_id in shunned - self._shunned:
                self._note(
                    f"Actors failed on {node.name} (node {node.node_id[:8]}) again and again: "
                    f"it is left alone for {LEFT_ALONE_SECONDS:.0f} s."
                )
        return shunned

    def _waits_for(self, need: dict[str, float], cluster: Cluster, now: float) -> str:
        """What actors wait for that have no place; empty if Ray is only about to start them."""
        waiting = [actor for actor in self._staying() if not actor.is_placed]
        num_too_many = len(self._staying()) - num_held(need, cluster, self._shunned)
        num_late = sum(now - actor.started_at >= _PLACED_SECONDS for actor in waiting)
        if num_too_many <= 0 and cluster.free and num_fitting(need, cluster.free):
            return ""  # there is room: a process is being started
        num_waiting = min(len(waiting), max(num_too_many, num_late))
        if num_waiting <= 0:
            return ""
        return waits_for(need, cluster, num_waiting, may_be_starting=num_too_many <= 0)
