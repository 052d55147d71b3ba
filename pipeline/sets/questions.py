"""What an event was asked, in words, and what it had in sight."""

from collections.abc import Sequence

from pipeline.engine.rendering import JANUS_SYSTEM_PROMPT
from pipeline.twig.requests import Canvas, Codes, Request, Text, Visual
from schemas.rows import EventRow, ImageCell, Message, TraceRow
from schemas.trace import Role

_RENDERED = ("engine", "reference")  # backends that ask in Janus's chat format


def messages_of(request: Text, backend: str) -> list[Message]:
    """The messages of a question as the model saw them: Janus is told what it is wherever a picture
    is shown and the question does not tell it already (`pipeline.engine.rendering`).
    """
    messages: list[Message] = [
        {"role": message.role, "content": message.text} for message in request.messages
    ]
    if request.pictures and messages[0]["role"] != "system" and backend in _RENDERED:
        messages.insert(0, {"role": "system", "content": JANUS_SYSTEM_PROMPT})
    return [message for message in messages if message["content"]]


def canvas_in_sight(request: Request) -> Codes:
    """The tokens that a drawing goes on from, or that a question shows; none: no canvas yet."""
    if isinstance(request, Visual):
        return request.codes
    pictures = request.pictures if isinstance(request, Text) else ()
    return next((picture.codes for picture in pictures if isinstance(picture, Canvas)), ())


def canvas_picture(trace_row: TraceRow, event: EventRow) -> list[ImageCell]:
    """The canvas that an event looked at, which is always the one after the latest drawing."""
    before = [drawing for drawing in drawings_of(trace_row) if drawing["index"] < event["index"]]
    return images_at(trace_row, [before[-1]["picture"]])


def drawings_of(trace_row: TraceRow) -> list[EventRow]:
    """All drawings, those that were replaced as well."""
    return [event for event in trace_row["events"] if event["role"] == Role.DRAW]


def images_at(trace_row: TraceRow, indices: Sequence[int | None]) -> list[ImageCell]:
    """The pictures at these indices; none if any of them is not kept."""
    kept = [index for index in indices if index is not None]
    return [trace_row["images"][index] for index in kept] if len(kept) == len(indices) else []
