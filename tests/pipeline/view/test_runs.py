"""Runs as they are looked at: each key once, with its scores, chosen, ordered and read again."""

import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.store import layout
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.view.runs import ListedTrace, ViewedRun, choose, view_run
from pipeline.view.where import Choice, Value
from schemas.errors import DamagedObject
from tests.pipeline.conftest import score
from tests.support import (
    all_rows,
    bring_back,
    fake_config,
    fake_method,
    plan_run,
    replace_object,
    run_all,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """12 rollouts, some dead, one of which a rerun brought back; critiques are scored."""
    store = open_store(str(tmp_path / "run"))
    fake = fake_method().fake.model_copy(update={"dead_share": 0.3})
    manifest = plan_run(
        store, 6, fake_config(fake_method(fake)), rollouts_per_record=2, rollouts_per_shard=6
    )
    run_all(store, manifest, attempt=2)
    bring_back(store, manifest, 0, tmp_path, num_keys=1)
    score(store, "critiques")
    return store


def chosen(run: ViewedRun, where: str = "", sort: str = "", number: int | None = None):
    condition, order = Choice(where=where, sort=sort).read(run.columns)
    return [trace for _, trace in choose([run], where=condition, sort=order, number=number)]


def column(traces: Sequence[ListedTrace], name: str) -> list[Value]:
    return [trace.facts.get(name) for trace in traces]


def test_each_key_is_listed_once_as_it_stands(store: Store):
    run = view_run(store.url)
    traces = chosen(run)

    keys = list(zip(column(traces, "record_id"), column(traces, "rollout_index"), strict=True))
    assert len(keys) == len(set(keys)) == 12
    num_dead = sum(row["status"] == "dead" for row in all_rows(store, run.source.manifest))
    assert len(chosen(run, "dead")) == num_dead - 1 > 0
    assert len(chosen(run, "not dead and trace_id contains '-'")) == 12 - num_dead + 1


def test_facts_are_those_of_the_row(store: Store):
    run = view_run(store.url)

    for trace, row in run.read_rows(chosen(run)):
        scores = [event["score"] for event in row["events"] if event["score"] is not None]
        replaced = [event for event in row["events"] if event["superseded_by"] is not None]
        assert trace.facts["trace_id"] == row["trace_id"]
        assert trace.facts["score"] == min(scores, default=None)
        assert trace.facts["num_revisions"] == len(replaced)
        assert trace.facts["revised"] == bool(replaced)


def test_rows_are_read_in_any_order(store: Store):
    run = view_run(store.url)
    traces = chosen(run, sort="-score, rollout_index")

    rows = [row["trace_id"] for _, row in run.read_rows(traces)]

    assert rows == column(traces, "trace_id") != column(chosen(run), "trace_id")


def test_a_scorer_has_columns_and_says_the_lowest_of_events(store: Store):
    run = view_run(store.url)

    assert run.columns["critiques.value"] == "number"
    for trace in chosen(run, "critiques.value is not null"):
        of_events = run.scores_at(trace.source)[str(trace.facts["trace_id"])]
        values = [scores["critiques.value"] for scores in of_events.values()]
        assert trace.facts["critiques.value"] == min(v for v in values if isinstance(v, float))
    assert chosen(run, "critiques.value is null and not dead and score is null")


def test_two_versions_of_a_scorer_go_by_their_names(store: Store):
    old = layout.SCORES + "/critiques@1"
    for entry in list(store.list_folder(old)):
        store.put(
            f"{layout.SCORES}/critiques@2/{layout.object_name(entry.key)}", store.read(entry.key)
        )

    columns = view_run(store.url).columns

    assert {"critiques@1.value", "critiques@2.value"} <= set(columns)
    assert "critiques.value" not in columns


def test_a_sidecar_that_is_none_is_told_of_with_its_shard(store: Store):
    sidecar = layout.SCORES + "/critiques@1/shard-00000.parquet"
    store.put(sidecar, b"nothing")
    around = view_run(store.url, is_around_damage=True)

    with pytest.raises(DamagedObject, match=sidecar):
        chosen(view_run(store.url))
    assert {trace.source.shard for trace in chosen(around)} == {1}
    assert around.damage is not None
    assert [*around.damage] == [0]
    assert "move it away and score again" in around.damage[0]


def test_a_scorer_of_whom_no_sidecar_can_be_read_is_told_of(store: Store):
    for entry in list(store.list_folder(layout.SCORES + "/critiques@1")):
        store.put(entry.key, b"nothing")

    with pytest.raises(DamagedObject, match="shard-00000"):
        view_run(store.url, is_around_damage=True)


def test_a_sidecar_without_its_scorers_columns_is_told_of(store: Store):
    sidecar = layout.SCORES + "/critiques@1/shard-00001.parquet"
    body = io.BytesIO()
    table = pq.read_table(io.BytesIO(store.read(sidecar)))
    pq.write_table(table.drop_columns("value"), body)
    store.put(sidecar, body.getvalue())

    with pytest.raises(DamagedObject, match=r"KeyError.*value"):
        chosen(view_run(store.url))


def test_a_larger_sample_by_lot_holds_the_smaller_one(store: Store):
    run = view_run(store.url)
    samples = [set(column(chosen(run, number=number), "trace_id")) for number in (3, 6, 50)]

    assert [len(sample) for sample in samples] == [3, 6, 12]
    assert samples[0] < samples[1] < samples[2]


@pytest.mark.parametrize("number", [1, 2, 5, 39])
def test_few_of_many_rows_are_read(tmp_path: Path, number: int):
    """Rows come some at a time, and of most times none is wanted."""
    store = open_store(str(tmp_path / "run"))
    run_all(store, plan_run(store, 40, rollouts_per_shard=40))
    run = view_run(store.url)
    listed = chosen(run, number=number)

    names = [row["trace_id"] for _, row in run.read_rows(listed)]

    assert names == column(listed, "trace_id")
    assert len(names) == number


def test_metadata_that_is_no_object_is_none(store: Store):
    replace_object(store, 0, rows=lambda rows: [row | {"metadata": "[1"} for row in rows])

    assert column(chosen(view_run(store.url)), "category") == [None] * 12
