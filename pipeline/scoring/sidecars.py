"""Scoring: one sidecar a scorer and trace object, put if absent, so that a killed job may be
started again and leaves neither duplicates nor holes.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.scoring.inputs import Subject, columns_for, subjects_of
from pipeline.scoring.scorers import Score, Scorer, id_of
from pipeline.store.layout import sidecar_key
from pipeline.store.objects import Store, open_object
from pipeline.store.runs import TraceObject
from schemas.errors import FatalFailure, InputError
from schemas.rows import ScoreValue, TraceRow
from schemas.scores import SCORES_KEY, ScoresFooter, scores_schema
from schemas.trace import Status

SidecarRow: TypeAlias = dict[str, str | ScoreValue]
"""A `schemas.rows.ScoreKeyRow` with the scorer's own columns beside it."""

_ROWS_AT_ONCE = 32  # traces whose pictures are in memory together
_ROW_GROUP_ROWS = 64 * 1024  # scores
_MOST = float(np.finfo(np.float32).max)  # as which scores are kept


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """What became of one sidecar."""

    key: str
    num_rows: int
    is_new: bool  # False: another worker had put it


def score_object(store: Store, source: TraceObject, scorer: Scorer) -> Scored:
    """Score one trace object, and put its sidecar unless there is one.

    Raises InputError for a score that is not finite, and FatalFailure for scores that break the
    scorer's other promises.
    """
    key = sidecar_key(source.name, id_of(scorer))
    with tempfile.TemporaryDirectory(prefix="coppice-") as folder:
        path = Path(folder) / "scores.parquet"
        num_rows = _write(path, source, scorer, _scored(store, source, scorer))
        return Scored(key=key, num_rows=num_rows, is_new=store.put_if_absent(key, path))


def _scored(
    store: Store, source: TraceObject, scorer: Scorer
) -> Iterator[tuple[list[Subject], list[Score]]]:
    """The scores of an object's ok traces, a batch of traces at a time, in order."""
    with open_object(store, source.key) as file:
        batches = pq.ParquetFile(file).iter_batches(
            batch_size=_ROWS_AT_ONCE, columns=columns_for(scorer), use_threads=False
        )
        for batch in batches:
            rows: list[TraceRow] = batch.to_pylist()
            ok_rows = (row for row in rows if row["status"] == Status.OK)
            subjects = [subject for row in ok_rows for subject in subjects_of(row, scorer)]
            inputs = [subject.scoring_input for subject in subjects]
            scores = scorer.score(inputs) if inputs else []
            if len(scores) != len(subjects):
                raise FatalFailure(
                    f"{id_of(scorer)} gave {len(scores)} scores for {len(subjects)} samples; "
                    "a scorer gives one a sample, in order",
                    reason="scorer",
                )
            yield subjects, scores


def _write(
    path: Path,
    source: TraceObject,
    scorer: Scorer,
    scored: Iterable[tuple[list[Subject], list[Score]]],
) -> int:
    """Write a sidecar; its number of rows. Equal scores make equal bytes."""
    schema = scores_schema(scorer.columns)
    rows = (
        _row(subject, score, scorer)
        for subjects, scores in scored
        for subject, score in zip(subjects, scores, strict=True)
    )
    num_rows, digest = 0, hashlib.sha256()
    with pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True) as writer:
        while row_group := list(islice(rows, _ROW_GROUP_ROWS)):
            writer.write_table(pa.Table.from_pylist(row_group, schema=schema))
            digest.update(json.dumps(row_group, sort_keys=True).encode())
            num_rows += len(row_group)
        footer = ScoresFooter(
            scorer=id_of(scorer),
            source=source.name,
            source_digest=source.footer.digest,
            num_rows=num_rows,
            digest=digest.hexdigest(),
        )
        writer.add_key_value_metadata({SCORES_KEY: footer.model_dump_json().encode()})
    return num_rows


def _row(subject: Subject, score: Score, scorer: Scorer) -> SidecarRow:
    given: dict[str, ScoreValue] = {
        name: float(value) if isinstance(value, np.floating) else value
        for name, value in {**score.parts, "value": score.value}.items()
    }
    if unknown := {name for name, value in given.items() if value is not None} - set(
        scorer.columns
    ):
        raise FatalFailure(
            f"{id_of(scorer)} gave {sorted(unknown)}, which it does not declare as columns",
            reason="scorer",
        )
    for name, value in given.items():
        if isinstance(value, float) and not abs(value) <= _MOST:
            event = "the whole trace" if subject.event is None else f"event {subject.event}"
            raise InputError(
                f"{id_of(scorer)} gave {value} as {name} of trace {subject.trace_id}, "
                f"{event}; expected a finite number, or None where it does not apply: mend the "
                "scorer, and score again"
            )
    return {
        "trace_id": subject.trace_id,
        "event": subject.event,
        "tokens": subject.tokens,
        **{name: given.get(name) for name in scorer.columns},
    }
