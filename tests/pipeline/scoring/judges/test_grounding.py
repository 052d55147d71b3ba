import re
from itertools import pairwise

import numpy as np
import pytest
import torch
import transformers as tf

from pipeline.scoring.judges.detectors import as_queries
from schemas.errors import InputError
from schemas.json_values import JsonObject
from tests.pipeline.scoring.judges.checkpoints import bert_tokenizer
from tests.pipeline.scoring.judges.conftest import Checkpoints, asked, loaded

NOUNS = ["dog", "roll of paper towel", "cup"]
RECORD: JsonObject = {"task_type": "object", "nouns": list(NOUNS), "attr_nouns": None}


def raw_outputs(folder: str, scoring_input) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Probabilities [queries, tokens], boxes [queries, 4] and the ids of the text, by hand."""
    model = tf.GroundingDinoForObjectDetection.from_pretrained(folder).eval()
    processor = tf.GroundingDinoImageProcessorPil.from_pretrained(folder)
    pixels = processor(scoring_input.pixels, return_tensors="pt")
    tokens = bert_tokenizer()("dog . roll of paper towel . cup.", return_tensors="pt")
    with torch.no_grad():
        outputs = model(**pixels, **tokens)
    sigmoid = 1 / (1 + np.exp(-outputs.logits[0].double().numpy()))
    return sigmoid, outputs.pred_boxes[0].double().numpy(), tokens["input_ids"][0].tolist()


def spans_by_hand(ids: list[int]) -> list[list[int]]:
    """The tokens between the stops."""
    stops = [0, *(index for index, token in enumerate(ids) if token == 1012)]
    return [list(range(start + 1, stop)) for start, stop in pairwise(stops)]


def boxes_kept(scores: np.ndarray, boxes: np.ndarray, side: int) -> int:
    """How many things a noun's queries show: clipped, and without what overlaps a surer one."""
    kept: list[np.ndarray] = []
    for index in np.argsort(-scores, kind="stable"):
        cx, cy, w, h = boxes[index] * side
        box = np.clip([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], 0, side)
        if scores[index] <= 0.3 or not (box[2] > box[0] and box[3] > box[1]):
            continue
        for other in kept:
            low, high = np.maximum(box[:2], other[:2]), np.minimum(box[2:], other[2:])
            shared = np.prod(np.maximum(high - low, 0))
            union = np.prod(box[2:] - box[:2]) + np.prod(other[2:] - other[:2]) - shared
            if shared / union > 0.5:
                break
        else:
            kept.append(box)
    return len(kept)


def test_a_nouns_score_is_the_mean_over_its_own_tokens_and_its_boxes_are_counted_once(
    checkpoint: Checkpoints,
):
    folder = str(checkpoint("grounding_dino"))
    inputs = [asked("x", seed, RECORD) for seed in range(4)]

    scores = loaded("detector", model=folder, batch_size=3).score(inputs)

    for scoring_input, score in zip(inputs, scores, strict=True):
        probabilities, boxes, ids = raw_outputs(folder, scoring_input)
        spans = spans_by_hand(ids)
        assert [len(span) for span in spans] == [1, 4, 1]
        counts = [boxes_kept(probabilities[:, span].mean(axis=1), boxes, 96) for span in spans]
        assert score.value == pytest.approx(np.mean([min(count, 1) for count in counts]))
        sure = sum(int((probabilities[:, span].mean(axis=1) > 0.3).sum()) for span in spans)
        assert len(score.parts["boxes"]) == sure
    assert {score.parts["outcome"] for score in scores} == {"ok"}


def test_numbers_are_counted_after_suppression(checkpoint: Checkpoints):
    folder = str(checkpoint("grounding_dino"))
    counts = [{"obj_name": "dog", "num": 2}, {"obj_name": "cup", "num": 5}]
    record: JsonObject = {**RECORD, "task_type": "numeracy", "numeracy_info": list(counts)}
    inputs = [asked("x", seed, record) for seed in range(3)]

    scores = loaded("detector", model=folder).score(inputs)

    for scoring_input, score in zip(inputs, scores, strict=True):
        probabilities, boxes, ids = raw_outputs(folder, scoring_input)
        spans = spans_by_hand(ids)
        seen = [
            boxes_kept(probabilities[:, spans[index]].mean(axis=1), boxes, 96) for index in (0, 2)
        ]
        expected = np.mean([min(n, m) / max(n, m) for n, m in zip(seen, (2, 5), strict=True)])
        assert score.value == pytest.approx(expected)


def test_the_published_reward_takes_the_first_and_the_last_word(checkpoint: Checkpoints):
    folder = str(checkpoint("grounding_dino"))
    inputs = [asked("x", seed, RECORD) for seed in range(4)]

    scores = loaded("detector", model=folder, mode="t2i-r1").score(inputs)

    for scoring_input, score in zip(inputs, scores, strict=True):
        probabilities, _, ids = raw_outputs(folder, scoring_input)
        dog, _, cup = spans_by_hand(ids)  # a noun of four words never equals its label
        seen = [
            (probabilities[:, span].sum(axis=1) / (len(span) + 1e-6)).max() for span in (dog, cup)
        ]
        assert score.value == pytest.approx(sum(best > 0.3 for best in seen) / 3)


def test_a_prompt_without_annotations_is_read_by_the_parser(checkpoint: Checkpoints):
    detector = loaded("detector", model=str(checkpoint("grounding_dino")))

    spatial, foreign, depth = detector.score(
        [
            asked("a dog on the left of a cup", 1),
            asked("ein Hund und eine Katze", 2),
            asked("a dog behind a cup", 3),
        ]
    )

    assert spatial.parts["outcome"] == "ok"
    assert {box["label"] for box in spatial.parts["boxes"]} <= {"dog", "cup"}
    assert (foreign.value, foreign.parts["outcome"]) == (None, "nothing_asked")
    assert (depth.value, depth.parts["outcome"]) == (None, "not_applicable")


def test_nouns_beyond_what_the_model_reads_are_no_nouns_that_are_missing(checkpoint: Checkpoints):
    record: JsonObject = {**RECORD, "nouns": ["cat dog cup"] * 80}
    detector = loaded("detector", model=str(checkpoint("grounding_dino")))

    (score,) = detector.score([asked("x", 1, record)])

    assert (score.value, score.parts["outcome"]) == (None, "too_long")


def test_boxes_of_a_padded_square_are_shares_of_the_picture_again():
    (query,) = as_queries(
        np.array([0.5]), np.array([[0.5, 0.25, 0.5, 0.25]]), width=200, height=100
    )

    assert query == (0.5, 0.5, 0.5, 0.5, 0.5)


def test_owlv2_scores_each_noun_by_itself_and_places_boxes_in_the_padded_square(
    checkpoint: Checkpoints,
):
    folder = checkpoint("owlv2")
    processor = tf.Owlv2ImageProcessorPil.from_pretrained(folder)
    record: JsonObject = {"task_type": "object", "nouns": ["dog", "cat"]}
    inputs = [
        asked("x", 5, record, width=64),
        asked("x", 6, record),
        asked("x", 7, record, width=64),
    ]
    model = tf.Owlv2ForObjectDetection.from_pretrained(folder).eval()
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(["dog", "cat"], padding="max_length", max_length=16, return_tensors="pt")

    scores = loaded("detector", model=str(folder), kind="owlv2").score(inputs)

    for scoring_input, score in zip(inputs, scores, strict=True):
        pixels = processor([scoring_input.pixels], return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            outputs = model(pixel_values=pixels, **tokens)
        expected = [
            (label, probability, (cx - w / 2) * 96, (cy - h / 2) * 96)
            for column, label in enumerate(("dog", "cat"))
            for probability, (cx, cy, w, h) in zip(
                outputs.logits[0, :, column].sigmoid().tolist(),
                outputs.pred_boxes[0].tolist(),
                strict=True,
            )
            if probability > 0.3
        ]
        seen = [(row["label"], row["score"], row["x0"], row["y0"]) for row in score.parts["boxes"]]
        assert [row[0] for row in seen] == [row[0] for row in expected]
        assert np.allclose([r[1:] for r in seen], [r[1:] for r in expected], atol=1e-3)
        assert expected


def test_owlv2_without_scipy_says_what_to_install(
    checkpoint: Checkpoints, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pipeline.scoring.judges.detectors.find_spec", lambda name: None)

    with pytest.raises(InputError, match=re.escape("coppice[judges]")):
        loaded("detector", model=str(checkpoint("grounding_dino")), kind="owlv2")
