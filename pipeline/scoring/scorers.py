"""What a scorer is, and where scorers are found.

A scorer is asked about finished traces, or about single events of them, in the roles that it names.
A score that does not apply is None, never 0: an average over it must leave it out.
"""

import difflib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.pictures import Pixels
from schemas.errors import InputError
from schemas.json_values import JsonMapping
from schemas.rows import EventRow, ScoreValue
from schemas.scores import KEY_COLUMNS, ColumnType, ScorerId, parse_scorer

TRACE = "trace"
"""The subject of a score that is about a whole trace; the others are the roles of events."""

SCORERS: Mapping[str, str] = {
    "toy": "pipeline.toy.scorer:ToyScorer",
    "thoughts": "pipeline.scoring.text_checks:ThoughtChecks",
    "critiques": "pipeline.scoring.text_checks:CritiqueChecks",
    "tokens": "pipeline.scoring.picture_checks:TokenChecks",
    "phash": "pipeline.scoring.picture_checks:PerceptualHash",
    "prompt_filter": "pipeline.scoring.safety:PromptFilter",
    "picture_filter": "pipeline.scoring.safety:PictureFilter",
}
"""The scorers that are bundled, each at its `module:object`. Any other one is named so."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoringInput:
    """What a scorer looks at: a trace, or one event of it.

    Events are as a row of a trace file has them, without what costs memory and no scorer asks for:
    see `pipeline.scoring.inputs.columns_for`.
    """

    prompt: str
    pixels: Pixels | None = None
    """uint8 [height, width, 3] RGB: of a trace its finished picture, of a drawing the canvas after
    it. None: of other events, if the scorer needs no pictures, or if the trace keeps none.
    """
    metadata: JsonMapping = field(default_factory=dict)
    """Of the record."""
    codes: Sequence[int] = ()
    """Image tokens: of a trace its finished picture, of a drawing its region, of others none."""
    region: int | None = None
    """None: the whole trace."""
    num_regions: int | None = None
    event: EventRow | None = None
    """None: the whole trace."""
    events: Sequence[EventRow] = ()
    """All of the trace, in order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """What a scorer says of one input."""

    value: float | None
    """From 0 to 1, higher is better; None: the scorer has nothing to go by."""
    parts: Mapping[str, ScoreValue] = field(default_factory=dict)
    """The other columns, by their names. None, or left away: does not apply."""


class Scorer(Protocol):
    """The same name and version give the same scores for the same inputs, in any batch."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def subjects(self) -> frozenset[str]:
        """What it is asked about: "trace", "think", "draw", "reflect"."""
        ...

    @property
    def needs_pictures(self) -> bool: ...

    @property
    def columns(self) -> Mapping[str, ColumnType]:
        """The columns of its sidecar: `value` and the parts that it may give."""
        ...

    def score(self, batch: Sequence[ScoringInput]) -> list[Score]:
        """One score an input, in order. The batch is not empty."""


def find_scorer(name: str) -> Scorer:
    """The scorer of a bundled name, with or without its version, or at `module:object`.

    Raises InputError for a name or version that is not there, and for what is no scorer.
    """
    bare, _, version = name.partition("@")
    if ":" not in name and bare not in SCORERS:
        near = difflib.get_close_matches(bare, SCORERS, n=1)
        raise InputError(
            f"there is no scorer {bare!r}{f' (did you mean {near[0]!r}?)' if near else ''}; "
            f"known: {', '.join(sorted(SCORERS))}; one of your own is given as module:object"
        )
    scorer = _load(SCORERS.get(bare, name))
    if bare in SCORERS and version not in ("", scorer.version):
        raise InputError(
            f"{bare} is at version {scorer.version} here, and not at {version}; "
            f"score with {id_of(scorer)}, or install the coppice that had {name}"
        )
    return scorer


def id_of(scorer: Scorer) -> ScorerId:
    """Its name and version."""
    return parse_scorer(f"{scorer.name}@{scorer.version}")


def _load(path: str) -> Scorer:
    """The scorer at `module:object`, made from it where that is a class."""
    module, _, attribute = path.partition(":")
    try:
        loaded = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"the scorer {path} cannot be loaded: {error}") from error
    scorer: Scorer = loaded() if isinstance(loaded, type) else loaded
    needed = ("name", "version", "subjects", "needs_pictures", "columns", "score")
    absent = [name for name in needed if not hasattr(scorer, name)]
    if absent:
        raise InputError(
            f"{path} is no scorer: it lacks {', '.join(absent)} (see pipeline.scoring.scorers)"
        )
    id_of(scorer)
    if taken := set(KEY_COLUMNS) & set(scorer.columns):
        raise InputError(f"{path} has columns that sidecars keep for the key: {sorted(taken)}")
    return scorer
