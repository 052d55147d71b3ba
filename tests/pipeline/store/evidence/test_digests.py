"""Digests stand beside objects, whoever won, and say whether these are what was put."""

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.store import layout
from pipeline.store.commits import Commit, commit_shard
from pipeline.store.evidence.digests import (
    Digests,
    DigestState,
    digest_of,
    fetched,
    note_digest,
)
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.patient import PatientStore
from pipeline.store.verify import Verification
from schemas.errors import ObjectMissing
from tests.support import (
    SMALL,
    bring_back,
    fake_config,
    fake_method,
    plan_run,
    run_all,
    some_origin,
    some_trace,
    write_shard,
)

KEY = layout.traces_key(0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "run"))


def state(store: Store, key: str = KEY) -> DigestState:
    return Digests(store).state(key, digest_of(store, key))


def digests_in(store: Store, folder: str = "traces") -> list[str]:
    return sorted(entry.key for entry in store.list_folder(f"{layout.DIGESTS}/{folder}"))


def test_an_object_without_a_digest_is_no_damage_and_a_changed_one_is(store: Store, tmp_path: Path):
    store.put(KEY, b"some bytes")
    assert state(store) is DigestState.NONE

    path = tmp_path / "file"
    path.write_bytes(b"some bytes")
    note_digest(store, KEY, path)
    assert state(store) is DigestState.WHOLE

    store.put(KEY, b"some bytez")
    assert state(store) is DigestState.OTHER
    assert Digests(store).state("traces/shard-00001.parquet", "0" * 64) is DigestState.NONE


def test_a_lost_race_leaves_a_digest_and_changes_none(store: Store, tmp_path: Path):
    patient = PatientStore(store, patience_seconds=0)
    ends = []
    for name in ("winner", "loser"):
        footer = write_shard(tmp_path / name, some_trace(), origin=some_origin())
        ends.append(commit_shard(patient, tmp_path / name, footer))

    assert ends == [Commit.WON, Commit.LOST]
    assert len(digests_in(store)) == 2
    assert state(store) is DigestState.WHOLE


def test_an_object_of_many_pieces_is_read_once_and_has_its_digest(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pipeline.store.evidence.digests.PIECE_BYTES", 100)
    body = bytes(range(256)) * 3
    store.put(KEY, body)

    with fetched(store, KEY) as (file, digest):
        assert file.read() == body
    assert digest == digest_of(store, KEY)
    with pytest.raises(ObjectMissing), fetched(store, "traces/shard-00001.parquet"):
        pass


def test_bases_and_supplements_have_digests_and_none_of_an_older_run_is_missed(
    store: Store, tmp_path: Path
):
    method = fake_method(SMALL.model_copy(update={"dead_share": 1.0}))
    manifest = plan_run(store, 4, fake_config(method), rollouts_per_shard=4)
    run_all(store, manifest, attempt=2)
    bring_back(store, manifest, 0, tmp_path, num_keys=2)

    def deep() -> Iterator[object]:
        verification = Verification(store, manifest, is_deep=True)
        yield from verification.findings()
        yield verification.num_without_digest

    assert [state(store, layout.traces_key(0, number)) for number in (0, 1)] == ["whole"] * 2
    assert list(deep()) == [0]

    for key in digests_in(store):
        store.delete(key)
    assert list(deep()) == [2]


def test_a_file_that_another_tool_wrote_again_is_found(store: Store):
    manifest = plan_run(store, 4, rollouts_per_shard=4)
    run_all(store, manifest)
    parquet = pq.ParquetFile(io.BytesIO(store.read(KEY)))
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, parquet.schema_arrow, compression="snappy") as writer:
        writer.write_table(parquet.read())
        writer.add_key_value_metadata({b"coppice": (parquet.metadata.metadata or {})[b"coppice"]})
    store.put(KEY, sink.getvalue())

    (finding,) = Verification(store, manifest, is_deep=True).findings()

    assert "bytes with digest" in finding.found
    assert finding.can_repair
