"""A recipe: which rows of which traces become a training set. Read from TOML, see docs/curate.md.

Checked here: what a recipe says by itself. Whether the runs can satisfy it is checked against them.
"""

from enum import StrEnum
from typing import Literal, NamedTuple, Self, TypeAlias

from pydantic import Field, field_validator, model_validator

from schemas.config import Frozen
from schemas.recipe_names import (
    JUDGE,
    ROLES,
    checked_tasks,
    covers,
    judge_column,
    pinned_name,
)

ENSEMBLE = ("hps", "detector", "git_vqa", "lmm_yes")
"""Who judges by default: the paper's four kinds of rewards."""
HELD_OUT = ("pickscore",)
"""Who does not, by default, and is scored all the same."""

Aggregate: TypeAlias = Literal["mean", "sum", "min", "group_zscore_mean", "category_quantile_mean"]
"""How scores become one, over those that apply."""
RELATIVE = frozenset({"group_zscore_mean", "category_quantile_mean"})
"""Aggregates that say how a rollout fares among others: of its prompt, of its category."""

_LEVELS = ("L0", "L1", "L2", "L3")  # of leaks, the most certain first


class SetKind(StrEnum):
    """What the rows of a set are."""

    SFT = "sft"
    PREFERENCE = "preference"
    GRPO = "grpo"


FILTER = "[[filters]] column"
"""The setting whose columns may be fields of traces and events, too."""

Needs: TypeAlias = Literal["a number", "a hash", "any score"]
"""What a column has to hold for what a recipe does with it."""


class Use(NamedTuple):
    """A column that a recipe goes by, and the setting that says so."""

    setting: str  # [per_prompt] by
    column: str
    needs: Needs


class Filter(Frozen):
    """Rows stay if a column is within bounds. A null passes only where the filter says so."""

    column: str  # toy.value, trace.num_revisions, event.score
    of: Literal["trace", "event", "drawing"] = "trace"  # whose score: see docs/curate.md
    min: float | None = None
    max: float | None = None
    equals: str | None = None  # for columns that hold words
    null: Literal["drop", "keep"] = "drop"
    tasks: tuple[str, ...] = ()  # none: every row
    reason: str | None = None  # what decisions call it; by default its column

    @property
    def label(self) -> str:
        """The reason that it gives."""
        return self.reason or self.column

    @property
    def has_bounds(self) -> bool:
        return (self.min, self.max) != (None, None)

    @field_validator("tasks")
    @classmethod
    def _known_tasks(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        return checked_tasks(tasks)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        field = self.column.partition(".")[0]
        if (field == "trace" and self.of != "trace") or (field == "event" and self.of == "drawing"):
            raise ValueError(
                f'of = "{self.of}" says whose score a column is, and {self.column} is none; '
                "leave it out"
            )
        if self.min is None and self.max is None and self.equals is None and self.null == "keep":
            raise ValueError(f"the filter on {self.column} drops nothing; give min, max or equals")
        if self.equals is not None and self.has_bounds:
            raise ValueError(f"the filter on {self.column} has both equals and bounds")
        return self


class Agreement(Frozen):
    """Critiques are learned only where an outside scorer of the drawing says the same."""

    by: str  # a score of drawings
    accept_min: float  # of a drawing that was accepted, at least
    revise_max: float  # of one that was to be revised, at most
    gain_min: float | None = None  # that the drawing from the better thought scores more
    balance: bool = True  # as many revisions as acceptances


class PerPrompt(Frozen):
    """How many traces of one prompt stay: the best, and no two that look alike."""

    keep: int | None = Field(default=None, ge=1)
    by: str | None = None  # a score of traces, the best first
    min_distance: int = Field(default=0, ge=0, le=64)  # bits of the hash in which they differ
    hash: str = "phash.hash"

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if self.keep is None and not self.min_distance:
            raise ValueError("give keep, min_distance, or both")
        return self


class Decontamination(Frozen):
    """Prompts of these files, a prompt a line, are left out."""

    files: tuple[str, ...] = ()
    # Of prompts, where it is not the obvious one.
    column: str | None = Field(default=None, exclude_if=lambda column: column is None)
    levels: tuple[Literal["L0", "L1", "L2", "L3"], ...] = ("L0", "L1")

    @property
    def counted(self) -> tuple[str, ...]:
        """The levels that count: what is equal at a lower one is so at each that is named."""
        return tuple(level for level in _LEVELS if any(level <= named for named in self.levels))


class Split(Frozen):
    """A share of the prompts is set aside, with all their rows."""

    validation: float = Field(default=0.02, ge=0, lt=1)


class Mix(Frozen):
    """How many rows of each pool. A pool is a role (its regions together) or one task."""

    weights: dict[str, float] = Field(default_factory=dict)  # as many rows as the shares allow
    counts: dict[str, int] = Field(default_factory=dict)  # exactly so many
    max_rows: int | None = Field(default=None, ge=1)  # in all; only with weights
    # Of a pool that is a role: any of its regions by lot, or as many rows of each.
    regions: Literal["lot", "equal"] = Field(default="lot", exclude_if=lambda how: how == "lot")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if bool(self.weights) == bool(self.counts):
            raise ValueError("a mix has either weights or counts")
        if self.counts and self.max_rows is not None:
            raise ValueError("max_rows goes with weights; counts say it themselves")
        pools = checked_tasks(tuple(self.weights or self.counts))
        if min((self.weights or self.counts).values()) <= 0:
            raise ValueError("every weight and count is above 0; leave a pool out to have none")
        for pool in pools:
            if pool.partition("_")[0] in pools and "_" in pool:
                raise ValueError(f"{pool} is also a part of {pool.partition('_')[0]}")
        return self


class Pairs(Frozen):
    """Preferences: a region and its revision, or the best and the worst trace of a prompt."""

    sources: tuple[Literal["revision", "group"], ...] = ("revision", "group")
    by: str  # a score of traces, and of drawings for revisions
    min_margin: float = Field(default=0.0, ge=0)


class Groups(Frozen):
    """Groups of rollouts of one prompt, whole, with rewards and log-probabilities."""

    rewards: tuple[str, ...] = Field(min_length=1)  # scores of traces
    aggregate: Aggregate = "mean"
    picture_only: bool = False  # text is context, and need not have been sampled
    drop_zero_variance: bool = True  # groups whose rewards are all alike teach nothing
    # So many dead rollouts a group may have; the others are the group then.
    max_dead: int = Field(default=0, ge=0, exclude_if=lambda num: num == 0)


class Judge(Frozen):
    """Who says how good a picture is: columns of several scorers, made one as `judge.value`.

    A scorer is given as a recipe pins it (hps@2), and then goes by its value; as a name alone,
    whose version is the one that the runs have; or as a column (toy.value).
    """

    scorers: tuple[str, ...] = Field(default=ENSEMBLE, min_length=1)
    aggregate: Aggregate = "mean"
    # Scored and never gone by: they show whether selection pleased no one but the others.
    held_out: tuple[str, ...] = HELD_OUT

    @field_validator("scorers", "held_out")
    @classmethod
    def _columns(cls, scorers: tuple[str, ...]) -> tuple[str, ...]:
        for scorer in scorers:
            judge_column(scorer)
        return scorers

    @model_validator(mode="after")
    def _holds_out_others(self) -> Self:
        judging = {judge_column(scorer)[0].partition("@")[0] for scorer in self.scorers}
        held_out = {judge_column(scorer)[0].partition("@")[0] for scorer in self.held_out}
        if both := sorted(judging & held_out):
            raise ValueError(f"{both[0]} is held out, and cannot judge as well")
        return self


class Recipe(Frozen):
    """All that decides what a set holds, beside the runs and the files that it names."""

    recipe_format: Literal[1] = 1
    name: str
    about: str = ""
    kind: SetKind = SetKind.SFT
    seed: int = 0  # of every order by lot
    scorers: tuple[str, ...] = ()  # name@version, or name@version-settings
    judge: Judge | None = Field(default=None, exclude_if=lambda judge: judge is None)
    tasks: tuple[str, ...] = ROLES  # sft only
    pictures: Literal["required", "tokens"] = "required"  # tokens: rows may lack their canvas
    filters: tuple[Filter, ...] = ()
    agreement: Agreement | None = None
    per_prompt: PerPrompt | None = None
    decontamination: Decontamination = Decontamination()
    split: Split = Split()
    mix: Mix | None = None
    pairs: Pairs | None = None
    groups: Groups | None = None
    exports: tuple[str, ...] = ()

    @field_validator("scorers")
    @classmethod
    def _pinned(cls, scorers: tuple[str, ...]) -> tuple[str, ...]:
        names = [pinned_name(scorer) for scorer in scorers]
        if len(set(names)) < len(names):
            raise ValueError("a scorer is pinned at one version")
        if JUDGE in names:
            raise ValueError(f"{JUDGE} is the role that [judge] fills; call the scorer otherwise")
        return scorers

    @field_validator("tasks")
    @classmethod
    def _known_tasks(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        return checked_tasks(tasks)

    @model_validator(mode="after")
    def _parts_belong_to_the_kind(self) -> Self:
        belongs = {
            "pairs": (self.pairs, SetKind.PREFERENCE),
            "groups": (self.groups, SetKind.GRPO),
            "mix": (self.mix, SetKind.SFT),
            "agreement": (self.agreement, SetKind.SFT),
            "per_prompt": (self.per_prompt, SetKind.SFT),
        }
        for name, (part, kind) in belongs.items():
            if part is not None and self.kind != kind:
                raise ValueError(f"[{name}] belongs to recipes of kind {kind.value!r}")
        if self.kind == SetKind.PREFERENCE and self.pairs is None:
            raise ValueError("a recipe of preferences needs [pairs]")
        if self.kind == SetKind.GRPO and self.groups is None:
            raise ValueError("a recipe of groups needs [groups]")
        for row_filter in self.filters:
            if self.kind != SetKind.SFT and (row_filter.of != "trace" or row_filter.tasks):
                raise ValueError(f"filters of a {self.kind} recipe are on whole traces")
            if self._has_whole_traces and row_filter.column.startswith("event."):
                raise ValueError(
                    f"{row_filter.column} is of single events, and rows of a {self.kind} recipe "
                    "are whole traces; filter by a field of the trace, or by a score of it"
                )
        for pool in [] if self.mix is None else (self.mix.weights or self.mix.counts):
            if not self.wants(pool):
                raise ValueError(f"the mix asks for {pool}, which is not among the tasks")
        return self

    @model_validator(mode="after")
    def _compares_whole_rollouts(self) -> Self:
        """A judge who compares rollouts ranks them, and says nothing of one by itself."""
        if self.judge is None or self.judge.aggregate not in RELATIVE:
            return self
        column = f"{JUDGE}.value"
        by_itself = [
            row_filter.column
            for row_filter in self.filters
            if row_filter.of != "trace" or row_filter.has_bounds
        ]
        by_itself += [] if self.agreement is None else [self.agreement.by]
        if self.pairs is not None and "revision" in self.pairs.sources:
            by_itself.append(self.pairs.by)
        if self.groups is not None and len(self.groups.rewards) > 1:
            by_itself += self.groups.rewards
        if column in by_itself:
            raise ValueError(
                f"{column} by {self.judge.aggregate} compares whole rollouts with each other: rank "
                "by it alone (per_prompt, pairs of groups, the only reward of groups), or filter "
                "without bounds by whether there is any score"
            )
        return self

    @property
    def ranked_by(self) -> tuple[str, ...]:
        """The columns that whole traces are ranked by: several make one reward."""
        if self.groups is not None:
            return self.groups.rewards
        ranking = self.pairs or self.per_prompt
        return () if ranking is None or ranking.by is None else (ranking.by,)

    @property
    def compares_rollouts(self) -> bool:
        """Whether traces are ranked by how their scores fare among those of others."""
        return self.ranks_by_comparing_judges or (
            self.groups is not None and self.groups.aggregate in RELATIVE
        )

    @property
    def ranks_by_comparing_judges(self) -> bool:
        """Whether it is the judges who compare, in what traces are ranked by."""
        is_relative = self.judge is not None and self.judge.aggregate in RELATIVE
        return is_relative and f"{JUDGE}.value" in self.ranked_by

    @property
    def uses(self) -> tuple[Use, ...]:
        """Every column that the recipe goes by, `judge.value` too, once for each setting."""
        uses = [
            Use(FILTER, row_filter.column, "a number" if row_filter.has_bounds else "any score")
            for row_filter in self.filters
        ]
        if self.agreement is not None:
            uses.append(Use("[agreement] by", self.agreement.by, "a number"))
        if self.per_prompt is not None:
            rule = self.per_prompt
            uses += [Use("[per_prompt] by", by, "a number") for by in (rule.by,) if by]
            uses += [Use("[per_prompt] hash", rule.hash, "a hash")] * bool(rule.min_distance)
        if self.pairs is not None:
            uses.append(Use("[pairs] by", self.pairs.by, "a number"))
        if self.groups is not None:
            rewards = self.groups.rewards
            uses += [Use("[groups] rewards", reward, "a number") for reward in rewards]
        return tuple(uses)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that the recipe goes by, once; `judge.value` is one of them."""
        return tuple(dict.fromkeys(use.column for use in self.uses))

    @property
    def is_judged(self) -> bool:
        """Whether it goes by whoever judges."""
        return any(column.partition(".")[0] == JUDGE for column in self.columns)

    @property
    def _has_whole_traces(self) -> bool:
        """Whether any of its rows is a whole trace."""
        return self.kind == SetKind.GRPO or (
            self.pairs is not None and "group" in self.pairs.sources
        )

    def wants(self, task: str) -> bool:
        """Whether a task, or any task of a role, is among those of the recipe."""
        return any(covers(wanted, task) or covers(task, wanted) for wanted in self.tasks)
