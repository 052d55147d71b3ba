"""The reference against the plainest loop there is: no cache, all tokens again for each new one."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.engine.checkpoints import Janus, load_janus
from pipeline.engine.reference import Reference
from pipeline.engine.tiny import build_tiny
from pipeline.pictures import encode_webp
from pipeline.plan.packs import load_pack
from pipeline.twig.drive import Backends, Given, Outcome, Rollout, drive
from pipeline.twig.programs import Running, Settings, generate_plainly, think_while_generating
from pipeline.twig.requests import (
    Answer,
    Canvas,
    Picture,
    Text,
    TextAnswer,
    Visual,
    VisualAnswer,
)
from schemas.config import ReflectionConfig, SamplingConfig
from schemas.errors import RecordFailure
from schemas.trace import Finish, Role
from tests.engines import answered, drawing, question, without_a_cache
from tests.support import fake_method

GOLDEN = Path(__file__).parents[2] / "golden" / "janus-tiny"
KEPT = tuple(range(12, 24))  # two rows of six
WHOLE = tuple(range(100, 136))


@pytest.fixture(scope="module", params=["tiny", "golden"])
def janus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Janus:
    folder = GOLDEN
    if request.param == "tiny":
        folder = tmp_path_factory.mktemp("built") / "tiny"
        build_tiny(folder)
    return load_janus(folder, dtype=torch.float32, device="cpu")


@pytest.fixture
def reference(janus: Janus) -> Reference:
    return Reference(janus)


def said(reference: Reference, request: Text) -> TextAnswer:
    (answer,) = answered(reference, request)
    assert isinstance(answer, TextAnswer)
    return answer


def drawn(reference: Reference, request: Visual) -> VisualAnswer:
    (answer,) = answered(reference, request)
    assert isinstance(answer, VisualAnswer)
    return answer


def assert_likely(answer: Answer, sample: list[float], cond: list[float]) -> None:
    assert answer.logp_sample == pytest.approx(sample, abs=1e-3)
    assert answer.logp_cond == pytest.approx(cond, abs=1e-3)


SEED = 2**63 + 12345  # both of its words count
SAMPLED: dict[str, Any] = {"temperature": 0.8, "seed": SEED, "with_logp": True}

QUESTIONS = {
    "greedy": question(),
    "greedy of a canvas": question(pictures=(Canvas(KEPT),)),
    "greedy of two canvases": question(pictures=(Canvas(WHOLE), Canvas(KEPT))),
    "sampled": question(**SAMPLED),
    "sampled of a canvas": question(pictures=(Canvas(WHOLE),), **SAMPLED),
    "sampled from the likeliest": question(top_p=0.5, **SAMPLED),
}
DRAWINGS = {
    "greedy": drawing(),
    "greedy after a canvas": drawing(codes=KEPT),
    "sampled": drawing(**SAMPLED),
    "sampled after a canvas": drawing(codes=KEPT, **SAMPLED),
    "sampled without guidance": drawing(cfg_weight=1.0, **SAMPLED),
    "sampled from the unguided row": drawing(cfg_weight=0.0, **SAMPLED),
}


@pytest.mark.parametrize("request_", QUESTIONS.values(), ids=list(QUESTIONS))
def test_words_are_those_of_a_loop_without_a_cache(
    janus: Janus, reference: Reference, request_: Text
):
    answer = said(reference, request_)

    tokens, sample, cond = without_a_cache(janus, answer.prefix_ids, request_)
    assert list(answer.token_ids) == tokens
    if request_.with_logp:
        assert_likely(answer, sample, cond)


@pytest.mark.parametrize("request_", DRAWINGS.values(), ids=list(DRAWINGS))
def test_codes_are_those_of_a_loop_without_a_cache(
    janus: Janus, reference: Reference, request_: Visual
):
    answer = drawn(reference, request_)

    codes, sample, cond = without_a_cache(janus, answer.prefix_ids, request_)
    assert list(answer.codes) == codes
    if request_.with_logp:
        assert_likely(answer, sample, cond)


# What an answer depends on


def test_answers_depend_neither_on_the_order_nor_on_what_else_is_asked(reference: Reference):
    requests = [*QUESTIONS.values(), *DRAWINGS.values()]
    alone = [answered(reference, request)[0] for request in requests]

    assert answered(reference, *requests) == alone
    assert answered(reference, *requests[::-1])[::-1] == alone
    assert answered(reference, *requests[:3], *requests[:3])[3:] == alone[:3]


@pytest.mark.parametrize(
    "change",
    [{"text": "a blue cube"}, {"codes": KEPT}, {"cfg_weight": 1.0}, {"seed": 1}],
    ids=["text", "canvas", "guidance", "seed"],
)
def test_a_drawing_depends_on(reference: Reference, change: dict[str, Any]):
    request = {"text": "a red cube", **SAMPLED}

    before, after = answered(reference, drawing(**request), drawing(**(request | change)))

    assert isinstance(before, VisualAnswer)
    assert isinstance(after, VisualAnswer)
    assert before.codes != after.codes


@pytest.mark.parametrize("other", [(), (Canvas(KEPT),), (Canvas(WHOLE),)])
def test_an_answer_depends_on_the_picture(reference: Reference, other: tuple[Canvas, ...]):
    picture = (Canvas(tuple(range(36))),)

    seen = said(reference, question(pictures=picture, **SAMPLED))

    assert seen.logp_cond != said(reference, question(pictures=other, **SAMPLED)).logp_cond


def test_a_picture_is_seen_as_the_canvas_that_it_shows(reference: Reference):
    (pixels,) = reference.paint([KEPT])

    as_file = said(reference, question(pictures=(Picture(encode_webp(pixels)),), **SAMPLED))

    assert as_file == said(reference, question(pictures=(Canvas(KEPT),), **SAMPLED))


def test_what_is_not_drawn_yet_counts_as_code_0(reference: Reference):
    partial, padded, other = reference.paint([KEPT, (*KEPT, *[0] * 24), (*KEPT, *[9] * 24)])

    assert partial.shape == (96, 96, 3)
    assert (partial == padded).all()
    assert (partial != other).any()


def test_a_revision_from_the_same_text_is_another_drawing(reference: Reference):
    def draw_twice() -> Running:
        first = yield drawing(temperature=1.0)
        again = yield drawing(temperature=1.0, revision=1)
        return first.codes + again.codes

    codes = driven(reference, draw_twice()).codes

    assert codes[:12] != codes[12:]
    assert driven(reference, draw_twice()).codes == codes


# How likely


@pytest.mark.parametrize("changes", [{"with_logp": True}, {**SAMPLED, "with_logp": False}])
def test_log_probabilities_are_null_where_greedy_or_not_asked_for(
    reference: Reference, changes: dict[str, Any]
):
    for answer in answered(reference, question(**changes), drawing(**changes)):
        assert isinstance(answer, Answer)
        assert (answer.logp_sample, answer.logp_cond) == (None, None)


def test_codes_come_as_often_as_their_log_probabilities_say(reference: Reference):
    requests = [
        drawing(num_tokens=1, temperature=3.0, seed=seed, with_logp=True) for seed in range(300)
    ]

    answers = [drawn(reference, request) for request in requests]

    counts = Counter(answer.codes[0] for answer in answers)
    chances = {answer.codes[0]: np.exp(answer.logp_sample)[0] for answer in answers}
    assert len(counts) > 5
    for code, chance in chances.items():
        spread = np.sqrt(300 * chance * (1 - chance))
        assert abs(counts[code] - 300 * chance) < 4 * spread + 2


# Ends


def test_an_answer_ends_with_the_end_of_sentence_or_at_the_limit(
    janus: Janus, reference: Reference
):
    eos = janus.special.eos
    asked = (question(f"say {n}", temperature=1.0, seed=n, max_tokens=40) for n in range(60))
    request, whole = next(
        (request, answer)
        for request in asked
        if len((answer := said(reference, request)).token_ids) > 1 and eos in answer.token_ids
    )
    length = len(whole.token_ids)

    def limited(max_tokens: int) -> TextAnswer:
        return said(reference, question(request.messages[0].text, **of(request, max_tokens)))

    assert whole.finish is Finish.STOP
    assert whole.token_ids.index(eos) == length - 1
    assert limited(length) == whole
    assert limited(length - 1).finish is Finish.LENGTH
    assert limited(length - 1).token_ids == whole.token_ids[:-1]
    assert limited(length - 1).text == whole.text


def of(request: Text, max_tokens: int) -> dict[str, Any]:
    return {"temperature": 1.0, "seed": request.seed, "max_tokens": max_tokens}


# What the model has no room for


def test_a_question_that_is_too_long_fails_alone(janus: Janus, reference: Reference):
    too_long = question(max_tokens=janus.max_positions)

    failure, answer = answered(reference, too_long, question())

    assert isinstance(failure, RecordFailure)
    assert failure.reason == "too_long"
    assert answer == said(reference, question())


def test_a_drawing_may_fill_the_model_to_the_last_position(janus: Janus, reference: Reference):
    length = len(drawn(reference, drawing(num_tokens=1)).prefix_ids)
    room = janus.max_positions - length - 1

    fits, failure = answered(
        reference,
        drawing(codes=(7,) * room, num_tokens=1),
        drawing(codes=(7,) * (room + 1), num_tokens=1),
    )

    assert isinstance(fits, VisualAnswer)
    assert isinstance(failure, RecordFailure)
    assert failure.reason == "too_long"


def test_a_picture_of_another_size_is_refused(reference: Reference):
    wide = Picture(encode_webp(np.zeros((48, 96, 3), dtype=np.uint8)))

    failure, answer = answered(reference, question(pictures=(wide,)), question())

    assert isinstance(failure, RecordFailure)
    assert failure.reason == "picture_size"
    assert "96 x 48" in str(failure)
    assert isinstance(answer, TextAnswer)


# Whole programs


def settings_for(janus: Janus, **sampling: Any) -> Settings:
    method = fake_method(
        sampling=SamplingConfig(max_text_tokens=8, **sampling),
        reflection=ReflectionConfig(max_revisions=0),
    )
    return Settings(method=method, pack=load_pack("default"), geometry=janus.geometry)


def driven(reference: Reference, program: Running) -> Outcome:
    rollout = Rollout(record_id="a-record", rollout_index=0, run_seed=3, program=program)
    backends = Backends({"reference": reference}, dict.fromkeys(Role, "reference"))
    (outcome,) = drive(Given([rollout]), backends, max_live=1)
    assert outcome.error is None
    return outcome


def test_the_plain_program_draws_what_transformers_itself_generates(
    janus: Janus, reference: Reference
):
    from transformers import GenerationConfig

    settings = settings_for(janus, image_temperature=0.0)

    outcome = driven(reference, generate_plainly("a red cube on a hill", settings))

    prefix = torch.tensor([outcome.events[0].prefix_ids])
    special = janus.special
    theirs = janus.model.generate(
        inputs=prefix,
        attention_mask=torch.ones_like(prefix),
        generation_mode="image",
        generation_config=GenerationConfig(
            bos_token_id=special.bos,
            eos_token_id=special.eos,
            pad_token_id=special.pad,
            generation_kwargs={"boi_token_id": special.boi},
            do_sample=False,
            guidance_scale=5.0,
            max_length=prefix.shape[1] + 36,
        ),
    )
    assert list(outcome.codes) == theirs[0].tolist()


def test_rollouts_that_share_a_backend_end_as_each_does_alone(janus: Janus, reference: Reference):
    settings = settings_for(janus, text_temperature=1.0)

    def rollout(index: int) -> Rollout:
        program = think_while_generating("a red cube", settings)
        return Rollout(record_id="a-record", rollout_index=index, run_seed=3, program=program)

    backends = Backends({"reference": reference}, dict.fromkeys(Role, "reference"))

    def codes_of(indices: list[int], max_live: int) -> dict[int, tuple[int, ...]]:
        outcomes = drive(Given([rollout(index) for index in indices]), backends, max_live=max_live)
        return {outcome.rollout.rollout_index: outcome.codes for outcome in outcomes}

    together = codes_of([1, 0], max_live=2)

    assert together == codes_of([0, 1], max_live=1)
    assert len(set(together.values())) == 2
