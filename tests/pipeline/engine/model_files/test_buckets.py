"""Models in a bucket: fetched once for all processes of a machine, and never half of one."""

import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from pipeline.engine.checkpoints import digest_of, planned_model, resolve_checkpoint
from pipeline.engine.model_files import buckets
from pipeline.engine.tiny import build_tiny
from pipeline.plan.models import describe_model
from pipeline.store.open import open_store
from schemas.errors import InputError, StoreError

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "tiny"
    build_tiny(folder)
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COPPICE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def url(aws_settings: pytest.MonkeyPatch, s3_client: "S3Client", cache: Path, tiny: Path) -> str:
    """The tiny model in a bucket, with a file beside it that no model needs."""
    aws_settings.setenv("AWS_ENDPOINT_URL", s3_client.meta.endpoint_url)
    place = f"s3://bucket/{uuid4().hex}/model"
    store = open_store(place)
    for path in tiny.iterdir():
        store.put(path.name, path)
    store.put("optimizer.pt", b"of a training job")
    return place


def put(url: str, name: str, body: bytes) -> None:
    open_store(url).put(name, body)


class Watched:
    """A store that writes down what is read of it, and calls back first."""

    def __init__(self, url: str, before: Any = lambda key: None) -> None:
        self._store, self._before = open_store(url), before
        self.read_keys: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def read_range(self, key: str, start: int, length: int) -> bytes:
        self.read_keys.append(key)
        self._before(key)
        return self._store.read_range(key, start, length)


def test_a_model_in_a_bucket_is_the_model_of_its_files(url: str, tiny: Path):
    facts = describe_model(f"{url}/")

    folder = planned_model(facts.model, facts.files)
    assert facts.model.name == url
    assert facts.model.digest == digest_of(tiny)[:16]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        path.name for path in tiny.iterdir()
    )


def test_a_large_object_is_fetched_in_parts(url: str, tiny: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(buckets, "_PART_BYTES", 100_000)

    assert digest_of(resolve_checkpoint(url)) == digest_of(tiny)


def test_many_at_once_fetch_it_once(url: str, tiny: Path, monkeypatch: pytest.MonkeyPatch):
    store = Watched(url)
    monkeypatch.setattr(buckets, "open_store", lambda _: store)

    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: resolve_checkpoint(url), range(4)))

    assert len(folders) == 1
    assert digest_of(folders.pop()) == digest_of(tiny)
    assert store.read_keys.count(WEIGHTS) == 1


def test_what_a_killed_process_left_is_completed(
    url: str, tiny: Path, monkeypatch: pytest.MonkeyPatch
):
    def die(key: str) -> None:
        if key == WEIGHTS:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(buckets, "open_store", lambda _: Watched(url, die))
        with pytest.raises(KeyboardInterrupt):
            resolve_checkpoint(url)

    assert digest_of(resolve_checkpoint(url)) == digest_of(tiny)


def test_another_object_at_its_place_is_another_model(url: str, tiny: Path, tmp_path: Path):
    facts = describe_model(url)
    build_tiny(tmp_path / "other", seed=1)
    open_store(url).put(WEIGHTS, tmp_path / "other" / WEIGHTS)  # of the same size

    with pytest.raises(InputError, match=rf"{facts.model.digest} \({WEIGHTS} is") as refused:
        planned_model(facts.model, facts.files)

    assert url in str(refused.value)
    assert describe_model(url).model.digest == digest_of(tmp_path / "other")[:16]


def test_an_object_that_changes_while_it_is_fetched_is_named(
    url: str, monkeypatch: pytest.MonkeyPatch, cache: Path
):
    def change(key: str) -> None:
        if key == WEIGHTS:
            put(url, "tokenizer.json", b"{}")

    with monkeypatch.context() as patch:
        patch.setattr(buckets, "open_store", lambda _: Watched(url, change))
        with pytest.raises(InputError, match=r"tokenizer\.json changed while it was fetched"):
            resolve_checkpoint(url)

    assert {path.suffix for path in (cache / "models" / "s3").iterdir()} == {".lock"}


def test_a_process_that_gets_no_further_is_not_waited_for_without_end(
    url: str, monkeypatch: pytest.MonkeyPatch
):
    holds, may_go = threading.Event(), threading.Event()

    def stop(key: str) -> None:
        holds.set()
        may_go.wait(60)

    monkeypatch.setattr(buckets, "_WAIT_SECONDS", 0.5)
    monkeypatch.setattr(buckets, "open_store", lambda _: Watched(url, stop))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(resolve_checkpoint, url)
        assert holds.wait(30)
        try:
            with pytest.raises(InputError, match="got no further"):
                resolve_checkpoint(url)
        finally:
            may_go.set()
        assert first.result().is_dir()


@pytest.mark.parametrize("place", ["s3://bucket/nothing-here", "s3://no-such-bucket-at-all/model"])
def test_a_place_without_a_model_is_refused(url: str, place: str):
    with pytest.raises((InputError, StoreError), match="bucket"):
        describe_model(place)


def test_a_cache_that_cannot_be_written_is_refused(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COPPICE_CACHE", str(tmp_path / "file"))

    with pytest.raises(InputError, match="set COPPICE_CACHE"):
        resolve_checkpoint(url)


def test_shards_below_the_folder_are_fetched_too(
    aws_settings: pytest.MonkeyPatch, s3_client: "S3Client", cache: Path, tiny: Path, tmp_path: Path
):
    aws_settings.setenv("AWS_ENDPOINT_URL", s3_client.meta.endpoint_url)
    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    (folder / "parts").mkdir()
    os.rename(folder / WEIGHTS, folder / "parts" / "one.safetensors")
    index = '{"weight_map": {"a": "parts/one.safetensors"}}'
    (folder / f"{WEIGHTS}.index.json").write_text(index)
    place = f"s3://bucket/{uuid4().hex}"
    for path in folder.rglob("*.*"):
        open_store(place).put(path.relative_to(folder).as_posix(), path)

    assert describe_model(place).model.digest == digest_of(folder)[:16]
