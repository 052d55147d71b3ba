"""A trace as its critic saw it, and beside that the truth, where there is an exact scorer for it.

Canvases that a trace does not keep are painted from its tokens.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest

from pipeline.pictures import Pixels
from pipeline.scoring.inputs import subjects_of
from pipeline.scoring.painting import Pictures, RunPainter, pictures_of
from pipeline.toy.scorer import ToyScorer
from pipeline.twig.requests import Codes
from schemas.errors import InputError
from schemas.geometry import Geometry
from schemas.rows import EventRow, TraceRow
from schemas.trace import Role, Status, Verdict


class Fate(StrEnum):
    """What became of a region, in the order in which they tell something."""

    REPAIRED = "repaired"  # rejected, and right once it was drawn again
    MISSED = "missed"  # accepted, and wrong
    NOT_REPAIRED = "not repaired"  # rejected, and wrong when it was drawn again, too
    FALSE_ALARM = "false alarm"  # rejected, and was right
    REJECTED = "rejected"  # and no scorer to say whether that was so
    UNREADABLE = "unreadable"  # its critique
    PLAIN = "plain"  # accepted and right, or nobody says otherwise


TELLING_COLUMNS = [
    *("record_id", "rollout_index", "status"),
    *(f"events.list.element.{name}" for name in ("role", "region", "revision", "score", "verdict")),
]

REJECTED = (Fate.REPAIRED, Fate.NOT_REPAIRED, Fate.FALSE_ALARM, Fate.REJECTED)
"""What becomes of a region that the critic rejected."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """One drawing of a region, and what is said of it."""

    event: EventRow
    canvas: Pixels | None  # after it; None: it cannot be painted
    critique: EventRow | None  # the last one of it; the last revision has none
    share_right: float | None  # of what was asked for, by the exact scorer; None: it has no say

    @property
    def is_rejected(self) -> bool:
        return self.critique is not None and self.critique["verdict"] == Verdict.REVISE

    @property
    def is_missed(self) -> bool:
        """Whether the critic let pass what is wrong."""
        is_accepted = self.critique is not None and self.critique["verdict"] == Verdict.ACCEPT
        return is_accepted and self.share_right is not None and self.share_right < 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedTrace:
    """A trace with all its drawings, in order."""

    row: TraceRow
    drawings: tuple[Drawing, ...]
    picture: Pixels | None  # the finished one

    @property
    def fates(self) -> dict[int, Fate]:
        """What became of each region, by its number."""
        regions: dict[int, list[Drawing]] = {}
        for drawing in self.drawings:
            regions.setdefault(drawing.event["region"], []).append(drawing)
        return {region: _fate_of(drawings) for region, drawings in regions.items()}


class KeptPictures(RunPainter):
    """Paints nothing: what is looked at are the pictures that traces keep."""

    def paint(self, canvases: Sequence[Codes]) -> dict[Codes, Pixels]:
        del canvases
        return {}


def judged(rows: Sequence[TraceRow], painter: RunPainter) -> list[JudgedTrace]:
    """These traces of a run, all of their columns read. Raises InputError as `pictures_of` does."""
    scorer = ToyScorer()
    pictures = pictures_of(rows, [scorer], painter)
    return [
        _judged(row, of_row, _shares_right(row, scorer, of_row, painter.geometry))
        for row, of_row in zip(rows, pictures, strict=True)
    ]


def of_each_fate(traces: Sequence[JudgedTrace], number: int) -> list[JudgedTrace]:
    """So many of them: of each fate in turn, each in their order, and what tells nothing last."""
    told = [
        [index for index, trace in enumerate(traces) if fate in trace.fates.values()]
        for fate in Fate
        if fate is not Fate.PLAIN
    ]
    in_turn = [index for turn in zip_longest(*told) for index in turn if index is not None]
    return [
        traces[index] for index in list(dict.fromkeys([*in_turn, *range(len(traces))]))[:number]
    ]


def counts_of(traces: Sequence[JudgedTrace]) -> str:
    """What became of all regions, in a sentence without its end."""
    fates = Counter(fate for trace in traces for fate in trace.fates.values())
    num_rejected = sum(fates[fate] for fate in REJECTED)
    plural = "" if len(traces) == 1 else "s"
    said = f"{len(traces):,} trace{plural} of {fates.total():,} regions: the critic rejected "
    if all(drawing.share_right is None for trace in traces for drawing in trace.drawings):
        return f"{said}{num_rejected:,}"
    said += f"{num_rejected:,}, of which {fates[Fate.REPAIRED]:,} came out right when drawn again"
    if fates[Fate.FALSE_ALARM]:
        said += f" and {fates[Fate.FALSE_ALARM]:,} had been right"
    return f"{said}; it missed {fates[Fate.MISSED]:,}"


def most_telling(rows: Iterable[TraceRow]) -> TraceRow | None:
    """Of these traces the one whose drawing its critic liked least and had drawn again.

    The first one of those; without any, the first that is ok, then the first. Rows need the columns
    `TELLING_COLUMNS` alone.
    """
    return min(rows, key=_lowest_rejected, default=None)


def _lowest_rejected(row: TraceRow) -> tuple[bool, float]:
    is_dead = row["status"] != Status.OK
    redrawn = {
        (event["region"], event["revision"] - 1)
        for event in row["events"]
        if event["role"] == Role.DRAW
    }
    scores = [
        event["score"]
        for event in row["events"]
        if event["verdict"] == Verdict.REVISE and (event["region"], event["revision"]) in redrawn
    ]
    return is_dead, min((score for score in scores if score is not None), default=math.inf)


def _judged(row: TraceRow, pictures: Pictures, shares: dict[int, float | None]) -> JudgedTrace:
    return JudgedTrace(
        row=row,
        drawings=tuple(
            Drawing(
                event=event,
                canvas=pictures.get(event["index"]),
                critique=critique_of(event, row["events"]),
                share_right=shares.get(event["index"]),
            )
            for event in row["events"]
            if event["role"] == Role.DRAW
        ),
        picture=pictures.get(None),
    )


def critique_of(drawing: EventRow, events: Sequence[EventRow]) -> EventRow | None:
    """What was said of a drawing: the last critique, if it was asked again."""
    critiques = [
        event
        for event in events
        if event["role"] == Role.REFLECT
        and (event["region"], event["revision"]) == (drawing["region"], drawing["revision"])
    ]
    return critiques[-1] if critiques else None


def _shares_right(
    row: TraceRow, scorer: ToyScorer, pictures: Pictures, geometry: Geometry
) -> dict[int, float | None]:
    """Of each drawing, by its event, the share of its region that is right. Empty: nobody knows."""
    if row["status"] != Status.OK:
        return {}
    subjects = [s for s in subjects_of(row, scorer, pictures, geometry) if s.event is not None]
    try:
        scores = scorer.score([subject.scoring_input for subject in subjects])
    except InputError:  # a spec that is none of the toy's world
        return {}
    return {
        subject.event: score.value
        for subject, score in zip(subjects, scores, strict=True)
        if subject.event is not None
    }


def _fate_of(drawings: Sequence[Drawing]) -> Fate:
    """What became of a region, by its drawings in order."""
    first, last = drawings[0], drawings[-1]
    if first.critique is not None and first.critique["verdict"] == Verdict.UNPARSEABLE:
        return Fate.UNREADABLE
    if not first.is_rejected:
        return Fate.MISSED if first.is_missed else Fate.PLAIN
    if first.share_right is None or last.share_right is None:
        return Fate.REJECTED
    if first.share_right == 1.0:
        return Fate.FALSE_ALARM
    return Fate.REPAIRED if last.share_right == 1.0 else Fate.NOT_REPAIRED
