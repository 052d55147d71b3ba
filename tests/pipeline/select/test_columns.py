"""Columns: events find the drawings that they are about, and scores their events."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.select.columns import (
    DRAW,
    MAX_EVENTS,
    MAX_REGIONS,
    REFLECT,
    THINK,
    WHOLE,
    SidecarColumns,
    event_keys,
    read_columns,
    read_scores,
)
from pipeline.store.open import open_store
from schemas.errors import InputError
from schemas.tables import TRACES
from tests.pipeline.select.support import columns_of, event, sidecar

REVISED = (
    event("think", 0),
    event("draw", 0, successor=3),
    event("reflect", 0, verdict="revise"),
    event("draw", 0, 1),
    event("reflect", 0, 1, verdict="accept"),
    event("think", 1),
    event("draw", 1),
    event("reflect", 1, verdict="accept"),
)
"""A trace whose first region was drawn twice."""


def test_an_event_is_about_its_own_drawing_the_one_it_judged_or_the_one_that_stands():
    columns = columns_of(REVISED, REVISED)
    #               think draw reflect draw reflect think draw reflect
    of_one_trace = [3, 1, 1, 3, 3, 6, 6, 6]

    assert columns.drawings().tolist() == of_one_trace * 2


def test_an_event_without_its_drawing_is_about_none():
    columns = columns_of((event("schedule"), event("think", 0), event("draw", 1)))

    assert columns.drawings().tolist() == [-1, -1, 2]


def test_every_event_of_a_region_knows_how_often_it_was_drawn_again():
    columns = columns_of((event("think"), event("draw")), REVISED)

    assert columns.num_revisions().tolist() == [0, 0, 1, 1, 1, 1, 1, 0, 0, 0]


@given(
    pairs=st.lists(
        st.tuples(st.integers(0, 2**31 - 1), st.integers(WHOLE, MAX_EVENTS - 1)), unique=True
    )
)
def test_no_two_events_have_one_key(pairs: list[tuple[int, int]]):
    traces, events = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))

    assert len(set(event_keys(traces, events).tolist())) == len(pairs)


@pytest.mark.parametrize("number", [MAX_EVENTS, MAX_EVENTS + 7, -2])
def test_an_event_whose_key_would_be_another_events_is_refused(number: int):
    with pytest.raises(InputError, match=r"events of a trace numbered .* cannot curate"):
        event_keys(np.array([0, 1]), np.array([3, number]))


@pytest.mark.parametrize(
    "out_of_bounds", [event("draw", MAX_REGIONS), event("draw", 0, 256), event("draw", -1)]
)
def test_a_region_or_revision_out_of_bounds_is_refused(out_of_bounds: dict[str, object]):
    with pytest.raises(InputError, match=r"numbered .* cannot curate"):
        columns_of((out_of_bounds,)).drawings()


def test_a_score_is_looked_up_by_trace_and_event_and_nan_where_there_is_none():
    scores = sidecar({(1, WHOLE): 0.5, (0, 2): 1.0, (0, WHOLE): None, (1, 0): 0.25})

    traces, events = np.array([0, 0, 1, 1, 2, 0]), np.array([2, WHOLE, WHOLE, 0, WHOLE, 3])

    np.testing.assert_array_equal(
        scores.at("value", traces, events), [1.0, np.nan, 0.5, 0.25, np.nan, np.nan]
    )


def test_a_sidecar_without_scores_has_none():
    scores = SidecarColumns(
        keys=np.zeros(0, np.int64),
        table=pa.table({"value": pa.array([], pa.float32()), "hash": pa.array([], pa.uint64())}),
    )
    hashes, has_hash = scores.hashes("hash", 2)

    assert np.isnan(scores.at("value", np.arange(2), np.full(2, WHOLE))).all()
    assert (hashes.tolist(), has_hash.tolist()) == ([0, 0], [False, False])


def test_a_hash_keeps_all_64_bits():
    most = 2**64 - 1
    scores = SidecarColumns(
        keys=event_keys(np.array([2, 0]), np.full(2, WHOLE)),
        table=pa.table({"hash": pa.array([most, None], pa.uint64())}),
    )
    hashes, has_hash = scores.hashes("hash", 3)

    assert has_hash.tolist() == [False, False, True]
    assert hashes.tolist() == [0, 0, most]


def write_traces(path: Path) -> None:
    """A trace object with its slim columns: an ok trace, a dead one, and an ok one."""
    events = [
        [
            {"index": 0, "role": "think", "region": 0, "revision": 0},
            {"index": 1, "role": "draw", "region": 0, "revision": 0, "superseded_by": 3},
            {"index": 2, "role": "reflect", "region": 0, "revision": 0, "verdict": "revise"}
            | {"score": 40.0, "finish": "stop"},
            {"index": 3, "role": "draw", "region": 0, "revision": 1},
        ],
        [{"index": 0, "role": "think", "region": 0, "revision": 0}],
        [{"index": 0, "role": "draw", "region": 0, "revision": 0}],
    ]
    columns = {
        "trace_id": ["a", "b", "c"],
        "record_id": ["00000000000000ff", "0000000000000001", "ffffffffffffffff"],
        "rollout_index": [0, 1, 2],
        "status": ["ok", "dead", "ok"],
        "prompt": ["p", "q", "r"],
        "metadata": ["{}", "{}", '{"category": "toy"}'],
        "events": events,
    }
    slim = pa.schema([TRACES.field(name) for name in columns])
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pydict(columns, schema=slim), path)


def test_dead_traces_are_counted_and_left_out_and_positions_are_those_of_the_file(tmp_path: Path):
    write_traces(tmp_path / "traces" / "shard-00000.parquet")

    columns = read_columns(open_store(str(tmp_path)), "traces/shard-00000.parquet")

    assert (len(columns), columns.num_dead) == (2, 1)
    assert columns.position.tolist() == [0, 2]
    assert columns.trace_ids.to_pylist() == ["a", "c"]
    assert columns.record.tolist() == [255, 2**64 - 1]
    assert columns.rollout.tolist() == [0, 2]
    assert columns.prompts == ["p", "r"]
    events = columns.events
    assert events.trace.tolist() == [0, 0, 0, 0, 1]
    assert events.index.tolist() == [0, 1, 2, 3, 0]
    assert events.role.tolist() == [THINK, DRAW, REFLECT, DRAW, DRAW]
    assert events.successor.tolist() == [-1, 3, -1, -1, -1]
    assert events.is_replaced.tolist() == [False, True, False, False, False]
    assert events.verdict.tolist() == [None, None, "revise", None, None]
    np.testing.assert_array_equal(events.score, [np.nan, np.nan, 40, np.nan, np.nan])


def test_scores_of_dead_traces_are_nobodys(tmp_path: Path):
    write_traces(tmp_path / "traces" / "shard-00000.parquet")
    (tmp_path / "scores").mkdir()
    table = {
        "trace_id": ["b", "c", "a", "a"],
        "event": pa.array([None, None, 2, None], pa.int16()),
        "value": pa.array([0.1, 0.5, 0.25, None], pa.float32()),
    }
    pq.write_table(pa.table(table), tmp_path / "scores" / "shard.parquet")
    store = open_store(str(tmp_path))
    columns = read_columns(store, "traces/shard-00000.parquet")

    scores = read_scores(store, "scores/shard.parquet", {"value"}, columns)

    looked_up = scores.at("value", np.array([0, 0, 1]), np.array([WHOLE, 2, WHOLE]))
    np.testing.assert_array_equal(looked_up, [np.nan, 0.25, 0.5])
    assert len(scores.keys) == 3
