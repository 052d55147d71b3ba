"""Pictures for scorers: kept or painted, they are the same, and come with thought and place."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from pipeline.engine.backends import open_painter
from pipeline.pictures import Pixels
from pipeline.scoring.find import find_scorer
from pipeline.scoring.painting import RunPainter, bands_of, pictures_of
from pipeline.scoring.scorers import Score, ScoringInput
from pipeline.scoring.sidecars import score_object, score_together
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.runs import open_run
from schemas.config import Pictures
from schemas.errors import InputError, RecordFailure
from schemas.geometry import Geometry
from schemas.rows import TraceRow
from tests.pipeline.conftest import grow_toy
from tests.support import all_rows, fake_config, fake_method, plan_run, run_all


class Looks:
    """A scorer that keeps what it is shown."""

    name, version = "looks", "1"
    subjects = frozenset({"trace", "draw", "think"})
    needs_pictures = True
    columns = {"value": "float32"}  # noqa: RUF012

    def __init__(self) -> None:
        self.seen: list[ScoringInput] = []

    def score(self, batch: Sequence[ScoringInput]) -> list[Score]:
        self.seen += batch
        return [Score(value=None) for _ in batch]


def shown(store: Store) -> list[ScoringInput]:
    """All that a scorer of a run is shown."""
    scorer = Looks()
    for source in open_run(store.url).objects:
        score_object(store, source, scorer)
    return scorer.seen


@pytest.fixture(scope="module")
def toy_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Store]:
    """The same rollouts with all of their pictures, with the finished ones and with none."""
    folder = tmp_path_factory.mktemp("pictures")
    return {
        kept: open_store(
            grow_toy(_made(folder / kept), num_records=2, num_rollouts=1, pictures=kept)
        )
        for kept in ("all", "final", "none")
    }


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_what_a_scorer_sees_does_not_depend_on_the_pictures_that_a_run_keeps(
    toy_runs: dict[str, Store],
):
    of_all = shown(toy_runs["all"])
    drawings = [seen for seen in of_all if seen.event and seen.event["role"] == "draw"]

    assert any(seen.event["superseded_by"] is not None for seen in drawings if seen.event)
    for kept in ("final", "none"):
        other = shown(toy_runs[kept])
        assert len(other) == len(of_all)
        for one, two in zip(of_all, other, strict=True):
            assert (one.pixels is None) == (two.pixels is None)
            if one.pixels is not None and two.pixels is not None:
                assert np.array_equal(one.pixels, two.pixels)  # to the grey level
    assert [seen.pixels is None for seen in of_all] == [
        bool(seen.event and seen.event["role"] == "think") for seen in of_all
    ]


def test_scores_of_pictures_are_the_same_whatever_a_run_keeps(toy_runs: dict[str, Store]):
    tables = []
    for store in toy_runs.values():
        (source,) = open_run(store.url).objects
        score_together(store, source, [find_scorer("toy"), find_scorer("phash")])
        tables.append(
            [
                pq.read_table(Path(store.url) / f"scores/{name}@1/{source.name}").to_pylist()
                for name in ("toy", "phash")
            ]
        )

    values = [[row["value"] for row in toy] for toy, _ in tables]
    assert values[0] == values[1] == values[2]
    assert None not in [row["hash"] for _, phash in tables for row in phash]
    assert sum(value is not None for value in values[0]) > 4


def test_a_drawing_comes_with_its_region_and_with_the_thought_that_it_was_drawn_from(
    toy_runs: dict[str, Store],
):
    store = toy_runs["none"]
    geometry = open_run(store.url).manifest.geometry
    drawings = [seen for seen in shown(store) if seen.event and seen.event["role"] == "draw"]
    for seen in drawings:
        assert seen.event is not None
        assert seen.pixels is not None
        assert seen.crop is not None
        top, bottom = seen.bands[seen.event["region"]]
        assert np.array_equal(seen.crop, seen.pixels[top:bottom])
        assert seen.thought is not None
        assert seen.event["text"].endswith(seen.thought)  # all thoughts so far, and last its own
    assert drawings[0].bands[0][0] == 0
    assert drawings[0].bands[-1][1] == geometry.image_size
    whole = [seen for seen in shown(store) if seen.event is None]
    assert all(seen.crop is None and seen.thought is None for seen in whole)


def test_the_decoder_alone_is_loaded_once_and_only_where_something_is_painted(
    toy_runs: dict[str, Store], monkeypatch: pytest.MonkeyPatch
):
    opened = []

    def opening(config, *, device):  # type: ignore[no-untyped-def]
        opened.append(open_painter(config, device=device))
        return opened[-1]

    monkeypatch.setattr("pipeline.engine.backends.open_painter", opening)
    for store, num_opened in ((toy_runs["all"], 0), (toy_runs["final"], 1)):
        run = open_run(store.url)
        painter = RunPainter(run.manifest)
        for source in run.objects:
            score_together(store, source, [Looks(), find_scorer("tokens")], painter)
            score_together(store, source, [Looks()], painter)
        assert len(opened) == num_opened
    decoder = opened[0]._decoder
    assert {name.partition(".")[0] for name, _ in decoder.named_parameters()} == {
        *("quantize", "post_quant_conv", "decoder")
    }


def test_a_model_that_is_another_than_the_runs_paints_nothing(toy_runs: dict[str, Store]):
    manifest = open_run(toy_runs["none"].url).manifest
    method = manifest.config.method
    model = method.model.model_copy(update={"digest": "0" * 16})
    method = method.model_copy(update={"model": model})
    config = manifest.config.model_copy(update={"method": method})
    painter = RunPainter(manifest.model_copy(update={"config": config}))

    with pytest.raises(InputError, match="the run was planned with 0000000000000000"):
        painter.paint([(1, 2, 3)])


@pytest.mark.parametrize("kept", list(Pictures))
def test_runs_of_the_fake_are_painted_too(tmp_path: Path, kept: Pictures):
    store = open_store(str(tmp_path / "run"))
    manifest = plan_run(store, 2, fake_config(fake_method(pictures=kept)))
    run_all(store, manifest)
    seen = [picture for picture in shown(store) if picture.event is None]

    rows = all_rows(store, manifest)
    painter = open_painter(manifest.config)
    for scoring_input, row in zip(seen, rows, strict=True):
        assert scoring_input.pixels is not None
        assert np.array_equal(scoring_input.pixels, painter.paint([tuple(row["codes"])])[0])


class Breaks:
    """A painter that fails on one canvas."""

    def paint(self, canvases: Sequence[tuple[int, ...]]) -> list[Pixels]:
        if (3,) in canvases:
            raise RecordFailure("not finite", reason="not_finite")
        return [np.full((1, 1, 3), codes[0], np.uint8) for codes in canvases]


def test_a_canvas_that_cannot_be_painted_has_no_picture_and_the_others_have(tmp_path: Path):
    store = open_store(str(tmp_path / "run"))
    painter = RunPainter(plan_run(store, 1))
    painter._painter = Breaks()  # type: ignore[assignment]
    canvases = [(number,) for number in range(6)]

    assert painter.paint(canvases).keys() == set(canvases) - {(3,)}
    assert painter.paint([]) == {}


class SmallMemory(Breaks):
    """A painter that can paint two at once."""

    def paint(self, canvases: Sequence[tuple[int, ...]]) -> list[Pixels]:
        if len(canvases) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().paint(canvases)


def test_where_memory_does_not_suffice_fewer_are_painted_at_once(tmp_path: Path):
    painter = RunPainter(plan_run(open_store(str(tmp_path / "run")), 1))
    painter._painter = SmallMemory()  # type: ignore[assignment]
    canvases = [(number,) for number in range(6)]

    assert painter.paint(canvases).keys() == set(canvases) - {(3,)}


def test_a_kept_picture_that_cannot_be_read_is_told_with_its_trace(tmp_path: Path):
    store = open_store(str(tmp_path / "run"))
    manifest = plan_run(store, 1, fake_config(fake_method(pictures=Pictures.FINAL)))
    run_all(store, manifest)
    row: TraceRow = all_rows(store, manifest)[0]  # type: ignore[assignment]
    for broken in (b"", b"no picture", row["images"][0]["bytes"][:40]):
        images = [{**row["images"][0], "bytes": broken}]
        with pytest.raises(InputError, match=rf"picture 0 of trace {row['trace_id']} cannot be r"):
            pictures_of([{**row, "images": images}], [Looks()], RunPainter(manifest))  # type: ignore[typeddict-item]


def test_bands_are_whole_rows_of_pixels():
    geometry = Geometry(image_size=48, rows=6, columns=6, num_codes=8)

    assert bands_of([12, 24, 36], geometry) == [(0, 16), (16, 32), (32, 48)]
    assert bands_of([], geometry) == []
