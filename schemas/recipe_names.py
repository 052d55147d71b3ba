"""Names in recipes: of tasks and pools, and of who judges."""

import re

from schemas.errors import InputError
from schemas.scores import parse_scorer
from schemas.trace import Role

ROLES = (Role.THINK.value, Role.REFLECT.value, Role.DRAW.value)
JUDGE = "judge"
"""The scorer that a recipe's columns name for whoever judges: `judge.value`."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_TASK = re.compile(rf"(?:{'|'.join(ROLES)})(?:_[1-9]\d?)?")


def covers(pattern: str, task: str) -> bool:
    """Whether a task belongs to a pool: `draw` covers `draw_2`, and every pool itself."""
    return task == pattern or task.startswith(f"{pattern}_")


def judge_column(text: str) -> tuple[str, str]:
    """A scorer, as a name or pinned, and the column of it to go by. Raises ValueError.

    `hps@2.1` is its value; `toy.value` and `toy.sky` are columns of whatever version there is.
    """
    if "@" in text:
        pinned_name(text)
        return text, "value"
    name, dot, column = text.partition(".")
    if not _NAME.fullmatch(name) or (dot and not column):
        raise ValueError(
            f"{text!r:.100} judges nothing; expected a scorer (hps), one with its version (hps@1) "
            "or a column of one (toy.value)"
        )
    return name, column or "value"


def checked_tasks(tasks: tuple[str, ...]) -> tuple[str, ...]:
    """The tasks as they are: roles, or a region of one, counted from 1. Raises ValueError."""
    for task in tasks:
        if not _TASK.fullmatch(task):
            raise ValueError(f"{task!r} is no task; expected think, reflect or draw, or think_1")
    return tasks


def pinned_name(scorer: str) -> str:
    """The name of a scorer that is given with its version. Raises ValueError."""
    try:
        return parse_scorer(scorer).name
    except InputError as error:
        raise ValueError(str(error)) from error
