"""A server of an endpoint on this machine, without a Ray: for as long as it is wanted."""

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

from jobs.cluster.serving.keeper import Keeper, ServerOrder
from jobs.cluster.serving.process import log_folder
from pipeline.endpoints.keys import key_of
from schemas.endpoints import EndpointExecution, EndpointMethod
from schemas.errors import InputError


@contextmanager
def kept_here(
    name: str, method: EndpointMethod, execution: EndpointExecution, *, host: str, port: int
) -> Iterator[tuple[Keeper, Path]]:
    """One server of an endpoint, started now and ended afterwards, and its log.

    It sees the GPUs that this process sees. Raises InputError for an address that others can reach
    without a key, and for an endpoint that has no `serve`.
    """
    if execution.serve is None:
        raise InputError(
            f"execution.endpoints.{name} has a url and no serve: say what to start, such as "
            f'[execution.endpoints.{name}.serve] command = ["PATH/vllm", "serve"]'
        )
    key = key_of(name, execution)
    if key is None and not _is_loopback(host):
        raise InputError(
            f"at {host} everyone on the network could ask the server of endpoint {name}: name a "
            f"variable that holds a key, execution.endpoints.{name}.api_key_env, or leave --host "
            "out"
        )
    log = log_folder() / f"{name}.log"
    keeper = Keeper(
        ServerOrder(
            model=method.model,
            revision=method.revision,
            serve=execution.serve,
            key=key.get_secret_value() if key else None,
            host=host,
            gpus=None,
            log=log,
            port=port,
        )
    )
    try:
        yield keeper, log
    finally:
        keeper.end()


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
