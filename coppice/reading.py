"""Runs and training sets, opened to be looked at and counted: `coppice.open("runs/first")`.

Reads the store alone and changes nothing; a run may be at work. What a run did not keep is painted
from tokens when it is asked for.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, overload

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.plan.configs import resolve
from pipeline.scoring.painting import Pictures, RunPainter, all_pictures_of
from pipeline.store.objects import open_object
from pipeline.store.status import RunStatus, read_status
from pipeline.view.facts import read_metadata
from pipeline.view.runs import ListedTrace, ViewedRun, choose, columns_of
from pipeline.view.sets import ViewedSet, view
from pipeline.view.strip_html import strip_html
from pipeline.view.strips import strip_of
from pipeline.view.where import METADATA, Choice, Facts, Kind, Value, kind_of
from schemas.errors import InputError
from schemas.json_values import JsonObject
from schemas.rows import TraceRow
from schemas.sets import SetManifest
from schemas.trace import Role, Status

if TYPE_CHECKING:
    import pandas
    from PIL.Image import Image

    from pipeline.pictures import Painter, Pixels

_STRIPS = 5  # of many traces in a notebook


def open(url: str, *, runs: Sequence[str] = ()) -> "Run | TrainingSet":
    """Open the run or the training set at a path or `s3://` URL.

    A set names its runs by their ids; they are looked for beside it, or where `runs` says.
    Raises InputError for a place that holds neither, for a run without traces, and for a set whose
    runs are not found; StoreError where the store cannot be read.
    """
    viewed = view(url, runs)
    return Run(viewed) if isinstance(viewed, ViewedRun) else TrainingSet(viewed)


def paint(model: str, codes: Sequence[int]) -> "Image":
    """The picture of a canvas: image tokens in drawing order, those that are missing count as 0.

    `model` is named as for `coppice run`: a bundled name, a folder, a hub id, `s3://`. Its decoder
    stays loaded until another one is asked for. Raises InputError for a model that cannot be had.
    """
    return _image(_painter(model).paint([tuple(codes)])[0])


class Run:
    """A run: how far it is, and its traces."""

    def __init__(self, viewed: ViewedRun) -> None:
        self._viewed = viewed

    @property
    def url(self) -> str:
        """Where it lies; `coppice.open` takes it again."""
        return self._viewed.store.url

    @property
    def run_id(self) -> str:
        """What its traces and sets call it."""
        return self._viewed.source.run_id

    @property
    def columns(self) -> Mapping[str, Kind]:
        """The columns by which traces may be chosen, and what each holds."""
        return self._viewed.columns

    @property
    def status(self) -> RunStatus:
        """How many rollouts are planned, ok, dead and missing, as the store says now."""
        return read_status(self._viewed.store, self._viewed.source.manifest)

    def traces(
        self,
        where: str = "",
        *,
        sort: str = "",
        number: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> "Traces":
        """The traces that hold, such as `where="score < 60 and revised"`; docs/gallery.md has the
        grammar. `sort` orders them (`"-score"`: the highest first), `number` takes so many by lot,
        and `columns` are those of tables that are made of them.

        Those that were committed when the run was opened. Raises InputError for a condition that
        cannot be read, with the columns that there are.
        """
        return _traces([self._viewed], where, sort, number, columns)

    def __repr__(self) -> str:
        return f"<coppice run {self.run_id} at {self.url}>"


class TrainingSet:
    """A training set: what it was made by, its rows, and what became of the traces of its runs."""

    def __init__(self, viewed: ViewedSet) -> None:
        self._viewed = viewed

    @property
    def url(self) -> str:
        """Where it lies; `coppice.open` takes it again."""
        return self._viewed.store.url

    @property
    def manifest(self) -> SetManifest:
        """Its inputs and files: recipe, runs, digests, versions."""
        return self._viewed.manifest

    @property
    def status(self) -> Mapping[str, int]:
        """How many rows each stream has, such as `sft/think_1/train`."""
        return {name: stream.num_rows for name, stream in self.manifest.files.items()}

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs that it was made of, with the columns `kept`, `num_kept` and `dropped_as`."""
        return tuple(map(Run, self._viewed.runs))

    def traces(
        self,
        where: str = "",
        *,
        sort: str = "",
        number: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> "Traces":
        """The traces that the set decided on, as `Run.traces`; `where="not kept"` are those of
        which no row stayed.
        """
        return _traces(self._viewed.runs, where, sort, number, columns)

    def to_arrow(self, stream: str) -> pa.Table:
        """All rows of a stream, such as `sft/think_1/train`. Raises InputError for one it lacks."""
        if stream not in self.manifest.files:
            raise InputError(
                f"the set has no stream {stream!r}; there are: {', '.join(self.manifest.files)}"
            )
        tables = []
        for key in self.manifest.files[stream].files:
            with open_object(self._viewed.store, key) as file:
                tables.append(pq.ParquetFile(file).read(use_threads=False))
        return pa.concat_tables(tables)

    def __repr__(self) -> str:
        return f"<coppice set {self.manifest.inputs.recipe.name} at {self.url}>"


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
        facts = [listed.facts for _, listed in self._chosen]
        return pa.table(
            {name: _array([fact.get(name) for fact in facts]) for name in self._columns}
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
        return None if pixels is None else _image(pixels)

    def canvases(self) -> "list[Image | None]":
        """The canvas after each drawing, in order, also of those that were drawn again.

        None: its pixels are not finite. Raises as `picture` does.
        """
        drawings = [event["index"] for event in self.row["events"] if event["role"] == Role.DRAW]
        pictures = [self._pictures.get(index) for index in drawings]
        return [None if pixels is None else _image(pixels) for pixels in pictures]

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


def _traces(
    runs: Sequence[ViewedRun],
    where: str,
    sort: str,
    number: int | None,
    columns: Sequence[str] | None,
) -> Traces:
    known = columns_of(runs)
    for name in columns or ():
        kind_of(name, known)
    condition, order = Choice(where=where, sort=sort).read(known)
    chosen = choose(runs, where=condition, sort=order, number=number)
    if columns is None:
        own = {name for _, listed in chosen for name in listed.facts if name.startswith(METADATA)}
        columns = [*known, *sorted(own)]
    return Traces(chosen, columns)


def _array(values: Sequence[Value], kind: Kind) -> pa.Array:
    """A column of its kind; where its values are of several types they are told as text."""
    types: list[pa.DataType | None] = {
        "text": [pa.string()],
        "flag": [pa.bool_()],
        "number": [pa.int64(), pa.uint64(), pa.float64()],
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


def _image(pixels: "Pixels") -> "Image":
    from PIL import Image

    return Image.fromarray(pixels)


@lru_cache(maxsize=4)
def _painter_of(run: ViewedRun) -> RunPainter:
    return RunPainter(run.source.manifest)


@lru_cache(maxsize=1)
def _painter(model: str) -> "Painter":
    from pipeline.engine.backends import open_painter

    return open_painter(resolve({"method": {"model": model}}).config)
