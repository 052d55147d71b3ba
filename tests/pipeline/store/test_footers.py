"""The log of footers: it saves reading, decides nothing, and is believed of no changed object."""

import hashlib
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.store import footers, layout
from pipeline.store.footers import FooterLog, object_rows, read_footer_log
from pipeline.store.leftovers import find_leftovers
from pipeline.store.objects import Entry, Source, Store
from pipeline.store.open import open_store
from pipeline.store.status import Stock, keep_footers, read_status, take_stock
from pipeline.store.supplements import read_log
from pipeline.store.verify import Verification
from schemas.errors import ForeignObject, StoreRefused
from schemas.runs import RunManifest
from tests.support import (
    SMALL,
    Wrapped,
    bring_back,
    fake_config,
    fake_method,
    plan_run,
    replace_object,
    run_all,
)

SHARD = layout.traces_key(1)


class Counting(Wrapped):
    """Counts what is read of each folder."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.reads: Counter[str] = Counter()

    def read_range(self, key: str, start: int, length: int) -> bytes:
        self.reads[key.partition("/")[0]] += 1
        return self.store.read_range(key, start, length)

    def size(self, key: str) -> int:
        self.reads[key.partition("/")[0]] += 1
        return self.store.size(key)


@pytest.fixture
def manifest(store: Store) -> RunManifest:
    """A run of 4 shards of 3 rollouts, some of them dead, and an up-to-date log."""
    method = fake_method(SMALL.model_copy(update={"dead_share": 0.4}))
    manifest = plan_run(store, 12, fake_config(method), rollouts_per_shard=3)
    run_all(store, manifest, attempt=2)
    keep_footers(store, manifest, worth=1)
    return manifest


def logs(store: Store) -> list[str]:
    return sorted(entry.key for entry in store.list_folder(layout.FOOTERS))


def counts(stock: Stock) -> tuple[int, int, list[int]]:
    return stock.num_ok, stock.num_dead, stock.committed()


def forget(store: Store) -> None:
    for key in logs(store):
        store.delete(key)


def true_counts(store: Store, manifest: RunManifest) -> tuple[int, int, list[int]]:
    """By the footers alone."""
    of_shards = [read_log(store, shard) for shard in range(manifest.num_shards)]
    num_ok, num_dead = sum(log.num_ok for log in of_shards), sum(log.num_dead for log in of_shards)
    return num_ok, num_dead, list(range(manifest.num_shards))


def dead_shard(store: Store, manifest: RunManifest) -> int:
    """A shard with two dead rows or more."""
    return next(s for s in range(manifest.num_shards) if read_log(store, s).num_dead > 1)


def spoil(store: Store, key: str, position: int) -> None:
    """Turn one bit of an object, in place where the store has places."""
    path = Path(store.url) / key
    body = bytearray(store.read(key))
    body[position] ^= 1
    if not path.exists():
        store.put(key, bytes(body))
        return
    before = path.stat()
    with path.open("r+b") as file:
        file.write(body)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


# What it saves


def test_beside_a_log_no_object_is_read(store: Store, manifest: RunManifest):
    counting = Counting(store)

    stock = take_stock(counting, manifest)

    assert counts(stock) == true_counts(store, manifest)
    assert stock.num_dead > 0
    assert (stock.num_read, counting.reads["traces"]) == (0, 0)


def test_without_a_log_each_footer_is_one_read(store: Store, manifest: RunManifest):
    forget(store)
    counting = Counting(store)

    stock = take_stock(counting, manifest)

    assert counts(stock) == true_counts(store, manifest)
    assert (stock.num_read, counting.reads["traces"]) == (4, 4)


def test_what_is_new_is_read_and_the_log_made_anew(
    store: Store, manifest: RunManifest, tmp_path: Path
):
    (before,) = logs(store)
    bring_back(store, manifest, dead_shard(store, manifest), tmp_path, num_keys=1)

    stock = keep_footers(store, manifest, worth=1)

    assert counts(stock) == true_counts(store, manifest)
    assert stock.num_read == 1
    (after,) = logs(store)
    assert after != before
    assert take_stock(store, manifest).num_read == 0


def test_little_news_is_not_worth_a_log(store: Store, manifest: RunManifest):
    forget(store)

    keep_footers(store, manifest, worth=5)

    assert logs(store) == []


def test_whoever_only_looks_writes_nothing(store: Store, manifest: RunManifest):
    forget(store)

    read_status(store, manifest)

    assert logs(store) == []


# What it decides: nothing


def test_a_shard_that_went_is_missing_whatever_the_log_says(store: Store, manifest: RunManifest):
    store.delete(SHARD)

    status = read_status(store, manifest)

    assert (status.num_committed, status.num_missing) == (3, 3)


@pytest.mark.parametrize("how", ["cut", "empty", "text", "longer"])
def test_a_damaged_shard_is_found_beside_an_up_to_date_log(
    store: Store, manifest: RunManifest, how: str
):
    body = store.read(SHARD)
    changed = {"cut": body[:-200], "empty": b"", "text": b"text", "longer": body + b"x"}[how]
    store.put(SHARD, changed)

    damage = take_stock(store, manifest).damage
    assert list(damage) == [1]
    assert re.search(r"shard-00001.*coppice repair .* --shards 1", damage[1])


def test_a_footer_of_the_same_length_is_looked_at_again(store: Store, manifest: RunManifest):
    spoil(store, SHARD, -1)  # of the last letters, which say that this is Parquet

    assert "shard-00001" in take_stock(store, manifest).damage[1]


@pytest.mark.parametrize("footer", [{"run_id": "another-run"}, {"fingerprint": "another-method"}])
def test_an_object_of_another_run_is_found_beside_an_up_to_date_log(
    store: Store, manifest: RunManifest, footer: dict[str, Any]
):
    replace_object(store, 1, footer=footer)

    with pytest.raises(ForeignObject, match="two runs share a folder"):
        take_stock(store, manifest)


def test_a_damaged_supplement_is_found_beside_an_up_to_date_log(
    store: Store, manifest: RunManifest, tmp_path: Path
):
    shard = dead_shard(store, manifest)
    bring_back(store, manifest, shard, tmp_path)
    keep_footers(store, manifest, worth=1)
    key = layout.traces_key(shard, 1)
    store.put(key, store.read(key)[:-100])

    assert ".s1.parquet" in take_stock(store, manifest).damage[shard]


def test_a_copied_run_is_read_again(manifest: RunManifest, store: Store, tmp_path: Path):
    copy = open_store(str(tmp_path / "copy"))
    for folder in (layout.TRACES, layout.FOOTERS):
        for entry in store.list_folder(folder):
            copy.put(entry.key, store.read(entry.key))

    stock = take_stock(copy, manifest)

    assert stock.num_read == 4
    assert counts(stock) == true_counts(store, manifest)


def test_a_file_that_is_copied_with_its_times_is_read_again(tmp_path: Path):
    store = open_store(str(tmp_path / "run"))
    manifest = plan_run(store, 2, rollouts_per_shard=1)
    run_all(store, manifest)
    keep_footers(store, manifest, worth=1)
    path = tmp_path / "run" / SHARD
    shutil.copy2(path, tmp_path / "copy")
    (tmp_path / "copy").rename(path)

    assert take_stock(store, manifest).num_read == 1


class WithoutEtags(Wrapped):
    """Lists objects as a server does that says no more than names and sizes."""

    def list_folder(self, folder: str) -> Any:
        for entry in self.store.list_folder(folder):
            yield Entry(key=entry.key, size_bytes=entry.size_bytes)


def test_by_its_size_alone_no_object_is_known(store: Store, manifest: RunManifest):
    forget(store)
    keep_footers(WithoutEtags(store), manifest, worth=1)

    assert take_stock(WithoutEtags(store), manifest).num_read == 4


# Supplements


def test_supplements_count_as_the_footers_say(store: Store, manifest: RunManifest, tmp_path: Path):
    shard = dead_shard(store, manifest)
    bring_back(store, manifest, shard, tmp_path, num_keys=1, num_in_vain=1)
    bring_back(store, manifest, shard, tmp_path)
    expected = true_counts(store, manifest)

    fresh = keep_footers(store, manifest, worth=1)
    logged = take_stock(store, manifest)

    assert counts(fresh) == counts(logged) == expected
    assert (fresh.num_read, logged.num_read) == (2, 0)


class Lagging(Wrapped):
    """A list that has not heard of the first supplements yet."""

    def list_folder(self, folder: str) -> Any:
        return (e for e in self.store.list_folder(folder) if not e.key.endswith(".s1.parquet"))


def test_a_list_with_a_gap_is_not_believed(store: Store, manifest: RunManifest, tmp_path: Path):
    shard = dead_shard(store, manifest)
    bring_back(store, manifest, shard, tmp_path, num_keys=1)
    bring_back(store, manifest, shard, tmp_path, num_keys=1)

    assert counts(take_stock(Lagging(store), manifest)) == true_counts(store, manifest)


# Logs that are none


def test_a_log_that_is_gone_is_made_anew(store: Store, manifest: RunManifest):
    before = logs(store)
    forget(store)

    keep_footers(store, manifest, worth=1)

    assert logs(store) == before  # its name is of what it says


@pytest.mark.parametrize("how", ["cut", "flipped", "empty", "named otherwise"])
def test_a_damaged_log_is_no_log(store: Store, manifest: RunManifest, how: str):
    (key,) = logs(store)
    body = bytearray(store.read(key))
    if how == "named otherwise":
        key, _ = layout.footers_key("0" * 64), store.delete(key)
    elif how == "flipped":
        body[len(body) // 2] ^= 1
    store.put(key, {"cut": bytes(body[:-1]), "empty": b""}.get(how, bytes(body)))

    stock = keep_footers(store, manifest, worth=1)

    assert stock.num_read == 4
    assert counts(stock) == true_counts(store, manifest)
    assert take_stock(store, manifest).num_read == 0


def test_a_log_of_another_run_is_no_log(store: Store, manifest: RunManifest):
    other = manifest.model_copy(update={"run_id": "another-run"})

    assert len(read_footer_log(store, manifest).rows) == 4
    assert len(read_footer_log(store, other).rows) == 0


def put_log(store: Store, body: bytes) -> str:
    key = layout.footers_key(hashlib.sha256(body).hexdigest())
    store.put(key, body)
    return key


def test_other_bytes_under_a_name_that_is_theirs_are_no_log(store: Store, manifest: RunManifest):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"shard": [1]}), sink)
    put_log(store, sink.getvalue().to_pybytes())
    put_log(store, b"text")

    assert take_stock(store, manifest).num_read == 0


def test_gc_removes_logs_that_are_none_and_keeps_the_others(store: Store, manifest: RunManifest):
    damaged = put_log(store, b"text")

    leftovers = find_leftovers(store, manifest, settle_seconds=0, sleep=lambda _: None)

    assert [leftover.key for leftover in leftovers] == [damaged]


# Writers


def test_two_logs_are_read_as_one_and_replaced_by_one(
    store: Store, manifest: RunManifest, tmp_path: Path
):
    (first,) = logs(store)
    body = store.read(first)
    bring_back(store, manifest, dead_shard(store, manifest), tmp_path)
    keep_footers(store, manifest, worth=1)
    store.put(first, body)  # as by a writer at the same time, who knew less

    assert len(logs(store)) == 2
    assert take_stock(store, manifest).num_read == 0
    keep_footers(store, manifest)
    assert len(logs(store)) == 1
    assert take_stock(store, manifest).num_read == 0


class ReadOnly(Wrapped):
    def put(self, key: str, source: Source) -> None:
        raise StoreRefused("read-only")


def test_a_store_that_takes_no_log_is_no_matter(store: Store, manifest: RunManifest):
    forget(store)

    stock = keep_footers(ReadOnly(store), manifest, worth=1)

    assert counts(stock) == true_counts(store, manifest)
    assert logs(store) == []


class Unreadable(Wrapped):
    def list_folder(self, folder: str) -> Any:
        if folder == layout.FOOTERS:
            raise StoreRefused("this folder is not for you")
        return self.store.list_folder(folder)


def test_a_folder_of_logs_that_may_not_be_read_is_no_matter(store: Store, manifest: RunManifest):
    assert take_stock(Unreadable(store), manifest).num_read == 4


# Verify


def test_verify_does_not_believe_a_log_and_tells_of_one_that_lies(
    store: Store, manifest: RunManifest
):
    log = read_footer_log(store, manifest)
    log.rows[2, footers.NUM_OK] += 1
    footers.write_footer_log(store, manifest, log.rows, log)
    (key,) = logs(store)

    for is_deep in (False, True):
        verification = Verification(store, manifest, is_deep=is_deep)
        (finding,) = verification.findings()
        assert (finding.shard, finding.key, finding.can_repair) == (2, key, False)
        assert verification.num_ok == true_counts(store, manifest)[0]


def test_verify_is_silent_about_a_true_log(store: Store, manifest: RunManifest, tmp_path: Path):
    bring_back(store, manifest, dead_shard(store, manifest), tmp_path, num_keys=1)
    keep_footers(store, manifest, worth=1)

    assert list(Verification(store, manifest, is_deep=True).findings()) == []


# Any rows

objects = st.tuples(
    st.integers(0, 5), st.integers(0, 2), st.integers(0, 3), st.sampled_from(["", "a", "b"])
)


def rows_of(listed: Iterable[tuple[int, int, int, str]]) -> footers.Rows:
    entries = [(s, n, Entry(key="x", size_bytes=size, etag=tag)) for s, n, size, tag in listed]
    return object_rows(entries)


@given(
    st.dictionaries(objects, st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12),
    st.lists(objects, max_size=12),
)
def test_a_log_knows_an_object_by_all_that_a_list_says(
    logged: dict[tuple[int, int, int, str], tuple[int, int]],
    listed: list[tuple[int, int, int, str]],
):
    true = dict({each[:2]: (each, counts) for each, counts in logged.items()}.values())
    log = rows_of(true)
    log[:, footers.NUM_OK :] = np.array(list(true.values())).reshape(-1, 2)
    rows = rows_of(listed)

    is_known = FooterLog(rows=footers.ordered(log), keys=()).fill_in(rows)

    assert is_known.tolist() == [each in true and each[3] != "" for each in listed]
    told = [tuple(row) for row in rows[:, footers.NUM_OK :].tolist()]
    assert told == [
        true[each] if known else (0, 0) for each, known in zip(listed, is_known, strict=True)
    ]


@given(st.lists(objects, max_size=12))
def test_rows_in_order_have_each_name_once(listed: list[tuple[int, int, int, str]]):
    names = [tuple(row) for row in footers.ordered(rows_of(listed))[:, :2].tolist()]

    assert names == sorted({each[:2] for each in listed})


@settings(deadline=None, max_examples=30)  # each syncs a file
@given(st.lists(objects, max_size=40), st.integers(0, 2**62))
def test_what_is_written_is_read_back(listed: list[tuple[int, int, int, str]], num_ok: int):
    rows = footers.ordered(rows_of(listed))
    rows[:, footers.NUM_OK] = num_ok
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder)
        manifest = RunManifest.model_construct(run_id="some-run", fingerprint="a-method")

        footers.write_footer_log(store, manifest, rows, FooterLog(rows=rows, keys=()))

        assert read_footer_log(store, manifest).rows.tolist() == rows.tolist()
