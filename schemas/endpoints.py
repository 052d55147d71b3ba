"""Endpoints: OpenAI-compatible servers that answer text roles of a run, or judge.

Like a run's config an endpoint has two halves. What its answers depend on is part of the method;
where it is, how it is asked and what it costs is execution. A key is in neither: `api_key_env` is
the name of an environment variable.
"""

import re
from collections.abc import Iterable
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from schemas.frozen import Frozen
from schemas.json_values import JsonObject, JsonValue
from schemas.trace import GIVEN

MODEL_BACKENDS = ("engine", "reference", "fake")
"""The backends that are no endpoints."""

_RESERVED = (GIVEN, "install")  # a backend in traces, and a word of `coppice serve`

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_ENVIRONMENT_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
_KEY_OF_A_CLOUD = re.compile(r"(AKIA|ASIA|AIZA)[A-Z0-9]{12,}")  # all capitals, like a name
_OWN_FIELDS = frozenset(
    {"model", "messages", "stream", "n", "seed", "temperature", "top_p", "max_tokens"}
    | {"max_completion_tokens", "logprobs", "top_logprobs", "logprob_token_ids"}
    | {"response_format", "api_key", "authorization"}
)
_KEY_FLAGS = ("--api-key", "--hf-token", "--ssl-keyfile-password")


def _checked_url(url: str) -> str:
    """Says nothing of what it found: a URL may hold a password."""
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or re.search(r"[\s\x00-\x1f\x7f]", url):
        raise ValueError("expected an address such as http://127.0.0.1:8000/v1")
    if "@" in parts.netloc:
        raise ValueError(
            "the address has a user or a password in it: put the key into an environment variable "
            "and name that in api_key_env"
        )
    if parts.query or parts.fragment:
        raise ValueError("the address goes on after its path: expected none of ? and #")
    return url.rstrip("/")


def _checked_key_name(name: str) -> str:
    """Says nothing of what it found: it may be a key."""
    if not _ENVIRONMENT_NAME.fullmatch(name) or _KEY_OF_A_CLOUD.fullmatch(name):
        raise ValueError(
            "expected the name of an environment variable, such as CRITIC_API_KEY (capitals, "
            "digits and _), and never a key itself"
        )
    return name


def _as_list(value: JsonValue) -> JsonValue:
    return [value] if isinstance(value, str) else value


Url = Annotated[str, AfterValidator(_checked_url)]


class ServeConfig(Frozen):
    """Servers that the run starts for itself: this command, `replicas` times."""

    command: tuple[str, ...] = Field(min_length=1)  # such as ["/opt/vllm/bin/vllm", "serve"]
    replicas: int = Field(default=1, ge=1, le=1024)
    gpus: float = Field(default=1.0, ge=0)  # of each replica
    cpus: float = Field(default=1.0, ge=0)
    args: tuple[str, ...] = ()  # after the command and the model
    start_timeout_seconds: float = Field(default=1800.0, gt=0)  # until it answers

    @model_validator(mode="after")
    def _no_key_on_the_command_line(self) -> Self:
        for word in (*self.command, *self.args):
            if word.partition("=")[0] in _KEY_FLAGS:
                raise ValueError(
                    "a key on a command line can be read by everyone on the machine: put it into "
                    "an environment variable, for vLLM VLLM_API_KEY, and name that in api_key_env"
                )
        return self


class EndpointMethod(Frozen):
    """What an endpoint's answers depend on. Sampling that is not named is the run's own."""

    model: str = Field(min_length=1)  # as the server calls it
    revision: str | None = None  # of the weights; for the record, and for a server that we start
    temperature: float | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    structured_output: Literal["auto", "require", "off"] = "auto"  # auto: where the server binds it
    extra: JsonObject = Field(default_factory=dict)  # more fields of every request

    @model_validator(mode="after")
    def _extra_is_not_ours(self) -> Self:
        if own := sorted(_OWN_FIELDS & {name.lower() for name in self.extra}):
            raise ValueError(f"extra has {', '.join(own)}, which is set by other settings")
        return self


class EndpointExecution(Frozen):
    """Where an endpoint is, how it is asked, and what it costs. Changes no answer."""

    url: Annotated[tuple[Url, ...], BeforeValidator(_as_list)] = ()  # one, or one a replica
    serve: ServeConfig | None = None
    api_key_env: Annotated[str, AfterValidator(_checked_key_name)] | None = None
    concurrency: int = Field(default=64, ge=1, le=4096)  # requests in flight, of one process
    connect_timeout_seconds: float = Field(default=10.0, gt=0)
    request_timeout_seconds: float = Field(default=300.0, gt=0)  # of one try
    total_timeout_seconds: float = Field(default=1800.0, gt=0)  # of all tries of a request
    max_tries: int = Field(default=5, ge=1, le=100)  # of a request that a server refuses or breaks
    patience_seconds: float = Field(default=600.0, ge=0)  # with a server that is away
    input_price: float | None = Field(default=None, ge=0)  # per million tokens, in any currency
    output_price: float | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _exactly_one_address(self) -> Self:
        if bool(self.url) == (self.serve is not None):
            raise ValueError("give url or serve, and not both")
        return self


def check_names(names: Iterable[str]) -> None:
    """Refuse what cannot be the name of an endpoint. Raises ValueError."""
    for name in names:
        if name in (*MODEL_BACKENDS, *_RESERVED) or not _NAME.fullmatch(name):
            raise ValueError(
                f"{name!r:.60} is no name for an endpoint: expected lower-case letters, digits, "
                f"_ and -, a letter first, and none of {', '.join((*MODEL_BACKENDS, *_RESERVED))}"
            )
