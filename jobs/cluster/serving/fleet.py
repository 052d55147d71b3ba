"""All servers of a run, as its driver knows them: where they are, how they are, what they take.

A replica whose actor or node is lost is started anew wherever there is room, so its address
changes; whoever asks it is told by another manifest. It is waited for until all replicas answered
once. After that a run goes on while a replica is being started again, and ends, to be gone on with
later, when one is given up.
"""

import math
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from jobs.cluster.placement import Resources, ruled_out, waits_for
from jobs.cluster.ray_errors import told
from jobs.cluster.ray_state import read_autoscaler, read_cluster
from jobs.cluster.serving.actor import Handle, ServingAddress, ServingOrder, start_serving
from jobs.cluster.serving.keeper import MAX_RESTARTS, Phase, ServerStatus
from schemas.config import RunConfig
from schemas.endpoints import EndpointExecution
from schemas.errors import CoppiceError, EndpointAway, InputError

_LOOK_SECONDS = 1.0
_SAY_SECONDS = 60.0  # between two lines about what is waited for
_END_SECONDS = 40.0  # for servers to end in, before Ray ends what keeps them
_KEY_BYTES = 32


@dataclass(slots=True, eq=False)
class _Replica:
    """One server, as the driver knows it."""

    order: ServingOrder
    handle: Handle
    asking: "ray.ObjectRef[Any] | None"
    address: ServingAddress | None = None
    status: ServerStatus = field(default_factory=ServerStatus)
    num_lost: int = 0  # actors of it
    url: str = ""  # where it answered last; empty: it never did

    @property
    def has_answered(self) -> bool:
        return bool(self.url)

    def __str__(self) -> str:
        return f"replica {self.order.replica + 1} of endpoint {self.order.name}"


class Fleet:
    """The servers that a run starts for itself. Ray must be initialised."""

    def __init__(
        self,
        config: RunConfig,
        run_id: str,
        *,
        is_local: bool,
        note: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask for all of them. `is_local`: all that ask them are on this machine."""
        self._config = config
        self._note = note
        self._clock = clock
        self._looked_at = -math.inf
        self.keys: dict[str, str] = {}  # made for this run, by the variables they are to stand in
        self._variables: dict[str, str] = {}  # by endpoint
        self._replicas = [self._start(order) for order in self._orders(run_id, is_local=is_local)]

    def wait(self, is_stopping: Callable[[], bool]) -> None:
        """Until every replica answered, or a stop. Raises InputError, EndpointAway."""
        for name, execution in _served(self._config).items():
            assert execution.serve is not None
            self._note(
                f"Endpoint {name}: {execution.serve.replicas} x {execution.serve.command[0]}, "
                f"{execution.serve.gpus:g} GPUs each; waiting until they answer."
            )
        say_at = self._clock() + _SAY_SECONDS
        while not is_stopping() and not all(replica.has_answered for replica in self._replicas):
            self.look()
            if self._clock() >= say_at:
                say_at += _SAY_SECONDS
                self._note(self._describe_waiting())
            time.sleep(_LOOK_SECONDS / 4)

    def look(self) -> None:
        """Hear how they are, now and then. Raises InputError, EndpointAway. Does not wait."""
        if self._clock() - self._looked_at < _LOOK_SECONDS:
            return
        self._looked_at = self._clock()
        asked = {replica.asking: replica for replica in self._replicas if replica.asking}
        ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=0) if asked else ([], [])
        for reference in ready:
            self._hear(asked[reference], reference)
        for replica in self._replicas:
            if replica.asking is None:
                replica.asking = (
                    replica.handle.status.remote()
                    if replica.address
                    else replica.handle.start.remote()
                )

    def taken(self) -> dict[str, Resources]:
        """What the servers hold of each node, by Ray's ids."""
        taken: dict[str, dict[str, float]] = {}
        for replica in self._replicas:
            if replica.address:
                on_node = taken.setdefault(replica.address.node_id, {})
                for name, amount in _need_of(replica.order).items():
                    on_node[name] = on_node.get(name, 0.0) + amount
        return {**taken}

    def addressed(self) -> RunConfig:
        """The run's config with the addresses that the servers have now, as if they were given."""
        endpoints = dict(self._config.execution.endpoints)
        for name, execution in _served(self._config).items():
            urls = [
                replica.url
                for replica in self._replicas
                if replica.order.name == name and replica.has_answered
            ]
            variable = self._variables.get(name, execution.api_key_env)
            changes = {"url": tuple(urls), "serve": None, "api_key_env": variable}
            endpoints[name] = execution.model_copy(update=changes)
        execution_now = self._config.execution.model_copy(update={"endpoints": endpoints})
        return self._config.model_copy(update={"execution": execution_now})

    def end(self) -> None:
        """End all servers, and all that they started."""
        with suppress(RayError):
            ended = [replica.handle.end.remote() for replica in self._replicas if replica.address]
            if ended:
                ray.wait(ended, num_returns=len(ended), timeout=_END_SECONDS)
        for replica in self._replicas:
            with suppress(RayError):
                ray.kill(replica.handle)

    def _orders(self, run_id: str, *, is_local: bool) -> Iterator[ServingOrder]:
        for name, execution in _served(self._config).items():
            assert execution.serve is not None
            own_key = None
            if execution.api_key_env is None:
                variable = f"COPPICE_KEY_OF_SERVED_{len(self.keys)}"
                own_key = self.keys[variable] = secrets.token_urlsafe(_KEY_BYTES)
                self._variables[name] = variable
            for number in range(execution.serve.replicas):
                yield ServingOrder(
                    name=name,
                    replica=number,
                    run_id=run_id,
                    method=self._config.method.endpoints[name],
                    execution=execution,
                    serve=execution.serve,
                    own_key=own_key,
                    is_local=is_local,
                )

    def _start(self, order: ServingOrder, num_lost: int = 0) -> _Replica:
        handle = start_serving(order)
        return _Replica(order, handle, handle.start.remote(), num_lost=num_lost)

    def _hear(self, replica: _Replica, reference: "ray.ObjectRef[Any]") -> None:
        replica.asking = None
        try:
            answer = ray.get(reference)
        except RayTaskError as error:
            if isinstance(error.cause, CoppiceError):
                raise error.cause from None
            self._replace(replica, told(error))
        except RayError as error:
            self._replace(replica, told(error))
        else:
            if isinstance(answer, ServingAddress):
                replica.address = answer
                self._note(f"The server of {replica} starts on {answer}.")
            else:
                self._take(replica, answer)

    def _take(self, replica: _Replica, status: ServerStatus) -> None:
        before, replica.status = replica.status, status
        if status.phase is Phase.LOST:
            self._give_up(replica, status.message)
        if status.num_restarts > before.num_restarts:
            self._note(f"The server of {replica}: {status.message}. Its log: {replica.address}")
        if status.phase is Phase.ANSWERING and before.phase is not Phase.ANSWERING:
            replica.url = status.url
            self._note(f"The server of {replica} answers.")

    def _replace(self, replica: _Replica, message: str) -> None:
        """An actor, or its node, is lost, and the server with it: another takes its place."""
        if replica.num_lost >= MAX_RESTARTS:
            self._give_up(replica, f"its actor was lost {replica.num_lost + 1} times: {message}")
        self._note(f"Lost the actor of {replica} on {replica.address or 'no node yet'}: {message}")
        new = self._start(replica.order, replica.num_lost + 1)
        new.url = replica.url  # until it answers elsewhere
        self._replicas[self._replicas.index(replica)] = new

    def _give_up(self, replica: _Replica, message: str) -> None:
        if replica.has_answered:
            raise EndpointAway(
                f"the server of {replica} is given up: {message}. It was on {replica.address}. "
                "What is committed stays; see its log, and start the same command again, which "
                "goes on where this one ended"
            )
        raise InputError(
            f"the server of {replica} cannot be used: {message}. See the log, and correct "
            f"execution.endpoints.{replica.order.name}.serve (its command, args and gpus)"
        )

    def _describe_waiting(self) -> str:
        """What is waited for. Raises InputError for what no node can ever hold."""
        placeless = [replica for replica in self._replicas if not replica.address]
        if not placeless:
            num = sum(not replica.has_answered for replica in self._replicas)
            return f"Waiting until {num} of {len(self._replicas)} servers answer."
        need = _need_of(placeless[0].order)
        cluster = read_cluster(read_autoscaler(), with_free=True)
        if reason := ruled_out(need, cluster):
            raise InputError(f"{reason} (for {placeless[0]})")
        return f"For {placeless[0]}: {waits_for(need, cluster, len(placeless))}."


@contextmanager
def served(
    config: RunConfig, run_id: str, *, is_local: bool, note: Callable[[str], None]
) -> Iterator[Fleet | None]:
    """The servers that a run asks for, ended afterwards; None: it asks for none."""
    if not _served(config):
        yield None
        return
    fleet = Fleet(config, run_id, is_local=is_local, note=note)
    try:
        yield fleet
    finally:
        fleet.end()


def _served(config: RunConfig) -> Mapping[str, EndpointExecution]:
    """The endpoints that answer a role and have servers of the run's own."""
    return {
        name: config.execution.endpoints[name]
        for name in config.method.endpoints_in_use
        if config.execution.endpoints[name].serve
    }


def _need_of(order: ServingOrder) -> dict[str, float]:
    need = {"GPU": order.serve.gpus, "CPU": order.serve.cpus}
    return {name: amount for name, amount in need.items() if amount}
