"""What goes wrong is a typed outcome or an error that says what to do, and never a score."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from schemas.errors import InputError
from tests.pipeline.scoring.judges.conftest import Checkpoints, asked, loaded, picture

JUDGES = {
    "pickscore": "clip",
    "clipscore": "clip",
    "detector": "grounding_dino",
    "git_vqa": "git",
    "blip_vqa": "blip",
    "lmm_yes": "qwen3_vl",
}


PUBLISHED = {
    "clipscore": "official",
    "detector": "t2i-r1",
    "git_vqa": "t2i-r1",
    "blip_vqa": "official",
    "lmm_yes": "t2i-r1",
}


@pytest.fixture(params=JUDGES)
def judge(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def changed(folder: Path, copy: Path, change) -> Path:
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    weights = load_file(copy / "model.safetensors")
    change(weights)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


def largest(weights: dict[str, torch.Tensor]) -> str:
    """The embedding of the words, in all of these models."""
    return max(weights, key=lambda name: weights[name].numel() * (weights[name].ndim == 2))


@pytest.mark.parametrize("is_fixed", [True, False])
def test_a_model_that_gives_no_numbers_has_no_score(
    checkpoint: Checkpoints, tmp_path: Path, judge: str, is_fixed: bool
):
    def poison(weights: dict[str, torch.Tensor]) -> None:
        weights[largest(weights)][:] = float("nan")

    folder = changed(checkpoint(JUDGES[judge]), tmp_path / "poisoned", poison)

    settings = {} if is_fixed else {"mode": PUBLISHED.get(judge, "fixed")}
    inputs = [asked("a red dog", 1)] * 2

    scores = loaded(judge, model=str(folder), **settings).score(inputs)

    outcomes = {(score.value, score.parts["outcome"]) for score in scores}
    assert outcomes == {(None, "not_finite")}


def test_a_missing_weight_is_named(checkpoint: Checkpoints, tmp_path: Path, judge: str):
    def take_out(weights: dict[str, torch.Tensor]) -> None:
        del weights[largest(weights)]

    folder = changed(checkpoint(JUDGES[judge]), tmp_path / "holed", take_out)

    with pytest.raises(InputError, match=r"lacks weights of the model: \S+[,;]"):
        loaded(judge, model=str(folder))


def test_a_weight_of_another_size_and_a_file_cut_short_are_refused(
    checkpoint: Checkpoints, tmp_path: Path, judge: str
):
    def cut(weights: dict[str, torch.Tensor]) -> None:
        weights[largest(weights)] = weights[largest(weights)][:, :-1].contiguous()

    folder = changed(checkpoint(JUDGES[judge]), tmp_path / "other", cut)
    with pytest.raises(InputError, match="cannot be read as a model"):
        loaded(judge, model=str(folder))

    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot be read as a model"):
        loaded(judge, model=str(folder))


def test_without_a_picture_there_is_no_score(checkpoint: Checkpoints, judge: str):
    good = asked("a red dog", 1)
    inputs = [
        replace(good, pixels=None),
        replace(good, pixels=picture(1)[..., :1]),
        replace(good, pixels=np.zeros((0, 96, 3), np.uint8)),
        good,
    ]

    scores = loaded(judge, model=str(checkpoint(JUDGES[judge]))).score(inputs)
    (alone,) = loaded(judge, model=str(checkpoint(JUDGES[judge]))).score([good])

    outcomes = [score.parts["outcome"] for score in scores]
    assert outcomes[:3] == ["no_picture", "unreadable_picture", "unreadable_picture"]
    assert [score.value for score in scores[:3]] == [None] * 3
    assert scores[3].value == pytest.approx(alone.value) if alone.value is not None else True


def test_a_folder_without_a_model_and_a_name_of_none_are_errors(tmp_path: Path, judge: str):
    with pytest.raises(InputError, match="holds no model"):
        loaded(judge, model=str(tmp_path))


def test_other_weights_than_those_pinned_are_refused(checkpoint: Checkpoints, tmp_path: Path):
    def nudge(weights: dict[str, torch.Tensor]) -> None:
        weights[largest(weights)][0, 0] += 1

    folder = changed(checkpoint("clip"), tmp_path / "nudged", lambda weights: None)
    from pipeline.scoring.find import find_scorer
    from pipeline.scoring.scorers import LoadsWeights

    scorer = find_scorer("pickscore", {"model": str(folder)})
    weights = load_file(folder / "model.safetensors")
    nudge(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    assert isinstance(scorer, LoadsWeights)
    with pytest.raises(InputError, match="its revision was to be"):
        scorer.load("cpu")


def test_a_region_is_judged_by_its_own_thought(checkpoint: Checkpoints):
    whole = picture(1, height=96)
    drawing = replace(
        asked("a dog and a cat", 1),
        pixels=whole,
        region=1,
        num_regions=3,
        bands=((0, 32), (32, 64), (64, 96)),
        thought="a red cup",
    )
    folder = str(checkpoint("clip"))

    (crop,) = loaded("pickscore", model=folder, look="crop").score([drawing])
    (canvas,) = loaded("pickscore", model=folder, look="draw").score([drawing])
    band = replace(asked("a red cup", 1), pixels=whole[32:64])
    expected = loaded("pickscore", model=folder).score([band, asked("a dog and a cat", 1)])

    assert crop.value == pytest.approx(expected[0].value, abs=1e-6)
    assert canvas.value == pytest.approx(expected[1].value, abs=1e-6)
    assert loaded("pickscore", model=folder, look="crop").subjects == {"draw"}


def test_a_model_of_the_hub_is_pinned_to_its_commit_and_to_the_one_at_hand_without_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    from pipeline.engine.model_files import hub
    from pipeline.scoring.judges.settings import pinned_model

    commit = "0123456789" * 4
    monkeypatch.setattr(hub, "open_repository", _no_hub)
    monkeypatch.setattr(hub, "downloaded", lambda repo, revision: tmp_path / commit)

    assert pinned_model("owner/name", "f" * 40) == ("owner/name", "f" * 40)
    assert pinned_model("owner/name", "main") == ("owner/name", commit)
    monkeypatch.setattr(hub, "downloaded", lambda repo, revision: None)
    with pytest.raises(InputError, match="no network"):
        pinned_model("owner/name", None)


def _no_hub(repo_id: str, revision: str | None) -> None:
    raise InputError("no network")
