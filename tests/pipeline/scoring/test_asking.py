"""Asking a scorer: memory that does not suffice, code that fails, and what is no score."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.scoring.asking import ask, cell_of
from pipeline.scoring.scorers import Score, ScoringInput
from schemas.errors import InputError
from schemas.scores import COLUMN_TYPES, scores_schema

INPUTS = [ScoringInput(prompt=f"prompt {number}") for number in range(7)]
BOX = {"label": "cat", "score": 0.5, "x0": 0, "y0": np.float32(1), "x1": 2.5, "y1": 3}


class Own:
    """A scorer of a user's."""

    name, version = "own", "1"
    subjects = frozenset({"trace"})
    needs_pictures = False
    columns = {"value": "float32"}  # noqa: RUF012

    def __init__(self, most: int = 100, error: BaseException | None = None) -> None:
        self.most, self.error = most, error
        self.sizes: list[int] = []

    def score(self, batch: Sequence[ScoringInput]) -> list[Score]:
        if len(batch) > self.most:
            raise self.error or torch.OutOfMemoryError("CUDA out of memory")
        self.sizes.append(len(batch))
        return [Score(value=float(scoring_input.prompt[-1])) for scoring_input in batch]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no"), MemoryError()])
def test_where_memory_does_not_suffice_half_is_asked_about_at_a_time(error: Exception):
    scorer = Own(most=2, error=error)

    assert [score.value for score in ask(scorer, INPUTS)] == list(range(7))
    assert scorer.sizes == [1, 2, 2, 2]


def test_a_picture_that_does_not_fit_alone_is_told():
    with pytest.raises(InputError, match=r"own@1 needs more memory than there is.*'prompt 0'"):
        ask(Own(most=0), INPUTS)


def test_code_that_fails_is_told_with_its_line():
    with pytest.raises(InputError, match=r"own@1 failed \(KeyError: 'x' \(test_asking.py line \d"):
        ask(Own(most=0, error=KeyError("x")), INPUTS)


def test_code_that_ends_the_process_is_told():
    with pytest.raises(InputError, match="own@1 failed \\(SystemExit: 0"):
        ask(Own(most=0, error=SystemExit(0)), INPUTS)


@pytest.mark.parametrize("given", [0.5, None, {"value": 1.0}, "good"])
def test_what_is_no_score_is_told(given: Any):
    scorer = Own()
    scorer.score = lambda batch: [given for _ in batch]  # type: ignore[method-assign]
    with pytest.raises(InputError, match=r"own@1 gave .*expected a coppice.Score"):
        ask(scorer, INPUTS)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("float32", 0.5),
        ("float32", np.float64(0.5)),
        ("float32", 3),
        ("float32", True),
        ("uint64", 2**64 - 1),
        ("uint64", np.uint64(3)),
        ("string", "a dog\x00\u202e"),
        ("string", ""),
        ("boxes", []),
        ("boxes", [BOX, BOX | {"score": None}]),
        ("boxes", (BOX,)),
    ],
)
def test_each_kind_of_column_keeps_its_values_and_null(kind: Any, value: Any):
    schema = scores_schema({"own": kind})
    for given in (value, None):
        cell = cell_of(kind, given)
        row = {"trace_id": "t", "event": None, "tokens": "", "own": cell}
        (kept,) = pa.Table.from_pylist([row], schema=schema)["own"].to_pylist()
        assert kept == (list(given) if isinstance(given, tuple) else given)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("float32", "0.5"),
        ("float32", float("nan")),
        ("float32", 1e39),
        ("float32", [0.5]),
        ("float32", 1 + 2j),
        ("uint64", -1),
        ("uint64", 2**64),
        ("uint64", 0.5),
        ("string", 3),
        ("string", b"bytes"),
        ("string", "\ud800"),
        ("boxes", 3),
        ("boxes", "cat"),
        ("boxes", [3]),
        ("boxes", {"label": "cat"}),
        ("boxes", [{"label": "cat"}]),
        ("boxes", [BOX | {"x0": float("inf")}]),
        ("boxes", [BOX | {"x0": None}]),
        ("boxes", [BOX | {"label": None}]),
        ("boxes", [BOX | {"colour": "red"}]),
    ],
)
def test_a_value_of_another_kind_is_refused_with_what_was_expected(kind: Any, value: Any):
    with pytest.raises(ValueError, match=r"number|text|box"):
        cell_of(kind, value)


def test_every_kind_has_a_test_and_a_type():
    assert set(COLUMN_TYPES) == {"float32", "uint64", "string", "boxes"}
    for kind in COLUMN_TYPES:
        scores_schema({"own": kind})  # type: ignore[dict-item]
