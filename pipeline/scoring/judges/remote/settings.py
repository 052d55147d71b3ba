"""What a judge behind an endpoint can be told. Which model answers is part of its version; where it
is, is not.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar

from pydantic import Field

from pipeline.scoring.judges.outcomes import Look
from pipeline.scoring.settings import ScorerRequest, ScorerSettings
from schemas.endpoints import EndpointExecution, EndpointMethod
from schemas.errors import InputError

ENDPOINTS = ("endpoint", "against")
"""Settings that name an endpoint; `NAME_model` and `NAME_server` are what its name stands for."""


class RemoteSettings(ScorerSettings):
    """What every judge behind an endpoint can be told."""

    NOT_COMPARED: ClassVar[frozenset[str]] = frozenset(
        {"endpoint", "against", "endpoint_server", "against_server"}
    )

    endpoint: str
    """Of the config file's `[method.endpoints.NAME]` and `[execution.endpoints.NAME]`."""
    against: str | None = None
    """Another endpoint, which is asked the same: what it says, and how far both differ, are columns
    of their own.
    """
    endpoint_model: EndpointMethod | None = None
    endpoint_server: EndpointExecution | None = None
    against_model: EndpointMethod | None = None
    against_server: EndpointExecution | None = None
    look: Look = "trace"
    max_tokens: int = Field(default=512, ge=1)  # of an answer in words

    def servers(self) -> Iterator[tuple[str, EndpointMethod, EndpointExecution]]:
        """The endpoints to be asked, the one whose word counts first. Raises InputError."""
        for setting in ENDPOINTS:
            name = getattr(self, setting)
            if name is None:
                continue
            model, server = getattr(self, f"{setting}_model"), getattr(self, f"{setting}_server")
            if model is None or server is None:
                raise InputError(
                    f"endpoint {name} of a judge is not described: give a file with "
                    f"[method.endpoints.{name}] and [execution.endpoints.{name}] by --config"
                )
            yield name, model, server


def with_endpoints(
    requests: Iterable[ScorerRequest],
    find: Callable[[str], tuple[EndpointMethod, EndpointExecution]],
) -> list[ScorerRequest]:
    """The requests, those that name endpoints with what `find` says of them, and raises."""
    return [_with_endpoints(request, find) for request in requests]


def _with_endpoints(
    request: ScorerRequest, find: Callable[[str], tuple[EndpointMethod, EndpointExecution]]
) -> ScorerRequest:
    settings = dict(request.settings)
    for setting in ENDPOINTS:
        name = settings.get(setting)
        if isinstance(name, str) and f"{setting}_model" not in settings:
            model, server = find(name)
            settings[f"{setting}_model"] = model.model_dump(mode="json", exclude_defaults=True)
            settings[f"{setting}_server"] = server.model_dump(mode="json", exclude_defaults=True)
    return ScorerRequest(name=request.name, settings=settings)
