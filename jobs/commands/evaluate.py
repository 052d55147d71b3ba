"""What `coppice eval` does: plan, run and score what a run lacks of a suite; print its table."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.table import Column

from jobs.commands.plan import PlanRequest, extend_run, load_run, plan_run
from jobs.commands.runs import grow_run
from jobs.commands.score import PlannedScorer, ScoreRequest, plan_scorers, score_run
from jobs.commands.terminal import Terminal, as_typed, counted
from pipeline.evaluation.scores import read_pictures
from pipeline.evaluation.suite_prompts import read_suite, suite_files
from pipeline.evaluation.suites import SUITE_KEY, Picture, Suite, find_suite
from pipeline.evaluation.tables import Line, differences, lines_of
from pipeline.plan.configs import Resolved
from pipeline.plan.models import prompt_limit
from pipeline.plan.prompt_files import PromptSet
from pipeline.scoring.formulae.guards import FEW_PROMPTS
from pipeline.scoring.settings import ScorerRequest, parse_request, read_scorer_tables
from pipeline.store.layout import evaluation_key
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.plans import read_plan_shard, try_read_manifest
from pipeline.store.runs import RunSource, open_run
from schemas.errors import ExitCode, InputError
from schemas.json_values import JsonObject
from schemas.runs import RunManifest
from schemas.scores import ScorerId

TABLE_FORMAT = 1
"""Raised when a name in `eval/SUITE.json` changes its meaning."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateRequest:
    """What the user asked for, unchecked."""

    run: str  # URL
    suite: str
    prompts: str | None  # the folder of the suite's files
    num_prompts: int | None  # the first so many; None: all, or as planned
    images_per_prompt: int | None  # None: as published, or as planned
    settings: list[str]  # of the run, NAME=VALUE
    scorers: Sequence[str]  # in the place of the suite's own, by name
    config: str | None  # a TOML file with [scorers.NAME] tables
    against: str | None  # URL of another run
    num_workers: int  # of scoring
    num_gpus: float  # that each of them takes
    address: str | None  # of a Ray cluster
    as_json: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class SuitePlan(PlanRequest):
    """A plan of a suite's prompts: its sources are told, and read by what the suite knows."""

    suite: Suite
    folder: str | None

    def read_prompts(self, resolved: Resolved) -> PromptSet:
        limit = prompt_limit(resolved.facts, resolved.config.method, resolved.pack)
        return read_suite(self.suite, self.folder, limit=limit, first=self.num_records)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Evaluated:
    """A run with all that its table is made of."""

    run: RunSource
    num_rollouts: int  # of each prompt
    pictures: Sequence[Picture]


def evaluate_run(request: EvaluateRequest, terminal: Terminal) -> ExitCode:
    """Make what is missing, and print the table. Everything is checked before any work.

    What is said meanwhile goes to standard error where the table is to be JSON. Raises InputError,
    ConfigMismatch, and what runs and scores raise.
    """
    suite = find_suite(request.suite)
    telling = Terminal(sys.stderr) if request.as_json else terminal
    asked = judges_of(suite, request.scorers, request.config)
    score_request = ScoreRequest(
        run=request.run,
        scorers=[str(judge) for judge in asked],
        config=None,
        num_workers=request.num_workers,
        num_gpus=request.num_gpus,
        address=request.address,
    )
    judges = plan_scorers(score_request)
    ids = [judge.id for judge in judges]
    other = _other(suite, request, ids)
    manifest = _planned(suite, request, telling)
    code = grow_run(request.run, manifest, telling, address=request.address, is_step=True)
    if code not in (ExitCode.COMPLETE, ExitCode.COMPLETE_WITH_DEAD):
        telling.say("Not evaluated: rollouts are missing. The same command again goes on.")
        return code
    score_run(score_request, telling, judges)
    evaluated = _evaluated(suite, request.run, ids, request.images_per_prompt)
    table = _table(suite, evaluated, judges)
    lines = lines_of(suite, evaluated.pictures, [each.name for each in ids])
    table["lines"] = [line.as_json() for line in lines]
    compared: list[Line] | None = None
    if other is not None:
        names = [each.name for each in ids]
        compared = differences(suite, evaluated.pictures, other.pictures, names)
        table["against"] = _comparison(other, compared)
    store = evaluated.run.store
    key = evaluation_key(suite.name)
    store.put(key, (json.dumps(table, indent=1) + "\n").encode())
    if request.as_json:
        terminal.say_json(table)
        return code
    _say_table(terminal, suite, evaluated, judges, lines)
    if compared is not None:
        _say_differences(terminal, request, compared)
    terminal.say(f"Kept as {as_typed(store.url)}/{key}.")
    return code


def judges_of(suite: Suite, scorers: Sequence[str], config: str | None) -> list[ScorerRequest]:
    """The suite's judges, each with what the suite, the file and the brackets tell it, in this
    order; those that are at work only if named come last. Raises InputError.
    """
    tables = read_scorer_tables(config) if config is not None else {}
    named = {request.name: request for request in map(parse_request, scorers)}
    known = {**suite.judges, **suite.more_judges}
    if unknown := [name for name in named if name not in known]:
        raise InputError(
            f"{unknown[0]!r:.80} is no judge of the suite {suite.name}, whose judges are "
            f"{', '.join(known)}; give their settings, as in --scorer '{next(iter(known))}[...]'"
        )
    return [
        ScorerRequest(
            name=name,
            settings={
                **settings,
                **tables.get(name, {}),
                **(named[name].settings if name in named else {}),
            },
        )
        for name, settings in known.items()
        if name in suite.judges or name in named or name in tables
    ]


def _planned(suite: Suite, request: EvaluateRequest, terminal: Terminal) -> RunManifest:
    """The run's plan, made or extended as asked. What is not asked for stays as it is planned."""
    store = open_store(request.run)
    before = try_read_manifest(store)
    is_told = before is None or request.prompts is not None or request.num_prompts is not None
    plan = SuitePlan(
        sources=suite_files(suite, request.prompts) if is_told else [],
        url=request.run,
        settings=request.settings,
        suite=suite,
        folder=request.prompts,
        num_records=request.num_prompts if is_told else None,
        rollouts_per_record=request.images_per_prompt or _num_rollouts(before, suite),
    )
    if before is None:
        return plan_run(plan, terminal)
    _check_is_of_suite(store, before, suite)
    as_planned = replace(plan, sources=[], num_records=None)
    load_run(as_planned)  # refuses another method before anything is added
    if (request.images_per_prompt or 0) > _num_rollouts(before, suite):
        extend_run(as_planned, terminal)
    if is_told:
        extend_run(plan, terminal)
    return load_run(as_planned)


def _num_rollouts(manifest: RunManifest | None, suite: Suite) -> int:
    """How many pictures each prompt gets if nobody says."""
    if manifest is None:
        return suite.images_per_prompt
    return max(part.rollouts_per_record for part in manifest.parts)


def _check_is_of_suite(store: Store, manifest: RunManifest, suite: Suite) -> None:
    """A run of other prompts is not mixed with a suite's. Raises InputError."""
    rows = read_plan_shard(store, manifest, 0)
    planned = {row.metadata.get(SUITE_KEY) for row in rows}
    if planned != {suite.name}:
        theirs = ", ".join(sorted(str(name) for name in planned if name is not None))
        purpose = f"for the suite {theirs}" if theirs else "for no suite"
        raise InputError(
            f"{store.url} was planned {purpose}, and not for {suite.name}; evaluate in a run of "
            f"its own: coppice eval ANOTHER --suite {suite.name}"
        )


def _other(suite: Suite, request: EvaluateRequest, ids: Sequence[ScorerId]) -> _Evaluated | None:
    """The run to compare with, which has to be evaluated already. Raises InputError."""
    if request.against is None:
        return None
    try:
        other = _evaluated(suite, request.against, ids, request.images_per_prompt)
    except InputError as error:
        raise InputError(
            f"--against {request.against}: {error}; evaluate it first, by the same judges: "
            f"coppice eval {as_typed(request.against)} --suite {suite.name}"
        ) from error
    if not other.pictures:
        raise InputError(
            f"--against {request.against} has no prompts of the suite {suite.name}; give a run "
            "that was evaluated on it"
        )
    return other


def _evaluated(
    suite: Suite, url: str, ids: Sequence[ScorerId], images_per_prompt: int | None
) -> _Evaluated:
    run = open_run(url)
    num_rollouts = images_per_prompt or _num_rollouts(run.manifest, suite)
    pictures = read_pictures(run, suite.name, ids, num_rollouts)
    return _Evaluated(run=run, num_rollouts=num_rollouts, pictures=pictures)


def _table(suite: Suite, evaluated: _Evaluated, judges: Sequence[PlannedScorer]) -> JsonObject:
    manifest, pictures = evaluated.run.manifest, evaluated.pictures
    method = manifest.config.method
    return {
        "table_format": TABLE_FORMAT,
        "suite": suite.name,
        "title": suite.title,
        "run_id": manifest.run_id,
        "fingerprint": manifest.fingerprint,
        "model": {"name": method.model.name, "digest": method.model.digest},
        "program": method.program.value,
        "seed": method.seed,
        "images_per_prompt": evaluated.num_rollouts,
        "rollouts": list(range(evaluated.num_rollouts)),
        "num_prompts": len({picture.record_id for picture in pictures}),
        "num_pictures": len(pictures),
        "num_dead": sum(not picture.is_ok for picture in pictures),
        "judges": [
            {"name": judge.name, "id": str(judge.id), "settings": judge.settings}
            for judge in judges
        ],
        "notes": list(suite.notes),
        "lines": [],
    }


def _comparison(other: _Evaluated, lines: Sequence[Line]) -> JsonObject:
    manifest = other.run.manifest
    return {
        "run_id": manifest.run_id,
        "fingerprint": manifest.fingerprint,
        "model": {
            "name": manifest.config.method.model.name,
            "digest": manifest.config.method.model.digest,
        },
        "seed": manifest.config.method.seed,
        "images_per_prompt": other.num_rollouts,
        "lines": [line.as_json() for line in lines],
    }


def _say_table(
    terminal: Terminal,
    suite: Suite,
    evaluated: _Evaluated,
    judges: Sequence[PlannedScorer],
    lines: Sequence[Line],
) -> None:
    manifest, pictures = evaluated.run.manifest, evaluated.pictures
    method = manifest.config.method
    num_prompts = len({picture.record_id for picture in pictures})
    last = evaluated.num_rollouts - 1
    terminal.say(
        f"{suite.title}: {method.model.name}, {method.program.value}, seed {method.seed}, "
        f"{counted(num_prompts, 'prompt')} x {counted(evaluated.num_rollouts, 'image')} "
        f"(rollouts 0 to {last}), {sum(not picture.is_ok for picture in pictures):,} dead."
    )
    _say_lines(terminal, lines, "mean")
    for judge in judges:
        settings = judge.settings or {}
        model = f", {settings['model']}" if "model" in settings else ""
        mode = f", mode {settings['mode']}" if "mode" in settings else ""
        terminal.say(f"Judge {judge.id}{model}{mode}.")
    terminal.say(*suite.notes, can_wrap=True)


def _say_differences(terminal: Terminal, request: EvaluateRequest, lines: Sequence[Line]) -> None:
    against = as_typed(request.against or "")
    terminal.say(f"{as_typed(request.run)} less {against}, prompt by prompt:")
    _say_lines(terminal, lines, "difference")


def _say_lines(terminal: Terminal, lines: Sequence[Line], heading: str) -> None:
    terminal.say_table(
        [
            *("prompts of", "metric"),
            *(
                Column(name, justify="right", no_wrap=True)
                for name in (heading, "95 % interval", "prompts", "images", "no value")
            ),
        ],
        (_cells(line) for line in lines),
    )
    if any(line.interval and line.num_prompts < FEW_PROMPTS for line in lines):
        terminal.say(f"Of fewer than {FEW_PROMPTS} prompts intervals are too narrow.")


def _cells(line: Line) -> list[str]:
    return [
        line.prompt_class,
        line.metric,
        "-" if line.value is None else f"{line.value:.4f}",
        "-" if line.interval is None else "{:.4f} {:.4f}".format(*line.interval),
        f"{line.num_prompts:,}",
        f"{line.num_pictures:,}",
        f"{line.num_without:,}",
    ]
