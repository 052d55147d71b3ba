"""Reads evaluation sets as they are published: whatever form prompt files have, by name, by glob,
or all that a folder holds.

A line that is left out hides its leaks, so a file that yields no prompts is refused, and so is a
line that is none.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from pipeline.plan.prompt_files import read_rows
from pipeline.plan.prompt_rows import ReadOptions
from pipeline.plan.prompt_sources import PromptFile, find_files
from pipeline.prompts.leaks import EvaluationPrompt, EvaluationSet, LeakIndex, LeakLevel
from schemas.errors import InputError
from schemas.prompts import Reject

COLUMN_OPTION = "--evaluation-column"
"""The option of commands that names the column of prompts in these files."""

_AS_IT_IS = ReadOptions()
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationFile:
    """The prompts of one file, and the SHA-256 of its bytes."""

    name: str
    digest: str
    prompts: tuple[EvaluationPrompt, ...]


def read_evaluation_files(
    sources: Sequence[str], options: ReadOptions = _AS_IT_IS
) -> list[EvaluationFile]:
    """Every file of the sources, each once.

    The column of prompts is the one that the options name, or else the obvious one. Blank lines
    count for nothing. Raises InputError for a file that has no prompts or a line that is none.
    """
    reading = replace(
        options,
        or_obvious=True,
        option=COLUMN_OPTION,
        dropped_columns=frozenset(),
        fold_newlines=True,
        is_text_only=True,
    )
    files = {file.source: file for source in sources for file in _files_of(source)}
    return [_read(file, reading) for file in files.values()]


def read_evaluation_set(
    sources: Sequence[str], levels: Sequence[str], column: str | None = None
) -> EvaluationSet:
    """All files of the sources as one set; `levels` are those that count as leaks, and `column` is
    that of prompts, where it is not the obvious one.
    """
    files = read_evaluation_files(sources, ReadOptions(prompt_column=column))
    counted = tuple(level.name for level in LeakLevel if level.name in levels) if files else ()
    return EvaluationSet(
        levels=counted,
        index=LeakIndex(prompt for file in files for prompt in file.prompts),
        digests=_digests(files),
    )


def _files_of(source: str) -> list[PromptFile]:
    """A folder is all files in it that have a form of prompts, such as one a prompt."""
    if source.startswith("s3://") or not os.path.isdir(source):
        return find_files(source)
    paths = sorted(
        os.path.join(folder, name) for folder, _, names in os.walk(source) for name in names
    )
    files = [file for path in paths for file in _if_known(path)]
    if not files:
        raise InputError(
            f"the folder {source} holds no evaluation prompts; give one with .txt, .jsonl, .csv, "
            ".tsv, .json or .parquet files, or a file"
        )
    return files


def _if_known(path: str) -> Iterable[PromptFile]:
    try:
        return find_files(path)
    except InputError:
        return ()


def _read(file: PromptFile, reading: ReadOptions) -> EvaluationFile:
    rows, rejects = read_rows([file.source], skip_bad=True, options=reading)
    _check_all_are_prompts([bad for bad in rejects if bad.text.strip()])
    return EvaluationFile(
        name=file.name,
        digest=_digest(file),
        prompts=tuple(
            EvaluationPrompt(text=row.text, file=row.source, line=row.line) for row in rows
        ),
    )


def _check_all_are_prompts(rejects: Sequence[Reject]) -> None:
    if rejects:
        bad = rejects[0]
        lines = "1 unusable line" if len(rejects) == 1 else f"{len(rejects):,} unusable lines"
        raise InputError(
            f"expected only prompts in the evaluation files, found {lines}, first "
            f"{bad.source}:{bad.line}: {bad.reason}; mend them, since no leak of a line left out "
            "can be found"
        )


def _digest(file: PromptFile) -> str:
    digest = hashlib.sha256()
    with file.open() as opened:
        opened.raw.seek(0)
        while chunk := opened.raw.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _digests(files: Sequence[EvaluationFile]) -> dict[str, str]:
    """By the names without their folders, so that a set does not depend on where files lie; names
    of several contents have the begin of their digest behind them.
    """
    contents: dict[str, set[str]] = {}
    for file in files:
        contents.setdefault(PurePosixPath(file.name).name, set()).add(file.digest)
    return {
        name if len(digests) == 1 else f"{name} ({digest[:8]})": digest
        for name, digests in contents.items()
        for digest in sorted(digests)
    }
