"""The engine against the reference, request by request, and its accounts.

A rollout's later requests follow from its earlier answers, so every request that a program made is
held against the reference on its own: one near tie does not make all that follows a difference.
"""

import gc
import random
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.checkpoints import Janus
from pipeline.engine.engine import Engine
from pipeline.engine.paged.cuda import paged_attention_plain
from pipeline.engine.paged.pages import num_pages_for
from pipeline.pictures import encode_webp
from pipeline.twig.drive import Backends, Given, Rollout, drive
from pipeline.twig.programs import PROGRAMS, Running, Settings
from pipeline.twig.requests import Answer, Picture, Request, Text, Visual
from pipeline.twig.templates import TemplatePack, read_pack
from schemas.config import Program, ReflectionConfig, SamplingConfig, ScheduleConfig
from schemas.errors import InputError, RecordFailure
from schemas.trace import Role
from tests.conformance import Scripted
from tests.engines import (
    Judge,
    Unruly,
    answered,
    collect,
    drawing,
    drawn_twice,
    engine_with,
    in_order,
    load_small,
    look,
    many_requests,
    question,
    sampled,
    tokens_of,
)
from tests.support import fake_method

BURST = 6  # the engine's own; part of its arithmetic


def short_pack(system: str) -> TemplatePack:
    text = f"""
    name = "short"
    {system}
    [questions]
    schedule = "Cut {{prompt}} into {{num_regions}}."
    think_first = "{{prompt}} {{region_number}}?"
    think_next = "{{prompt}}[[, {{previous}}]]: {{region_number}}?"
    reflect = "{{prompt}}[[: {{thought}}]]?"
    ask_again = "Again."
    """
    return read_pack(text, origin="this test")


PACKS = [short_pack('system = "See."'), short_pack("")]  # the second one with Janus's own


@pytest.fixture(scope="module")
def judge(small_folder: Path) -> Iterator[Judge]:
    """One for all tests here: what it let pass as near ties must be few."""
    judge = Judge(load_small(small_folder))
    yield judge
    assert judge.num_near_ties <= max(1, judge.num_tokens / 10_000)


def differences(judge: Judge, engine: Engine, *requests: Request) -> list[str]:
    return judge.differences(zip(requests, answered(engine, *requests), strict=True))


def assert_nothing_is_held(engine: Engine) -> None:
    engine.forget()
    assert engine.num_free_pages == engine.num_pages


# The judge


def test_the_judge_tells_a_near_tie_from_a_difference(small_folder: Path):
    janus = load_small(small_folder)
    judge = Judge(janus)
    right = judge.expected(drawing())
    wrong = replace(right, codes=((right.codes[0] + 1) % 256, *right.codes[1:]))

    assert judge.differences([(drawing(), right)]) == []
    assert judge.differences([(drawing(), wrong)]) != []
    assert judge.num_near_ties == 0

    for weight in janus.model.model.generation_head.parameters():
        weight.data.zero_()  # every code is as good as any other
    judge = Judge(janus)

    assert judge.differences([(drawing(), wrong)]) == []
    assert judge.num_near_ties == 1


@pytest.mark.parametrize(
    "change",
    [
        {"token_ids": ()},
        {"prefix_ids": (1, 2)},
        {"text": "something else"},
        {"finish": None},
        {"logp_sample": None},
        {"logp_cond": (0.0,) * 12},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_judge_looks_at_every_field(judge: Judge, change: dict[str, Any]):
    request = question("x", **sampled(5))

    assert judge.differences([(request, replace(judge.expected(request), **change))]) != []


# Equality


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Some rollouts of one record."""

    program: Program
    prompt: str
    num_regions: int
    schedule: str
    max_revisions: int
    on_unparseable: str
    sampling: SamplingConfig
    pack: TemplatePack
    num_rollouts: int


sampling_configs = st.builds(
    SamplingConfig,
    cfg_weight=st.sampled_from([0.0, 1.0, 2.5, 5.0]),
    image_temperature=st.sampled_from([0.0, 1.0]),
    text_temperature=st.sampled_from([0.0, 0.7, 1.0, 1.5]),
    text_top_p=st.sampled_from([0.3, 0.9, 1.0]),
    max_text_tokens=st.sampled_from([1, 5, BURST, 9]),
    with_logp=st.booleans(),
)
plans = st.builds(
    Plan,
    program=st.sampled_from(Program),
    prompt=st.text("abcdefgh ", max_size=60),
    num_regions=st.integers(1, 4),
    schedule=st.sampled_from(["equal", "adaptive"]),
    max_revisions=st.integers(0, 2),
    on_unparseable=st.sampled_from(["keep", "ask_again"]),
    sampling=sampling_configs,
    pack=st.sampled_from(PACKS),
    num_rollouts=st.integers(1, 2),
)
verdicts = st.builds(
    lambda accept, improved: {"accept": accept, "improved": improved},
    accept=st.booleans(),
    improved=st.sampled_from(["", "a redder cube", "a cube " * 8]),  # "" cannot be used
)
engine_limits = st.fixed_dictionaries(
    {"max_rows": st.sampled_from([2, 3, 5, 64]), "num_pages": st.sampled_from([32, 64, 255])}
)


def program_of(plan: Plan, small: Janus) -> Running:
    method = fake_method(
        program=plan.program,
        schedule=ScheduleConfig(kind=plan.schedule, num_regions=plan.num_regions),
        reflection=ReflectionConfig(
            max_revisions=plan.max_revisions, on_unparseable=plan.on_unparseable
        ),
        sampling=plan.sampling,
    )
    wanted = Settings(method=method, pack=plan.pack, geometry=small.geometry)
    return PROGRAMS[plan.program](plan.prompt, wanted)


@settings(max_examples=20, deadline=None)
@given(
    mix=st.lists(plans, min_size=1, max_size=3),
    said=st.lists(verdicts, max_size=8),
    limits=engine_limits,
    seed=st.integers(0, 2**32),
    max_live=st.integers(1, 8),
)
def test_whatever_programs_ask_for_is_answered_as_by_the_reference(
    small: Janus,
    judge: Judge,
    mix: list[Plan],
    said: list[dict[str, Any]],
    limits: dict[str, int],
    seed: int,
    max_live: int,
):
    engine = engine_with(small, **limits)
    critic = Scripted(Unruly(engine, random.Random(seed)), said)
    rollouts = [
        Rollout(
            record_id=f"record {number}",
            rollout_index=index,
            run_seed=seed,
            program=program_of(plan, small),
        )
        for number, plan in enumerate(mix)
        for index in range(plan.num_rollouts)
    ]
    backends = Backends({"engine": critic}, dict.fromkeys(Role, "engine"))

    outcomes = list(drive(Given(rollouts), backends, max_live=max_live))

    assert [outcome.error for outcome in outcomes] == [None] * len(rollouts)
    assert {len(outcome.codes) for outcome in outcomes} == {16}
    assert judge.differences(critic.calls) == []
    assert_nothing_is_held(engine)


codes = st.integers(0, 255)
chances = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, 0.5, 1.0, 2.0]),
        "seed": st.integers(0, 2**64 - 1),
        "with_logp": st.booleans(),
    }
)
words = st.text("abc ", max_size=70)
pictures = st.sampled_from([(), (7,), (9, 8, 7, 6), tuple(range(50, 66))])
sayings = st.builds(
    lambda text, shown, top_p, max_tokens, chance: look(
        text, *shown, top_p=top_p, max_tokens=max_tokens, **chance
    ),
    text=words,
    shown=st.lists(pictures, max_size=2),
    top_p=st.sampled_from([0.2, 0.9, 1.0]),
    max_tokens=st.sampled_from([1, 7, 8, 9, 17]),
    chance=chances,
)
drawings = st.builds(
    lambda text, codes, num_tokens, cfg_weight, chance: drawing(
        text, codes=codes, num_tokens=num_tokens, cfg_weight=cfg_weight, **chance
    ),
    text=words,
    codes=pictures,
    num_tokens=st.integers(1, 10),
    cfg_weight=st.sampled_from([0.0, 1.0, 3.0, 7.5]),
    chance=chances,
)


@settings(max_examples=30, deadline=None)
@given(
    requests=st.lists(sayings | drawings, min_size=1, max_size=10),
    limits=engine_limits,
    seed=st.integers(0, 2**32),
)
def test_any_requests_in_any_order_are_answered_as_by_the_reference(
    small: Janus, judge: Judge, requests: list[Request], limits: dict[str, int], seed: int
):
    engine = engine_with(small, **limits)

    answers = answered(Unruly(engine, random.Random(seed)), *requests)

    assert judge.differences(zip(requests, answers, strict=True)) == []
    assert_nothing_is_held(engine)


@pytest.mark.parametrize("max_rows", [2, 5, 64])
def test_the_arithmetic_for_gpus_answers_as_the_reference_does(
    small: Janus, judge: Judge, monkeypatch: pytest.MonkeyPatch, max_rows: int
):
    # The interpreted kernel would take minutes; it has its own tests.
    monkeypatch.setattr(
        "pipeline.engine.paged.cuda.choose_attention", lambda _: paged_attention_plain
    )
    engine = engine_with(small, max_rows=max_rows, strict=False)
    requests = many_requests()

    answers = answered(Unruly(engine, random.Random(max_rows)), *requests)

    assert judge.differences(zip(requests, answers, strict=True)) == []
    assert_nothing_is_held(engine)


def test_a_picture_from_a_file_is_seen_as_by_the_reference(small: Janus, judge: Judge):
    engine = engine_with(small)
    (pixels,) = engine.paint([(9, 8, 7)])
    request = replace(look(**sampled(1)), pictures=(Picture(encode_webp(pixels)),))

    assert differences(judge, engine, request) == []


# Chances


def test_a_revision_from_an_unchanged_thought_is_another_drawing(small: Janus):
    first, again = drawn_twice(engine_with(small))

    assert first != again
    assert drawn_twice(engine_with(small)) == (first, again)


# Accounts


def num_pages_of(answer: Answer, request: Request) -> int:
    """What a request needs for itself alone, its last burst to the end."""
    if isinstance(request, Visual):
        wanted = len(request.codes) + request.num_tokens
        return 2 * num_pages_for(len(answer.prefix_ids) + wanted + BURST)
    assert isinstance(request, Text)
    return num_pages_for(len(answer.prefix_ids) + request.max_tokens + BURST)


@pytest.mark.parametrize("request_", many_requests(), ids=range(len(many_requests())))
def test_a_request_that_just_fits_is_answered_and_with_a_page_less_it_fails(
    small: Janus, judge: Judge, request_: Request
):
    num_pages = num_pages_of(judge.expected(request_), request_)
    enough = engine_with(small, num_pages=num_pages, max_rows=2)
    too_few = engine_with(small, num_pages=num_pages - 1, max_rows=2)

    (failure,) = answered(too_few, request_)

    assert differences(judge, enough, request_) == []
    assert_nothing_is_held(enough)
    assert isinstance(failure, RecordFailure)
    assert failure.reason == "too_long"
    assert f"need {num_pages} pages" in str(failure)


def test_requests_take_turns_where_there_is_room_for_one(small: Janus, judge: Judge):
    requests = many_requests()
    num_pages = max(num_pages_of(judge.expected(request), request) for request in requests)
    engine = engine_with(small, num_pages=num_pages)

    assert differences(judge, engine, *requests) == []
    assert_nothing_is_held(engine)


def test_failing_requests_do_not_disturb_others(small: Janus, judge: Judge):
    engine = engine_with(small)
    wide = Picture(encode_webp(np.zeros((8, 16, 3), dtype=np.uint8)))
    failing: dict[str, Request] = {
        "too_long": question(max_tokens=small.max_positions),
        "picture_size": replace(look(), pictures=(wide,)),
    }
    good = many_requests()

    answers = answered(engine, *good[:8], *failing.values(), *good[8:])

    for reason, failure in zip(failing, answers[8:10], strict=True):
        assert isinstance(failure, RecordFailure)
        assert failure.reason == reason
    assert judge.differences(zip(good, answers[:8] + answers[10:], strict=True)) == []
    assert_nothing_is_held(engine)


def test_a_request_may_fill_the_model_to_the_last_position(small: Janus, judge: Judge):
    length = len(judge.expected(drawing()).prefix_ids)
    room = small.max_positions - length - 1
    engine = engine_with(small, num_pages=600)

    fits, failure = answered(
        engine,
        drawing(codes=(7,) * room, num_tokens=1),
        drawing(codes=(7,) * (room + 1), num_tokens=1),
    )

    assert len(tokens_of(fits)) == 1
    assert isinstance(failure, RecordFailure)
    assert f"the model holds {small.max_positions}" in str(failure)


@pytest.mark.parametrize("limits", [{"max_rows": 1}, {"kv_bytes": 1000}, {"kv_bytes": 0}], ids=str)
def test_an_engine_without_room_for_anything_is_refused(small: Janus, limits: dict[str, int]):
    with pytest.raises(InputError, match="give at least 2 rows and more memory"):
        Engine(small, **limits)


@pytest.mark.parametrize("is_strict", [True, False])
def test_an_engine_that_nobody_holds_gives_its_memory_back_at_once(small: Janus, is_strict: bool):
    engine = engine_with(small, strict=is_strict)
    held = weakref.ref(engine)

    gc.disable()
    del engine
    is_gone = held() is None
    gc.enable()

    assert is_gone


def test_an_endless_stream_is_answered_as_it_flows(small: Janus, judge: Judge):
    engine = engine_with(small, max_rows=5, num_pages=40)
    stream = iter(many_requests() * 8)
    asked: list[Request] = []
    answers: dict[int, Any] = {}
    waited: list[int] = []

    def ask(num_requests: int) -> None:
        for request in (next(stream) for _ in range(num_requests)):
            engine.submit(len(asked), request)
            asked.append(request)

    ask(8)
    while len(answers) < 120:
        fresh = dict(engine.poll())
        assert not fresh.keys() & answers.keys()
        answers |= fresh
        waited += [len(answers) - request_id for request_id in fresh]
        ask(min(len(fresh), 128 - len(asked)))
    answers |= collect(engine, len(asked) - len(answers))

    assert judge.differences(zip(asked, in_order(answers), strict=True)) == []
    assert max(waited) <= 8  # no one is left behind while later ones are answered
    assert_nothing_is_held(engine)


# What is asked twice


LONG = question("Who is it?")  # takes two bursts


def test_a_greedy_question_asked_again_is_answered_without_a_step(small: Janus):
    engine = engine_with(small)
    (answer,) = answered(engine, LONG)

    engine.submit(1, LONG)
    assert engine.poll() == [(1, answer)]

    engine.forget()
    engine.submit(2, LONG)
    assert engine.poll() == []
    assert collect(engine, 1) == {2: answer}


def test_a_question_asked_while_the_same_is_at_work_is_answered_with_it(small: Janus):
    engine = engine_with(small)
    engine.submit(0, LONG)
    engine.submit(1, LONG)
    assert engine.poll() == []
    engine.submit(2, LONG)

    told = dict(engine.poll())

    assert sorted(told) == [0, 1, 2]
    assert len(set(told.values())) == 1


def test_who_waits_for_anothers_answer_gets_it_even_if_all_is_forgotten_meanwhile(small: Janus):
    engine = engine_with(small)
    engine.submit(0, LONG)
    engine.submit(1, LONG)
    assert engine.poll() == []

    engine.forget()

    answers = collect(engine, 2)
    assert answers[0] == answers[1]


def test_forgetting_at_any_time_changes_no_answer(small: Janus, judge: Judge):
    requests = many_requests()
    engine = engine_with(small, max_rows=5)
    answers: dict[int, Any] = {}
    for request_id, request in enumerate(requests):
        engine.submit(request_id, request)
        answers |= dict(engine.poll())
        engine.forget()
    answers |= collect(engine, len(requests) - len(answers))

    assert judge.differences(zip(requests, in_order(answers), strict=True)) == []
    assert_nothing_is_held(engine)
