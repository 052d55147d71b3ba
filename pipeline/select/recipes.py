"""Recipes from TOML, and whether the runs at hand can satisfy one. Refuses before work starts."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from pydantic import ValidationError

from pipeline.plan.evaluation_files import read_evaluation_set
from pipeline.prompts.leaks import EvaluationSet
from pipeline.select.judge import with_judge
from pipeline.select.pins import pinned
from pipeline.select.recipe_columns import (
    check_columns_known,
    check_columns_named,
    did_you_mean,
    uses_of_scores,
)
from pipeline.select.shard_candidates import Criteria
from pipeline.store.runs import RunSource, common_columns, read_sidecar_notes
from schemas.config import MethodConfig, Pictures, Program
from schemas.errors import InputError
from schemas.json_values import canonical_json
from schemas.recipes import Recipe, SetKind, Use
from schemas.scores import ScoresFooter, parse_scorer
from schemas.small_files import parse_toml, read_text_file
from schemas.trace import Role

_SHIPPED = files("pipeline.select") / "shipped"


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedRecipe:
    """A recipe that these runs can satisfy, and what it goes by."""

    criteria: Criteria
    digest: str  # of the recipe: 16 hex digits
    sidecars: Mapping[str, tuple[ScoresFooter, ...]]  # by scorer, of all runs in order


def shipped_recipes() -> list[str]:
    """The names that `load_recipe` knows."""
    return sorted(entry.name.removesuffix(".toml") for entry in _SHIPPED.iterdir())


def load_recipe(name: str) -> tuple[Recipe, Path]:
    """The recipe of that name or in that file, and the folder that its paths start from."""
    if name in shipped_recipes():
        text, folder = (_SHIPPED / f"{name}.toml").read_text(encoding="utf-8"), Path()
    elif Path(name).is_file():
        text, folder = _read_text(name), Path(name).parent
    else:
        raise InputError(
            f"there is no recipe {name!r}{did_you_mean(name, shipped_recipes())}; give a TOML "
            f"file, or one of: {', '.join(shipped_recipes())}"
        )
    return read_recipe(text, origin=name), folder


def _read_text(path: str) -> str:
    try:
        return read_text_file(path)
    except (OSError, ValueError) as error:
        raise InputError(f"recipe {path} cannot be read: {error}") from error


def read_recipe(text: str, *, origin: str) -> Recipe:
    """Check and read a recipe. `origin` is for the message."""
    try:
        recipe = Recipe.model_validate(parse_toml(text))
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            field = ".".join(str(name) for name in problem["loc"])
            hint = ""
            if problem["type"] == "extra_forbidden" and len(problem["loc"]) == 1:
                hint = did_you_mean(str(problem["loc"][0]), Recipe.model_fields)
            lines.append(f"  {field or 'recipe'}: {problem['msg']}{hint}")
        raise InputError(f"recipe {origin} cannot be used:\n" + "\n".join(lines)) from error
    except ValueError as error:
        raise InputError(f"recipe {origin} is not valid TOML: {error}") from error
    _check_asks_for_rows(recipe, origin)
    return recipe


def _check_asks_for_rows(recipe: Recipe, origin: str) -> None:
    """No rule of recipes themselves: manifests of older sets may hold one that is refused here."""
    empty = {
        "tasks": recipe.kind is SetKind.SFT and not recipe.tasks,
        "[pairs] sources": recipe.pairs is not None and not recipe.pairs.sources,
    }
    if names := [name for name, is_empty in empty.items() if is_empty]:
        raise InputError(
            f"recipe {origin} has an empty list for {' and '.join(names)}, so there would be no "
            "rows; name at least one, or leave it out for all"
        )


def with_evaluation_column(recipe: Recipe, column: str | None) -> Recipe:
    """The recipe with this column of prompts in its evaluation files; None: its own."""
    if column is None:
        return recipe
    rule = recipe.decontamination.model_copy(update={"column": column})
    return recipe.model_copy(update={"decontamination": rule})


def recipe_digest(recipe: Recipe) -> str:
    """16 hex digits over all that a recipe says, but for what its evaluation files are called: a
    set's version tells what is in them.
    """
    told = recipe.model_dump(mode="json")
    told["decontamination"]["files"] = []
    return hashlib.sha256(canonical_json(told).encode()).hexdigest()[:16]


def check_recipe(
    recipe: Recipe, folder: Path, runs: Sequence[RunSource], evaluation: Sequence[str] = ()
) -> CheckedRecipe:
    """What the recipe goes by in these runs. Raises InputError for whatever cannot be had.

    `evaluation` are files with prompts to be left out, beside those that the recipe names, whose
    paths start from the folder. Reads footers and files of prompts, no scores.
    """
    _check_possible(recipe, [run.manifest.config.method for run in runs])
    for run in runs:
        _check_run(recipe, run)
    recipe = with_judge(recipe, ())
    check_columns_named(recipe)
    recipe = pinned(recipe, runs)
    scorers = {scorer.name: scorer for scorer in map(parse_scorer, recipe.scorers)}
    uses: dict[str, list[Use]] = {name: [] for name in scorers}
    for use in uses_of_scores(recipe):
        uses[use.column.partition(".")[0]].append(use)
    footers: dict[str, tuple[ScoresFooter, ...]] = {}
    for scorer in scorers.values():
        notes = [read_sidecar_notes(run, scorer) for run in runs]
        known = common_columns((columns_of_run for _, columns_of_run in notes), scorer)
        check_columns_known(scorer, uses[scorer.name], known)
        footers[str(scorer)] = tuple(footer for of_run, _ in notes for footer in of_run)
    criteria = Criteria(
        recipe=recipe,
        evaluation=_read_evaluation(recipe, folder, evaluation),
        columns={
            scorer: frozenset(use.column.partition(".")[2] for use in uses[name])
            for name, scorer in scorers.items()
        },
    )
    return CheckedRecipe(criteria=criteria, digest=recipe_digest(recipe), sidecars=footers)


def _read_evaluation(recipe: Recipe, folder: Path, files: Sequence[str]) -> EvaluationSet:
    """The prompts to be left out, of the files that the recipe names and of these."""
    rule = recipe.decontamination
    paths = [path if path.startswith("s3://") else str(folder / path) for path in rule.files]
    if (paths or files) and not rule.levels:
        raise InputError(
            f"recipe {recipe.name} has levels = [] under [decontamination], so no prompt of the "
            'evaluation files would be left out; give levels, such as ["L0", "L1"], or no files'
        )
    return read_evaluation_set([*paths, *files], rule.counted, rule.column)


def tasks_of(method: MethodConfig) -> set[str]:
    """The tasks that a run with this method has events for."""
    is_while = method.program is Program.THINK_WHILE
    num_regions = method.schedule.num_regions if is_while else 1
    roles = {Role.DRAW.value}
    if method.program in (Program.THINK_WHILE, Program.THINK_BEFORE):
        roles.add(Role.THINK.value)
    if method.program in (Program.THINK_WHILE, Program.THINK_AFTER):
        roles |= {Role.REFLECT.value} if method.reflection.max_revisions else set()
    return {f"{role}_{region + 1}" for role in roles for region in range(num_regions)}


def _check_possible(recipe: Recipe, methods: Sequence[MethodConfig]) -> None:
    """Tasks and pools that no run has are refused, and so are pairs of what was drawn once."""
    possible = {task for method in methods for task in tasks_of(method)}
    if recipe.kind == SetKind.SFT and not any(map(recipe.wants, possible)):
        raise InputError(
            f"recipe {recipe.name} asks for {', '.join(recipe.tasks)}, and the runs have only "
            f"{', '.join(sorted(possible))}; give some of these as tasks"
        )
    mix = recipe.mix
    for pool in () if mix is None else (mix.weights or mix.counts):
        if not any(task == pool or task.startswith(f"{pool}_") for task in possible):
            raise InputError(
                f"the mix of {recipe.name} asks for {pool}, which none of the runs can have: they "
                f"have {', '.join(sorted(possible))}; leave it out, or grow a run that has it"
            )
    if recipe.pairs is not None and "revision" in recipe.pairs.sources:
        is_revised = any(method.reflection.max_revisions for method in methods)
        if not is_revised and "group" not in recipe.pairs.sources:
            raise InputError("no run revises its drawings, so there are no pairs of revisions")


def _check_run(recipe: Recipe, run: RunSource) -> None:
    method, where = run.manifest.config.method, f"run {run.run_id} at {run.store.url}"
    num_rollouts = max(part.rollouts_per_record for part in run.manifest.parts)
    if recipe.kind == SetKind.SFT and recipe.pictures == "required":
        seen = sorted(task for task in tasks_of(method) if recipe.wants(task) and _sees(task))
        if seen and method.pictures is not Pictures.ALL:
            raise InputError(
                f"{where} keeps pictures {method.pictures.value!r}, and {', '.join(seen)} look at "
                'canvases; grow it with --pictures all, or set pictures = "tokens" in the recipe'
            )
    if recipe.groups is not None and num_rollouts < 2:
        raise InputError(f"{where} has one rollout a record, so no groups; plan --rollouts 8")
    is_greedy = method.sampling.text_temperature == 0 and tasks_of(method) != {"draw_1"}
    if recipe.groups is not None and not recipe.groups.picture_only and is_greedy:
        raise InputError(
            f"{where} has greedy text, which has no log-probabilities to learn from; grow it "
            "with --set method.sampling.text_temperature=1, or set picture_only = true under "
            "[groups] to learn from the drawing alone"
        )
    if recipe.groups is not None and not method.sampling.with_logp:
        raise InputError(f"{where} keeps no log-probabilities (method.sampling.with_logp)")


def _sees(task: str) -> bool:
    """Whether the question of a task shows a canvas."""
    role, _, region = task.partition("_")
    return role == Role.REFLECT or (role == Role.THINK and region != "1")
