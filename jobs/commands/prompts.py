"""What `coppice prompts` does: prompt files in; out one file with specs, leaks set aside."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.table import Column

from jobs.commands.job_folder import check_outlives_job
from jobs.commands.plan import describe_left_behind
from jobs.commands.terminal import Terminal, counted
from pipeline.endpoints.chat import ChatRequest
from pipeline.endpoints.client import answered
from pipeline.endpoints.keys import key_of
from pipeline.endpoints.opening import open_client
from pipeline.plan.configs import read_config_file
from pipeline.plan.endpoints import endpoint_of
from pipeline.plan.evaluation_files import COLUMN_OPTION, read_evaluation_files
from pipeline.plan.prompt_files import read_prompt_rows
from pipeline.plan.prompt_rows import ReadOptions
from pipeline.prompts.asked import QUESTION, SPEC, is_beyond_the_parser, read_by_model
from pipeline.prompts.curated import (
    CuratedPrompt,
    CuratedSet,
    curate_prompts,
    hit_rows,
    leak_counts,
    report,
    spec_counts,
)
from pipeline.prompts.leaks import LeakIndex, LeakLevel, parse_levels
from pipeline.twig.requests import Message
from schemas.config import SamplingConfig
from schemas.endpoints import EndpointExecution, EndpointMethod
from schemas.errors import InputError
from schemas.json_values import JsonMapping
from schemas.prompts import Prompt
from schemas.specs import PromptOrigin

_LISTED = 5
_ANSWER_TOKENS = 2048
_SHOWN_CHARACTERS = 70
_SPEC_SOURCES = ("annotation", "parser", "model", "none")
_SPEC_COLUMNS = ("prompts", *_SPEC_SOURCES, "fallback")

KEPT_LEAKS = "L2,L3"  # where nothing is said


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptsRequest:
    """What the user asked for, unchecked."""

    sources: list[str]  # prompt files
    out: Path
    against: list[str]  # evaluation files
    keep_leaks: str  # levels, or none
    hits: Path | None  # None: beside `out`
    report: Path | None  # None: no report
    skip_bad: bool
    origin: PromptOrigin
    parse: str | None = None  # the endpoint that reads what the parser cannot
    config: str | None = None  # a TOML file that has it
    reading: ReadOptions = field(default_factory=ReadOptions)
    evaluation_column: str | None = None  # of prompts in evaluation files; None: as in the others


def make_prompt_file(request: PromptsRequest, terminal: Terminal) -> None:
    """Read, curate, write, and say what came of it.

    Nothing is written unless all can be: raises InputError.
    """
    kept_levels = parse_levels(request.keep_leaks)
    asks = (request.hits, request.evaluation_column, request.keep_leaks != KEPT_LEAKS)
    if not request.against and any(asks):
        raise InputError(
            f"--hits, {COLUMN_OPTION} and --keep-leaks are about evaluation files: name some, "
            "--against"
        )
    reader = _Reader.of(request)
    hits = request.hits or (request.out.with_suffix(".hits.jsonl") if request.against else None)
    outputs = [path for path in (request.out, hits, request.report) if path]
    _check_outputs(request, outputs)
    read = read_prompt_rows(request.sources, skip_bad=request.skip_bad, options=request.reading)
    _check_columns(read.rows)
    column = request.evaluation_column or request.reading.prompt_column
    files = read_evaluation_files(request.against, replace(request.reading, prompt_column=column))
    evaluation = LeakIndex(prompt for file in files for prompt in file.prompts)
    curated = curate_prompts(
        read.rows, evaluation, drop=set(LeakLevel) - kept_levels, rejects=read.rejects
    )
    if reader:
        curated = reader.read(curated)
    if not curated.kept:
        raise InputError(
            f"all of {counted(len(curated.dropped), 'distinct prompt')} are in the evaluation "
            "files as well, so none would be left; give other prompts, or keep levels with "
            "--keep-leaks"
        )
    has_evaluation = bool(request.against)
    _write_lines(
        request.out,
        (
            each.to_row(has_evaluation=has_evaluation, origin=request.origin)
            for each in curated.kept
        ),
    )
    if hits:
        _write_lines(hits, hit_rows(curated))
    if request.report:
        _write(request.report, json.dumps(report(curated), indent=2, ensure_ascii=False) + "\n")
    terminal.say(*_describe_counts(curated), *describe_left_behind(read.left_behind))
    terminal.say_table(
        ("category", *(Column(name, justify="right") for name in _SPEC_COLUMNS)),
        _spec_rows(curated.prompts),
    )
    terminal.say(*_describe_cases(curated.prompts))
    terminal.say(f"Wrote {counted(len(curated.kept), 'prompt')}.")
    for name, path in (("Prompts", request.out), ("Hits", hits), ("Report", request.report)):
        if path:
            terminal.say(f"{name}: {path}")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reader:
    """An endpoint that reads prompts which are beyond the parser."""

    name: str
    method: EndpointMethod
    execution: EndpointExecution

    @classmethod
    def of(cls, request: PromptsRequest) -> "_Reader | None":
        """Raises InputError for an endpoint, or a key of it, that is not there."""
        if request.parse is None:
            if request.config is not None:
                raise InputError("--config has endpoints; name one with --parse, or leave it out")
            return None
        tables = read_config_file(request.config) if request.config is not None else {}
        method, execution = endpoint_of(tables, request.parse)
        key_of(request.parse, execution)
        return cls(name=request.parse, method=method, execution=execution)

    def read(self, curated: CuratedSet) -> CuratedSet:
        """The set with this endpoint's specs. Raises InputError, EndpointAway."""
        if not any(map(is_beyond_the_parser, curated.prompts)):
            return curated
        sampling = SamplingConfig(with_logp=False, max_text_tokens=_ANSWER_TOKENS)
        client, facts = open_client(self.name, self.method, self.execution, sampling)

        def ask(prompts: Sequence[str]) -> list[str | None]:
            replies = client.ask_all(
                ChatRequest(
                    messages=(Message(role="user", text=QUESTION + prompt),),
                    temperature=0.0,
                    max_tokens=_ANSWER_TOKENS,
                    schema=SPEC if facts.binds_schema else None,
                    request_id=f"coppice-prompt-{number}",
                )
                for number, prompt in enumerate(prompts)
            )
            return [answer.text if answer else None for answer in map(answered, replies)]

        try:
            return read_by_model(curated, self.method.model, ask)
        finally:
            client.close()


def _check_outputs(request: PromptsRequest, outputs: list[Path]) -> None:
    check_outlives_job(*outputs)
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
        parent = next(folder for folder in path.absolute().parents if folder.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise InputError(f"{path}: {parent} is no folder that can be written to; give another")
        if path.resolve() in read:
            raise InputError(f"{path} is read as well; give another name to write to")


def _check_columns(rows: Iterable[Prompt]) -> None:
    """The file that is written calls its prompts `prompt`, whatever their column was called."""
    if taken := next((row for row in rows if "prompt" in row.metadata), None):
        raise InputError(
            f"{taken.source}:{taken.line}: expected no column `prompt` beside the one that "
            "--prompt-column names, since the new file's prompts are called so; "
            "leave it out with --drop-columns prompt"
        )


def _write_lines(path: Path, rows: Iterable[JsonMapping]) -> None:
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


def _describe_counts(curated: CuratedSet) -> Iterator[str]:
    yield (
        f"Read {counted(curated.num_rows, 'prompt')}, {curated.num_duplicates:,} of them "
        f"duplicates: {len(curated.prompts):,} distinct."
    )
    if curated.rejects:
        yield f"Left out {counted(len(curated.rejects), 'unusable line')}."
    if curated.num_evaluation:
        levels = ", ".join(f"{level} {count:,}" for level, count in leak_counts(curated).items())
        num_tagged = sum(prompt.level is not None for prompt in curated.kept)
        yield (
            f"Leaks into {counted(curated.num_evaluation, 'evaluation prompt')}: {levels}. "
            f"Dropped {len(curated.dropped):,}, tagged {num_tagged:,}."
        )


def _spec_rows(prompts: list[CuratedPrompt]) -> Iterator[tuple[str, ...]]:
    """By category: where the specs come from, and the share without an annotation."""
    counts = spec_counts(prompts)
    total = {source: sum(row[source] for row in counts.values()) for source in _SPEC_SOURCES}
    for category, row in (*counts.items(), ("all", total)):
        num_prompts = sum(row.values())
        cells = (num_prompts, *(row[source] for source in _SPEC_SOURCES))
        yield (
            category,
            *(f"{cell:,}" for cell in cells),
            f"{1 - row['annotation'] / num_prompts:.1%}",
        )


def _describe_cases(prompts: list[CuratedPrompt]) -> Iterator[str]:
    """Some prompts without a spec, and how many annotations were set aside."""
    unread = [curated for curated in prompts if curated.unread]
    for curated in unread[:_LISTED]:
        prompt = curated.prompt
        shown = prompt.text[:_SHOWN_CHARACTERS]
        yield f"No spec, {curated.unread}: {prompt.source}:{prompt.line}: {shown}"
    if len(unread) > _LISTED:
        yield f"No spec: {len(unread) - _LISTED:,} more; --report lists them all."
    if num_set_aside := sum(curated.model_fault is not None for curated in prompts):
        yield (
            f"{counted(num_set_aside, 'reading')} of the model did not fit the prompt and gave "
            "way; --report lists them."
        )
    if num_faults := sum(curated.annotation_fault is not None for curated in prompts):
        yield (
            f"{counted(num_faults, 'annotation')} did not fit and gave way to the parser; "
            "--report lists them."
        )
