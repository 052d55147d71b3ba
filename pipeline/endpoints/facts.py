"""What a server says of itself, and what it turns out to do: asked once, before any work.

A server that ignores a field does not say so, and one that says it is healthy may fail at the first
question. So one small question is asked as the run will ask, and one that only a schema which binds
can make it answer so.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import httpx2
import numpy as np
from pydantic import BaseModel, ValidationError

from pipeline.endpoints.answers import Completion, Setback
from pipeline.endpoints.chat import ChatRequest, Schema
from pipeline.endpoints.client import EndpointClient, Reply
from pipeline.endpoints.promises import host_of
from pipeline.twig.requests import Message
from schemas.errors import EndpointAway, EndpointRefused, InfrastructureFailure, InputError

_PAUSE_SECONDS = 1.0
_PROBE_TOKENS = 24
_PROBE_SCHEMA = Schema(
    name="probe",
    body={
        "type": "object",
        "properties": {"coppice": {"type": "integer", "enum": [7]}},
        "required": ["coppice"],
        "additionalProperties": False,
    },
)
_PICTURE = np.full((64, 64, 3), 128, np.uint8)


class _Model(BaseModel):
    id: str
    root: str | None = None
    max_model_len: int | None = None


class _Models(BaseModel):
    data: list[_Model]


class _Version(BaseModel):
    version: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerFacts:
    """An endpoint's server, as it was at the start."""

    endpoint: str
    host: str
    model: str
    version: str = ""  # empty: it does not say
    root: str = ""  # the path or repository that its model came from
    max_model_len: int | None = None
    binds_schema: bool = False  # answers follow a JSON schema, whatever the model would say

    def __str__(self) -> str:
        parts = [self.model, self.version, self.root if self.root != self.model else ""]
        length = [f"{self.max_model_len} tokens"] if self.max_model_len else []
        return f"{self.endpoint}: {' '.join(part for part in [*parts, *length] if part)}"


def meet(
    client: EndpointClient,
    like: ChatRequest,
    *,
    with_picture: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> ServerFacts:
    """Wait until a server answers, see that it is what the config says, and what it can do.

    `like` has the sampling that questions will have. Raises InputError for a server that is another
    one, EndpointAway for one that does not come within the endpoint's patience.
    """
    described = _describe(client, sleep)
    pictures = (_PICTURE,) if with_picture else ()
    hello = replace(
        like,
        messages=(Message(role="user", text="Say hello."),),
        pictures=pictures,
        max_tokens=min(like.max_tokens, _PROBE_TOKENS),
        schema=None,
        request_id="coppice-probe",
        rollout="",
    )
    answer = _understood(client, client.submit(hello).result(), with_picture=with_picture)
    if answer.model not in (None, client.method.model) and not _is_dated(client, answer.model):
        raise InputError(
            f"endpoint {client.name} was asked for model {client.method.model!r:.80} and answers "
            f"as {answer.model!r:.80}; see method.endpoints.{client.name}.model"
        )
    client.answers_as = answer.model
    binds = client.method.structured_output != "off" and _binds(client, hello)
    if client.method.structured_output == "require" and not binds:
        raise InputError(
            f"the server of endpoint {client.name} does not hold answers to a JSON schema, and "
            f"method.endpoints.{client.name}.structured_output is require; serve it with "
            "structured output, or say auto"
        )
    return replace(described, binds_schema=binds)


def _describe(client: EndpointClient, sleep: Callable[[float], None]) -> ServerFacts:
    """What every replica says of its models; the first one's words."""
    facts = [_describe_one(client, url, sleep) for url in client.urls]
    return facts[0]


def _describe_one(client: EndpointClient, url: str, sleep: Callable[[float], None]) -> ServerFacts:
    facts = ServerFacts(endpoint=client.name, host=host_of(url), model=client.method.model)
    response = _patiently(client, f"{url}/models", sleep)
    if response.status_code in (401, 403):
        variable = client.execution.api_key_env
        has = f"the key in {variable}" if variable else "to be asked without a key"
        raise InputError(
            f"endpoint {client.name} at {facts.host} refuses {has} (status "
            f"{response.status_code}); name the variable with its key in "
            f"execution.endpoints.{client.name}.api_key_env"
        )
    if 300 <= response.status_code < 400:
        raise InputError(
            f"endpoint {client.name} at {facts.host} redirects, which is never followed, since "
            "that would take prompts and the key elsewhere; give the address that answers itself"
        )
    try:
        models = _Models.model_validate_json(response.content).data
    except ValidationError:
        models = []  # not every server has the list; whether it has the model, its answer will say
    by_id = {model.id: model for model in models}
    if models and client.method.model not in by_id:
        raise InputError(
            f"endpoint {client.name} at {facts.host} has no model {client.method.model!r:.80}; "
            f"it has: {', '.join(sorted(by_id))[:300]!r}"
        )
    model = by_id.get(client.method.model)
    return replace(
        facts,
        version=_version_of(client, url),
        root=(model.root or "") if model else "",
        max_model_len=model.max_model_len if model else None,
    )


def _patiently(client: EndpointClient, url: str, sleep: Callable[[float], None]) -> httpx2.Response:
    """The response to a GET, waited for while no server is there."""
    give_up_at = time.monotonic() + client.execution.patience_seconds
    while True:
        response = client.get(url)
        if not isinstance(response, Setback) and response.status_code not in (502, 503, 504):
            return response
        if time.monotonic() + _PAUSE_SECONDS > give_up_at:
            raise EndpointAway(
                f"endpoint {client.name} at {host_of(url)} does not answer, after "
                f"{client.execution.patience_seconds:.0f} s of patience; start its server, or see "
                f"execution.endpoints.{client.name}"
            )
        sleep(_PAUSE_SECONDS)


def _version_of(client: EndpointClient, url: str) -> str:
    """vLLM tells it beside its /v1; others may not."""
    response = client.get(f"{url.removesuffix('/v1')}/version")
    if isinstance(response, Setback) or response.status_code != 200:
        return ""
    try:
        return _Version.model_validate_json(response.content).version[:40]
    except ValidationError:
        return ""


def _understood(client: EndpointClient, reply: Reply, *, with_picture: bool) -> Completion:
    """The answer to a question that is ours. Raises InputError where there is none."""
    if isinstance(reply, Completion):
        return reply
    if isinstance(reply, InfrastructureFailure):
        raise EndpointAway(str(reply))
    if isinstance(reply, EndpointRefused):
        raise InputError(str(reply))
    picture = ", with a picture," if with_picture else ""
    raise InputError(
        f"{reply}: it was asked a short question{picture} as the run would ask; a model that takes "
        "no pictures cannot reflect, and some servers tell no log-probabilities "
        "(method.sampling.with_logp) or refuse a field of "
        f"method.endpoints.{client.name}.extra"
    )


def _is_dated(client: EndpointClient, model: str | None) -> bool:
    """Whether a server resolves the name to a dated one, as commercial ones do."""
    return model is not None and model.startswith(f"{client.method.model}-")


def _binds(client: EndpointClient, hello: ChatRequest) -> bool:
    """Whether the answer is of a schema that no one would think of in saying hello."""
    asked = replace(hello, pictures=(), schema=_PROBE_SCHEMA, with_logp=False)
    reply = client.submit(asked).result()
    if not isinstance(reply, Completion):
        return False
    try:
        return bool(json.loads(reply.text) == {"coppice": 7})
    except (ValueError, RecursionError):
        return False
