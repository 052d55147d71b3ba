"""What judges said of the pictures of a run, joined with what was to be drawn."""

from collections.abc import Iterator, Sequence

import pyarrow.compute as pc

from pipeline.evaluation.suites import SUITE_KEY, Picture
from pipeline.store.layout import sidecar_key
from pipeline.store.runs import RunSource, TraceObject, read_sidecar_notes
from pipeline.store.traces import open_parquet
from schemas.json_values import read_json_object
from schemas.rows import ScoreValue
from schemas.runs import Key
from schemas.scores import KEY_COLUMNS, ScorerId
from schemas.trace import Status

_COLUMNS = ["trace_id", "record_id", "rollout_index", "status", "prompt", "metadata"]


def read_pictures(
    run: RunSource, suite: str, scorers: Sequence[ScorerId], num_rollouts: int
) -> list[Picture]:
    """The first so many rollouts of each record of the suite, ordered by record and rollout.

    Raises InputError for scores that are missing, or that are of other traces.
    """
    for scorer in scorers:
        read_sidecar_notes(run, scorer)
    pictures: dict[Key, Picture] = {}
    for source in run.objects:
        for picture in _pictures_of(run, source, scorers):
            key = picture.record_id, picture.rollout
            is_wanted = picture.metadata.get(SUITE_KEY) == suite and picture.rollout < num_rollouts
            # A supplement brings back what is dead in its base.
            if is_wanted and (picture.is_ok or key not in pictures):
                pictures[key] = picture
    return [pictures[key] for key in sorted(pictures)]


def _pictures_of(
    run: RunSource, source: TraceObject, scorers: Sequence[ScorerId]
) -> Iterator[Picture]:
    cells = {scorer.name: _cells(run, source, scorer) for scorer in scorers}
    with open_parquet(run.store, source.key) as parquet:
        rows = parquet.read(columns=_COLUMNS).to_pylist()
    for row in rows:
        yield Picture(
            record_id=row["record_id"],
            rollout=row["rollout_index"],
            prompt=row["prompt"],
            metadata=read_json_object(row["metadata"]),
            is_ok=row["status"] == Status.OK,
            cells={name: told.get(row["trace_id"], {}) for name, told in cells.items()},
        )


def _cells(
    run: RunSource, source: TraceObject, scorer: ScorerId
) -> dict[str, dict[str, ScoreValue]]:
    """The scorer's own columns, by the trace. What it says of single events is left out."""
    with open_parquet(run.store, sidecar_key(source.name, scorer)) as parquet:
        table = parquet.read()
    rows = table.filter(pc.is_null(table["event"])).to_pylist()
    return {
        row["trace_id"]: {name: row[name] for name in row if name not in KEY_COLUMNS}
        for row in rows
    }
