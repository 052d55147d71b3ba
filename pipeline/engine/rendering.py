"""Questions as Janus's token ids, in the chat format that its checkpoints were trained on.

What users and models wrote is encoded as plain text: a prompt that spells `<image_placeholder>` is
those letters, never the token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.engine.checkpoints import Janus
from pipeline.twig.requests import Message, Text, Visual

# The system prompt that Janus adds to every question with a picture, and to no other (chat template
# of the published deepseek-ai/Janus-Pro processors). A question may bring its own.
JANUS_SYSTEM_PROMPT = (
    "You are a helpful language and vision assistant. "
    "You are able to understand the visual content that the user provides, "
    "and assist the user with a variety of tasks using natural language."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawPrefix:
    """The text before a picture: ids of the conditional row and, as long, of the unconditional."""

    cond: tuple[int, ...]
    uncond: tuple[int, ...]  # all but the first and the last are pads, which are attended to


class Renderer:
    """Renders requests for one checkpoint. Safe to share between threads."""

    def __init__(self, janus: Janus) -> None:
        from tokenizers import Tokenizer

        core = janus.tokenizer.backend_tokenizer
        # A copy: encoding special tokens as plain text is a switch of the whole tokenizer.
        self._plain = Tokenizer.from_str(core.to_str())
        self._plain.encode_special_tokens = True
        self._special = janus.special
        num_image_ids = janus.geometry.num_tokens
        self._picture = [
            self._special.boi,
            *[self._special.image] * num_image_ids,
            self._special.eoi,
        ]

    def question(self, request: Text) -> tuple[int, ...]:
        """Ids of a question, up to where the answer begins. Image placeholders are expanded."""
        messages = list(request.messages)
        if request.pictures and messages[0].role != "system":
            messages.insert(0, Message(role="system", text=JANUS_SYSTEM_PROMPT))
        pictures_before = next(i for i, message in enumerate(messages) if message.role == "user")
        ids = [self._special.bos]
        for index, message in enumerate(messages):
            shown = len(request.pictures) if index == pictures_before else 0
            ids += self._turn(message, shown)
        return (*ids, self._special.assistant, *self._encode(":"))

    def draw_prefix(self, request: Visual) -> DrawPrefix:
        """Ids of the text that a picture is drawn from. Roles are plain words here, no tokens."""
        text = self._encode(f"User: {request.text}\n\nAssistant:")
        cond = (self._special.bos, *text, self._special.boi)
        uncond = (self._special.bos, *[self._special.pad] * len(text), self._special.boi)
        return DrawPrefix(cond=cond, uncond=uncond)

    def words(self, ids: Sequence[int]) -> str:
        """The text of an answer, special tokens skipped."""
        return self._plain.decode(list(ids), skip_special_tokens=True)

    def _turn(self, message: Message, num_pictures: int) -> list[int]:
        if message.role == "system":
            return self._encode(f"{message.text}\n\n") if message.text else []
        if message.role == "assistant":
            return [
                self._special.assistant,
                *self._encode(f": {message.text}"),
                self._special.eos,
            ]
        if not num_pictures:
            return [self._special.user, *self._encode(f": {message.text}\n\n")]
        ids = [self._special.user, *self._encode(": ")]
        for index in range(num_pictures):
            ids += [*(self._encode("\n") if index else []), *self._picture]
        return [*ids, *self._encode(f"\n{message.text}\n\n")]

    def _encode(self, text: str) -> list[int]:
        return list(self._plain.encode(text, add_special_tokens=False).ids)
