"""Keys of endpoints: read from the environment, here and in every worker, and written nowhere.

A key never travels: each process that asks an endpoint reads it from its own environment, which on
a cluster is that of the node's Ray. So it stands in no argument, no job's metadata and no log.
"""

import os
from collections.abc import Iterable, Mapping

from pydantic import SecretStr

from schemas.config import RunConfig
from schemas.endpoints import EndpointExecution
from schemas.errors import InputError


def key_of(
    endpoint: str, execution: EndpointExecution, environment: Mapping[str, str] = os.environ
) -> SecretStr | None:
    """The key of an endpoint; None: it asks for none. Raises InputError if it is not there."""
    variable = execution.api_key_env
    if variable is None:
        return None
    key = environment.get(variable, "").strip()
    if not key:
        raise InputError(
            f"execution.endpoints.{endpoint}.api_key_env names {variable}, which this environment "
            "does not have; export it before the command, and on a cluster before each node's "
            "ray start (it is read there, and never sent)"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise InputError(
            f"the environment variable {variable}, the key of endpoint {endpoint}, holds white "
            "space or characters that no header can carry; export the key alone"
        )
    return SecretStr(key)


def check_keys(config: RunConfig, names: Iterable[str] | None = None) -> None:
    """See that the keys of these endpoints are there: without names of those that answer a role.

    Raises InputError.
    """
    for name in config.method.endpoints_in_use if names is None else names:
        execution = config.execution.endpoints[name]
        if execution.url:  # servers that a run starts for itself get keys of its own making
            key_of(name, execution)
