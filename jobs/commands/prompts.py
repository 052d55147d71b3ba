"""What `coppice prompts` does: prompt files in; out one file with specs, leaks set aside."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.commands.terminal import counted, printable
from pipeline.plan.prompt_files import read_rows
from pipeline.prompts.curated import (
    CuratedPrompt,
    CuratedSet,
    curate_prompts,
    hit_rows,
    leak_counts,
    report,
    spec_counts,
)
from pipeline.prompts.leaks import EvaluationPrompt, LeakIndex, LeakLevel, parse_levels
from schemas.errors import InputError
from schemas.specs import PromptOrigin

_LISTED = 5
_SHOWN_CHARACTERS = 70


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptsRequest:
    """What the user asked for, unchecked."""

    sources: list[str]
    out: Path
    against: list[str]
    keep_leaks: str
    hits: Path | None
    report: Path | None
    skip_bad: bool
    origin: PromptOrigin


def make_prompt_file(request: PromptsRequest, console: Console) -> None:
    """Read, curate, write, and say what came of it. Nothing is written unless all can be."""
    kept_levels = parse_levels(request.keep_leaks)
    hits = request.hits or (request.out.with_suffix(".hits.jsonl") if request.against else None)
    outputs = [path for path in (request.out, hits, request.report) if path]
    _check_outputs(request, outputs)
    rows, rejects = read_rows(request.sources, skip_bad=request.skip_bad)
    evaluation = _read_evaluation(request.against)
    curated = curate_prompts(rows, evaluation, drop=set(LeakLevel) - kept_levels, rejects=rejects)
    if not curated.kept:
        raise InputError(
            f"all {len(curated.dropped)} prompts are in the evaluation files as well, so none "
            "would be left; give other prompts, or keep levels with --keep-leaks"
        )
    has_evaluation = bool(request.against)
    rows_out = (
        found.to_row(has_evaluation=has_evaluation, origin=request.origin) for found in curated.kept
    )
    _write_lines(request.out, rows_out)
    if hits:
        _write_lines(hits, hit_rows(curated))
    if request.report:
        _write(request.report, json.dumps(report(curated), indent=2, ensure_ascii=False) + "\n")
    _describe(curated, console)
    for name, path in (("Prompts", request.out), ("Hits", hits), ("Report", request.report)):
        if path:
            _say(console, f"{name}: {path}")


def _check_outputs(request: PromptsRequest, outputs: list[Path]) -> None:
    if request.out.suffix != ".jsonl":
        raise InputError(
            f"{request.out}: expected a name that ends in .jsonl, which `coppice plan` reads"
        )
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise InputError("--out, --hits and --report must be different files")
    read = {Path(source).resolve() for source in (*request.sources, *request.against)}
    for path in outputs:
        if "://" in str(path) or str(path).startswith("s3:"):
            raise InputError(f"{path}: expected a local path; copy the file to S3 afterwards")
        if path.is_dir():
            raise InputError(f"{path} is a folder; give the name of a file in it")
        there = next(parent for parent in path.absolute().parents if parent.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise InputError(f"{path}: {there} is no folder that can be written to; give another")
        if path.resolve() in read:
            raise InputError(f"{path} is read as well; give another name to write to")


def _read_evaluation(files: list[str]) -> LeakIndex:
    if not files:
        return LeakIndex([])
    rows, rejects = read_rows(files, skip_bad=True)
    if rejects:
        bad = rejects[0]
        raise InputError(
            f"expected only prompts in the evaluation files, found "
            f"{counted(len(rejects), 'unusable line')}, first {bad.source}:{bad.line}: "
            f"{bad.reason}; mend them, since no leak of a line left out can be found"
        )
    return LeakIndex(
        EvaluationPrompt(text=row.text, file=row.source, line=row.line) for row in rows
    )


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    _write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _write(path: Path, text: str) -> None:
    """All of the file or none of it: a reader never finds half."""
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; give another") from error


def _describe(curated: CuratedSet, console: Console) -> None:
    lines = [
        f"Read {counted(curated.num_rows, 'prompt')}, {curated.num_duplicates:,} of them "
        f"duplicates: {len(curated.prompts):,} distinct."
    ]
    if curated.rejects:
        lines.append(f"Left out {counted(len(curated.rejects), 'unusable line')}.")
    if curated.num_evaluation:
        lines.append(_leak_line(curated))
    for line in lines:
        _say(console, line)
    console.print(_spec_table(curated.prompts))
    _list_cases(curated.prompts, console)
    _say(console, f"Wrote {counted(len(curated.kept), 'prompt')}.")


def _leak_line(curated: CuratedSet) -> str:
    levels = ", ".join(f"{level} {count:,}" for level, count in leak_counts(curated).items())
    num_tagged = sum(found.level is not None for found in curated.kept)
    return (
        f"Leaks into {counted(curated.num_evaluation, 'evaluation prompt')}: {levels}. "
        f"Dropped {len(curated.dropped):,}, tagged {num_tagged:,}."
    )


def _spec_table(prompts: list[CuratedPrompt]) -> Table:
    """By category: where the specs come from, and the share without an annotation."""
    table = Table(box=None)
    table.add_column("category")
    for name in ("prompts", "annotation", "parser", "none", "fallback"):
        table.add_column(name, justify="right")
    counts = spec_counts(prompts)
    total = {name: sum(row[name] for row in counts.values()) for name in _columns(counts)}
    for category, row in (*counts.items(), ("all", total)):
        num_prompts = sum(row.values())
        share = 1 - row["annotation"] / num_prompts
        cells = (num_prompts, row["annotation"], row["parser"], row["none"])
        table.add_row(Text(category), *(f"{cell:,}" for cell in cells), f"{share:.1%}")
    return table


def _columns(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    return list(next(iter(counts.values())))


def _list_cases(prompts: list[CuratedPrompt], console: Console) -> None:
    """Some prompts without a spec, and how many annotations were set aside."""
    unread = [found for found in prompts if found.unread]
    for found in unread[:_LISTED]:
        where = f"{found.prompt.source}:{found.prompt.line}"
        text = found.prompt.text[:_SHOWN_CHARACTERS]
        _say(console, f"No spec, {found.unread}: {where}: {text}")
    if len(unread) > _LISTED:
        _say(console, f"No spec: {len(unread) - _LISTED:,} more; --report lists them all.")
    if num_faults := sum(found.annotation_fault is not None for found in prompts):
        _say(
            console,
            f"{counted(num_faults, 'annotation')} did not fit and gave way to the parser; "
            "--report lists them.",
        )


def _say(console: Console, line: str) -> None:
    console.print(Text(printable(line)), soft_wrap=True)
