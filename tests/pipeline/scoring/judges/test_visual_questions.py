from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as tf

from pipeline.scoring.scorers import ScoringInput
from schemas.errors import InputError
from schemas.json_values import JsonObject
from tests.pipeline.scoring.judges.checkpoints import bert_tokenizer, bert_words
from tests.pipeline.scoring.judges.conftest import Checkpoints, asked, loaded

YES, NO = (bert_words().index(word) for word in ("yes", "no"))
RECORD: JsonObject = {
    "task_type": "color",
    "nouns": ["dog", "cup"],
    "attr_nouns": ["red dog", "blue wooden cup"],
}
INPUTS = [asked("x", 1, RECORD), asked("a green table", 2), asked("x", 3, RECORD)]
PHRASES = [["red dog", "blue wooden cup"], ["green table"], ["red dog", "blue wooden cup"]]


def softmax(logits: torch.Tensor) -> np.ndarray:
    powers = np.exp(logits.double().numpy() - logits.max().item())
    return powers / powers.sum()


def git_answer(folder: Path, scoring_input: ScoringInput, phrase: str) -> np.ndarray:
    """The probabilities of all words after `[CLS] phrase?`."""
    model = tf.GitForCausalLM.from_pretrained(folder).eval()
    processor = tf.CLIPImageProcessorPil.from_pretrained(folder)
    pixels = processor(scoring_input.pixels, return_tensors="pt")["pixel_values"]
    words = bert_tokenizer().tokenize(f"{phrase}?")
    ids = [101, *bert_tokenizer().convert_tokens_to_ids(words)]
    with torch.no_grad():
        return softmax(model(pixel_values=pixels, input_ids=torch.tensor([ids])).logits[0, -1])


def blip_answer(folder: Path, scoring_input: ScoringInput, phrase: str, side: int) -> np.ndarray:
    """The probabilities of all words where the answer begins."""
    model = tf.BlipForQuestionAnswering.from_pretrained(folder).eval()
    processor = tf.BlipImageProcessorPil.from_pretrained(
        folder, size={"height": side, "width": side}
    )
    pixels = processor(scoring_input.pixels, return_tensors="pt")["pixel_values"]
    ids = torch.tensor([tf.AutoTokenizer.from_pretrained(folder)(f"{phrase}?")["input_ids"]])
    with torch.no_grad():
        shown = model.vision_model(pixels, interpolate_pos_encoding=True).last_hidden_state
        asked_about = model.text_encoder(ids, encoder_hidden_states=shown).last_hidden_state
        start = torch.tensor([[model.config.text_config.bos_token_id]])
        told = model.text_decoder(start, encoder_hidden_states=asked_about)
    return softmax(told.logits[0, 0])


def shares(answers: Sequence[np.ndarray]) -> list[float]:
    return [float(answer[YES] / (answer[YES] + answer[NO])) for answer in answers]


def test_git_is_the_mean_of_yes_over_the_phrases(checkpoint: Checkpoints):
    folder = checkpoint("git")
    scores = loaded("git_vqa", model=str(folder), batch_size=2).score(INPUTS)

    for scoring_input, phrases, score in zip(INPUTS, PHRASES, scores, strict=True):
        answers = [git_answer(folder, scoring_input, phrase) for phrase in phrases]
        assert all(answer[YES] + answer[NO] > 0.1 for answer in answers)
        assert score.value == pytest.approx(np.mean(shares(answers)), abs=1e-5)
        assert score.parts["num_asked"] == len(phrases)
        assert score.parts["num_refused"] == 0


def test_blip_is_the_product_of_yes_over_the_chunks(checkpoint: Checkpoints):
    folder = checkpoint("blip")
    scores = loaded("blip_vqa", model=str(folder), image_size=48, batch_size=2).score(INPUTS)

    for scoring_input, phrases, score in zip(INPUTS, PHRASES, scores, strict=True):
        answers = [blip_answer(folder, scoring_input, phrase, 48) for phrase in phrases]
        assert all(answer[YES] + answer[NO] > 0.1 for answer in answers)
        assert score.value == pytest.approx(np.prod(shares(answers)), abs=1e-5)


def chunks_of(prompt: str) -> list[str]:
    return ["the left", "a red dog", "The left", *["a cup"] * 9]


def test_a_chunker_of_ones_own_is_asked_for_the_chunks(checkpoint: Checkpoints):
    folder = checkpoint("blip")
    settings = {"model": str(folder), "image_size": 32, "chunker": f"{__name__}:chunks_of"}
    dog, left, cup = (
        shares([blip_answer(folder, INPUTS[0], phrase, 32)])[0]
        for phrase in ("a red dog", "The left", "a cup")
    )

    (fixed,) = loaded("blip_vqa", **settings).score(INPUTS[:1])
    (official,) = loaded("blip_vqa", mode="official", **settings).score(INPUTS[:1])

    assert fixed.value == pytest.approx(dog * cup**9, abs=1e-5)
    rounded = [round(share, 4) for share in (dog, left, *[cup] * 6)]
    assert official.value == pytest.approx(round(float(np.prod(rounded)), 4), abs=1.5e-4)
    with pytest.raises(InputError, match="chunker"):
        loaded("blip_vqa", **{**settings, "chunker": "nowhere:chunks"})


def test_what_git_cannot_judge_and_what_names_nothing_have_no_score(checkpoint: Checkpoints):
    git = loaded("git_vqa", model=str(checkpoint("git")))
    spatial: JsonObject = {**RECORD, "task_type": "spatial"}

    scores = git.score([asked("x", 1, spatial), asked("ein Hund und eine Katze", 2)])

    outcomes = [(score.value, score.parts["outcome"]) for score in scores]
    assert outcomes == [(None, "not_applicable"), (None, "nothing_asked")]


def test_published_git_gives_what_it_cannot_judge_a_zero_and_nothing_to_ask_a_one(
    checkpoint: Checkpoints,
):
    git = loaded("git_vqa", model=str(checkpoint("git")), mode="t2i-r1")
    spatial: JsonObject = {**RECORD, "task_type": "spatial"}
    empty: JsonObject = {"task_type": "color", "nouns": [], "attr_nouns": None}
    faulty: JsonObject = {**RECORD, "attr_nouns": []}

    scores = git.score([asked("x", 1, metadata) for metadata in (spatial, empty, faulty, RECORD)])

    assert [score.value for score in scores[:2]] == [0, 1]
    assert (scores[2].value, scores[2].parts["outcome"]) == (None, "not_finite")
    answers = [
        git_answer(checkpoint("git"), scores_of, p)
        for scores_of in [asked("x", 1)]
        for p in PHRASES[0]
    ]
    assert scores[3].value == pytest.approx(np.mean(shares(answers)), abs=1e-5)


def test_a_model_that_answers_something_else_has_refused(checkpoint: Checkpoints, tmp_path: Path):
    for name in ("git", "blip"):
        folder = tmp_path / name
        kind = {"git": tf.GitForCausalLM, "blip": tf.BlipForQuestionAnswering}[name]
        model = kind.from_pretrained(checkpoint(name))
        head = model.output if name == "git" else model.text_decoder.cls.predictions
        with torch.no_grad():
            head.bias[[YES, NO]] -= 20
        _copy(checkpoint(name), folder)
        model.save_pretrained(folder)

        scores = loaded(f"{name}_vqa", model=str(folder)).score(INPUTS)

        outcomes = {(score.value, score.parts["outcome"]) for score in scores}
        assert outcomes == {(None, "refused")}
        assert scores[0].parts["num_refused"] == 2


def _copy(folder: Path, copy: Path) -> None:
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
