"""The Ray actor that keeps one server on the node and the GPUs that Ray gave it."""

import socket
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import ray

from jobs.cluster.ray_state import own_address
from jobs.cluster.serving.keeper import Keeper, ServerOrder, ServerStatus
from jobs.cluster.serving.process import log_folder
from pipeline.endpoints.keys import key_of
from schemas.endpoints import EndpointExecution, EndpointMethod, ServeConfig

LOOPBACK = "127.0.0.1"

Handle: TypeAlias = Any
"""Ray's handle of a `ServingActor`, which makes its methods up: `handle.status.remote()`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServingOrder:
    """One replica of an endpoint, wherever Ray finds room for it."""

    name: str  # of the endpoint
    replica: int
    run_id: str  # names the log
    method: EndpointMethod
    execution: EndpointExecution
    serve: ServeConfig
    # Made for the run; None: the endpoint names a variable, which its node has.
    own_key: str | None = field(repr=False)
    is_local: bool  # whether everyone who asks it is on its own machine


@dataclass(frozen=True, kw_only=True, slots=True)
class ServingAddress:
    """Where a replica is, and what it has there."""

    node_id: str  # Ray's
    host: str
    log: str  # of its server, on that machine

    def __str__(self) -> str:
        return f"{self.host} (node {self.node_id[:8]}), log {self.log}"


class ServingActor:
    """Keeps one server. When this process goes, the server goes with all that it started."""

    def __init__(self, order: ServingOrder) -> None:
        self._order = order
        self._keeper: Keeper | None = None

    def start(self) -> ServingAddress:
        """Start the server, once Ray found a place for it. Says where that is.

        Raises InputError if its key is not in this node's environment.
        """
        order, context = self._order, ray.get_runtime_context()
        log = log_folder() / f"{order.run_id}-{order.name}-{order.replica}.log"
        key = order.own_key
        if key is None and (named := key_of(order.name, order.execution)):
            key = named.get_secret_value()
        self._keeper = Keeper(
            ServerOrder(
                model=order.method.model,
                revision=order.method.revision,
                serve=order.serve,
                key=key,
                host=LOOPBACK if order.is_local else own_address(),
                # As Ray gave them; none, though the node may have some.
                gpus=",".join(context.get_accelerator_ids().get("GPU", [])),
                log=log,
            )
        )
        return ServingAddress(
            node_id=context.get_node_id(), host=socket.gethostname(), log=str(log)
        )

    def status(self) -> ServerStatus:
        """How its server is doing."""
        assert self._keeper is not None, "start() comes first"
        return self._keeper.status()

    def end(self) -> None:
        """End its server, and return when nothing of it is left."""
        if self._keeper is not None:
            self._keeper.end()


def start_serving(order: ServingOrder) -> Handle:
    """Ask Ray for an actor that keeps a replica, with GPUs that are nobody else's."""
    return (
        ray.remote(ServingActor)
        .options(
            num_cpus=order.serve.cpus,
            num_gpus=order.serve.gpus,
            max_restarts=0,  # the fleet must know of every death
        )
        .remote(order)
    )
