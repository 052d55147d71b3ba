"""`coppice.open`: runs and sets in a few lines of Python."""

from pathlib import Path

import numpy as np
import pytest

import coppice
from pipeline.pictures import decode_picture
from pipeline.select.recipes import read_recipe
from pipeline.select.selection import open_curation
from pipeline.sets.write import write_set
from pipeline.store.open import open_store
from pipeline.store.plans import read_manifest
from pipeline.store.runs import open_run
from schemas.config import Pictures
from schemas.errors import InputError
from tests.pipeline.conftest import score
from tests.support import SMALL, all_rows, fake_config, fake_method, plan_run, run_all


def grow(folder: Path, pictures: Pictures) -> str:
    store = open_store(str(folder))
    fake = SMALL.model_copy(update={"dead_share": 0.1})
    config = fake_config(fake_method(fake, pictures=pictures))
    run_all(store, plan_run(store, 5, config, rollouts_per_record=2), attempt=2)
    score(store, "critiques", "phash")
    return store.url


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """10 rollouts, some dead, without pictures."""
    return grow(tmp_path_factory.mktemp("runs") / "run", Pictures.NONE)


@pytest.fixture(scope="module")
def set_url(url: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A set of that run, in a folder beside it, with few critiques."""
    recipe = read_recipe(
        'name = "few"\npictures = "tokens"\n[mix]\ncounts = { reflect = 3 }', origin="test"
    )
    out = open_store(str(Path(url).parent / "set"))
    write_set(open_curation([open_run(url)], recipe, Path()), out)
    return out.url


def test_a_run_says_how_far_it_is(url: str):
    run = coppice.open(url)
    assert isinstance(run, coppice.Run)

    assert run.status.num_planned == 10 == run.status.num_ok + run.status.num_dead
    assert run.url == url
    assert repr(run) == f"<coppice run {run.run_id} at {url}>"
    assert {"score", "critiques.value", "phash.hash"} <= run.columns.keys()


def test_traces_are_chosen_and_told(url: str):
    run = coppice.open(url)
    traces = run.traces("score < 60 and not dead", sort="-score")

    scores = [trace.facts["score"] for trace in traces]
    assert scores == sorted(scores, reverse=True)
    assert 0 < len(traces) < len(run.traces()) == 10
    assert len(run.traces(number=4)) == 4
    assert [trace.trace_id for trace in traces[1:3]] == [t.trace_id for t in list(traces)[1:3]]
    with pytest.raises(InputError, match="did you mean score"):
        run.traces("scor < 60")
    with pytest.raises(InputError, match="no column"):
        run.traces(columns=["nothing"])


def test_a_trace_has_what_its_row_has(url: str, tmp_path: Path):
    kept_url = grow(tmp_path / "kept", Pictures.ALL)
    store = open_store(kept_url)
    rows = {(r["record_id"], r["rollout_index"]): r for r in all_rows(store, read_manifest(store))}

    for trace in coppice.open(url).traces():
        row = rows[trace.facts["record_id"], trace.facts["rollout_index"]]
        events = row["events"]
        assert trace.prompt == row["prompt"]
        assert trace.thoughts == [e["text"] for e in events if e["role"] == "think"]
        critiques = [e for e in events if e["role"] == "reflect"]
        assert [c.score for c in trace.critiques] == [e["score"] for e in critiques]
        assert [c.verdict for c in trace.critiques] == [e["verdict"] for e in critiques]
        assert trace.metadata == {"line": trace.metadata["line"]}
        drawings = [e for e in events if e["role"] == "draw"]
        for canvas, drawing in zip(trace.canvases(), drawings, strict=True):
            kept = decode_picture(row["images"][drawing["picture"]]["bytes"])
            np.testing.assert_array_equal(np.asarray(canvas), kept)
        assert (trace.picture is None) == trace.is_dead == (row["status"] == "dead")


def test_scores_are_had_by_name(url: str):
    trace = coppice.open(url).traces("critiques.value is not null")[0]

    assert (
        trace.score("critiques") == trace.score("critiques.value") == trace.facts["critiques.value"]
    )
    with pytest.raises(InputError, match=r"no column 'toy\.value'"):
        trace.score("toy")


def test_tables_have_a_row_a_trace_and_typed_columns(url: str):
    traces = coppice.open(url).traces()

    table = traces.to_arrow()

    assert table.num_rows == 10
    kinds = {field.name: str(field.type) for field in table.schema}
    assert kinds["score"] == "double"
    assert kinds["rollout_index"] == "int64"
    assert kinds["phash.hash"] in ("int64", "uint64")
    assert kinds["revised"] == "bool"
    assert kinds["category"] == "string"  # of which there is none
    assert kinds["metadata.line"] == "int64"
    assert table["dead"].to_pylist() == [trace.is_dead for trace in traces]
    few = coppice.open(url).traces(columns=["trace_id", "score"]).to_pandas()
    assert list(few.columns) == ["trace_id", "score"]


def test_a_set_says_what_stayed(url: str, set_url: str):
    training_set = coppice.open(set_url)
    assert isinstance(training_set, coppice.TrainingSet)

    num_rows = sum(training_set.status.values())
    assert num_rows == 3
    assert sum(trace.facts["num_kept"] for trace in training_set.traces()) == 3
    assert len(training_set.traces("kept")) <= 3 < len(training_set.traces("not kept"))
    stream = next(iter(training_set.status))
    assert training_set.to_arrow(stream).num_rows == training_set.status[stream]
    assert training_set.manifest.inputs.recipe.name == "few"
    assert [run.run_id for run in training_set.runs] == [coppice.open(url).run_id]
    with pytest.raises(InputError, match="no stream 'x'"):
        training_set.to_arrow("x")


def test_a_place_that_holds_neither_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="neither a run nor a finished training set"):
        coppice.open(str(tmp_path / "nowhere"))


def test_a_notebook_shows_strips(url: str):
    traces = coppice.open(url).traces("not dead")

    html = traces[0]._repr_html_()
    assert html.count("<img ") == len(traces[0].canvases()) + 1
    assert traces[0].trace_id in html
    assert f"and {len(traces) - 5} more" in traces._repr_html_()


def test_without_the_model_a_notebook_shows_words(url: str, monkeypatch: pytest.MonkeyPatch):
    def nobody(*_: object, **__: object) -> None:
        raise InputError("there is no such model here")

    monkeypatch.setattr("pipeline.engine.backends.open_painter", nobody)
    trace = coppice.open(url).traces("not dead")[0]

    assert "no picture" in trace._repr_html_()
    with pytest.raises(InputError, match="no such model"):
        trace.picture  # noqa: B018


def test_a_canvas_is_painted_by_the_model_that_is_named():
    picture = coppice.paint("tiny", [1, 2, 3])

    assert picture.mode == "RGB"
    assert picture.size[0] == picture.size[1] > 0
    assert coppice.paint("tiny", [1, 2, 3]).tobytes() == picture.tobytes()
    with pytest.raises(InputError):
        coppice.paint("no-such-model-here", [1])
