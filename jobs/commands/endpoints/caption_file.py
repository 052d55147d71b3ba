"""The file that `coppice caption` writes: a line a prompt, added as they come, kept when killed.

A line is whole or not there. What another command wrote is never touched: it is told by its lines,
each of which names the prompt, the model and a digest of all that its thoughts depend on.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pipeline.plan.thoughts import THOUGHTS_COLUMN
from schemas.errors import DriverAlive, InputError
from schemas.json_values import JsonObject, read_json_object
from schemas.prompts import Prompt

MODEL_COLUMN, METHOD_COLUMN = "model", "thoughts_by"
OWN_COLUMNS = ("prompt", THOUGHTS_COLUMN, MODEL_COLUMN, METHOD_COLUMN)
"""A line's, before those that the prompt file had."""


class CaptionFile:
    """One open file of thoughts, which nobody else writes meanwhile."""

    def __init__(self, file: IO[bytes], *, model: str, method: str) -> None:
        self._file = file
        self._model, self._method = model, method

    def add(self, prompt: Prompt, thoughts: Sequence[str]) -> None:
        """Add a line."""
        row: JsonObject = {
            "prompt": prompt.text,
            THOUGHTS_COLUMN: list(thoughts),
            MODEL_COLUMN: self._model,
            METHOD_COLUMN: self._method,
            **prompt.metadata,
        }
        self._file.write(_as_line(row))
        self._file.flush()


@contextmanager
def opened_captions(
    path: Path, prompts: Sequence[Prompt], *, model: str, method: str
) -> Iterator[tuple[CaptionFile, set[str]]]:
    """The file, to add to, and the prompts that it has thoughts of already.

    Half a line at its end, of a command that was killed, is cut off. Raises InputError for a file
    that holds anything else than thoughts of these prompts by this model and method, and
    DriverAlive while another command writes it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; give another") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DriverAlive(
                f"another coppice caption writes {path}; wait for it, or give another file"
            ) from error
        file.seek(0)
        wanted = {prompt.text: prompt for prompt in prompts}
        *lines, torn = file.read().split(b"\n")
        done = {
            _checked(path, number, line, wanted, model=model, method=method)
            for number, line in enumerate(lines, start=1)
        }
        if torn:
            _check_torn(path, len(lines) + 1, torn, wanted)
            file.truncate(sum(len(line) + 1 for line in lines))
        yield CaptionFile(file, model=model, method=method), done
        os.fsync(file.fileno())


def _checked(
    path: Path, number: int, line: bytes, wanted: Mapping[str, Prompt], *, model: str, method: str
) -> str:
    """The prompt of a line that this command could have written."""
    try:
        row = read_json_object(line)
    except ValueError:
        row = {}
    prompt = row.get("prompt")
    if not isinstance(prompt, str) or prompt not in wanted:
        raise _foreign(path, number, "it is no line about one of these prompts")
    if row.get(METHOD_COLUMN) != method:
        by = row.get(MODEL_COLUMN)
        raise _foreign(path, number, f"its thoughts are by {by!r:.60}, or were asked for otherwise")
    own: JsonObject = {name: row[name] for name in OWN_COLUMNS if name in row}
    if row != {**own, **wanted[prompt].metadata}:
        raise _foreign(path, number, "its other columns are not those of the prompt file")
    return prompt


def _check_torn(path: Path, number: int, torn: bytes, wanted: Mapping[str, Prompt]) -> None:
    """That half a line is half of one of ours."""
    heads = (_as_line({"prompt": text, THOUGHTS_COLUMN: []}).rstrip(b"]}\n") for text in wanted)
    if not any(head.startswith(torn[: len(head)]) for head in heads):
        raise _foreign(path, number, "it is no line about one of these prompts")


def _foreign(path: Path, number: int, reason: str) -> InputError:
    return InputError(
        f"{path}:{number} was not written by this command: {reason}; nothing was changed. Give "
        "another file to write to, or the command that the file was begun with"
    )


def _as_line(row: JsonObject) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"
