"""Recipes from TOML, and whether the runs at hand can satisfy one. Refuses before work starts."""

import difflib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from pydantic import ValidationError

from pipeline.plan.evaluation_files import read_evaluation_set
from pipeline.select.judge import VALUE, with_judge
from pipeline.select.opinions import scored_columns
from pipeline.select.pins import pinned
from pipeline.select.shard_candidates import Criteria
from pipeline.store.runs import RunSource, common_columns, read_sidecar_notes
from schemas.config import MethodConfig, Pictures, Program
from schemas.errors import InputError
from schemas.json_values import canonical_json
from schemas.recipes import JUDGE, Filter, Judge, Recipe, SetKind, judge_column
from schemas.scores import KEY_COLUMNS, ScorerId, ScoresFooter, parse_scorer
from schemas.small_files import parse_toml, read_text_file
from schemas.trace import Role

FIELDS: Mapping[str, tuple[str, ...]] = {
    "trace": ("num_events", "num_revisions", "num_unparseable", "rollout_index", "category"),
    "event": ("score", "verdict", "finish", "region", "revision", "num_revisions"),
}
"""What a filter may go by without any scorer."""
_WORDS = frozenset({"trace.category", "event.verdict", "event.finish"})
_NUMBERS = frozenset({"float", "uint64"})  # kinds of columns, as Arrow calls them
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
            f"there is no recipe {name!r}{_did_you_mean(name, shipped_recipes())}; give a TOML "
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
        return Recipe.model_validate(parse_toml(text))
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            field = ".".join(str(name) for name in problem["loc"])
            hint = ""
            if problem["type"] == "extra_forbidden" and len(problem["loc"]) == 1:
                hint = _did_you_mean(str(problem["loc"][0]), Recipe.model_fields)
            lines.append(f"  {field or 'recipe'}: {problem['msg']}{hint}")
        raise InputError(f"recipe {origin} cannot be used:\n" + "\n".join(lines)) from error
    except ValueError as error:
        raise InputError(f"recipe {origin} is not valid TOML: {error}") from error


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
    _check_columns_named(recipe)
    recipe = pinned(recipe, runs)
    scorers = {scorer.name: scorer for scorer in map(parse_scorer, recipe.scorers)}
    columns = _needed_columns(recipe, scorers)
    footers: dict[str, tuple[ScoresFooter, ...]] = {}
    for scorer in scorers.values():
        notes = [read_sidecar_notes(run, scorer) for run in runs]
        known = common_columns((columns_of_run for _, columns_of_run in notes), scorer)
        _check_columns(scorer, columns[scorer], known)
        footers[str(scorer)] = tuple(footer for of_run, _ in notes for footer in of_run)
    paths = [
        path if path.startswith("s3://") else str(folder / path)
        for path in recipe.decontamination.files
    ]
    criteria = Criteria(
        recipe=recipe,
        evaluation=read_evaluation_set([*paths, *evaluation], recipe.decontamination.levels),
        columns=columns,
    )
    return CheckedRecipe(criteria=criteria, digest=recipe_digest(recipe), sidecars=footers)


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
    """A pool that no run can fill is refused, and so are pairs of what was drawn once."""
    possible = {task for method in methods for task in tasks_of(method)}
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


def _check_columns_named(recipe: Recipe) -> None:
    """Every column is a field, or of a scorer that the recipe pins or has as a judge."""
    pins = {parse_scorer(scorer).name for scorer in recipe.scorers}
    judge = recipe.judge or Judge()
    held_out = {judge_column(scorer)[0].partition("@")[0] for scorer in judge.held_out}
    for column in recipe.columns:
        source, dot, name = column.partition(".")
        if source in FIELDS:
            _check_field(source, name)
        elif not dot or not name or (source == JUDGE and name != VALUE):
            raise InputError(
                f"{column!r} is no column; expected scorer.column such as toy.value, "
                f"{JUDGE}.{VALUE} for whoever judges, or one of: {', '.join(_all_fields())}"
            )
        elif source in held_out and recipe.judge is not None:
            raise InputError(
                f"recipe {recipe.name} goes by {column}, and holds {source} out to see what it "
                "says of what the others chose; take it from held_out under [judge], or go by "
                "another column"
            )
        elif source != JUDGE and source not in pins:
            near = _did_you_mean(source, [*pins, *FIELDS, JUDGE])
            raise InputError(
                f"recipe {recipe.name} goes by {column}, and pins no scorer {source!r}{near}; add "
                f'its name and version to scorers, such as "{source}@1"'
            )
    for row_filter in recipe.filters:
        _check_bounds(row_filter)


def _needed_columns(
    recipe: Recipe, scorers: Mapping[str, ScorerId]
) -> dict[ScorerId, frozenset[str]]:
    """The columns that are read of each of the scorers."""
    needed: dict[str, set[str]] = {name: set() for name in scorers}
    for source, _, name in (column.partition(".") for column in recipe.columns):
        if source in needed:
            needed[source].add(name)
    for source, _, name in (column.partition(".") for column in scored_columns(recipe)):
        needed[source].add(name)
    return {scorers[name]: frozenset(columns) for name, columns in needed.items()}


def _check_bounds(row_filter: Filter) -> None:
    """Words are filtered with equals or for being there at all, numbers with bounds."""
    has_equals, has_bounds = (
        row_filter.equals is not None,
        (row_filter.min, row_filter.max) != (None, None),
    )
    if row_filter.column in _WORDS and has_bounds:
        raise InputError(f"the column {row_filter.column} holds words: filter it with equals")
    if row_filter.column not in _WORDS and has_equals:
        raise InputError(f"the column {row_filter.column} holds numbers: use min and max")


def _check_field(source: str, name: str) -> None:
    if name not in FIELDS[source]:
        raise InputError(
            f"there is no field {source}.{name}{_did_you_mean(name, FIELDS[source])}; known: "
            f"{', '.join(_all_fields())}"
        )


def _check_columns(scorer: ScorerId, needed: Iterable[str], columns: Mapping[str, str]) -> None:
    """`columns` are those of the sidecars, with their types."""
    known = [name for name in columns if name not in KEY_COLUMNS]
    for name in sorted(needed):
        if name not in known:
            raise InputError(
                f"{scorer} has no column {name!r}{_did_you_mean(name, known)}; it has: "
                f"{', '.join(known)}"
            )
        if columns[name] not in _NUMBERS:
            raise InputError(
                f"column {name!r} of {scorer} holds no numbers, and recipes go by numbers; those "
                f"that do: {', '.join(other for other in known if columns[other] in _NUMBERS)}"
            )


def _all_fields() -> list[str]:
    return [f"{source}.{name}" for source, names in FIELDS.items() for name in names]


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
