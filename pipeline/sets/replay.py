"""The questions of a trace, word for word: its program is run again on the answers it got.

A trace keeps answers and token ids, and not the wording of questions, which follows from the
template pack. So the pack must be the very one that the run was planned with.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.twig.programs import PROGRAMS, Judged, Planned, Settings
from pipeline.twig.requests import Answer, Request, TextAnswer, Visual, VisualAnswer
from schemas.errors import FatalFailure
from schemas.trace import Finish


def requests_of(row: Mapping[str, Any], settings: Settings) -> list[Request]:
    """The request of each event of an ok trace, in order."""
    requests: list[Request] = []
    program = PROGRAMS[settings.method.program](row["prompt"], settings)
    answers = iter(row["events"])
    value: Answer | None = None
    try:
        while True:
            yielded = program.send(value)
            if isinstance(yielded, Planned | Judged):
                value = None
                continue
            if isinstance(yielded, list):
                raise FatalFailure("a program asked for several at once", reason="replay")
            requests.append(yielded)
            value = _answer(yielded, next(answers))
    except StopIteration:
        pass
    if len(requests) != len(row["events"]) or any(
        request.role != event["role"]
        for request, event in zip(requests, row["events"], strict=False)
    ):
        raise FatalFailure(
            f"trace {row['trace_id']} is not what its program does with these answers",
            reason="replay",
        )
    return requests


def _answer(request: Request, event: Mapping[str, Any]) -> Answer:
    if isinstance(request, Visual):
        return VisualAnswer(prefix_ids=(), codes=tuple(event["codes"]))
    return TextAnswer(
        prefix_ids=(),
        text=event["raw_text"],
        token_ids=tuple(event["token_ids"]),
        finish=Finish(event["finish"] or Finish.STOP),
    )
