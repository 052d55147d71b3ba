"""Single endpoints of a config file, for commands that need no run."""

from pipeline.plan.configs import Tables, validated
from schemas.endpoints import EndpointExecution, EndpointMethod
from schemas.errors import InputError
from schemas.frozen import Frozen
from schemas.json_values import JsonObject


class _Endpoints(Frozen):
    method: dict[str, EndpointMethod]
    execution: dict[str, EndpointExecution]


def endpoint_of(
    tables: Tables, name: str, *, may_be_served: bool = False
) -> tuple[EndpointMethod, EndpointExecution]:
    """Both halves of an endpoint of a config file's tables.

    Raises InputError, also for one without an address, unless it `may_be_served`.
    """
    halves: JsonObject = {}
    for half in ("method", "execution"):
        table = tables.get(half)
        endpoints = table.get("endpoints") if isinstance(table, dict) else None
        if not isinstance(endpoints, dict) or name not in endpoints:
            raise InputError(
                f"there is no [{half}.endpoints.{name:.40}]: give a file by --config that has it, "
                "and both of [method.endpoints.NAME] and [execution.endpoints.NAME]"
            )
        halves[half] = {name: endpoints[name]}
    both = validated(_Endpoints, halves)
    if not both.execution[name].url and not may_be_served:
        raise InputError(
            f"endpoint {name} is served by a run, and none is going on; start it with: coppice "
            f"serve {name} --config FILE, and give its address as url"
        )
    return both.method[name], both.execution[name]
