from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as tf

from pipeline.scoring.judges.outcomes import Outcome, View
from pipeline.scoring.judges.vision_language import VisionLanguageModel, judgement_of
from pipeline.scoring.scorers import ScoringInput
from schemas.errors import InputError
from tests.pipeline.scoring.judges.conftest import Checkpoints, asked, loaded

KINDS = {
    "qwen3_vl": tf.Qwen3VLForConditionalGeneration,
    "llava_onevision": tf.LlavaOnevisionForConditionalGeneration,
}
SPELLINGS = {"yes": ["yes", "Yes", "\u0120yes"], "no": ["no", "No", "\u0120no"]}
INPUTS = [asked("a dog", 1), asked("two cups", 2, width=64), asked("a dog", 3)]


def generated(folder: Path, name: str, scoring_input: ScoringInput) -> np.ndarray:
    """The logits that `generate` has for the first token, from inputs put together by hand."""
    model = KINDS[name].from_pretrained(folder).eval()
    wrapped = VisionLanguageModel(folder, dtype="float32", device="cpu")
    question = "Does it show " + scoring_input.prompt
    marks = "<image>" if name.startswith("llava") else "<|vision_start|><|image_pad|><|vision_end|>"
    text = f"<|im_start|>user\n{marks}{question}<|im_end|>\n<|im_start|>assistant\n"
    inputs = wrapped.processor(images=[scoring_input.pixels], text=[text], return_tensors="pt")
    with torch.no_grad():
        told = model.generate(
            **inputs,
            max_new_tokens=1,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
        )
    return told.logits[0][0].double().numpy()


def masses(folder: Path, logits: np.ndarray) -> tuple[float, float]:
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    yes, no = (
        probabilities[tokenizer.convert_tokens_to_ids(spellings)].sum()
        for spellings in SPELLINGS.values()
    )
    return float(yes), float(no)


@pytest.fixture(params=KINDS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_it_is_p_of_yes_from_the_first_token_of_what_the_model_would_say(
    checkpoint: Checkpoints, name: str
):
    folder = checkpoint(name)
    vqa = loaded("lmm_yes", model=str(folder), question="Does it show {prompt}", batch_size=2)

    for scoring_input, score in zip(INPUTS, vqa.score(INPUTS), strict=True):
        yes, no = masses(folder, generated(folder, name, scoring_input))
        assert score.parts["mass"] == pytest.approx(yes + no, abs=1e-5)
        if yes + no < 0.1:
            assert (score.value, score.parts["outcome"]) == (None, "refused")
        else:
            assert score.value == pytest.approx(yes / (yes + no), abs=1e-5)


def test_its_tokens_of_yes_and_no_are_all_spellings(checkpoint: Checkpoints, name: str):
    folder = checkpoint(name)
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    spelled = VisionLanguageModel(folder, dtype="float32", device="cpu").spelled

    assert spelled == {
        tokenizer.convert_tokens_to_ids(token): word
        for word, tokens in SPELLINGS.items()
        for token in tokens
    }


def test_the_published_reward_is_warped_and_reads_lower_case_alone(
    checkpoint: Checkpoints, name: str
):
    folder = checkpoint(name)
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    inputs = [asked("a dog", seed) for seed in range(6)]
    settings = {"model": str(folder), "question": "Does it show {prompt}"}

    scores = loaded("lmm_yes", mode="t2i-r1", **settings).score(inputs)
    again = loaded("lmm_yes", mode="t2i-r1", batch_size=1, **settings).score(inputs)

    assert [score.value for score in scores] == pytest.approx([score.value for score in again])
    yes, no = tokenizer.convert_tokens_to_ids(["yes", "no"])
    for scoring_input, score in zip(inputs, scores, strict=True):
        logits = torch.tensor(generated(folder, name, scoring_input))[None]
        warped = tf.TemperatureLogitsWarper(0.3)(None, logits)
        warped = tf.TopKLogitsWarper(50)(None, warped).softmax(dim=-1)[0]
        both = float(warped[yes] + warped[no])
        allowed = {0.0, *([float(warped[yes]) / both] if both else [])}
        assert any(score.value == pytest.approx(value, abs=1e-5) for value in allowed)


def test_the_surest_answer_counts_and_something_else_is_a_refusal():
    spelled = {0: "yes", 1: "no", 2: "yes"}
    sure = judgement_of(np.array([2.0, 0.0, 1.0, -9.0]), spelled)
    other = judgement_of(np.array([0.0, 0.0, 0.0, 9.0]), spelled)
    broken = judgement_of(np.array([0.0, np.nan, 0.0, 0.0]), spelled)

    powers = np.exp([2.0, 0.0, 1.0])
    assert sure.value == pytest.approx((powers[0] + powers[2]) / powers.sum())
    assert (other.value, other.outcome) == (None, Outcome.REFUSED)
    assert (broken.value, broken.outcome) == (None, Outcome.NOT_FINITE)


def test_a_model_of_another_type_and_a_question_without_the_prompt_are_refused(
    checkpoint: Checkpoints,
):
    with pytest.raises(InputError, match=r"type 'clip'.*qwen3_vl"):
        loaded("lmm_yes", model=str(checkpoint("clip")))
    with pytest.raises(InputError, match=r"expected a question that has \{prompt\} in it"):
        loaded("lmm_yes", model=str(checkpoint("qwen3_vl")), question="Is it good?")


def test_pictures_of_different_sizes_go_through_the_model_in_groups(checkpoint: Checkpoints):
    model = VisionLanguageModel(checkpoint("qwen3_vl"), dtype="float32", device="cpu")
    views = [View(pixels=one.pixels, prompt=one.prompt) for one in INPUTS if one.pixels is not None]

    together = model.first_logits(views, ["what"] * 3)
    alone = [model.first_logits([view], ["what"])[0] for view in views]

    assert np.allclose(together, alone, atol=1e-5)
