"""Traces that were chosen: as tables, one by one, and as film strips in a notebook."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, overload

import pyarrow as pa

from pipeline.scoring.painting import Pictures, RunPainter, all_pictures_of
from pipeline.view.facts import read_metadata
from pipeline.view.runs import ListedTrace, ViewedRun, columns_of
from pipeline.view.strip_html import strip_html
from pipeline.view.strips import strip_of
from pipeline.view.where import Facts, Kind, Value, kind_of
from schemas.errors import InputError
from schemas.json_values import JsonObject
from schemas.rows import TraceRow
from schemas.trace import Role, Status

if TYPE_CHECKING:
    import pandas
    from PIL.Image import Image

    from pipeline.pictures import Pixels

_STRIPS = 5  # of many traces in a notebook


class Traces(Sequence["Trace"]):
    """Traces that were chosen, in order. What is known of them is in memory, their rows are not."""

    def __init__(
        self, chosen: Sequence[tuple[ViewedRun, ListedTrace]], columns: Sequence[str]
    ) -> None:
        self._chosen, self._columns = chosen, columns

    def __len__(self) -> int:
        return len(self._chosen)

    @overload
    def __getitem__(self, index: int) -> "Trace": ...
    @overload
    def __getitem__(self, index: slice) -> "Traces": ...
    def __getitem__(self, index: int | slice) -> "Trace | Traces":
        if isinstance(index, slice):
            return Traces(self._chosen[index], self._columns)
        return Trace(*self._chosen[index])

    def __iter__(self) -> Iterator["Trace"]:
        return (Trace(run, listed) for run, listed in self._chosen)

    def to_arrow(self) -> pa.Table:
        """A row a trace, with the columns that were asked for, or all that are known."""
        kinds = columns_of(list(dict.fromkeys(run for run, _ in self._chosen)))
        facts = [listed.facts for _, listed in self._chosen]
        return pa.table(
            {
                name: _array([fact.get(name) for fact in facts], kinds.get(name, "any"))
                for name in self._columns
            }
        )

    def to_pandas(self) -> "pandas.DataFrame":
        """As `to_arrow`. Needs pandas, which Ray Data brings."""
        return self.to_arrow().to_pandas()

    def _repr_html_(self) -> str:
        strips = "<hr>".join(trace._repr_html_() for trace in self[:_STRIPS])
        more = len(self) - _STRIPS
        return strips + (f"<p>and {more:,} more</p>" if more > 0 else "")

    def __repr__(self) -> str:
        return f"<{len(self):,} coppice traces>"


@dataclass(frozen=True, kw_only=True, slots=True)
class Critique:
    """What the critic said of a drawing."""

    region: int  # from 0
    revision: int  # of the drawing, from 0
    score: float | None  # None: none was found
    verdict: str | None  # accept, revise or unparseable
    better_thought: str | None
    text: str  # as it came


class Trace:
    """One rollout. Its row is read when something of it is asked for that is not known yet."""

    def __init__(self, run: ViewedRun, listed: ListedTrace) -> None:
        self._run, self._listed = run, listed

    @property
    def facts(self) -> Facts:
        """All that is known of it at a glance, by column."""
        return self._listed.facts

    @property
    def trace_id(self) -> str:
        """What sidecars, sets and links call it."""
        return str(self.facts["trace_id"])

    @property
    def prompt(self) -> str:
        """What was asked for."""
        return str(self.facts["prompt"])

    @property
    def is_dead(self) -> bool:
        """Whether it was given up on; `facts["dead_reason"]` says why."""
        return self.facts["status"] == Status.DEAD

    @property
    def metadata(self) -> JsonObject:
        """Of its record, as the prompt file had it."""
        return read_metadata(self.row["metadata"])

    @cached_property
    def row(self) -> TraceRow:
        """The whole row of the trace file: events with token ids, log-probabilities, pictures."""
        ((_, row),) = self._run.read_rows([self._listed])
        return row

    @property
    def thoughts(self) -> list[str]:
        """What was thought before each region, in order."""
        return [event["text"] for event in self.row["events"] if event["role"] == Role.THINK]

    @property
    def critiques(self) -> list[Critique]:
        """What was said of each drawing, in order; of one that was asked again each answer."""
        return [
            Critique(
                region=event["region"],
                revision=event["revision"],
                score=event["score"],
                verdict=event["verdict"],
                better_thought=event["better_thought"],
                text=event["raw_text"] or event["text"],
            )
            for event in self.row["events"]
            if event["role"] == Role.REFLECT
        ]

    @property
    def picture(self) -> "Image | None":
        """The finished picture, RGB; None: it is dead, or its pixels are not finite.

        Raises InputError where it was not kept and the run's model is not to be had here.
        """
        pixels = self._pictures.get(None)
        return None if pixels is None else as_image(pixels)

    def canvases(self) -> "list[Image | None]":
        """The canvas after each drawing, in order, also of those that were drawn again.

        None: its pixels are not finite. Raises as `picture` does.
        """
        drawings = [event["index"] for event in self.row["events"] if event["role"] == Role.DRAW]
        pictures = [self._pictures.get(index) for index in drawings]
        return [None if pixels is None else as_image(pixels) for pixels in pictures]

    def score(self, name: str) -> Value:
        """A scorer's column such as `toy.value`, of the whole trace, or if it has none the lowest
        of its events; a scorer's name alone stands for its value. None: it does not apply.

        Raises InputError for a column that the run does not have.
        """
        column = name if "." in name else f"{name}.value"
        kind_of(column, self._run.columns)
        return self.facts.get(column)

    @cached_property
    def _pictures(self) -> Pictures:
        return all_pictures_of([self.row], _painter_of(self._run))[0]

    def _repr_html_(self) -> str:
        scores = self._run.scores_at(self._listed.source).get(self.trace_id, {})
        decisions = self._run.decisions_on([self._listed]).get(self.trace_id, [])
        try:
            pictures = self._pictures
        except InputError:  # there is no model here; what was thought can be read all the same
            pictures = {}
        return strip_html(strip_of(self.row, scores, decisions), pictures)

    def __repr__(self) -> str:
        return f"<coppice trace {self.trace_id}>"


def _array(values: Sequence[Value], kind: Kind) -> pa.Array:
    """A column of its kind; where its values are of several types they are told as text."""
    are_whole = not any(isinstance(value, float) for value in values)
    types: list[pa.DataType | None] = {
        "text": [pa.string()],
        "flag": [pa.bool_()],
        "number": [pa.int64(), pa.uint64()] if are_whole else [pa.float64()],
        "any": [None],
    }[kind]
    for arrow_type in types:
        try:
            return pa.array(values, arrow_type)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            continue
    return pa.array([None if value is None else _told(value) for value in values], pa.string())


def _told(value: Value) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def as_image(pixels: "Pixels") -> "Image":
    """Pixels as Pillow has them."""
    from PIL import Image

    return Image.fromarray(pixels)


@lru_cache(maxsize=4)
def _painter_of(run: ViewedRun) -> RunPainter:
    return RunPainter(run.source.manifest)
