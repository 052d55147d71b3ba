"""What an endpoint is asked: one chat completion, as the OpenAI protocol has it, never streamed."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.pictures import Pixels
from pipeline.twig.requests import Message
from schemas.json_values import JsonMapping, JsonObject, JsonValue

_SEED_BITS = 63  # servers keep seeds in a signed 64-bit number


@dataclass(frozen=True, kw_only=True, slots=True)
class Schema:
    """A JSON schema that an answer is to follow."""

    name: str
    body: JsonMapping


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatRequest:
    """A question to an endpoint. Pictures stand in the first user message, before its text."""

    messages: tuple[Message, ...]
    pictures: Sequence[Pixels | bytes] = field(default=(), repr=False)  # bytes: an encoded file
    temperature: float
    top_p: float = 1.0
    max_tokens: int
    seed: int | None = None
    schema: Schema | None = None
    with_logp: bool = False
    top_logprobs: int | None = None  # the likeliest so many beside each token
    logprob_token_ids: tuple[int, ...] = ()  # a server that knows this field tells of these
    request_id: str  # in the server's log, too
    rollout: str = ""  # requests of one rollout go to one replica, whose cache has their prefix


def body_of(request: ChatRequest, *, model: str, extra: Mapping[str, JsonValue]) -> bytes:
    """The body of its POST. Encodes the pictures, which takes milliseconds each."""
    body: JsonObject = {
        **extra,
        "model": model,
        "messages": _messages(request),
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_tokens": request.max_tokens,
        "stream": False,
    }
    if request.seed is not None:
        body["seed"] = request.seed % 2**_SEED_BITS
    if request.schema is not None:
        schema: JsonObject = {"name": request.schema.name, "schema": dict(request.schema.body)}
        body["response_format"] = {"type": "json_schema", "json_schema": {**schema, "strict": True}}
    if request.with_logp or request.top_logprobs or request.logprob_token_ids:
        body["logprobs"] = True
    if request.top_logprobs:
        body["top_logprobs"] = request.top_logprobs
    if request.logprob_token_ids:
        body["logprob_token_ids"] = list(request.logprob_token_ids)
    return json.dumps(body, ensure_ascii=True, allow_nan=False).encode()


def _messages(request: ChatRequest) -> list[JsonValue]:
    turns: list[JsonValue] = []
    pictures = [_picture_part(picture) for picture in request.pictures]
    for message in request.messages:
        content: JsonValue = message.text
        if pictures and message.role == "user":
            content, pictures = [*pictures, {"type": "text", "text": message.text}], []
        turns.append({"role": message.role, "content": content})
    return turns


def _picture_part(picture: Pixels | bytes) -> JsonValue:
    data = picture if isinstance(picture, bytes) else _encode_png(picture)
    uri = f"data:image/{_kind_of(data)};base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": uri}}


def _encode_png(pixels: Pixels) -> bytes:
    """PNG is what every server reads; at level 1 it is fast, and a little larger than WebP."""
    from PIL import Image

    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG", compress_level=1)
    return sink.getvalue()


def _kind_of(data: bytes) -> str:
    if data.startswith(b"\xff\xd8"):
        return "jpeg"
    return "webp" if data[8:12] == b"WEBP" else "png"
