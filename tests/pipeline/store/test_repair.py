"""Damaged shards are moved aside, whole ones never, and a kill on any line loses nothing."""

import shutil
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from pipeline.store import layout
from pipeline.store.evidence import digests
from pipeline.store.evidence.digests import exists
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.plans import read_manifest
from pipeline.store.repair import Moved, find_damage, move_aside
from pipeline.store.traces import read_footer
from pipeline.store.verify import Verification
from schemas.errors import InputError, StoreRefused
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


@pytest.fixture
def manifest(store: Store, tmp_path: Path) -> RunManifest:
    """A whole run of 2 shards of 3 dead rollouts; shard 0 has two supplements."""
    method = fake_method(SMALL.model_copy(update={"dead_share": 1.0}))
    manifest = plan_run(store, 6, fake_config(method), rollouts_per_shard=3)
    run_all(store, manifest, attempt=2)
    for _ in range(2):
        bring_back(store, manifest, 0, tmp_path, num_keys=1)
    return manifest


def objects_of(store: Store, shard: int = 0) -> dict[str, bytes]:
    keys = [layout.traces_key(shard, number) for number in range(3)]
    listed = {entry.key for entry in store.list_folder(layout.TRACES)}
    return {key: store.read(key) for key in keys if key in listed}


def repaired(store: Store, manifest: RunManifest, *shards: int) -> list[Moved]:
    damages = find_damage(store, manifest, list(shards or (0,)))
    return [moved for damage in damages for moved in move_aside(store, damage)]


def is_whole(store: Store, manifest: RunManifest) -> bool:
    return not list(Verification(store, manifest, is_deep=True).findings())


@pytest.mark.parametrize("supplement", [0, 1, 2])
def test_a_damaged_shard_goes_to_quarantine_with_its_supplements_and_is_made_again(
    store: Store, manifest: RunManifest, supplement: int
):
    key = layout.traces_key(0, supplement)
    store.put(key, store.read(key)[:-9])
    before = objects_of(store)

    moved = repaired(store, manifest)

    assert {each.key: store.read(each.to) for each in moved} == before
    assert [each.size_bytes for each in moved] == [len(before[each.key]) for each in moved]
    assert objects_of(store) == {}
    assert is_whole(store, manifest)  # missing, and no damage
    run_all(store, manifest, attempt=2)
    assert is_whole(store, manifest)
    assert read_footer(store, 0).num_rows == 3


def test_damage_that_only_reading_every_page_finds_is_repaired(store: Store, manifest: RunManifest):
    def change(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [row | {"codes": row["codes"][::-1] or [1]} for row in rows]

    replace_object(store, 1, rows=change)

    assert [each.key for each in repaired(store, manifest, 1)] == [layout.traces_key(1)]


@pytest.mark.parametrize("gone", [[0], [1], [0, 1]])
def test_supplements_without_what_they_build_on_are_moved(
    store: Store, manifest: RunManifest, gone: list[int]
):
    for number in gone:
        store.delete(layout.traces_key(0, number))
    before = objects_of(store)

    moved = repaired(store, manifest)

    assert {each.key for each in moved} == set(before)
    assert is_whole(store, manifest)


def test_a_whole_shard_is_refused_and_so_are_those_named_with_it(
    store: Store, manifest: RunManifest
):
    store.put(layout.traces_key(0), b"something else")
    before = objects_of(store) | objects_of(store, 1)

    with pytest.raises(InputError, match=r"shard 1 .* no damage"):
        repaired(store, manifest, 0, 1)

    assert objects_of(store) | objects_of(store, 1) == before


def test_a_shard_that_is_not_committed_is_refused(store: Store, manifest: RunManifest):
    store.delete(layout.traces_key(1))

    with pytest.raises(InputError, match="no damage"):
        repaired(store, manifest, 1)


def test_what_is_of_another_run_is_refused(store: Store, manifest: RunManifest):
    replace_object(store, 0, footer={"run_id": "another-run"})
    before = objects_of(store)

    with pytest.raises(InputError, match="another-run"):
        repaired(store, manifest)

    assert objects_of(store) == before


def test_a_shard_that_could_not_be_made_again_is_refused(store: Store, manifest: RunManifest):
    store.delete(layout.plan_key(manifest.plan.folder, 0))
    store.put(layout.traces_key(0), b"something else")
    before = objects_of(store)

    with pytest.raises(InputError, match="neither made nor repaired"):
        repaired(store, manifest)

    assert objects_of(store) == before


class Forgetful(Wrapped):
    """Keeps only the first bytes of what is put."""

    def put(self, key: str, source: Path) -> None:
        self.store.put(key, source.read_bytes()[:9])


def test_nothing_is_deleted_before_its_copy_reads_back(store: Store, manifest: RunManifest):
    store.put(layout.traces_key(0), b"something else")
    before = objects_of(store)

    with pytest.raises(StoreRefused, match="reads back unlike"):
        repaired(Forgetful(store), manifest)

    assert objects_of(store) == before


def test_an_object_larger_than_a_piece_is_copied_whole(
    store: Store, manifest: RunManifest, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(digests, "PIECE_BYTES", 100)
    body = bytes(range(256)) * 3
    store.put(layout.traces_key(1), body)

    (moved,) = repaired(store, manifest, 1)

    assert store.read(moved.to) == body


# Failpoints


class Killed(BaseException):
    """The process is gone."""


class Dying(Wrapped):
    """Dies at a call to the store: before it is made, or after, unheard."""

    def __init__(self, store: Store, dies_at: int, *, is_after: bool) -> None:
        super().__init__(store)
        self.calls_left, self.is_after = dies_at, is_after

    def __getattr__(self, name: str) -> Any:
        answer = getattr(self.store, name)
        return answer if name == "url" else lambda *args: self._call(answer, *args)

    def _call(self, verb: Any, *args: Any) -> Any:
        self.calls_left -= 1
        if self.calls_left == 0:
            if self.is_after:
                verb(*args)
            raise Killed
        return verb(*args)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of one shard and two supplements."""
    folder = tmp_path_factory.mktemp("run")
    store = open_store(str(folder / "run"))
    method = fake_method(SMALL.model_copy(update={"dead_share": 1.0}))
    manifest = plan_run(store, 3, fake_config(method))
    run_all(store, manifest, attempt=2)
    for _ in range(2):
        bring_back(store, manifest, 0, folder, num_keys=1)
    return folder / "run"


def is_safe(store: Store, key: str, body: bytes) -> bool:
    """Whether an object stands where it stood, or in quarantine."""
    copy = layout.quarantine_key(sha256(body).hexdigest(), key)
    return any(exists(store, place) and store.read(place) == body for place in (key, copy))


@pytest.mark.parametrize("is_after", [False, True])
@pytest.mark.parametrize("supplement", [0, 1, 2])
def test_killed_at_any_call_and_started_again_it_loses_nothing(
    run: Path, tmp_path: Path, is_after: bool, supplement: int
):
    num_deaths = 0
    while True:
        store = open_store(shutil.copytree(run, tmp_path / f"run-{num_deaths}").as_posix())
        manifest = read_manifest(store)
        store.put(layout.traces_key(0, supplement), b"something else")
        before = objects_of(store)
        (damage,) = find_damage(store, manifest, [0])
        try:
            list(move_aside(Dying(store, num_deaths + 1, is_after=is_after), damage))
            break  # it came to its end before its time
        except Killed:
            num_deaths += 1
        assert all(is_safe(store, *each) for each in before.items())

        with suppress(InputError):  # the damaged supplement was moved: what is left is whole
            repaired(store, manifest)

        assert is_whole(store, manifest)
        assert all(is_safe(store, *each) for each in before.items())
    assert num_deaths > 15
