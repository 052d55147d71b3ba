"""What `coppice caption` does: prompt files in; out one file with stepwise thoughts of each."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from jobs.commands.endpoints.caption_file import OWN_COLUMNS, CaptionFile, opened_captions
from jobs.commands.job_folder import check_outlives_job
from jobs.commands.live.line import Progress
from jobs.commands.plan import describe_left_behind
from jobs.commands.terminal import Terminal, as_typed, counted
from pipeline.endpoints.backend import RemoteBackend
from pipeline.endpoints.keys import check_keys
from pipeline.endpoints.opening import open_client
from pipeline.engine.backends import open_backends
from pipeline.engine.fake import Fake
from pipeline.plan.configs import (
    Resolved,
    Tables,
    check_fake,
    read_config_file,
    resolve,
    with_settings,
)
from pipeline.plan.endpoints import endpoint_of
from pipeline.plan.models import prompt_limit
from pipeline.plan.prompt_files import PromptSet, read_prompts
from pipeline.plan.prompt_rows import ReadOptions
from pipeline.rollout.captions import Caption, caption_prompts
from pipeline.twig.drive import Backends
from pipeline.twig.programs import Settings
from schemas.config import RunConfig, fingerprint
from schemas.errors import ExitCode, InputError, RolloutError, TooManyDead
from schemas.geometry import Geometry
from schemas.json_values import JsonObject
from schemas.prompts import Prompt
from schemas.trace import Role

_PACK = "caption"
_LISTED = 5
_ENOUGH = 20  # answers, to tell that a thinker is of no use
_OF_THINKER = ("endpoints", "schedule", "sampling", "seed")  # of a run's method
_OF_MODEL = ("model", "backend", "dtype", "fake")  # the same, where no endpoint thinks


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionRequest:
    """What the user asked for, unchecked."""

    sources: list[str]  # prompt files
    out: Path
    endpoint: str | None  # who thinks; None: the model of this machine
    config_file: str | None
    settings: list[str]  # NAME=VALUE
    pack: str | None
    skip_bad: bool = False
    num_records: int | None = None  # of a trial: the first so many; None: all
    reading: ReadOptions = field(default_factory=ReadOptions)


def caption(request: CaptionRequest, terminal: Terminal) -> ExitCode:
    """Think of every prompt that the file has no thoughts of yet. Returns how it ended.

    Nothing is written for what cannot be read or used: raises InputError.
    """
    _check_out(request)
    resolved = resolve(_tables(request), default_pack=_PACK)
    config = resolved.config
    prompts = _read(request, resolved)
    terminal.say(*describe_left_behind(prompts.left_behind), *_describe_left_out(prompts))
    thinker = config.method.backend_of(Role.THINK)
    endpoint = config.method.endpoints.get(thinker)
    model = endpoint.model if endpoint else config.method.model.name
    method = fingerprint(config.method)
    with opened_captions(request.out, prompts.prompts, model=model, method=method) as (file, done):
        missing = [prompt for prompt in prompts.prompts if prompt.text not in done]
        terminal.say(
            f"{counted(len(prompts.prompts), 'prompt')}, {len(done):,} of them in {request.out}: "
            f"{len(missing):,} to think of, by {model} ({thinker}), "
            f"{counted(config.method.schedule.num_regions, 'thought')} each."
        )
        bad: list[Caption] = []
        code = ExitCode.COMPLETE
        if missing:
            code = _think(missing, resolved, file, terminal, bad)
    _say_bad(bad, terminal)
    if code is ExitCode.INCOMPLETE:
        return code
    out = as_typed(str(request.out.absolute()))
    terminal.say(f"Thoughts: {out}", f"Next: coppice run {out} RUN --thoughts")
    return ExitCode.COMPLETE_WITH_DEAD if bad else code


def _think(
    missing: Sequence[Prompt],
    resolved: Resolved,
    file: CaptionFile,
    terminal: Terminal,
    bad: list[Caption],
) -> ExitCode:
    """Think of what is missing, into the file in the order of the prompts; failures into `bad`."""
    config = resolved.config
    num_rows = config.method.schedule.num_regions
    geometry = Geometry(image_size=num_rows, rows=num_rows, columns=1, num_codes=2)
    settings = Settings(method=config.method, pack=resolved.pack, geometry=geometry)
    waiting: dict[str, Caption] = {}
    order = iter(missing)
    upcoming = next(order, None)
    try:
        with _thinker(config) as backends, terminal.progress("thinking") as line:
            for number, ended in enumerate(
                caption_prompts(missing, settings, backends, config), start=1
            ):
                waiting[ended.prompt.text] = ended
                while upcoming and (turn := waiting.pop(upcoming.text, None)):
                    _settle(turn, file, bad)
                    upcoming = next(order, None)
                noun = "prompts thought of"
                line.show(Progress(noun=noun, num_done=number, num_all=len(missing)))
                num_bad = len(bad) + sum(ended.failure is not None for ended in waiting.values())
                _check_share(num_bad, number, config)
    except RolloutError as failure:
        terminal.say(f"Stopped: {failure}", "What is written stays; the same command goes on.")
        return ExitCode.INCOMPLETE
    return ExitCode.COMPLETE


def _settle(ended: Caption, file: CaptionFile, bad: list[Caption]) -> None:
    if ended.failure:
        bad.append(ended)
    else:
        file.add(ended.prompt, ended.thoughts)


def _check_share(num_bad: int, num_ended: int, config: RunConfig) -> None:
    """Raises TooManyDead where so much fails that it cannot be the prompts."""
    most = config.execution.max_dead_fraction
    if num_ended >= _ENOUGH and num_bad > most * num_ended:
        raise TooManyDead(
            f"{num_bad} of {num_ended} prompts got no usable thoughts, more than "
            f"execution.max_dead_fraction {most:g}; mend the thinker, or raise that"
        )


@contextmanager
def _thinker(config: RunConfig) -> Iterator[Backends]:
    """Who thinks, and nobody else: no model is loaded beside an endpoint."""
    name = config.method.backend_of(Role.THINK)
    if name in config.method.endpoints:
        method, execution = config.method.endpoints[name], config.execution.endpoints[name]
        client, facts = open_client(name, method, execution, config.method.sampling_of(name))
        with closing(client):
            backend = RemoteBackend(client, facts, Fake(config.method.fake))
            yield Backends({name: backend}, dict.fromkeys(Role, (name,)))
    else:
        with closing(open_backends(config)) as loaded:
            yield loaded.backends


def _tables(request: CaptionRequest) -> Tables:
    """The config of the thinker: of a run's file only what it goes by."""
    tables = read_config_file(request.config_file) if request.config_file else {}
    tables = with_settings(tables, request.settings)
    given = tables.get("method", {})
    run: JsonObject = given if isinstance(given, dict) else {}
    method = {name: run[name] for name in _OF_THINKER if name in run}
    method |= {"pack": request.pack} if request.pack else {}
    method["reflection"] = {"max_revisions": 0}
    if request.endpoint is None:
        check_fake(tables, tables)
        method |= {name: run[name] for name in _OF_MODEL if name in run}
    else:
        endpoint_of(tables, request.endpoint)
        _check_no_model(request.settings)
        method |= {"backend": "fake", "backends": {"think": request.endpoint}}
    return {"method": method, "execution": tables.get("execution", {})}


def _read(request: CaptionRequest, resolved: Resolved) -> PromptSet:
    """The prompts. Raises InputError for columns that the new file has itself."""
    check_keys(resolved.config)
    return read_prompts(
        request.sources,
        limit=prompt_limit(resolved.facts, resolved.config.method, resolved.pack),
        skip_bad=request.skip_bad,
        options=request.reading,
        first=request.num_records,
        check=_no_own_columns,
    )


def _describe_left_out(prompts: PromptSet) -> Iterator[str]:
    if prompts.num_duplicates or prompts.rejects:
        yield (
            f"Left out: {counted(prompts.num_duplicates, 'exact duplicate')}, "
            f"{counted(len(prompts.rejects), 'unusable prompt')}."
        )


def _check_no_model(settings: Sequence[str]) -> None:
    told = with_settings({}, settings).get("method")
    if isinstance(told, dict) and (extra := next((name for name in _OF_MODEL if name in told), "")):
        raise InputError(
            f"method.{extra} says what thinks, and so does --endpoint: leave one of them out"
        )


def _no_own_columns(metadata: JsonObject) -> str | None:
    taken = [name for name in OWN_COLUMNS if name in metadata]
    if not taken:
        return None
    return f"column {taken[0]}, which the new file has itself; --drop-columns leaves it out"


def _check_out(request: CaptionRequest) -> None:
    out = request.out
    check_outlives_job(out)
    if "://" in str(out) or str(out).startswith("s3:"):
        raise InputError(f"{out}: expected a local path; copy the file to S3 afterwards")
    if out.suffix != ".jsonl":
        raise InputError(f"{out}: expected a name that ends in .jsonl, which `coppice run` reads")
    if out.is_dir():
        raise InputError(f"{out} is a folder; give the name of a file in it")
    if out.resolve() in {Path(source).resolve() for source in request.sources}:
        raise InputError(f"{out} is read as well; give another name to write to")


def _say_bad(bad: Sequence[Caption], terminal: Terminal) -> None:
    """How many prompts got no thoughts, by reason, and some of them."""
    if not bad:
        return
    reasons = Counter(failed.failure.reason for failed in bad if failed.failure)
    counts = ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common())
    terminal.say(
        f"{counted(len(bad), 'prompt')} without usable thoughts ({counts}), which are not in the "
        "file; the same command asks for them again."
    )
    for failed in bad[:_LISTED]:
        terminal.say(f"  {failed.prompt.source}:{failed.prompt.line}: {failed.failure}")
