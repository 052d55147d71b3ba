"""`coppice view` and `coppice show --where`, as they are typed."""

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from jobs.cli import main
from pipeline.store.open import open_store
from schemas.config import Pictures
from tests.pipeline.conftest import score
from tests.pipeline.view.gallery.reading import grid_of, view_of
from tests.support import SMALL, fake_config, fake_method, plan_run, run_all


def coppice(*words: str) -> tuple[str, int]:
    """What a command prints, and how it ends."""
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out), pytest.raises(SystemExit) as end:
        main(words)
    return out.getvalue(), int(end.value.code or 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of the same prompts, some dead, with scores of critiques."""
    folder = tmp_path_factory.mktemp("runs")
    for name, seed in (("run", 0), ("other", 1)):
        fake = SMALL.model_copy(update={"dead_share": 0.4})
        config = fake_config(fake_method(fake, pictures=Pictures.NONE, seed=seed))
        store = open_store(str(folder / name))
        run_all(store, plan_run(store, 8, config), attempt=2)
        score(store, "critiques")
    return folder


@pytest.fixture(autouse=True)
def _there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")


def test_a_run_gets_a_gallery_in_its_own_folder():
    said, code = coppice("view", "run")

    assert code == 0
    assert said.endswith("Gallery: run/view/index.html, 8 traces\n")
    assert view_of(Path("run/view"))["title"] == "run"
    assert coppice("verify", "run", "--deep")[1] == 0
    assert coppice("view", "run")[1] == 0  # again, in its place


def test_traces_are_chosen_alike_by_view_and_show():
    viewed, _ = coppice("view", "run", "out", "--where", "score < 60", "--sort", "-score")
    shown, _ = coppice("show", "run", "--where", "score < 60", "--sort", "-score")

    grid = grid_of(Path("out"))
    ranked = [record for _, record in sorted(zip(grid["rank"], grid["record_id"], strict=True))]
    assert [line.split()[0] for line in shown.splitlines()[1:-2]] == ranked
    assert f"{len(ranked)} traces" in viewed
    assert shown.splitlines()[0].split() == ["record", "rollout", "status", "score", "prompt"]


def test_the_dead_and_the_revised_are_asked_for_in_a_word():
    dead, _ = coppice("show", "run", "--dead")
    revised, _ = coppice("show", "run", "--revised", "--where", "not dead")

    listed = dead.splitlines()[1:-2]
    assert listed
    assert all("dead: scripted" in line for line in listed)
    assert "dead" not in revised
    assert coppice("show", "run", "--dead", "--sheet", "sheet.png")[1] == 0
    assert Path("sheet.png").is_file()


def test_two_runs_are_set_side_by_side():
    said, code = coppice("view", "run", "out", "--beside", "other", "--number", "6")

    assert code == 0, said
    facts, grid = view_of(Path("out")), grid_of(Path("out"))
    assert [run["name"] for run in facts["runs"]] == ["run", "other"]
    keys = [[r for r, run in zip(grid["record_id"], grid["run"], strict=True) if run == side]
            for side in (0, 1)]  # fmt: skip
    assert sorted(keys[0]) == sorted(keys[1])
    assert len(keys[0]) == 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("view", "run", "--where", "scor < 60"), "did you mean score?"),
        (("view", "run", "--sort", "nothing"), "there is no column 'nothing'"),
        (("view", "run", "run"), "holds something else than a gallery"),
        (("view", "nowhere"), "nowhere"),
        (("show", "run", "--where", "toy.value < 1"), "no column 'toy.value'"),
        (("show", "run", "--where", "score > 100", "--sheet", "x.png"), "no trace holds"),
        (("show", "run", "3f", "--dead"), "a record is chosen by its id alone"),
    ],
)
def test_what_cannot_be_done_is_told(words: tuple[str, ...], told: str):
    said, code = coppice(*words)

    assert code == 2
    assert told in " ".join(said.replace("\u2502", " ").split())
