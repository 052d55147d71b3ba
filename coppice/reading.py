"""Runs and training sets, opened to be looked at and counted: `coppice.open("runs/first")`.

Reads the store alone and changes nothing; a run may be at work. What a run did not keep is painted
from tokens when it is asked for.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import pyarrow as pa

from coppice.traces import Traces, as_image
from pipeline.plan.configs import resolve
from pipeline.sets.whole import open_set_file
from pipeline.store.status import RunStatus, read_status
from pipeline.view.runs import ViewedRun, choose, columns_of
from pipeline.view.sets import ViewedSet, view
from pipeline.view.where import METADATA, Choice, Kind, kind_of
from schemas.errors import InputError
from schemas.sets import SetManifest

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipeline.pictures import Painter


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
    return as_image(_painter(model).paint([tuple(codes)])[0])


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
    ) -> Traces:
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
    ) -> Traces:
        """The traces that the set decided on, as `Run.traces`; `where="not kept"` are those of
        which no row stayed.
        """
        return _traces(self._viewed.runs, where, sort, number, columns)

    def to_arrow(self, stream: str) -> pa.Table:
        """All rows of a stream, such as `sft/think_1/train`.

        Raises InputError for one it lacks, and DamagedObject for a file that is not whole.
        """
        if stream not in self.manifest.files:
            raise InputError(
                f"the set has no stream {stream!r}; there are: {', '.join(self.manifest.files)}"
            )
        tables = []
        for key in self.manifest.files[stream].files:
            with open_set_file(self._viewed.store, key) as parquet:
                tables.append(parquet.read(use_threads=False))
        return pa.concat_tables(tables)

    def __repr__(self) -> str:
        return f"<coppice set {self.manifest.inputs.recipe.name} at {self.url}>"


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


@lru_cache(maxsize=1)
def _painter(model: str) -> "Painter":
    from pipeline.engine.backends import open_painter

    return open_painter(resolve({"method": {"model": model}}).config)
