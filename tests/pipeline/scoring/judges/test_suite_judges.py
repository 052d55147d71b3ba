"""The judges of evaluation suites: layouts by surrogates, GenEval-native, and its soft score."""

import math

import numpy as np
import pytest

from pipeline.scoring.formulae.compbench import (
    RelationTask,
    published_depth_score,
    published_relation_score,
)
from pipeline.scoring.judges.depth import DepthModel
from pipeline.scoring.judges.detectors import Wanted, load_detector
from pipeline.scoring.judges.geneval import task_of
from pipeline.scoring.judges.layouts import detections_of
from pipeline.scoring.judges.outcomes import View
from pipeline.scoring.scorers import Scorer
from schemas.errors import InputError
from schemas.json_values import JsonObject
from tests.pipeline.scoring.judges.conftest import Checkpoints, asked, loaded, picture

CLAUSES: JsonObject = {
    "tag": "color_attr",
    "include": [
        {"class": "cup", "count": 2, "color": "red"},
        {"class": "dog", "count": 1, "position": ["left of", 0]},
    ],
    "exclude": [{"class": "cat", "count": 3}],
}


def layout(checkpoint: Checkpoints, mode: str) -> Scorer:
    return loaded(
        "layout",
        model=str(checkpoint("grounding_dino")),
        depth=str(checkpoint("dpt")),
        mode=mode,
        threshold=0.1,
    )


@pytest.mark.parametrize(
    ("prompt", "category", "outcome"),
    [
        ("a dog next to a cup", "spatial", "ok"),
        ("a dog behind a cup", "3d_spatial", "ok"),
        ("two cups", "numeracy", "ok"),
        ("a red dog", "color", "not_applicable"),
        ("a dog", "spatial", "nothing_asked"),
    ],
)
@pytest.mark.parametrize("mode", ["official", "fixed"])
def test_a_layout_is_judged_where_its_category_has_one(
    checkpoint: Checkpoints, mode: str, prompt: str, category: str, outcome: str
):
    (score,) = layout(checkpoint, mode).score([asked(prompt, 1, {"category": category})])

    assert score.parts["outcome"] == outcome
    assert (score.value is None) == (outcome != "ok")
    assert score.value is None or 0 <= score.value <= 1


def test_published_layouts_are_the_published_formulae_of_what_was_seen(checkpoint: Checkpoints):
    view = View(pixels=picture(1), prompt="x")
    folder = checkpoint("grounding_dino")
    detector = load_detector("grounding-dino", folder, "float32", "cpu")
    nouns = ["dog", "cup"]
    (queries,) = detector.detect([Wanted(pixels=view.pixels, nouns=nouns)])
    seen = detections_of(view, nouns, queries, 0.1)
    (depth,) = DepthModel(checkpoint("dpt"), dtype="float32", device="cpu").depths([view.pixels])
    next_to, behind = (
        RelationTask(subject="dog", target="cup", relation=words) for words in ("next to", "behind")
    )
    judge = layout(checkpoint, "official")
    scores = judge.score(
        [
            asked("a dog next to a cup", 1, {"category": "spatial"}),
            asked("a dog behind a cup", 1, {"category": "3d_spatial"}),
        ]
    )

    assert len(seen) > 2
    assert depth.shape == view.pixels.shape[:2]
    assert scores[0].value == pytest.approx(published_relation_score(next_to, seen), abs=1e-4)
    assert scores[1].value == pytest.approx(published_depth_score(behind, seen, depth), abs=1e-4)


def test_nothing_is_seen_twice_and_the_surest_comes_first():
    view = View(pixels=np.zeros((100, 100, 3), np.uint8), prompt="x")
    queries = [
        [(0.5, 0.5, 0.5, 0.2, 0.2), (0.9, 0.5, 0.5, 0.2, 0.21)],
        [(0.95, 0.2, 0.2, 0.1, 0.1)],
    ]
    seen = detections_of(view, ["dog", "cup"], queries, 0.3)

    assert [(shown.label, shown.score) for shown in seen] == [("cup", 0.95), ("dog", 0.9)]


def test_geneval_native_gives_a_verdict_with_its_reason(checkpoint: Checkpoints):
    judge = loaded(
        "geneval",
        model=str(checkpoint("grounding_dino")),
        clip=str(checkpoint("clip")),
        threshold=0.1,
    )
    lenient: JsonObject = {"tag": "single_object", "include": [{"class": "cup", "count": 1}]}
    scores = judge.score([asked("x", 1, lenient), asked("x", 1, CLAUSES), asked("x", 1)])

    assert (scores[0].value, scores[0].parts["reason"]) == (1.0, None)
    assert scores[1].value in (0.0, 1.0)
    assert (scores[1].value == 1.0) == (scores[1].parts["reason"] is None)
    assert (scores[2].value, scores[2].parts["outcome"]) == (None, "nothing_asked")


def test_the_soft_score_is_a_geometric_mean_over_single_questions(checkpoint: Checkpoints):
    judge = loaded("soft_geneval", model=str(checkpoint("qwen3_vl")))
    single = loaded(
        "lmm_yes",
        model=str(checkpoint("qwen3_vl")),
        question="Is there a dog in the picture? Answer yes or no.{prompt}",
    )
    one: JsonObject = {"tag": "single_object", "include": [{"class": "dog", "count": 1}]}
    scores = judge.score([asked("", 2, one), asked("", 2, CLAUSES), asked("", 2)])
    (answer,) = single.score([asked("", 2)])

    assert answer.value is not None
    assert scores[0].value == pytest.approx(answer.value, abs=1e-6)
    assert scores[1].parts["num_asked"] == 4.0  # two cups, their colour, a dog, its place
    mean = scores[1].parts.get("mean")
    if scores[1].value is not None:
        assert isinstance(mean, float)
        assert math.isfinite(mean)
        assert scores[1].value <= mean + 1e-9
    assert scores[2].parts["outcome"] == "nothing_asked"


@pytest.mark.parametrize(
    "bad",
    [
        {"include": "dog", "tag": "colors"},
        {"include": [], "tag": "colors"},
        {"include": [{"class": "dog", "count": 1}]},
        {"tag": "x", "include": [{"class": "dog", "count": 1, "position": ["above", 1]}]},
        {"tag": "x", "include": [{"class": "dog", "count": 1, "position": ["above", -1]}]},
    ],
)
def test_what_is_not_genevals_metadata_is_refused(bad: JsonObject):
    with pytest.raises(InputError, match="GenEval"):
        task_of(bad, 0.3)
