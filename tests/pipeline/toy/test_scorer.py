from dataclasses import replace

import numpy as np
import pytest

from pipeline.scoring.scorers import Scorer, ScoringInput
from pipeline.toy.patches import code_of, tile
from pipeline.toy.scenes import (
    Scene,
    SceneObject,
    Spec,
    codes_of,
    render,
    sample_scene,
    sample_spec,
    spec_of,
    thought_of,
)
from pipeline.toy.scorer import ToyScorer, mark, share_right
from pipeline.toy.views import view_of_codes, views_of_pixels, words_of
from schemas.errors import InputError

RED, BLUE, GREEN = (
    SceneObject("red", "circle"),
    SceneObject("blue", "square"),
    SceneObject("green", "star"),
)
SCENE = Scene(
    objects=(RED, BLUE),
    slot=0,
    sky="pink",
    sky_thing="sun",
    ground="grass",
    ground_thing="flower",
    sky_slot=1,
    ground_place=7,
)


def view_of_picture(picture):
    (view,) = views_of_pixels(picture[None])
    return view


def wrong_marks(picture, spec=None):
    """The names of the attributes that a picture has wrong."""
    marks = mark(view_of_picture(picture), spec or spec_of(SCENE))
    return {name for name, right in marks.all.items() if right is False}


def test_rendered_truth_is_all_right():
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng) for _ in range(300)]
    views = views_of_pixels(np.stack([render(scene) for scene in scenes]))
    for scene, view in zip(scenes, views, strict=True):
        for spec in (spec_of(scene), sample_spec(rng, scene)):
            assert False not in mark(view, spec).all.values()


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"sky": "blue"}, {"sky"}),
        ({"sky_thing": "moon"}, {"sky_thing"}),
        ({"sky_thing": ""}, {"sky_thing"}),
        ({"ground": "snow"}, {"ground"}),
        ({"ground_thing": "rock"}, {"ground_thing"}),
        ({"ground_thing": ""}, {"ground_thing"}),
        ({"objects": (replace(RED, colour="black"), BLUE)}, {"colour 1"}),
        ({"objects": (RED, replace(BLUE, shape="cross"))}, {"shape 2"}),
        ({"objects": (BLUE, RED)}, {"place 1", "place 2"}),
        (
            {"objects": (RED,), "slot": 0},
            {"number", "colour 2", "shape 2", "place 1", "place 2"},
        ),
        ({"objects": (RED, GREEN, BLUE)}, {"number"}),
    ],
)
def test_every_planted_mistake_is_seen_and_nothing_else(change, wrong):
    assert wrong_marks(render(replace(SCENE, **change))) == wrong


def test_a_single_object_in_the_wrong_place_is_seen():
    scene = replace(SCENE, objects=(RED,), slot=2)
    assert wrong_marks(render(replace(scene, slot=1)), spec_of(scene)) == {"place 1"}


def test_one_strange_token_breaks_what_it_is_part_of():
    codes = list(codes_of(SCENE))
    codes[0] = code_of(("sky", "green"))
    codes[12] = code_of(("object", "red", "star", 0))
    codes[18] = code_of(("object", "blue", "circle", 2))
    assert wrong_marks(tile(tuple(codes))) == {"sky", "colour 1", "shape 1"}


def test_what_the_spec_leaves_open_has_no_mark():
    marks = mark(view_of_picture(render(SCENE)), Spec(objects=(BLUE, RED)))
    open_ones = {name for name, right in marks.all.items() if right is None}
    assert open_ones == {
        "sky",
        "sky_thing",
        "ground",
        "ground_thing",
        "place 1",
        "place 2",
    }
    assert share_right(marks.bands[0].values()) is None


def test_a_little_blur_is_forgiven_and_grey_mush_is_not():
    picture = render(SCENE).astype(float)
    noise = np.random.default_rng(0).normal(0, 12, picture.shape)
    assert wrong_marks(np.clip(picture + noise, 0, 255).astype(np.uint8)) == set()

    mush = np.full_like(render(SCENE), 128)
    assert {"sky", "ground", "shape 1", "shape 2"} <= wrong_marks(mush)


def test_what_is_seen_is_said_in_the_words_of_thoughts():
    rng = np.random.default_rng(0)
    for _ in range(200):
        scene = sample_scene(rng)
        view = view_of_codes(codes_of(scene))
        assert [words_of(view, band) for band in range(3)] == [
            thought_of(scene, band) for band in range(3)
        ]


def test_the_scorer_gives_each_attribute_and_each_band():
    scorer: Scorer = ToyScorer()
    spec = {"spec": spec_of(SCENE).to_json()}
    wrong_sky = render(replace(SCENE, sky="grey"))
    right, wrong, foreign = scorer.score(
        [
            ScoringInput(prompt="p", pixels=render(SCENE), metadata=spec),
            ScoringInput(prompt="p", pixels=wrong_sky, metadata=spec),
            ScoringInput(prompt="p", pixels=wrong_sky),
        ]
    )
    assert right.value == 1
    assert wrong.value == pytest.approx(10 / 11)
    assert (wrong.parts["sky"], wrong.parts["band: sky"], wrong.parts["band: objects"]) == (
        0,
        0.5,
        1,
    )
    assert foreign.value is None


def test_a_picture_of_another_size_is_not_scored():
    sample = ScoringInput(
        prompt="p",
        pixels=np.zeros((96, 96, 3), np.uint8),
        metadata={"spec": spec_of(SCENE).to_json()},
    )
    assert ToyScorer().score([sample])[0].value is None


def test_a_spec_of_another_world_is_refused():
    sample = ScoringInput(
        prompt="p", pixels=render(SCENE), metadata={"spec": {"objects": [], "x": 1}}
    )
    with pytest.raises(InputError, match="no spec of the toy world"):
        ToyScorer().score([sample])
