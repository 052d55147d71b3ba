"""What came back of a request, read strictly: an answer, a setback that another try may mend, or a
failure. Nothing that a server writes in an error is passed on but words that can name nobody: its
message may repeat the prompt or the key.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.errors import EndpointRefused, RecordFailure, RolloutError
from schemas.trace import Finish

MAX_ANSWER_BYTES = 8 * 2**20
"""More is no answer of a few hundred tokens, whatever it is."""

_LONGEST_WAIT_SECONDS = 120.0  # that a server may ask for
_AWAY = frozenset({429, 502, 503, 504})  # too many at once, or a gateway without its server
_REFUSED_KEY = frozenset({401, 403})
_WRONG_ADDRESS = frozenset({404, 405, 410})
_RECORD = frozenset({400, 413, 414, 415, 422})
_CONTEXT = re.compile(r"context.length|context.window|maximum.length|max_model_len|input_tokens")
_PLAIN_WORD = re.compile(r"[A-Za-z][A-Za-z_]{0,40}")


class _Wire(BaseModel):
    """Part of an answer. What it has beside the named fields is the server's own business."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class Likelihood(_Wire):
    """A token and its natural log-probability."""

    token: str
    logprob: float


class TokenLikelihood(Likelihood):
    """A token of the answer, and others that could have stood there."""

    top_logprobs: tuple[Likelihood, ...] | None = None


class _Logprobs(_Wire):
    content: tuple[TokenLikelihood, ...] | None = None


class _Message(_Wire):
    content: str | None = None


class _Choice(_Wire):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Usage(_Wire):
    prompt_tokens: int = Field(default=0, ge=0, lt=2**31)
    completion_tokens: int | None = Field(default=0, ge=0, lt=2**31)


class _Completion(_Wire):
    choices: tuple[_Choice, ...] = Field(min_length=1, max_length=1)
    model: str | None = None
    usage: _Usage | None = None


class _Error(_Wire):
    message: str | None = None
    type: str | None = None
    param: str | None = None
    code: int | str | None = None


class _ErrorBody(_Wire):
    error: _Error


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """An answer. `num_tries` and `seconds` are filled in by who asked."""

    text: str
    finish: Finish
    model: str | None  # as the server calls it; None: it does not say
    prompt_tokens: int
    completion_tokens: int
    likelihoods: tuple[TokenLikelihood, ...] | None  # None: not told
    num_tries: int = 1
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Setback:
    """A try that came to nothing, and may come to something when made again.

    `is_away`: the server is not there, or has no room; that is waited for. Otherwise it answered,
    or failed to, in a way that may be this request's fault, and tries are counted.
    """

    what: str  # in words; of the server's own only its status
    reason: str
    is_away: bool = False
    wait_seconds: float | None = None  # as the server asked


TryResult = Completion | Setback | RolloutError


def read_response(status: int, headers: Mapping[str, str], body: bytes) -> TryResult:
    """What a response says. Never raises, whatever it holds."""
    if status == 200:
        return _read_completion(body)
    return _read_refusal(status, headers, body)


def too_large() -> Setback:
    """An answer that goes on after `MAX_ANSWER_BYTES`."""
    limit = MAX_ANSWER_BYTES // 2**20
    return Setback(what=f"an answer of more than {limit} MiB", reason="endpoint_malformed")


def _read_completion(body: bytes) -> TryResult:
    try:
        completion = _Completion.model_validate_json(body)
    except ValidationError:
        return _read_error_in_200(body)
    choice, usage = completion.choices[0], completion.usage or _Usage()
    if choice.finish_reason == "content_filter":
        return RecordFailure("the server's filter withheld the answer", reason="endpoint_filtered")
    if choice.finish_reason not in tuple(Finish):
        return Setback(what="an answer without a proper end", reason="endpoint_malformed")
    return Completion(
        text=choice.message.content or "",
        finish=Finish(choice.finish_reason),
        model=completion.model,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens or 0,
        likelihoods=choice.logprobs.content if choice.logprobs else None,
    )


def _read_error_in_200(body: bytes) -> TryResult:
    """An error under the wrong status, or a page of some proxy, or rubbish."""
    error = _error_of(body)
    if error is None:
        return Setback(what="an answer that is no chat completion", reason="endpoint_malformed")
    if isinstance(error.code, int) and 400 <= error.code < 600:
        return _read_refusal(error.code, {}, body)
    return Setback(what=f"an error under status 200{_named(error)}", reason="endpoint_error")


def _read_refusal(status: int, headers: Mapping[str, str], body: bytes) -> TryResult:
    error = _error_of(body) or _Error()
    named = f"status {status}{_named(error)}"
    if status in _AWAY:
        wait = _retry_after(headers.get("retry-after", ""))
        return Setback(what=named, reason="endpoint_busy", is_away=True, wait_seconds=wait)
    if 300 <= status < 400:
        return EndpointRefused(
            f"{named}: it redirects, which is never followed, since that would take prompts and "
            "the key elsewhere; give the address that answers itself as url",
            reason="endpoint_refused",
        )
    if status in _REFUSED_KEY:
        return EndpointRefused(
            f"{named}: it refuses the key, or asks for one; see api_key_env, and that the variable "
            "it names holds a key of this server, on every node",
            reason="endpoint_refused",
        )
    if status in _WRONG_ADDRESS:
        return EndpointRefused(
            f"{named}: it has no such model, or no chat completions at this address; see model and "
            "url, which ends in /v1 for most servers",
            reason="endpoint_refused",
        )
    if status in _RECORD:
        is_long = _CONTEXT.search(" ".join(_words(error)).lower()) is not None
        reason = "context" if is_long else "endpoint_question"
        what = "the question is too long for its context" if is_long else "it refuses the question"
        return RecordFailure(f"{named}: {what}", reason=reason)
    return Setback(
        what=named,
        reason="endpoint_error",
        wait_seconds=_retry_after(headers.get("retry-after", "")),
    )


def _error_of(body: bytes) -> _Error | None:
    try:
        return _ErrorBody.model_validate_json(body).error
    except ValidationError:
        return None


def _words(error: _Error) -> list[str]:
    return [str(word) for word in (error.param, error.code, error.message) if word]


def _named(error: _Error) -> str:
    """` (BadRequestError, input_tokens)`: only words of a server's vocabulary, never a sentence."""
    words = [word for word in (error.type, error.param, error.code) if isinstance(word, str)]
    plain = [word for word in words if _PLAIN_WORD.fullmatch(word)]
    return f" ({', '.join(plain)})" if plain else ""


def _retry_after(value: str) -> float | None:
    """Seconds to wait, as a number or a date says; None: it does not say, or nonsense."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            at = parsedate_to_datetime(value)
            seconds = (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(seconds, 0.0), _LONGEST_WAIT_SECONDS) if math.isfinite(seconds) else None
