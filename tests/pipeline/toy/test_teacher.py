import numpy as np
import pytest

from pipeline.toy.patches import COLUMNS
from pipeline.toy.scenes import (
    NUM_BANDS,
    codes_of,
    is_held_out,
    prompt_of,
    sample_scene,
    sample_spec,
    sample_training_scene,
    spec_of,
    thought_of,
)
from pipeline.toy.scorer import mark, share_right
from pipeline.toy.teacher import PERFECT, Mistakes, critique, misdrawn, mistaken
from pipeline.toy.training.lessons import settings_for, teach
from pipeline.toy.views import view_of_codes
from pipeline.twig.reflections import read_reflection
from schemas.config import Program
from schemas.trace import Role, Verdict

NO_MISTAKES = Mistakes()
BAND = 2 * COLUMNS


def some_case(seed):
    rng = np.random.default_rng(seed)
    scene = sample_training_scene(rng)
    return scene, prompt_of(sample_spec(rng, scene), seed), rng


def lessons_of(program, seed, mistakes=NO_MISTAKES):
    scene, prompt, rng = some_case(seed)
    return scene, teach(scene, prompt, settings_for(program), rng, mistakes)


def test_without_mistakes_every_region_is_right_at_once():
    for seed in range(20):
        scene, lessons = lessons_of(Program.THINK_WHILE, seed)

        roles = [lesson.request.role for lesson in lessons]
        assert roles == [Role.THINK, Role.DRAW, Role.REFLECT] * 3
        drawn = [
            code
            for lesson in lessons
            if lesson.request.role is Role.DRAW
            for code in lesson.answer.codes
        ]
        assert tuple(drawn) == codes_of(scene)
        said = [
            lesson.answer.text.strip() for lesson in lessons if lesson.request.role is Role.THINK
        ]
        assert said == [thought_of(scene, band) for band in range(3)]


def test_every_mistake_is_marked_down_and_drawn_again():
    for seed in range(60):
        scene, lessons = lessons_of(Program.THINK_WHILE, seed, Mistakes(thought=0.3, drawing=0.5))
        kept = ()
        for lesson, following in zip(lessons, [*lessons[1:], None], strict=True):
            if lesson.request.role is not Role.REFLECT:
                continue
            region, canvas = lesson.request.region, lesson.request.pictures[0].codes
            part = [0] * (region * BAND) + list(canvas[region * BAND :])
            view = view_of_codes([*part, *[0] * (36 - len(part))])
            right = share_right(mark(view, spec_of(scene)).bands[region].values())
            verdict = read_reflection(lesson.answer.text, theta=90).verdict

            assert verdict is (Verdict.ACCEPT if right == 1 else Verdict.REVISE)
            if verdict is Verdict.REVISE:
                assert following.request.revision == 1
                assert thought_of(scene, region) in following.request.text
            kept = canvas
        assert kept


def test_a_critique_scores_in_proportion_to_what_is_right():
    scene, _, rng = some_case(5)
    right = read_reflection(critique(scene, [1], codes_of(scene)), theta=90)
    scores = set()
    for _ in range(100):
        drawn = codes_of(scene)[:BAND] + misdrawn(rng, scene, [1])
        reflection = read_reflection(critique(scene, [1], drawn), theta=90)
        share = share_right(
            mark(view_of_codes([*drawn, *[0] * BAND]), spec_of(scene)).bands[1].values()
        )
        assert reflection.score == round(80 * share)
        assert reflection.better_thought == thought_of(scene, 1)
        scores.add(reflection.score)

    assert (right.score, right.better_thought) == (PERFECT, thought_of(scene, 1))
    assert len(scores) > 3


def test_a_wrong_band_is_judged_by_itself_whatever_stands_above_it():
    scene, _, rng = some_case(7)
    canvas = misdrawn(rng, scene, [0]) + codes_of(scene)[BAND : 2 * BAND]
    assert read_reflection(critique(scene, [1], canvas), theta=90).score == PERFECT
    assert read_reflection(critique(scene, [0], canvas), theta=90).score < 90


@pytest.mark.parametrize("program", [Program.THINK_BEFORE, Program.THINK_AFTER, Program.PLAIN])
def test_the_programs_of_one_region_speak_of_the_whole_picture(program):
    scene, lessons = lessons_of(program, 3)
    for lesson in lessons:
        if lesson.request.role is Role.DRAW:
            assert lesson.answer.codes == codes_of(scene)
        else:
            thoughts = [thought_of(scene, band) for band in range(NUM_BANDS)]
            assert " ".join(thoughts) in lesson.answer.text


def test_planted_mistakes_are_lessons_in_judging_only():
    planted = [
        lesson
        for seed in range(40)
        for lesson in lessons_of(Program.THINK_WHILE, seed, Mistakes(thought=0.5, drawing=0.5))[1]
        if not lesson.is_right
    ]
    assert {lesson.request.role for lesson in planted} == {Role.THINK, Role.DRAW}


def test_mistakes_of_a_training_scene_show_nothing_that_is_held_out():
    for seed in range(100):
        scene, _, rng = some_case(seed)
        assert not is_held_out(spec_of(mistaken(rng, scene, [0, 1, 2])))


def test_mistakes_can_be_planted_in_held_out_scenes_as_well():
    rng = np.random.default_rng(0)
    for _ in range(100):
        while not is_held_out(spec_of(scene := sample_scene(rng))):
            pass
        for band in range(3):
            drawn = misdrawn(rng, scene, [band])
            assert len(drawn) == BAND
            assert drawn != codes_of(scene)[band * BAND : (band + 1) * BAND]


def test_what_stands_before_a_drawing_counts_only_while_it_is_as_the_text_says():
    for seed in range(60):
        scene, lessons = lessons_of(Program.THINK_WHILE, seed, Mistakes(drawing=0.6))
        for lesson in lessons:
            if lesson.request.role is Role.DRAW:
                before = lesson.request.codes
                assert lesson.is_canvas_right == (before == codes_of(scene)[: len(before)])
