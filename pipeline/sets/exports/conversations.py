"""Questions and answers in words, for trainers that know tags and for those that do not."""

import re
from collections.abc import Sequence

from pipeline.sets.exports.form import Reason, Source, is_text
from schemas.rows import ImageCell, Message, TextRow

_TAGS = re.compile(
    r"<(\|?/?(?:image|video|audio|img|start-image|bbox|ref-object|cot-process)\|?)>", re.IGNORECASE
)
"""What a loader takes for a picture, wherever it stands: LLaMA-Factory, verl and VeOmni the first
three, ms-swift 4.6.0 all of them (between `<img>` and `</img>` the path of a file). Our own tags
are put in afterwards.
"""


def text_of(source: Source) -> TextRow | Reason:
    """The row, if it is one of words."""
    return source.row if is_text(source.row) else Reason.DRAWING


def tagged(messages: Sequence[Message], images: Sequence[ImageCell]) -> list[Message]:
    """The messages with a tag in the first question for each picture, as many loaders want, and
    without those that a prompt, a thought or an answer happens to spell.
    """
    plain = untagged(messages)
    first = next(message for message in plain if message["role"] == "user")
    first["content"] = f"{'<image>' * len(images)}{first['content']}"
    return plain


def untagged(messages: Sequence[Message]) -> list[Message]:
    """The messages with tags that are spelt in them as text: `<image>` becomes `< image>`."""
    return [
        {"role": message["role"], "content": without_tags(message["content"])}
        for message in messages
    ]


def without_tags(text: str) -> str:
    """The text with every tag broken by a space, which no loader takes for one."""
    return _TAGS.sub(r"< \1>", text)
