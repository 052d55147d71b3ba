"""What a rollout asks of a model and what it gets back: frozen values, no tensors.

A request says everything that the answer may depend on. Two equal requests have, in strict mode,
equal answers; a backend may therefore answer the second from the first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from schemas.errors import RolloutError
from schemas.trace import Finish, Role

if TYPE_CHECKING:
    from schemas.runs import EndpointUsage  # loads pydantic, which a bare GPU machine may lack

Codes = tuple[int, ...]
"""Image tokens in drawing order: row by row from the top left."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One turn of a conversation. Each backend renders it in its model's own chat format."""

    role: str  # "system", "user" or "assistant"
    text: str


@dataclass(frozen=True, slots=True)
class Canvas:
    """The picture so far, as the tokens drawn; tokens not drawn yet count as code 0."""

    codes: Codes


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as an encoded file (PNG, WebP, JPEG), for models that did not draw it."""

    data: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One model call. Role, region, revision and candidate name it within its rollout."""

    role: Role
    region: int = 0
    revision: int = 0  # 0 is the first drawing and the critique of it
    candidate: int = 0  # the n-th answer asked for at this place
    temperature: float  # 0 takes the likeliest token
    seed: int | None = None  # set by drive(); None where nothing is left to chance
    with_logp: bool = False
    # Set by drive(): whose it is. No answer depends on it.
    rollout: str = field(default="", repr=False, compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Text(Request):
    """A question that is answered in words. Pictures stand in the first user message."""

    messages: tuple[Message, ...]
    pictures: tuple[Canvas | Picture, ...] = ()
    top_p: float = 1.0
    max_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Visual(Request):
    """A region to be drawn after `codes`, conditioned on `text`, with classifier-free guidance."""

    text: str
    codes: Codes
    num_tokens: int
    cfg_weight: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What every answer carries. Log-probabilities are natural logs, one a token, None if greedy.

    `logp_sample` is of the distribution that was sampled from (guided and tempered for image
    tokens), `logp_cond` of the conditional branch at temperature 1.
    """

    # Text tokens before the answer, image placeholders expanded. None: of a foreign tokenizer.
    prefix_ids: tuple[int, ...] | None
    logp_sample: tuple[float, ...] | None = None
    logp_cond: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TextAnswer(Answer):
    """Words. `token_ids` end with the end-of-sentence token if it came."""

    text: str  # decoded, special tokens skipped, otherwise as it came
    token_ids: tuple[int, ...] | None  # None: of a foreign tokenizer
    finish: Finish
    usage: "EndpointUsage | None" = None  # None: it cost nothing


@dataclass(frozen=True, kw_only=True, slots=True)
class VisualAnswer(Answer):
    """The tokens of one region, without those that stood before it."""

    codes: Codes


RequestId = int


class Backend(Protocol):
    """Answers requests, in any order, each exactly once. It never sees a program."""

    def submit(self, request_id: RequestId, request: Request) -> None:
        """Take a request. Returns at once; the answer comes from a later `poll`."""

    def poll(self) -> Sequence[tuple[RequestId, Answer | RolloutError]]:
        """What has been answered since the last call. May compute; empty while it only waits."""
