"""Asking a scorer, whose code may be nearly right: what it says is checked, and why it failed is
told in a sentence.
"""

import gc
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.scoring.find import describe_failure
from pipeline.scoring.scorers import Score, Scorer, ScoringInput, id_of
from schemas.errors import CoppiceError, InputError
from schemas.rows import BoxRow, ScoreValue
from schemas.scores import BOX, ColumnType

_MOST = float(np.finfo(np.float32).max)  # as which scores are kept


def ask(scorer: Scorer, inputs: Sequence[ScoringInput]) -> list[Score]:
    """What the scorer says of the inputs, in order; of none nothing.

    Where its memory does not suffice, it is asked again about half at a time. Raises InputError for
    a scorer that fails.
    """
    if not inputs:
        return []
    try:
        scores = list(scorer.score(inputs))
    except CoppiceError:
        raise
    except (Exception, SystemExit) as error:  # whatever the code of a user's does
        if not is_out_of_memory(error) or len(inputs) == 1:
            raise _failed(scorer, inputs, error) from error
    else:
        return _checked(scorer, scores)
    gc.collect()  # beyond the except: the error holds the frames, and they the tensors
    middle = len(inputs) // 2
    return ask(scorer, inputs[:middle]) + ask(scorer, inputs[middle:])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU, or this process, had too little memory."""
    torch = sys.modules.get("torch")
    return isinstance(error, MemoryError) or (
        torch is not None and isinstance(error, torch.OutOfMemoryError)
    )


def cell_of(kind: ColumnType, value: ScoreValue) -> ScoreValue:
    """What a scorer gave as a column of this kind keeps it. Raises ValueError that tells what was
    expected.
    """
    if value is None:
        return None
    if kind == "float32":
        return _number(value, "a finite number")
    if kind == "uint64":
        if isinstance(value, int | np.integer) and 0 <= int(value) < 2**64:
            return int(value)
        raise ValueError("a whole number of 64 bits without a sign")
    if kind == "string":
        if isinstance(value, str):
            return _text(value)
        raise ValueError("text")
    return [_box(box) for box in _boxes(value)]


def _number(value: "ScoreValue | np.generic", expected: str) -> float | int:
    """An int or float, numpy's or Python's, that float32 can hold."""
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, int | float) or not abs(value) <= _MOST:
        raise ValueError(expected)
    return value


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError("text that UTF-8 can hold") from error
    return value


def _boxes(value: ScoreValue) -> Sequence[BoxRow]:
    if isinstance(value, str | int | float) or value is None:
        raise ValueError(f"a list of boxes, each with {', '.join(BOX.names)}")
    return value


def _box(box: BoxRow) -> BoxRow:
    expected = f"boxes with {', '.join(BOX.names)}: a label, a score or None, finite edges"
    if not isinstance(box, Mapping) or set(box) != set(BOX.names):
        raise ValueError(expected)
    label, score = box["label"], box["score"]
    if not isinstance(label, str):
        raise ValueError(expected)
    return {
        "label": _text(label),
        "score": None if score is None else _number(score, expected),
        "x0": _number(box["x0"], expected),
        "y0": _number(box["y0"], expected),
        "x1": _number(box["x1"], expected),
        "y1": _number(box["y1"], expected),
    }


def _checked(scorer: Scorer, scores: Sequence[Score]) -> list[Score]:
    for score in scores:
        if not isinstance(score, Score):
            raise InputError(
                f"{id_of(scorer)} gave {score!r:.60}; expected a coppice.Score for each sample: "
                "mend the scorer, and score again"
            )
    return list(scores)


def _failed(scorer: Scorer, inputs: Sequence[ScoringInput], error: BaseException) -> BaseException:
    """What to say of a scorer that failed. A bundled one is a bug of ours: with its traceback."""
    if type(scorer).__module__.startswith("pipeline.") and not is_out_of_memory(error):
        return error
    what = "needs more memory than there is" if is_out_of_memory(error) else "failed"
    return InputError(
        f"{id_of(scorer)} {what} ({describe_failure(error)}) on {len(inputs)} samples, the first "
        f"of prompt {inputs[0].prompt!r:.100}; mend it, and score again"
    )
