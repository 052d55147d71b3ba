"""Which scores a recipe means: a pin of name and version, and what the runs have of it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow.parquet as pq

from pipeline.file_names import quoted
from pipeline.scoring.find import SCORERS, bundled_version, find_scorer
from pipeline.scoring.settings import pairs_of
from pipeline.store.layout import SCORES, object_name, scores_folder
from pipeline.store.objects import open_object
from pipeline.store.runs import RunSource, unscored
from schemas.errors import InputError
from schemas.json_values import JsonObject
from schemas.recipe_names import judge_column
from schemas.recipes import Recipe
from schemas.scores import SCORES_KEY, ScorerId, ScoresFooter, parse_scorer

_HAS_SETTINGS = re.compile(r"-[0-9a-f]{8}\Z")
_MOST_NAMED = 6  # of scorers with one name, in a message


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wanted:
    """A scorer that a recipe names, as it does: perhaps without version or settings."""

    name: str
    pin: ScorerId | None

    def is_met_by(self, scorer: ScorerId) -> bool:
        return scorer.name == self.name if self.pin is None else self.pin.covers(scorer)

    def __str__(self) -> str:
        return self.name if self.pin is None else str(self.pin)


def pinned(recipe: Recipe, runs: Sequence[RunSource]) -> Recipe:
    """The recipe with every scorer that it names, its judges too, pinned to the one scorer that
    these runs have of it.

    Raises InputError where they have several, and for scores that a run lacks with the command
    that makes them.
    """
    judges = () if recipe.judge is None else (*recipe.judge.scorers, *recipe.judge.held_out)
    by_name = {scorer.name: scorer for scorer in map(parse_scorer, recipe.scorers)}
    wanted = {name: _Wanted(name=name, pin=pin) for name, pin in by_name.items()}
    for judge in judges:
        name, _, version = judge_column(judge)[0].partition("@")
        pin = parse_scorer(f"{name}@{version}") if version else by_name.get(name)
        if name in wanted and wanted[name].pin not in (pin, None):
            raise InputError(
                f"recipe {recipe.name} pins {wanted[name]} among its scorers and {judge} as a "
                "judge; pin one version"
            )
        wanted[name] = _Wanted(name=name, pin=pin)
    known = [_scored_by(run) for run in runs]
    scorers = {name: _resolved(asked, known, runs) for name, asked in wanted.items()}
    _check_scored(scorers, wanted, runs)
    return recipe.model_copy(
        update={"scorers": tuple(str(scorer) for scorer in scorers.values() if scorer is not None)}
    )


def _scored_by(run: RunSource) -> set[ScorerId]:
    """The scorers that have sidecars in a run."""
    scorers = set()
    for folder in run.store.list_subfolders(SCORES):
        try:
            scorer = parse_scorer(object_name(folder))
        except InputError:  # not ours
            continue
        if any(True for _ in run.store.list_folder(scores_folder(scorer))):
            scorers.add(scorer)
    return scorers


def _resolved(
    wanted: _Wanted, known: Sequence[set[ScorerId]], runs: Sequence[RunSource]
) -> ScorerId | None:
    """The one scorer that is meant; None: a name of which no run has anything."""
    met = sorted({s for of_run in known for s in of_run if wanted.is_met_by(s)}, key=str)
    if len(met) > 1:
        listed = ", ".join(
            f"{scorer}{_settings_words(scorer, known, runs)}" for scorer in met[:_MOST_NAMED]
        )
        raise InputError(
            f"{wanted} is ambiguous, since the runs have scores of {listed}"
            f"{' and others' if len(met) > _MOST_NAMED else ''}; name one of them whole, such as "
            f"{met[0]}, in the recipe's scorers or with --judge"
        )
    return met[0] if met else wanted.pin


def _settings_words(
    scorer: ScorerId, known: Sequence[set[ScorerId]], runs: Sequence[RunSource]
) -> str:
    """What a scorer was told, in brackets; empty where nothing is known of it."""
    run = next(run for run, of_run in zip(runs, known, strict=True) if scorer in of_run)
    settings = _settings_in(run, scorer)
    return f" [{pairs_of(settings)}]" if settings else ""


def _settings_in(run: RunSource, scorer: ScorerId) -> JsonObject | None:
    """What the first sidecar of a scorer says that it was told; None: nothing, or unreadable."""
    for entry in run.store.list_folder(scores_folder(scorer)):
        try:
            with open_object(run.store, entry.key) as file:
                note = (pq.read_metadata(file).metadata or {})[SCORES_KEY]
            return ScoresFooter.model_validate_json(note).settings
        except (KeyError, OSError, ValueError):
            return None
    return None


def _check_scored(
    scorers: Mapping[str, ScorerId | None],
    wanted: Mapping[str, _Wanted],
    runs: Sequence[RunSource],
) -> None:
    """Raises InputError that tells all that is missing, and the command for each run."""
    problems, commands = [], []
    for run in runs:
        lacking: dict[str, int] = {}
        for name, scorer in scorers.items():
            num = len(run.objects) if scorer is None else len(unscored(run, scorer))
            if num:
                lacking[name] = num
        if lacking:
            parts = ", ".join(
                f"of {scorers[name] or wanted[name]} for {num} of {len(run.objects)} shards"
                for name, num in lacking.items()
            )
            problems.append(f"run {run.run_id} lacks scores {parts}")
            asked = (_as_asked(wanted[name], scorers[name], runs) for name in lacking)
            commands.append(f"coppice score {quoted(run.store.url)} {' '.join(asked)}")
    if problems:
        raise InputError(f"{'; '.join(problems)}; make them with: {' && '.join(commands)}")


def _as_asked(wanted: _Wanted, scorer: ScorerId | None, runs: Sequence[RunSource]) -> str:
    """The option that makes a scorer's scores. Raises InputError for one that is not known here."""
    is_bundled = wanted.name in SCORERS
    is_seen = scorer is not None and any(scorer in _scored_by(run) for run in runs)
    if not is_bundled and not is_seen:
        find_scorer(str(wanted))  # a slip of the pen
    name = wanted.name if is_bundled else "MODULE:CLASS"
    if is_bundled and wanted.pin is not None:
        bundled = ScorerId(name=wanted.name, version=bundled_version(wanted.name))
        if not bundled.covers(wanted.pin):
            raise InputError(
                f"{wanted.name} is at {bundled.version} here, and the recipe pins {wanted}; "
                f"pin {bundled}, or install the coppice that had {wanted}"
            )
    settings: JsonObject | None = None
    if scorer is not None:
        settings = next(filter(None, (_settings_in(run, scorer) for run in runs)), None)
    is_told = scorer is not None and _HAS_SETTINGS.search(scorer.version) is not None
    words = pairs_of(settings) if settings else "SETTINGS" if is_told and not is_seen else ""
    return f"--scorer {quoted(f'{name}[{words}]' if words else name)}"
