"""The columns that a recipe names: whether there are such, and whether each holds what the recipe
does with it: numbers to rank and to bound, hashes to compare.
"""

import difflib
from collections.abc import Iterable, Mapping

from pipeline.select.judge import VALUE
from pipeline.select.opinions import checks, held_out, judging
from schemas.errors import InputError
from schemas.recipe_names import JUDGE, judge_column
from schemas.recipes import FILTER, Filter, Judge, Needs, Recipe, Use
from schemas.scores import KEY_COLUMNS, ScorerId, parse_scorer

FIELDS: Mapping[str, tuple[str, ...]] = {
    "trace": ("num_events", "num_revisions", "num_unparseable", "rollout_index", "category"),
    "event": ("score", "verdict", "finish", "region", "revision", "num_revisions"),
}
"""What a filter may go by without any scorer."""
_WORDS = frozenset({"trace.category", "event.verdict", "event.finish"})
_FITS: Mapping[Needs, tuple[str, ...]] = {
    "a number": ("float",),  # kinds of columns, as Arrow calls them
    "a hash": ("uint64",),
    "any score": ("float", "uint64"),
}
_NOUNS: Mapping[Needs, str] = {
    "a number": "numbers (float32)",
    "a hash": "hashes (uint64)",
    "any score": "numbers or hashes",
}


def check_columns_named(recipe: Recipe) -> None:
    """Every column is a field that may stand there, or of a scorer that the recipe pins or has as a
    judge. Raises InputError.
    """
    pins = {parse_scorer(scorer).name for scorer in recipe.scorers}
    judge = recipe.judge or Judge()
    names_held_out = {judge_column(scorer)[0].partition("@")[0] for scorer in judge.held_out}
    for use in recipe.uses:
        source, dot, name = use.column.partition(".")
        if source in FIELDS:
            _check_field(use, source, name)
        elif not dot or not name or (source == JUDGE and name != VALUE):
            raise InputError(
                f"{use.column!r} is no column; expected scorer.column such as toy.value, "
                f"{JUDGE}.{VALUE} for whoever judges, or one of: {', '.join(_all_fields())}"
            )
        elif source in names_held_out and recipe.judge is not None:
            raise InputError(
                f"recipe {recipe.name} goes by {use.column}, and holds {source} out to see what it "
                "says of what the others chose; take it from held_out under [judge], or go by "
                "another column"
            )
        elif source == JUDGE:
            _check_kind(use, "float", ())
        elif source not in pins:
            near = did_you_mean(source, [*pins, *FIELDS, JUDGE])
            raise InputError(
                f"recipe {recipe.name} goes by {use.column}, and pins no scorer {source!r}{near}; "
                f'add its name and version to scorers, such as "{source}@1"'
            )
    for row_filter in recipe.filters:
        _check_bounds(row_filter)


def uses_of_scores(recipe: Recipe) -> tuple[Use, ...]:
    """Every column of a scorer that is read: those that the recipe goes by, those of its judges,
    and those that the report of the judges tells of.
    """
    judges: list[Use] = []
    if recipe.judge is not None and recipe.is_judged:
        told = (
            ("a judge", judging(recipe.judge)),
            ("a judge that is held out", held_out(recipe.judge)),
            ("a check", checks(recipe)),
        )
        judges = [Use(part, name, "a number") for part, names in told for name in names]
    named = [use for use in recipe.uses if use.column.partition(".")[0] not in (JUDGE, *FIELDS)]
    return (*named, *judges)


def check_columns_known(scorer: ScorerId, uses: Iterable[Use], columns: Mapping[str, str]) -> None:
    """`uses` are those of this scorer; `columns` are those of its sidecars, with their types."""
    known = [name for name in columns if name not in KEY_COLUMNS]
    for use in sorted(uses):
        name = use.column.partition(".")[2]
        if name not in known:
            raise InputError(
                f"{scorer} has no column {name!r}{did_you_mean(name, known)}; it has: "
                f"{', '.join(known)}"
            )
        fit = [other for other in known if columns[other] in _FITS[use.needs]]
        _check_kind(use, columns[name], fit)


def _check_kind(use: Use, kind: str, others: Iterable[str]) -> None:
    """`others` are columns of the same scorer that would do."""
    if kind not in _FITS[use.needs]:
        scorer = use.column.partition(".")[0]
        listed = ", ".join(f"{scorer}.{other}" for other in others)
        raise InputError(
            f"{use.setting} needs {_NOUNS[use.needs]}, and {use.column} holds {_told(kind)}; "
            + (f"give one of: {listed}" if listed else "give a column of another scorer")
        )


def _told(kind: str) -> str:
    """What a column holds, as Arrow calls it, in words."""
    words = {"float": _NOUNS["a number"], "uint64": _NOUNS["a hash"], "string": "text"}
    return words.get(kind, "what was seen where" if kind.startswith("list") else kind)


def _check_bounds(row_filter: Filter) -> None:
    """Words are filtered with equals or for being there at all, numbers with bounds."""
    if row_filter.column in _WORDS and row_filter.has_bounds:
        raise InputError(f"the column {row_filter.column} holds words: filter it with equals")
    if row_filter.column not in _WORDS and row_filter.equals is not None:
        raise InputError(f"the column {row_filter.column} holds numbers: use min and max")


def _check_field(use: Use, source: str, name: str) -> None:
    if use.setting != FILTER:
        example = "phash.hash" if use.needs == "a hash" else "toy.value"
        raise InputError(
            f"{use.setting} is {use.column!r}, a field of the {source}, and fields may only stand "
            f"in [[filters]]; give a column of a scorer here, such as {example}"
        )
    if name not in FIELDS[source]:
        raise InputError(
            f"there is no field {source}.{name}{did_you_mean(name, FIELDS[source])}; known: "
            f"{', '.join(_all_fields())}"
        )


def _all_fields() -> list[str]:
    return [f"{source}.{name}" for source, names in FIELDS.items() for name in names]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest of the known names as a question; empty where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
