"""What the model itself said of what it drew, as a score: for who has no other judge."""

from collections.abc import Mapping, Sequence

from pipeline.scoring.scorers import TRACE, Score, ScoringInput
from schemas.rows import EventRow
from schemas.scores import ColumnType
from schemas.trace import Role, Verdict

_FULL = 100.0  # the most points that a critique gives


class OwnCritic:
    """Drawings: the score of the critique that judged them. A critique that could not be used says
    nothing, and so does one of another drawing: a last revision is not judged by anyone.

    The whole trace: the mean over the drawings that stand in the picture and were judged.
    """

    name = "own_critic"
    version = "1"
    subjects = frozenset({TRACE, Role.DRAW.value})
    needs_pictures = False
    columns: Mapping[str, ColumnType] = {
        "value": "float32",  # points of a hundred, as a share
        "lowest": "float32",  # of a trace: of its drawings that stand
        "share_judged": "float32",  # of a trace: of its drawings that stand
    }

    def score(self, batch: Sequence[ScoringInput]) -> list[Score]:
        return [
            self._score_trace(scoring_input.events)
            if scoring_input.event is None
            else Score(value=points_of(scoring_input.event, scoring_input.events))
            for scoring_input in batch
        ]

    def _score_trace(self, events: Sequence[EventRow]) -> Score:
        standing = [
            event
            for event in events
            if event["role"] == Role.DRAW and event["superseded_by"] is None
        ]
        points = [points_of(drawing, events) for drawing in standing]
        known = [point for point in points if point is not None]
        if not known:
            return Score(value=None, parts={"share_judged": 0.0} if standing else {})
        return Score(
            value=sum(known) / len(known),
            parts={"lowest": min(known), "share_judged": len(known) / len(standing)},
        )


def points_of(drawing: EventRow, events: Sequence[EventRow]) -> float | None:
    """From 0 to 1, what the last usable critique of a drawing gave; None: there is none."""
    scores = [
        event["score"]
        for event in events[drawing["index"] :]
        if event["role"] == Role.REFLECT
        and (event["region"], event["revision"]) == (drawing["region"], drawing["revision"])
        and event["verdict"] != Verdict.UNPARSEABLE
    ]
    return scores[-1] / _FULL if scores and scores[-1] is not None else None
