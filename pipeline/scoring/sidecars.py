"""Scoring: one sidecar a scorer and trace object, put if absent, so that a killed job may be
started again and leaves neither duplicates nor holes.

All scorers that lack a trace object's sidecar go over it together, in one pass: its rows are read
and its pictures decoded or painted once.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.scoring.asking import ask, cell_of
from pipeline.scoring.inputs import Subject, columns_for, subjects_of
from pipeline.scoring.painting import RunPainter, pictures_of
from pipeline.scoring.scorers import ComparesInputs, Score, Scorer, id_of, settings_of
from pipeline.store.evidence.digests import note_digest
from pipeline.store.layout import sidecar_key
from pipeline.store.objects import Store
from pipeline.store.plans import read_manifest
from pipeline.store.runs import TraceObject
from pipeline.store.traces import open_parquet
from pipeline.store.trouble.scratch import scratch_folder
from schemas.errors import FatalFailure, InputError
from schemas.rows import ScoreValue, TraceRow
from schemas.scores import SCORES_KEY, ScoresFooter, scores_schema
from schemas.trace import Status

SidecarRow: TypeAlias = dict[str, str | ScoreValue]
"""A `schemas.rows.ScoreKeyRow` with the scorer's own columns beside it."""

_ROWS_AT_ONCE = 32  # traces whose pictures are in memory together
_ROW_GROUP_ROWS = 64 * 1024  # scores


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """What became of one sidecar."""

    key: str
    num_rows: int
    is_new: bool  # False: another worker had put it


def score_object(
    store: Store, source: TraceObject, scorer: Scorer, painter: RunPainter | None = None
) -> Scored:
    """Score one trace object by one scorer: see `score_together`."""
    return score_together(store, source, [scorer], painter)[0]


def score_together(
    store: Store,
    source: TraceObject,
    scorers: Sequence[Scorer],
    painter: RunPainter | None = None,
) -> list[Scored]:
    """Score one trace object by each of the scorers, in one pass, and put the sidecars that are
    not there. The scorers have their weights. Without a painter the run's own paints, on the CPU.

    Raises InputError for a score that is not finite, for a scorer that fails and for a picture that
    cannot be read, and FatalFailure for scores that break the scorer's other promises. Then none of
    the sidecars is put.
    """
    painter = painter or RunPainter(read_manifest(store))
    with scratch_folder() as folder:
        with ExitStack() as stack:
            sidecars = [
                stack.enter_context(_Sidecar(folder / f"{index}.parquet", scorer))
                for index, scorer in enumerate(scorers)
            ]
            for rows in _ok_rows(store, source, scorers):
                pictures = pictures_of(rows, scorers, painter)
                for sidecar in sidecars:
                    subjects = [
                        subject
                        for row, of_row in zip(rows, pictures, strict=True)
                        for subject in subjects_of(row, sidecar.scorer, of_row, painter.geometry)
                    ]
                    sidecar.add(subjects)
            for sidecar in sidecars:
                sidecar.finish(source)
        return [sidecar.put(store, source) for sidecar in sidecars]


def _ok_rows(
    store: Store, source: TraceObject, scorers: Sequence[Scorer]
) -> Iterator[list[TraceRow]]:
    """An object's ok traces, some at a time, in order, with what the scorers ask for."""
    with open_parquet(store, source.key) as parquet:
        batches = parquet.iter_batches(
            batch_size=_ROWS_AT_ONCE, columns=columns_for(scorers), use_threads=False
        )
        for batch in batches:
            rows: list[TraceRow] = batch.to_pylist()
            yield [row for row in rows if row["status"] == Status.OK]


class _Sidecar:
    """One scorer's file of one trace object, being written. Equal scores make equal bytes."""

    def __init__(self, path: Path, scorer: Scorer) -> None:
        self.scorer = scorer
        self._path = path
        self._schema = scores_schema(scorer.columns)
        self._num_rows, self._digest = 0, hashlib.sha256()
        self._waiting: list[SidecarRow] = []  # for a row group to be full
        self._held: list[Subject] = []  # all of the object, pictures too, for one that compares

    def __enter__(self) -> "_Sidecar":
        self._writer = pq.ParquetWriter(
            self._path, self._schema, compression="zstd", write_page_checksum=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def add(self, subjects: Sequence[Subject]) -> None:
        """Ask the scorer about these, and keep what it says; one that compares is asked last."""
        if isinstance(self.scorer, ComparesInputs):
            self._held += subjects
        else:
            self._ask(subjects)

    def _ask(self, subjects: Sequence[Subject]) -> None:
        scores = ask(self.scorer, [subject.scoring_input for subject in subjects])
        if len(scores) != len(subjects):
            raise FatalFailure(
                f"{id_of(self.scorer)} gave {len(scores)} scores for {len(subjects)} samples; "
                "a scorer gives one a sample, in order",
                reason="scorer",
            )
        self._waiting += map(self._row, subjects, scores)
        while len(self._waiting) >= _ROW_GROUP_ROWS:
            self._flush()

    def finish(self, source: TraceObject) -> None:
        """Write what is left, and what the file is of."""
        self._ask(self._held)
        if self._waiting:
            self._flush()
        settings = settings_of(self.scorer)
        footer = ScoresFooter(
            scorer=id_of(self.scorer),
            source=source.name,
            source_digest=source.footer.digest,
            num_rows=self._num_rows,
            digest=self._digest.hexdigest(),
            settings=None if settings is None else settings.told,
        )
        self._writer.add_key_value_metadata({SCORES_KEY: footer.as_json()})

    def put(self, store: Store, source: TraceObject) -> Scored:
        """Put the closed file unless there is one."""
        key = sidecar_key(source.name, id_of(self.scorer))
        note_digest(store, key, self._path)
        return Scored(key=key, num_rows=self._num_rows, is_new=store.put_if_absent(key, self._path))

    def _flush(self) -> None:
        row_group = list(islice(self._waiting, _ROW_GROUP_ROWS))
        del self._waiting[: len(row_group)]
        self._writer.write_table(pa.Table.from_pylist(row_group, schema=self._schema))
        self._digest.update(json.dumps(row_group, sort_keys=True).encode())
        self._num_rows += len(row_group)

    def _row(self, subject: Subject, score: Score) -> SidecarRow:
        given = {**score.parts, "value": score.value}
        columns = self.scorer.columns
        if unknown := {name for name, value in given.items() if value is not None} - set(columns):
            raise FatalFailure(
                f"{id_of(self.scorer)} gave {sorted(unknown)}, which it does not declare as "
                "columns",
                reason="scorer",
            )
        row: SidecarRow = {
            "trace_id": subject.trace_id,
            "event": subject.event,
            "tokens": subject.tokens,
        }
        for name, kind in columns.items():
            try:
                row[name] = cell_of(kind, given.get(name))
            except ValueError as error:
                event = "the whole trace" if subject.event is None else f"event {subject.event}"
                raise InputError(
                    f"{id_of(self.scorer)} gave {given[name]!s:.60} as {name} of trace "
                    f"{subject.trace_id}, {event}; expected {error}, or None where it does not "
                    "apply: mend the scorer, and score again"
                ) from error
        return row
