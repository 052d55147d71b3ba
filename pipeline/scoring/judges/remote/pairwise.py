"""Which of two pictures of one prompt is better? A win rate within the rollouts of each prompt.

Each pair is shown twice, the second time the other way round: models like the first picture, or the
second, whatever is on it. A pair whose winner depends on the order is a draw.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.endpoints.answers import Completion
from pipeline.endpoints.chat import Schema
from pipeline.scoring.judges.outcomes import Judgement, Outcome, View
from pipeline.scoring.judges.remote.judge import Answered, Judging, RemoteJudge, by_schema
from pipeline.scoring.judges.remote.settings import RemoteSettings
from schemas.scores import ColumnType

QUESTION = (
    "Both pictures were made for this prompt: {prompt}\n"
    "Which of them shows it better: the first or the second? Give a sentence of reasons. Answer "
    "with a JSON object with two keys: reasons, a text, and better, which is first, second or "
    "neither."
)
_SCHEMA = Schema(
    name="pair",
    body={
        "type": "object",
        "properties": {
            "reasons": {"type": "string"},
            "better": {"type": "string", "enum": ["first", "second", "neither"]},
        },
        "required": ["reasons", "better"],
        "additionalProperties": False,
    },
)
_POINTS = {"first": 1.0, "neither": 0.5, "second": 0.0}  # for the picture that is shown first


class _Pair(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    reasons: str
    better: Literal["first", "second", "neither"]


class PairwiseSettings(RemoteSettings):
    max_opponents: int = Field(default=8, ge=1)  # of a picture; the next ones of its prompt


@dataclass(slots=True)
class _Record:
    """How a picture did."""

    points: list[float] = field(default_factory=list)  # of pairs that were judged both ways
    num_steady: int = 0  # pairs with the same winner both ways
    reasons: list[str] = field(default_factory=list)


class Pairwise(RemoteJudge[PairwiseSettings]):
    """The share of pairs that a picture wins, a draw counting half; null without another one.

    It compares what it is given together, so it is given all of a trace object.
    """

    name = "pairwise"
    compares_inputs: Literal[True] = True
    own_columns: ClassVar[Mapping[str, ColumnType]] = {"steady": "float32", "reasons": "string"}
    Settings = PairwiseSettings

    def judge(self, judging: Judging, views: Sequence[View]) -> Sequence[Judgement]:
        pairs = list(pairs_of([view.prompt for view in views], self.settings.max_opponents))
        both_ways = [order for pair in pairs for order in (pair, pair[::-1])]
        requests = [
            self.question(
                QUESTION.replace("{prompt}", views[first].prompt),
                [views[first].pixels, views[second].pixels],
                number=number,
                schema=_SCHEMA,
            )
            for number, (first, second) in enumerate(both_ways)
        ]
        answers = [_read(answer) for answer in by_schema(judging, requests)]
        records = [_Record() for _ in views]
        for (first, second), forth, back in zip(pairs, answers[::2], answers[1::2], strict=True):
            if forth is not None and back is not None:
                _note(records[first], records[second], forth, back)
        has_pairs = {index for pair in pairs for index in pair}
        return [_judgement(record, index in has_pairs) for index, record in enumerate(records)]


def pairs_of(prompts: Sequence[str], max_opponents: int) -> list[tuple[int, int]]:
    """Which pictures are compared: all pairs of a prompt, or each with so many of those after it,
    the first ones following the last.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for index, prompt in enumerate(prompts):
        groups[prompt].append(index)
    pairs: list[tuple[int, int]] = []
    for group in groups.values():
        size = len(group)
        if size - 1 <= max_opponents:
            pairs += combinations(group, 2)
            continue
        steps = range(1, max(1, max_opponents // 2) + 1)
        pairs += [(group[at], group[(at + step) % size]) for step in steps for at in range(size)]
    return pairs


def _read(answer: Answered) -> _Pair | None:
    if not isinstance(answer, Completion):
        return None
    try:
        return _Pair.model_validate_json(answer.text)
    except ValidationError:
        return None


def _note(first: _Record, second: _Record, forth: _Pair, back: _Pair) -> None:
    """A pair that was judged both ways."""
    is_steady = _POINTS[forth.better] == 1 - _POINTS[back.better]
    points = _POINTS[forth.better] if is_steady else 0.5
    for record, won in ((first, points), (second, 1 - points)):
        record.points.append(won)
        record.num_steady += is_steady
        record.reasons += [forth.reasons, back.reasons]


def _judgement(record: _Record, has_pairs: bool) -> Judgement:
    if not record.points:
        return Judgement.without(Outcome.REFUSED if has_pairs else Outcome.NOT_APPLICABLE)
    num_pairs = len(record.points)
    return Judgement(
        value=sum(record.points) / num_pairs,
        parts={"steady": record.num_steady / num_pairs, "reasons": "\n".join(record.reasons)},
    )
