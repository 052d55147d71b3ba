"""The engine against itself, to the bit: tokens and log-probabilities, whatever happens around."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.checkpoints import Janus
from pipeline.engine.paged.attention import ATTENTION
from pipeline.twig.requests import Request
from tests.engines import (
    Unruly,
    answered,
    collect,
    drawing,
    engine_with,
    in_order,
    look,
    many_requests,
    question,
    sampled,
)

REQUESTS = many_requests()


@pytest.fixture(scope="module")
def alone(small: Janus) -> list[Any]:
    """The answers to `REQUESTS`, each in an engine of its own that has just enough rows."""
    return [answered(engine_with(small, max_rows=2), request)[0] for request in REQUESTS]


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@settings(max_examples=15, deadline=None)
@given(
    order=st.permutations(range(len(REQUESTS))),
    max_rows=st.sampled_from([2, 3, 5, 17, 64]),
    num_pages=st.sampled_from([16, 25, 60, 255]),
    seed=st.integers(0, 2**32),
    is_forgetful=st.booleans(),
)
def test_answers_depend_neither_on_mates_and_order_nor_on_rows_and_memory(
    small: Janus,
    alone: list[Any],
    order: list[int],
    max_rows: int,
    num_pages: int,
    seed: int,
    is_forgetful: bool,
):
    engine = engine_with(small, max_rows=max_rows, num_pages=num_pages)
    unruly = Unruly(engine, random.Random(seed))
    answers: dict[int, Any] = {}
    for index in order:
        unruly.submit(index, REQUESTS[index])
    while len(answers) < len(REQUESTS):
        answers |= dict(unruly.poll())
        if is_forgetful:
            engine.forget()

    assert in_order(answers) == alone


def crowd(size: int) -> Iterator[Request]:
    """Mates of every length, some of whom share a picture."""
    for n in range(size):
        text = "word " * (n % 23)
        yield [
            question(text, **sampled(n)),
            look(text, (n % 5,), max_tokens=5, **sampled(n)),
            drawing(text, num_tokens=n % 16 + 1, **sampled(n)),
        ][n % 3]


def among(small: Janus, size: int) -> list[Any]:
    """The answers to `REQUESTS`, given in the middle of a crowd."""
    engine = engine_with(small, max_rows=256, num_pages=4000)
    mates = list(crowd(size))
    for mate_id, mate in enumerate(mates[: size // 2], start=len(REQUESTS)):
        engine.submit(mate_id, mate)
    early = dict(engine.poll())
    for request_id, request in enumerate(REQUESTS):
        engine.submit(request_id, request)
    for mate_id, mate in enumerate(mates[size // 2 :], start=len(REQUESTS) + size // 2):
        engine.submit(mate_id, mate)
    answers = early | collect(engine, len(REQUESTS) + size - len(early))
    return in_order(answers)[: len(REQUESTS)]


def test_answers_are_alike_among_hundreds(small: Janus, alone: list[Any]):
    assert among(small, 300) == alone


@pytest.mark.usefixtures("two_threads")
def test_answers_are_alike_with_two_threads(small: Janus, alone: list[Any]):
    assert among(small, 60) == alone


def test_a_prefix_found_in_the_cache_gives_what_a_computed_one_does(small: Janus):
    questions = [look(f"{n}?" * n, (1, 2, 3), (4, 5), **sampled(n)) for n in range(1, 9)]
    engine, forgetful = engine_with(small), engine_with(small)

    hit = answered(engine, *questions)
    missed = []
    for request in questions:
        missed += answered(forgetful, request)
        forgetful.forget()

    assert engine.num_free_pages < forgetful.num_free_pages  # it kept something to be found
    assert hit == missed
    assert answered(engine, *questions[::-1]) == missed[::-1]


def test_a_longer_padding_made_later_changes_nothing(small: Janus):
    short, long = drawing("a cube", **sampled(1)), drawing("a cube " * 30, **sampled(2))
    engine, forgetful = engine_with(small), engine_with(small)

    grown = answered(engine, short) + answered(engine, long) + answered(engine, short)
    fresh = answered(forgetful, short)
    forgetful.forget()
    fresh += answered(forgetful, long)

    assert grown == [*fresh, fresh[0]]


def test_two_engines_on_one_model_do_not_meet(small: Janus, alone: list[Any]):
    first, second = engine_with(small, max_rows=5), engine_with(small)
    for request_id, request in enumerate(REQUESTS):
        first.submit(request_id, request)
        second.submit(request_id, request)
    answers: tuple[dict[int, Any], dict[int, Any]] = ({}, {})
    while min(map(len, answers)) < len(REQUESTS):
        for mine, engine in zip(answers, (first, second), strict=True):
            mine |= dict(engine.poll())

    assert small.model.config.text_config._attn_implementation == ATTENTION
    assert [in_order(mine) for mine in answers] == [alone, alone]
