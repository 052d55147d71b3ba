import json
import re

import numpy as np
import pytest

from pipeline.toy.patches import cut, meanings, nearest_codes, patches, tile
from pipeline.toy.scenes import (
    COLOURS,
    GROUNDS,
    NUM_BANDS,
    NUM_WORDINGS,
    SHAPES,
    SKIES,
    SceneObject,
    Spec,
    codes_of,
    is_held_out,
    prompt_of,
    render,
    sample_held_out_spec,
    sample_scene,
    sample_spec,
    sample_training_scene,
    spec_of,
    thought_of,
    words_beyond,
)


def some_scenes(number=200, seed=0):
    rng = np.random.default_rng(seed)
    return [sample_scene(rng) for _ in range(number)]


def test_a_picture_is_read_back_as_the_codes_that_it_is_tiled_from():
    scenes = some_scenes()
    codes, distances = nearest_codes(np.stack([render(scene) for scene in scenes]))

    assert [tuple(row) for row in codes.tolist()] == [codes_of(scene) for scene in scenes]
    assert distances.max() < 1e-3


def test_no_finished_picture_shows_paper_and_an_unfinished_one_does():
    assert all(0 not in codes_of(scene) for scene in some_scenes())
    assert (cut(tile(codes_of(some_scenes(1)[0])[:12])[None])[0, 12:] == patches()[0]).all()


def test_the_codebook_has_no_two_patches_that_could_be_taken_for_each_other():
    flat = patches().reshape(len(patches()), -1).astype(float)
    apart = np.sqrt(((flat[:, None] - flat[None]) ** 2).mean(-1))
    assert apart[~np.eye(len(flat), dtype=bool)].min() > 5


def test_the_world_is_as_large_as_it_is_said_to_be():
    assert len(COLOURS) >= 8
    assert len(SHAPES) >= 4
    assert len(SKIES) >= 5
    assert len(GROUNDS) >= 4


def test_every_code_and_so_every_colour_and_shape_occurs_in_training():
    rng = np.random.default_rng(0)
    scenes = [sample_training_scene(rng) for _ in range(3000)]

    drawn = {code for scene in scenes for code in codes_of(scene)}
    objects = {scene_object for scene in scenes for scene_object in scene.objects}

    assert [meanings()[code] for code in set(range(1, len(patches()))) - drawn] == []
    assert len(objects) == len(COLOURS) * len(SHAPES)


def test_training_never_sees_what_is_held_out():
    rng = np.random.default_rng(0)
    training = [sample_training_scene(rng) for _ in range(2000)]
    held_out = [sample_held_out_spec(rng) for _ in range(50)]

    def pairs(objects):
        return {frozenset((a, b)) for a in objects for b in objects if a != b}

    assert not any(is_held_out(sample_spec(rng, scene)) for scene in training)
    # A pair that is held out by itself, order and sky apart, is in no training scene.
    kept_apart = {
        pair
        for spec in held_out
        for pair in pairs(spec.objects)
        if is_held_out(Spec(objects=tuple(pair)))
    }
    assert kept_apart
    assert not any(pairs(scene.objects) & kept_apart for scene in training)


def test_what_is_held_out_is_the_same_on_every_machine():
    pairs = [
        (SceneObject(colour, shape), SceneObject("red", "star"))
        for colour in COLOURS[1:]
        for shape in SHAPES
    ]
    held_out = [f"{a.colour} {a.shape}" for a, b in pairs if is_held_out(Spec(objects=(a, b)))]
    assert held_out == ["yellow cross"]


@pytest.mark.parametrize("wording", range(NUM_WORDINGS))
def test_every_wording_says_all_of_a_spec_and_nothing_else(wording):
    rng = np.random.default_rng(wording)
    for _ in range(50):
        spec = sample_spec(rng, sample_scene(rng))
        prompt = prompt_of(spec, wording)

        assert all(f"{named.colour} {named.shape}" in prompt for named in spec.objects)
        assert ("sky" in prompt) == (spec.sky is not None)
        assert any(re.search(rf"\b{ground}\b", prompt) for ground in GROUNDS) == (
            spec.ground is not None
        )
        assert (spec.sky_thing or "with") in prompt or not spec.sky_thing
        assert "  " not in prompt
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", prompt)


def test_there_are_at_least_five_ways_to_say_one_scene():
    scene = some_scenes(1, seed=3)[0]
    assert len({prompt_of(spec_of(scene), wording) for wording in range(NUM_WORDINGS)}) >= 5


def test_a_relation_is_said_the_right_way_round():
    red, blue, green = (
        SceneObject("red", "circle"),
        SceneObject("blue", "square"),
        SceneObject("green", "star"),
    )
    two, three = (
        Spec(objects=(red, blue), has_order=True),
        Spec(objects=(red, blue, green), has_order=True),
    )
    assert prompt_of(two, 0) == "a red circle left of a blue square"
    assert prompt_of(two, 6) == "a blue square right of a red circle"
    assert prompt_of(three, 0) == "a blue square between a red circle and a green star"


def test_thoughts_say_no_bands_and_tell_scenes_apart():
    scenes = some_scenes(500)
    thoughts = [thought_of(scene, band) for scene in scenes for band in range(NUM_BANDS)]
    words = {word for thought in thoughts for word in re.findall(r"\w+", thought)}
    assert not words & {"top", "middle", "bottom", "upper", "lower", "band", "third", "above"}

    for band in range(NUM_BANDS):
        by_thought = {}
        for scene in scenes:
            shown = {
                str(meanings()[code][:3]) for code in codes_of(scene)[12 * band : 12 * band + 12]
            }
            by_thought.setdefault(thought_of(scene, band), set()).add(
                frozenset(shown) if band == 1 else None
            )
        assert all(len(looks) == 1 for looks in by_thought.values())


def test_a_spec_survives_a_trip_through_json():
    rng = np.random.default_rng(0)
    for scene in some_scenes(50):
        spec = sample_spec(rng, scene)
        assert Spec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_its_own_prompts_hold_no_word_from_elsewhere():
    rng = np.random.default_rng(0)
    prompts = [
        prompt_of(spec, wording)
        for spec in [
            *(sample_held_out_spec(rng) for _ in range(40)),
            *map(spec_of, some_scenes(40)),
        ]
        for wording in range(NUM_WORDINGS)
    ]

    assert [words for prompt in prompts if (words := words_beyond(prompt))] == []


def test_words_from_elsewhere_are_told():
    assert words_beyond("A Red cube, 3 caf\u00e9s and a star") == ["cube", "3", "caf\u00e9s"]
