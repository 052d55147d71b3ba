"""TRL: `SFTTrainer` on prompts and completions, where the loss falls on the completion alone, and
`DPOTrainer` on pairs of thoughts that answer one question.
"""

from pipeline.sets.exports.conversations import text_of
from pipeline.sets.exports.form import (
    IMAGES,
    MESSAGES,
    NAMES,
    Export,
    Reason,
    Rows,
    Source,
    names_of,
    png_cells,
)
from schemas.recipes import SetKind
from schemas.rows import Message

_CONSUMER = "TRL 1.16.0"


def _prompt_and_completion(source: Source) -> Rows:
    if isinstance(row := text_of(source), Reason):
        return row
    *prompt, answer = row["messages"]
    images = png_cells(row["images"])
    return [names_of(row) | {"prompt": prompt, "completion": [answer], "images": images}]


def _conversation(source: Source) -> Rows:
    if isinstance(row := text_of(source), Reason):
        return row
    images = png_cells(row["images"])
    return [names_of(row) | {"messages": row["messages"], "images": images}]


def _preferred_thought(source: Source) -> Rows:
    pair = source.trace.thoughts
    if pair is None or not pair.has_one_prompt:
        return Reason.OTHER_PROMPT
    if pair.chosen == pair.rejected:
        return Reason.SAME_ANSWER
    chosen, rejected = (_answer(text) for text in (pair.chosen, pair.rejected))
    return [
        names_of(source.row)
        | {"prompt": pair.question, "chosen": chosen, "rejected": rejected}
        | {"images": png_cells(pair.images)}
    ]


def _answer(text: str) -> list[Message]:
    return [{"role": "assistant", "content": text}]


TRL = Export(
    version=2,
    consumer=_CONSUMER,
    kinds=frozenset({SetKind.SFT}),
    rows_of=_prompt_and_completion,
    columns={**NAMES, "prompt": MESSAGES, "completion": MESSAGES, "images": IMAGES},
)

# With TRL's defaults the loss falls on the question as well: for `assistant_only_loss`, which asks
# for a chat template that marks the assistant's tokens, and for readers of whole conversations.
TRL_MESSAGES = Export(
    version=2,
    consumer=_CONSUMER,
    kinds=frozenset({SetKind.SFT}),
    rows_of=_conversation,
    columns={**NAMES, "messages": MESSAGES, "images": IMAGES},
)

TRL_DPO = Export(
    version=2,
    consumer=_CONSUMER,
    kinds=frozenset({SetKind.PREFERENCE}),
    rows_of=_preferred_thought,
    columns={
        **NAMES,
        **{"prompt": MESSAGES, "chosen": MESSAGES, "rejected": MESSAGES, "images": IMAGES},
    },
    shows_traces=frozenset({SetKind.PREFERENCE}),
)
