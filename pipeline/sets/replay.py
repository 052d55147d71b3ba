"""The questions of a trace, word for word: its program is run again on the answers it got.

A trace keeps answers and token ids, and not the wording of questions, which follows from the
template pack. So the pack must be the very one that the run was planned with.
"""

from pipeline.twig.programs import PROGRAMS, Judged, Planned, Settings, Told
from pipeline.twig.requests import Answer, Request, TextAnswer, Visual, VisualAnswer
from schemas.errors import FatalFailure
from schemas.rows import EventRow, TraceRow
from schemas.trace import Finish


def requests_of(trace_row: TraceRow, settings: Settings) -> list[Request]:
    """The request of each event of an ok trace, in order.

    Raises FatalFailure for a trace that its program does not make of these answers.
    """
    requests: list[Request] = []
    program = PROGRAMS[settings.method.program](trace_row["prompt"], settings)
    events = iter(trace_row["events"])
    answer: Answer | list[Answer] | None = None
    try:
        while True:
            yielded = program.send(answer)
            if isinstance(yielded, Planned | Judged | Told):
                answer = None
                continue
            if isinstance(yielded, list):
                requests += yielded
                answer = [_answer(request, next(events)) for request in yielded]
                continue
            requests.append(yielded)
            answer = _answer(yielded, next(events))
    except StopIteration:
        pass
    if [request.role for request in requests] != [event["role"] for event in trace_row["events"]]:
        raise FatalFailure(
            f"trace {trace_row['trace_id']} is not what its program does with these answers",
            reason="replay",
        )
    return requests


def _answer(request: Request, event: EventRow) -> Answer:
    if isinstance(request, Visual):
        return VisualAnswer(prefix_ids=(), codes=tuple(event["codes"]))
    return TextAnswer(
        prefix_ids=(),
        text=event["raw_text"] or "",
        token_ids=None,
        finish=Finish(event["finish"] or Finish.STOP),
    )
