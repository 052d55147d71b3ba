from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.fake import Fake
from pipeline.pictures import decode_picture, encode_webp
from pipeline.twig.reflections import read_reflection
from pipeline.twig.requests import (
    Answer,
    Canvas,
    Message,
    Request,
    Text,
    TextAnswer,
    Visual,
    VisualAnswer,
)
from schemas.config import FakeConfig
from schemas.errors import RecordFailure, RolloutError, TaskFailure
from schemas.trace import Role, Verdict
from tests.support import SMALL


def question(text: str = "What?", **changes: Any) -> Text:
    wanted = {"role": Role.THINK, "temperature": 0.0, "max_tokens": 512} | changes
    return Text(messages=(Message(role="user", text=text),), **wanted)


def drawing(text: str = "a red cube", **changes: Any) -> Visual:
    wanted = {"codes": (), "num_tokens": 16, "cfg_weight": 5.0, "temperature": 1.0} | changes
    return Visual(role=Role.DRAW, text=text, **wanted)


def answers(fake: Fake, requests: Iterable[Request]) -> list[Answer | RolloutError]:
    """What a backend says to these, in the order asked."""
    requests = list(requests)
    for request_id, request in enumerate(requests):
        fake.submit(request_id, request)
    answered = dict(fake.poll())
    assert list(fake.poll()) == []
    return [answered[request_id] for request_id in range(len(requests))]


def text_of(answer: Answer | RolloutError) -> str:
    assert isinstance(answer, TextAnswer)
    return answer.text


def verdicts(**config: float) -> list[Verdict]:
    """What the critiques of fifty pictures amount to."""
    requests = (question(f"How good is picture {n}?", role=Role.REFLECT) for n in range(50))
    fake = Fake(SMALL.model_copy(update=config))
    return [read_reflection(text_of(said), theta=90).verdict for said in answers(fake, requests)]


# What answers depend on

REQUESTS = [
    question(),
    question(pictures=(Canvas((1, 2, 3)),)),
    question("Which bands?", role=Role.SCHEDULE),
    *(question(f"How good is picture {n}?", role=Role.REFLECT) for n in range(4)),
    *(drawing(seed=seed, with_logp=True) for seed in range(4)),
    drawing("a blue sphere", seed=0),
    drawing(seed=0, codes=(5, 6)),
]


@given(st.permutations(REQUESTS))
def test_an_answer_depends_on_nothing_but_its_request(requests: list[Request]):
    fake = Fake(SMALL)
    before = dict(zip(REQUESTS, answers(fake, REQUESTS), strict=True))

    for backend in (fake, Fake(SMALL)):
        assert dict(zip(requests, answers(backend, requests), strict=True)) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"text": "a blue sphere"},
        {"codes": (5, 6)},
        {"region": 1},
        {"revision": 1},
        {"candidate": 1},
        {"cfg_weight": 4.0},
    ],
)
def test_another_request_is_drawn_in_another_way(changes: dict[str, Any]):
    drawn, other = answers(Fake(SMALL), [drawing(seed=0), replace(drawing(seed=0), **changes)])

    assert isinstance(drawn, VisualAnswer)
    assert isinstance(other, VisualAnswer)
    assert drawn.codes != other.codes


def test_a_script_has_the_first_word():
    failure = TaskFailure("no more", reason="scripted")

    def script(request: Request) -> str | RolloutError | None:
        if request.region == 1:
            return failure
        return "As told." if request.candidate else None

    fake = Fake(SMALL, script=script)
    requests = [question(candidate=1), question(region=1), drawing(region=1), question()]
    told, *failed, untold = answers(fake, requests)

    assert text_of(told) == "As told."
    assert failed == [failure, failure]
    assert [untold] == answers(Fake(SMALL), [question()])


# Sizes


@pytest.mark.parametrize(("image_size", "patch_size", "side"), [(384, 16, 24), (32, 8, 4)])
def test_pictures_are_of_the_configured_size(image_size: int, patch_size: int, side: int):
    fake = Fake(FakeConfig(image_size=image_size, patch_size=patch_size, num_codes=99))

    assert (fake.geometry.rows, fake.geometry.columns) == (side, side)
    assert (fake.geometry.image_size, fake.geometry.num_codes) == (image_size, 99)
    for pixels in fake.paint([(), (98,) * side, (98,) * side**2]):
        assert pixels.shape == (image_size, image_size, 3)
        assert pixels.dtype == "uint8"


@pytest.mark.parametrize("num_codes", [2, 300])
def test_drawings_have_as_many_codes_as_asked_for_out_of_those_there_are(num_codes: int):
    fake = Fake(FakeConfig(num_codes=num_codes))

    (drawn,) = answers(fake, [drawing(num_tokens=2000, with_logp=True)])

    assert isinstance(drawn, VisualAnswer)
    assert len(drawn.codes) == 2000
    assert set(drawn.codes) <= set(range(num_codes))
    assert max(drawn.codes) >= num_codes * 0.9 - 1
    assert drawn.logp_sample is not None
    assert drawn.logp_cond is not None
    assert len(drawn.logp_sample) == len(drawn.logp_cond) == 2000


def test_drawings_have_no_log_probabilities_unless_asked_for():
    (drawn,) = answers(Fake(SMALL), [drawing(with_logp=False)])

    assert isinstance(drawn, VisualAnswer)
    assert (drawn.logp_sample, drawn.logp_cond) == (None, None)


def test_more_text_tokens_make_longer_thoughts():
    def length(num_text_tokens: int) -> int:
        fake = Fake(FakeConfig(num_text_tokens=num_text_tokens))
        return len(text_of(*answers(fake, [question()])))

    assert length(4) < length(40) < length(400)


def test_a_token_is_a_byte_of_the_text():
    said, drawn = answers(Fake(SMALL), [question("caf\u00e9?"), drawing("caf\u00e9")])

    assert isinstance(said, TextAnswer)
    assert bytes(said.prefix_ids).decode() == "caf\u00e9?"
    assert bytes(said.token_ids).decode() == said.text
    assert isinstance(drawn, VisualAnswer)
    assert bytes(drawn.prefix_ids).decode() == "caf\u00e9"


@pytest.mark.parametrize("seed", range(4))
def test_a_picture_of_384_pixels_is_as_hard_to_compress_as_a_real_one(seed: int):
    fake = Fake(FakeConfig())
    (drawn,) = answers(fake, [drawing(num_tokens=fake.geometry.num_tokens, seed=seed)])
    assert isinstance(drawn, VisualAnswer)

    (pixels,) = fake.paint([drawn.codes])
    encoded = encode_webp(pixels)

    assert 150_000 < len(encoded) < 250_000
    assert (decode_picture(encoded) == pixels).all()


def test_a_picture_shows_its_codes():
    fake = Fake(SMALL)
    blank, padded, partial, full = fake.paint([(), (0,) * 16, (5,) * 4, (5,) * 16])

    assert (blank == padded).all()
    assert (blank != partial).any()
    assert (partial[:4] == full[:4]).all()
    assert (partial[-4:] == blank[-4:]).all()


# Shares


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"revise_share": 0.0}, {Verdict.ACCEPT}),
        ({"revise_share": 1.0}, {Verdict.REVISE}),
        ({"revise_share": 0.5}, {Verdict.ACCEPT, Verdict.REVISE}),
        ({"unparseable_share": 1.0}, {Verdict.UNPARSEABLE}),
        ({"unparseable_share": 0.5}, set(Verdict)),
    ],
)
def test_shares_decide_what_critiques_amount_to(config: dict[str, float], expected: set[Verdict]):
    assert set(verdicts(**config)) == expected


@pytest.mark.parametrize(("dead_share", "num_dead"), [(0.0, 0), (1.0, 50)])
def test_a_share_of_thoughts_fails_for_good(dead_share: float, num_dead: int):
    fake = Fake(SMALL.model_copy(update={"dead_share": dead_share}))

    said = answers(fake, [question(f"What is in picture {n}?") for n in range(50)])

    assert sum(isinstance(answer, RecordFailure) for answer in said) == num_dead


def test_the_same_thoughts_fail_wherever_they_are_asked_for():
    requests = [question(f"What is in picture {n}?") for n in range(50)]
    config = SMALL.model_copy(update={"dead_share": 0.5})

    dead, dead_elsewhere = (
        {
            request
            for request, answer in zip(asked, answers(Fake(config), asked), strict=True)
            if isinstance(answer, RecordFailure)
        }
        for asked in (requests, requests[::-1])
    )

    assert dead == dead_elsewhere
    assert 0 < len(dead) < 50
