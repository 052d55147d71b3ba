"""The gallery's files: whole, bounded, the same everywhere, and never in another's place."""

import io
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image
from types_boto3_s3 import S3Client

from pipeline.pictures import Pixels, decode_picture
from pipeline.select.recipes import read_recipe
from pipeline.select.selection import open_curation
from pipeline.sets.write import write_set
from pipeline.store.objects import Source, Store
from pipeline.store.open import open_store
from pipeline.store.plans import read_manifest
from pipeline.store.runs import open_run
from pipeline.view.gallery import chunks, write
from pipeline.view.gallery.sheets import SheetWriter
from pipeline.view.gallery.write import Gallery, write_gallery
from pipeline.view.runs import ViewedRun, choose, view_run
from pipeline.view.sets import ViewedSet, view
from pipeline.view.where import Choice
from schemas.config import ModelConfig, Pictures
from schemas.errors import InputError, StoreRefused
from tests.pipeline.conftest import score
from tests.pipeline.view.gallery.reading import files_in, grid_of, strips_of, view_of
from tests.support import (
    SMALL,
    Wrapped,
    all_rows,
    fake_config,
    fake_method,
    plan_run,
    replace_object,
    run_all,
)


def grow(folder: Path, num_prompts: int = 5, **method: object) -> Store:
    store = open_store(str(folder))
    fake = SMALL.model_copy(update={"dead_share": 0.1})
    config = fake_config(fake_method(fake, **method))
    run_all(
        store,
        plan_run(store, num_prompts, config, rollouts_per_record=2, rollouts_per_shard=4),
        attempt=2,
    )
    return store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """10 rollouts of which no picture was kept, with scores of critiques."""
    store = grow(tmp_path / "run", pictures=Pictures.NONE)
    score(store, "critiques", "phash")
    return store


def gallery_of(*runs: ViewedRun, where: str = "", sort: str = "") -> Gallery:
    condition, order = Choice(where=where, sort=sort).read(runs[0].columns)
    return Gallery(
        title="a run",
        runs=runs,
        names=tuple(run.source.run_id for run in runs),
        chosen=choose(runs, where=condition, sort=order),
    )


def write_to(out: Path, store: Store, **choice: str) -> Path:
    write_gallery(gallery_of(view_run(store.url), **choice), open_store(str(out)))
    return out


def cut(out: Path, folder: str, slot: list[int], cell: int, across: int) -> Pixels:
    """One picture of a sheet."""
    sheet = decode_picture(files_in(out)[f"view/{folder}/{slot[0]:05d}.webp"])
    top, left = (number * cell for number in divmod(slot[1], across))
    return sheet[top : top + cell, left : left + cell]


def test_every_trace_has_a_strip_with_canvases_painted_from_tokens(store: Store, tmp_path: Path):
    kept = grow(tmp_path / "kept", pictures=Pictures.ALL)  # the same rollouts
    out = write_to(tmp_path / "out", store)
    rows = {row["trace_id"].partition("-")[2]: row for row in all_rows(kept, read_manifest(kept))}
    columns = view_of(out)["runs"][0]["columns"]
    num_pictures = 0

    for trace_id, strip in zip(grid_of(out)["trace_id"], strips_of(out), strict=True):
        row = rows[trace_id.partition("-")[2]]
        drawings = [event for event in row["events"] if event["role"] == "draw"]
        assert strip["prompt"] == row["prompt"]
        assert [frame["region"] for frame in strip["frames"]] == [d["region"] for d in drawings]
        for frame, drawing in zip(strip["frames"], drawings, strict=True):
            picture = decode_picture(row["images"][drawing["picture"]]["bytes"])
            shown = cut(out, "pictures-0", frame["picture"], 32, columns)
            np.testing.assert_array_equal(shown, picture)
            assert frame["replaced"] == (drawing["superseded_by"] is not None)
            assert frame["critique"] is None or frame["critique"]["verdict"]
            num_pictures += 1
    assert num_pictures > 20


def test_thumbnails_are_of_finished_pictures(store: Store, tmp_path: Path):
    out = write_to(tmp_path / "out", store)

    for thumb, strip in zip(grid_of(out)["thumb"], strips_of(out), strict=True):
        if strip["picture"] is not None:
            shown = cut(out, "thumbs-0", [*divmod(thumb, 16)], 32, 4)
            finished = cut(out, "pictures-0", strip["picture"], 32, 8)
            np.testing.assert_array_equal(shown, finished)


def test_scores_are_chips_and_columns(store: Store, tmp_path: Path):
    out = write_to(tmp_path / "out", store)
    chips = [
        name
        for strip in strips_of(out)
        for frame in strip["frames"]
        if frame["critique"]
        for name, _ in frame["critique"]["chips"]
    ]

    assert "critiques.value" in chips
    assert {"score", "critiques.value"} <= set(view_of(out)["numbers"])
    assert "phash.hash" not in view_of(out)["numbers"]  # no quantity


def test_the_order_and_the_choice_are_those_asked_for(store: Store, tmp_path: Path):
    out = write_to(tmp_path / "out", store, where="score is not null", sort="-score")
    grid = grid_of(out)
    ranked = [score for _, score in sorted(zip(grid["rank"], grid["score"], strict=True))]

    assert ranked == sorted(ranked, reverse=True)
    assert None not in ranked


def test_chunks_are_small_and_come_together(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = write_to(tmp_path / "whole", store)
    monkeypatch.setattr(chunks, "ROWS_PER_CHUNK", 3)
    monkeypatch.setattr(chunks, "TRACES_PER_CHUNK", 4)
    out = write_to(tmp_path / "out", store)

    assert grid_of(out) == grid_of(whole)
    assert strips_of(out) == strips_of(whole)
    assert {"view/grid-00003.js", "view/traces-00002.js"} <= files_in(out).keys()


def test_the_same_bytes_on_disk_and_in_a_bucket(
    store: Store, tmp_path: Path, aws_settings: pytest.MonkeyPatch, s3_client: S3Client
):
    aws_settings.setenv("AWS_ENDPOINT_URL", s3_client.meta.endpoint_url)
    prefix = uuid4().hex
    gallery = gallery_of(view_run(store.url))
    write_gallery(gallery, open_store(str(tmp_path / "out")))
    write_gallery(gallery, open_store(f"s3://bucket/{prefix}"))

    files = {
        str(path.relative_to(tmp_path / "out")): path.read_bytes()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    listed = s3_client.list_objects_v2(Bucket="bucket", Prefix=f"{prefix}/")["Contents"]
    objects = {
        entry["Key"].removeprefix(f"{prefix}/"): s3_client.get_object(
            Bucket="bucket", Key=entry["Key"]
        )
        for entry in listed
    }
    assert {name: answer["Body"].read() for name, answer in objects.items()} == files
    types = {name.rpartition(".")[2]: answer["ContentType"] for name, answer in objects.items()}
    assert types["html"] == "text/html; charset=utf-8"
    assert types["js"] == "text/javascript; charset=utf-8"
    assert not [name for name, body in files.items() if str(tmp_path).encode() in body]


@pytest.mark.parametrize(
    "key", ["notes.txt", "index.html", "traces/shard-00000.parquet", "view-1/x"]
)
def test_another_things_place_is_refused(store: Store, tmp_path: Path, key: str):
    out = open_store(str(tmp_path / "out"))
    out.put(key, b"something of value")

    with pytest.raises(InputError, match="holds something else than a gallery"):
        write_to(tmp_path / "out", store)
    assert files_in(tmp_path / "out").keys() == {key}
    assert out.read(key) == b"something of value"


def test_a_gallery_takes_the_place_of_an_older_one(store: Store, tmp_path: Path):
    out = write_to(tmp_path / "out", store)
    write_to(tmp_path / "out", store, where="score < 50")

    assert len(list(out.glob("view-*/view.js"))) == 1
    assert files_in(out) == files_in(write_to(tmp_path / "new", store, where="score < 50"))


class Full(Wrapped):
    """A store that takes so many puts."""

    room = 5

    def put(self, key: str, source: Source) -> None:
        if self.room == 0:
            raise StoreRefused("the disk is full")
        self.room -= 1
        self.store.put(key, source)


def test_one_that_could_not_be_written_leaves_the_older_one_whole(store: Store, tmp_path: Path):
    out = write_to(tmp_path / "out", store)
    before = files_in(out)
    page = (out / "index.html").read_bytes()
    gallery = gallery_of(view_run(store.url), where="score < 50")

    with pytest.raises(StoreRefused, match="full"):
        write_gallery(gallery, Full(open_store(str(out))))

    assert (out / "index.html").read_bytes() == page
    assert all(
        body == (out / name.replace("view/", f"{_folder_in(page)}/", 1)).read_bytes()
        for name, body in before.items()
        if name != "index.html"
    )
    write_gallery(gallery, open_store(str(out)))
    assert len(list(out.glob("view-*/view.js"))) == 1


def _folder_in(page: bytes) -> str:
    return page.decode().partition('href="')[2].partition("/")[0]


def test_without_the_model_it_shows_what_was_kept_and_says_so(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def nobody(*_: object, **__: object) -> None:
        raise InputError("there is no such model here")

    monkeypatch.setattr("pipeline.engine.backends.open_painter", nobody)
    notes = write_gallery(gallery_of(view_run(store.url)), open_store(str(tmp_path / "out")))

    assert notes == view_of(tmp_path / "out")["notes"]
    assert "there is no such model here" in notes[0]
    assert set(grid_of(tmp_path / "out")["thumb"]) == {-1}
    assert all(
        frame["picture"] is None for s in strips_of(tmp_path / "out") for frame in s["frames"]
    )


def test_nothing_and_too_much_are_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(InputError, match="nothing to show"):
        write_to(tmp_path / "out", store, where="score > 100")
    monkeypatch.setattr(write, "MOST_TRACES", 3)
    with pytest.raises(InputError, match="--number"):
        write_to(tmp_path / "out", store)
    assert not (tmp_path / "out").exists()


def test_two_runs_stand_beside_each_other(store: Store, tmp_path: Path):
    other = grow(tmp_path / "other", seed=7)
    runs = (view_run(store.url), view_run(other.url))
    write_gallery(gallery_of(*runs), open_store(str(tmp_path / "out")))
    grid = grid_of(tmp_path / "out")

    for run in (0, 1):
        of_run = [i for i, owner in enumerate(grid["run"]) if owner == run]
        assert len(of_run) == 10
    keys = list(zip(grid["record_id"], grid["rollout"], strict=True))
    assert sorted(keys[:10]) == sorted(keys[10:])


def test_of_a_set_it_shows_what_stayed_and_why_the_rest_did_not(store: Store, tmp_path: Path):
    recipe = read_recipe(
        'name = "some"\npictures = "tokens"\n[[filters]]\ncolumn = "event.score"\nmin = 60\n'
        'tasks = ["reflect"]\nreason = "too low"\n[mix]\ncounts = { reflect = 2 }',
        origin="test",
    )
    write_set(open_curation([open_run(store.url)], recipe, Path()), open_store(str(tmp_path / "s")))
    grow(tmp_path / "another")  # which is not its run
    viewed = view(str(tmp_path / "s"))  # finds its run beside it
    assert isinstance(viewed, ViewedSet)

    write_gallery(gallery_of(*viewed.runs), open_store(str(tmp_path / "out")))

    grid, strips = grid_of(tmp_path / "out"), strips_of(tmp_path / "out")
    assert set(grid["kept"]) == {True, False}
    assert any("too low" in (reason or "") for reason in grid["dropped_as"])
    assert any(": kept, " in line for strip in strips for line in strip["decisions"])


def test_a_set_whose_run_is_not_near_asks_where_it_is(store: Store, tmp_path: Path):
    recipe = read_recipe('name = "all"\npictures = "tokens"', origin="test")
    place = tmp_path / "far" / "away" / "sets" / "s"
    write_set(open_curation([open_run(store.url)], recipe, Path()), open_store(str(place)))

    with pytest.raises(InputError, match="--run RUN"):
        view(str(place))
    assert isinstance(view(str(place), [store.url]), ViewedSet)
    with pytest.raises(InputError, match="no training set"):
        view(store.url, [store.url])


def test_names_from_outside_are_never_keys(store: Store, tmp_path: Path):
    hostile = '{"__proto__": "x", "constructor": {"a": 1}}'
    replace_object(store, 0, rows=lambda rows: [row | {"metadata": hostile} for row in rows])

    strips = strips_of(write_to(tmp_path / "out", store))

    assert strips[0]["metadata"] == [["__proto__", "x"], ["constructor", '{"a":1}']]


# Sheets


def test_a_sheet_holds_its_pictures_and_no_empty_rows():
    files: dict[str, bytes] = {}
    sheets = SheetWriter(files.__setitem__, "sheets", cell=8, columns=2, rows=2)
    pictures = [np.full((8, 8, 3), shade, np.uint8) for shade in range(0, 250, 50)]

    slots = [sheets.add(picture) for picture in pictures]
    sheets.finish()

    assert slots == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]
    assert Image.open(io.BytesIO(files["sheets/00001.webp"])).size == (16, 8)
    whole = decode_picture(files["sheets/00000.webp"])
    np.testing.assert_array_equal(whole[8:, 8:], pictures[3])


def test_a_picture_of_another_size_is_made_to_fit():
    files: dict[str, bytes] = {}
    sheets = SheetWriter(files.__setitem__, "sheets", cell=8, columns=2, rows=2)

    sheets.add(np.full((16, 16, 3), 90, np.uint8))
    sheets.finish()

    assert decode_picture(files["sheets/00000.webp"])[4, 4].tolist() == [90, 90, 90]


def test_a_model_of_another_name_is_shown_by_its_name(tmp_path: Path):
    store = grow(tmp_path / "run", 1, model=ModelConfig(name="<b>fake</b>", digest="none"))

    assert "<b>fake</b>" in strips_of(write_to(tmp_path / "out", store))[0]["made_by"]
