"""What a scorer is: the port that judges, and scorers of one's own, are written against.

A scorer is asked about finished traces, or about single events of them, in the roles that it names.
A score that does not apply is None, never 0: an average over it must leave it out.

One with a model says three things more, all of which may be left away:

- `Settings`, a `ScorerSettings` class: the scorer is made as `TheScorer(settings)`, and keeps them
  as `settings`. Without it the parameters of the constructor, if there are any, are the settings.
- `load(device)`: reads the weights, once, where scores are made. Making a scorer is cheap: it is
  also made where work is planned, to check its settings and to know its version.
- `score` may run out of a GPU's memory (`torch.OutOfMemoryError`): it is asked again with half.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from pipeline.pictures import Pixels
from pipeline.scoring.settings import ScorerSettings
from schemas.json_values import JsonMapping
from schemas.rows import EventRow, ScoreValue
from schemas.scores import ColumnType, ScorerId, parse_scorer
from schemas.trace import Role

TRACE = "trace"
"""The subject of a score that is about a whole trace; the others are the roles of events."""

SUBJECTS = (TRACE, Role.THINK.value, Role.DRAW.value, Role.REFLECT.value)

TorchDevice = Literal["cpu", "cuda"]
"""What a scorer computes on: on a GPU the first that its process sees, which Ray gave it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoringInput:
    """What a scorer looks at: a trace, or one event of it.

    Events are as a row of a trace file has them, without what costs memory and no scorer asks for:
    see `pipeline.scoring.inputs.columns_for`.
    """

    prompt: str
    pixels: Pixels | None = None
    """uint8 [height, width, 3] RGB: of a trace its finished picture, of a drawing the canvas after
    it. None: of other events, if the scorer needs no pictures, or if it cannot be painted.
    """
    metadata: JsonMapping = field(default_factory=dict)
    """Of the record."""
    codes: Sequence[int] = ()
    """Image tokens: of a trace its finished picture, of a drawing its region, of others none."""
    region: int | None = None
    """None: the whole trace."""
    num_regions: int | None = None
    bands: Sequence[tuple[int, int]] = ()
    """Of each region the rows of pixels from its top to below its bottom, within `pixels`."""
    thought: str | None = None
    """Of a drawing: what its region was drawn from, the prompt where nothing was thought."""
    event: EventRow | None = None
    """None: the whole trace."""
    events: Sequence[EventRow] = ()
    """All of the trace, in order."""

    @property
    def crop(self) -> Pixels | None:
        """The region of a drawing alone, a view into `pixels`; None where there is none."""
        if self.pixels is None or self.region is None or self.region >= len(self.bands):
            return None
        top, bottom = self.bands[self.region]
        return self.pixels[top:bottom]


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """What a scorer says of one input."""

    value: float | None
    """From 0 to 1, higher is better; None: the scorer has nothing to go by."""
    parts: Mapping[str, ScoreValue] = field(default_factory=dict)
    """The other columns, by their names: numbers, text or boxes, as `columns` says. None, or left
    away: does not apply.
    """


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


@runtime_checkable
class LoadsWeights(Protocol):
    """A scorer that has weights."""

    def load(self, device: TorchDevice) -> None:
        """Read the weights, onto a device. Raises InputError for weights that cannot be used."""
        ...


@runtime_checkable
class ComparesInputs(Protocol):
    """A scorer whose scores are of its inputs among each other: it is given all of a trace object
    at once, with the pictures of them all in memory.
    """

    compares_inputs: Literal[True]


def settings_of(scorer: Scorer) -> ScorerSettings | None:
    """What a scorer was made with; None: there is nothing to set."""
    settings = getattr(scorer, "settings", None)
    return settings if isinstance(settings, ScorerSettings) else None


def id_of(scorer: Scorer) -> ScorerId:
    """Its name and version, with the digest of its settings if it has some."""
    settings = settings_of(scorer)
    digest = f"-{settings.digest}" if settings is not None else ""
    return parse_scorer(f"{scorer.name}@{scorer.version}{digest}")
