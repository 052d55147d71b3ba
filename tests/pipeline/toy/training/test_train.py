"""How lessons become batches, and the training script itself at a hundredth of its steps."""

import json

import numpy as np
import pytest
import torch

from pipeline.engine.checkpoints import digest_of, load_janus
from pipeline.engine.rendering import Renderer
from pipeline.toy.patches import meanings
from pipeline.toy.scenes import prompt_of, sample_training_scene, spec_of
from pipeline.toy.teacher import Mistakes
from pipeline.toy.training import train as script
from pipeline.toy.training.batches import batch_of
from pipeline.toy.training.lessons import Scribe, settings_for, teach
from pipeline.twig.requests import Visual
from schemas.config import Program
from schemas.training import IGNORED


@pytest.fixture(scope="module")
def janus(tmp_path_factory):
    """The untrained model, as the script opens it."""
    training = script.Training(out=tmp_path_factory.mktemp("toy"))
    return script._open(training)


@pytest.fixture(scope="module")
def lessons():
    rng = np.random.default_rng(0)
    scene = sample_training_scene(rng)
    prompt = prompt_of(spec_of(scene), 0)
    return teach(scene, prompt, settings_for(Program.THINK_WHILE), rng, Mistakes(drawing=0.5))


def test_an_exercise_begins_with_the_very_tokens_of_the_question(janus, lessons):
    renderer, scribe = Renderer(janus), Scribe(janus)
    for lesson in lessons:
        exercise = scribe.write(lesson)
        if isinstance(lesson.request, Visual):
            assert exercise.ids == renderer.draw_prefix(lesson.request).cond
            assert exercise.codes == lesson.request.codes + lesson.answer.codes
        else:
            question = renderer.question(lesson.request)
            assert exercise.ids[: len(question)] == question
            assert exercise.learned_from == len(question)
            answer = exercise.ids[len(question) :]
            assert renderer.words(answer) == lesson.answer.text
            assert answer[-1] == janus.special.eos


def test_every_word_of_the_toy_world_is_one_token_and_all_else_still_has_tokens(janus):
    def num_tokens(text):
        return len(janus.tokenizer.encode(text, add_special_tokens=False))

    words = {str(part) for meaning in meanings() for part in meaning if isinstance(part, str)}
    words -= {"paper", "wall", "object", "ground"}
    assert [word for word in words if num_tokens(f" {word}") != 1] == []
    assert num_tokens(" \u6a39 zephyr") > 3


def test_only_answers_are_learned_each_from_the_place_before_it(janus, lessons):
    scribe = Scribe(janus)
    exercises = [scribe.write(lesson) for lesson in lessons]
    batch = batch_of(exercises, janus.special)
    for row, exercise in enumerate(exercises):
        words = batch.words[row][batch.words[row] != IGNORED]
        drawn = batch.drawn[row][batch.drawn[row] != IGNORED]
        if exercise.codes:
            assert tuple(drawn) == exercise.codes[exercise.learned_from :]
            first = np.flatnonzero(batch.drawn[row] != IGNORED)[0]
            assert first == len(exercise.ids) - 1 + exercise.learned_from
            assert not len(words)
        else:
            assert tuple(words) == exercise.ids[exercise.learned_from :]
            first = np.flatnonzero(batch.words[row] != IGNORED)[0]
            assert batch.ids[row, first] == exercise.ids[exercise.learned_from - 1]
            assert not len(drawn)


def test_canvases_stand_where_the_placeholders_are(janus, lessons):
    scribe = Scribe(janus)
    exercises = [scribe.write(lesson) for lesson in lessons]
    batch = batch_of(exercises, janus.special)
    looking = [row for row, exercise in enumerate(exercises) if exercise.canvas is not None]
    assert batch.seen_at[:, 0].tolist() == looking
    for (row, position), canvas in zip(batch.seen_at, batch.canvases, strict=True):
        assert (batch.ids[row, position : position + 36] == janus.special.image).all()
        assert batch.ids[row, position + 36] == janus.special.eoi
        shown = exercises[row].canvas
        assert tuple(canvas[: len(shown)]) == shown
        assert not canvas[len(shown) :].any()


def test_some_drawings_come_again_without_their_text(janus, lessons):
    scribe = Scribe(janus)
    drawings = [lesson for lesson in lessons if isinstance(lesson.request, Visual)]
    batch = batch_of([scribe.write(lesson) for lesson in drawings], janus.special)
    assert len(batch.twins)
    for row, twin in batch.twins:
        assert (batch.drawn[row] == batch.drawn[twin]).all()
        prefix = Renderer(janus).draw_prefix(drawings[row].request)
        assert tuple(batch.ids[twin, : len(prefix.uncond)]) == prefix.uncond


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_hundredth_of_the_training_goes_through_and_can_be_taken_up_again(tmp_path, capfd):
    script.main(["--out", str(tmp_path), "--steps-share", "0.01"])
    losses = [
        float(line.split("words ")[1].split(",")[0])
        for line in capfd.readouterr().out.splitlines()
        if "loss of" in line and "words" in line
    ]
    folder, early = tmp_path / "weights", tmp_path / "weights-30"
    finished = load_janus(folder, dtype=torch.float32, device="cpu")
    card = json.loads((folder / "coppice.json").read_text())

    assert losses[-1] < losses[0]
    assert finished.card["pack"] == "toy"
    assert card["sha256"] == digest_of(folder) != digest_of(early)

    script.main(["--out", str(tmp_path), "--steps-share", "0.01"])
    assert digest_of(folder) == card["sha256"]
    assert "loss" not in capfd.readouterr().out
