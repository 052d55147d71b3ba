"""What is had back from traces is what was lost, or nothing, with the reason."""

from pathlib import Path

import pytest

from pipeline.store import layout
from pipeline.store.evidence.rebuild import lost_plans, lost_run, put_plan, put_run
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.plans import read_manifest, read_plan_shard
from pipeline.store.traces import read_footer, read_rows
from pipeline.store.verify import Verification
from schemas.errors import InputError
from schemas.runs import RunManifest
from tests.support import fake_config, fake_method, plan_run, replace_object, run_all


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "run"))


@pytest.fixture
def manifest(store: Store) -> RunManifest:
    """A whole run of 2 shards of 3 rollouts; a record has rollouts in both."""
    manifest = plan_run(store, 3, rollouts_per_record=2, rollouts_per_shard=3)
    run_all(store, manifest)
    return manifest


def lose_plan(store: Store, manifest: RunManifest, shard: int) -> str:
    key = layout.plan_key(manifest.plan.folder, shard)
    store.delete(key)
    return key


def older(store: Store, manifest: RunManifest) -> RunManifest:
    """The run as version 0.1 would have planned it: without digests."""
    plan = manifest.plan.model_copy(update={"digests": ""})
    return manifest.model_copy(update={"plan": plan})


@pytest.mark.parametrize("is_older", [False, True])
def test_a_plan_file_is_had_back_row_by_row(store: Store, manifest: RunManifest, is_older: bool):
    manifest = older(store, manifest) if is_older else manifest
    before = sorted(read_plan_shard(store, manifest, 1), key=lambda row: row.record_id)
    lose_plan(store, manifest, 1)

    (lost,) = lost_plans(store, manifest)
    assert put_plan(store, manifest, lost)

    assert read_plan_shard(store, manifest, 1) == before
    assert list(Verification(store, manifest, is_deep=True).findings()) == []


def test_a_plan_file_that_came_back_meanwhile_is_not_replaced(store: Store, manifest: RunManifest):
    key = lose_plan(store, manifest, 0)
    (lost,) = lost_plans(store, manifest)
    store.put(key, b"a copy")

    assert not put_plan(store, manifest, lost)
    assert store.read(key) == b"a copy"


def test_nothing_is_had_back_from_traces_that_are_damaged_or_were_never_made(
    store: Store, manifest: RunManifest
):
    for shard in (0, 1):
        lose_plan(store, manifest, shard)
    store.delete(layout.traces_key(0))
    replace_object(store, 1, rows=lambda rows: rows[:-1])

    first, second = lost_plans(store, manifest)

    assert (first.rows, second.rows) == ([], [])
    assert "never made" in first.why_not
    assert "damaged" in second.why_not


def test_a_base_that_is_another_shards_makes_no_plan(store: Store, manifest: RunManifest):
    """Without digests, only the rest of the plan tells."""
    manifest = older(store, manifest)
    lose_plan(store, manifest, 1)
    rows = list(read_rows_of(store, 0))
    replace_object(store, 1, rows=lambda _: rows, footer=footer_of(store, 0) | {"shard": 1})

    (lost,) = lost_plans(store, manifest)

    assert lost.rows == []
    assert "planned in" in lost.why_not


def read_rows_of(store: Store, shard: int) -> list[dict[str, object]]:
    return [dict(row) for row in read_rows(store, shard)]


def footer_of(store: Store, shard: int) -> dict[str, object]:
    return read_footer(store, shard).model_dump(include={"digest", "num_ok", "num_dead"})


def test_run_json_is_had_back_as_it_was(store: Store, manifest: RunManifest):
    store.delete(layout.MANIFEST)

    lost = lost_run(store)
    assert put_run(store, lost) == [layout.MANIFEST]

    assert read_manifest(store) == manifest
    assert put_run(store, lost) == []


def test_traces_of_two_runs_make_none(store: Store, manifest: RunManifest, tmp_path: Path):
    other = open_store(str(tmp_path / "other"))
    run_all(other, plan_run(other, 3, fake_config(fake_method(seed=9)), rollouts_per_shard=3))
    store.put(layout.traces_key(1), other.read(layout.traces_key(0)))
    store.delete(layout.MANIFEST)

    with pytest.raises(InputError, match="traces of 2 runs"):
        lost_run(store)


def test_traces_that_do_not_say_their_run_make_none(store: Store, manifest: RunManifest):
    for shard in (0, 1):
        replace_object(store, shard)  # as version 0.1 wrote it
    store.delete(layout.MANIFEST)

    with pytest.raises(InputError, match=r"written by version 0\.1"):
        lost_run(store)
