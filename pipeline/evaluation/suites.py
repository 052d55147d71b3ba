"""The suites: which prompts they have, who judges them, and what of the scores makes their tables.

T2I-CompBench (Huang et al. 2023 and 2025): BLIP-VQA, CLIPScore and 3-in-1 as published; UniDet and
its depth network are no models of transformers, and what stands for them is called a surrogate.
GenEval (Ghosh et al. 2023): other weights than published, so its numbers are "GenEval-native".
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from pipeline.scoring.formulae.compbench import PromptLists, published_three_in_one
from schemas.errors import InputError
from schemas.json_values import JsonMapping, JsonObject
from schemas.rows import ScoreValue

SUITE_KEY = "suite"
"""Of a record's metadata: the suite that it was planned for."""

CLASS_KEY = "suite_class"
"""Of a record's metadata: the row of the table that its prompt counts for."""

LISTS_KEY = "suite_lists"
"""Of a record's metadata: the lists of complex prompts that name it: spatial, action."""

Cells: TypeAlias = Mapping[str, Mapping[str, ScoreValue]]
"""What each judge says of one picture: its columns, by the name of the scorer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A rollout, and what the judges say of it."""

    record_id: str
    rollout: int
    prompt: str
    metadata: JsonMapping
    is_ok: bool
    cells: Cells = field(default_factory=dict)  # empty: dead


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A row of a table: the mean over a class of prompts of a number of each picture."""

    prompt_class: str | None  # None: all prompts
    name: str
    judges: tuple[str, ...]  # scorers
    value_of: Callable[[Picture], float | None]
    is_surrogate: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Total:
    """A row that is the mean of other rows."""

    name: str
    of: str  # the metrics of this name


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """What is drawn, who judges, and what is told of it."""

    name: str
    title: str
    images_per_prompt: int  # by default: as published
    judges: Mapping[str, JsonObject]  # scorers by name, with what is told to them
    metrics: Sequence[Metric]
    more_judges: Mapping[str, JsonObject] = field(default_factory=dict)  # at work if named
    totals: Sequence[Total] = ()
    files: Mapping[str, str] = field(default_factory=dict)  # of prompts, by the class; {} bundled
    published_by: str = ""
    notes: Sequence[str] = ()


_BANDS = ("sky", "objects", "ground")


def _column(scorer: str, column: str, picture: Picture) -> float | None:
    """A number that a judge gave, or None."""
    value = picture.cells.get(scorer, {}).get(column)
    return float(value) if isinstance(value, int | float) else None


def _metric(
    prompt_class: str | None,
    name: str,
    scorer: str,
    column: str = "value",
    *,
    is_surrogate: bool = False,
) -> Metric:
    return Metric(
        prompt_class=prompt_class,
        name=name,
        judges=(scorer,),
        value_of=partial(_column, scorer, column),
        is_surrogate=is_surrogate,
    )


def _is_all_right(picture: Picture) -> float | None:
    value = _column("toy", "value", picture)
    return None if value is None else float(value == 1)


TOY = Suite(
    name="toy",
    title="the toy's world",
    images_per_prompt=4,
    judges={"toy": {}},
    metrics=(
        _metric(None, "attributes", "toy"),
        *(_metric(None, f"attributes of the {band}", "toy", f"band: {band}") for band in _BANDS),
        Metric(
            prompt_class=None, name="pictures all right", judges=("toy",), value_of=_is_all_right
        ),
    ),
    notes=(
        "Every prompt has a combination that the toy was never shown. The judge is exact; a number "
        "is the share that is right of what the prompt asks for.",
    ),
)


def _three_in_one(picture: Picture) -> float | None:
    """None where one of the three has no value: the published mean knows no such case."""
    blip, unidet, clip = (
        _column(scorer, "value", picture) for scorer in ("blip_vqa", "layout", "clipscore")
    )
    if blip is None or unidet is None or clip is None:
        return None
    named = picture.metadata.get(LISTS_KEY)
    lists = {
        name: [picture.prompt] if isinstance(named, list) and name in named else []
        for name in COMPLEX_LISTS
    }
    return published_three_in_one(picture.prompt, blip, unidet, clip, PromptLists(**lists))


COMPLEX_LISTS = {"spatial": "complex_val_spatial.txt", "action": "complex_val_action.txt"}
"""The files that name complex prompts about a relation and about an action."""

_COMPBENCH_CLASSES = (
    *("color", "shape", "texture", "spatial", "3d_spatial", "numeracy", "non_spatial"),
    "complex",
)

COMPBENCH = Suite(
    name="t2i-compbench",
    title="T2I-CompBench++",
    images_per_prompt=10,
    judges={
        "blip_vqa": {"mode": "official"},
        "clipscore": {"mode": "official"},
        "layout": {"mode": "official"},
    },
    metrics=(
        *(_metric(name, "BLIP-VQA", "blip_vqa") for name in ("color", "shape", "texture")),
        _metric("spatial", "UniDet, surrogate", "layout", is_surrogate=True),
        _metric("3d_spatial", "UniDet and depth, surrogates", "layout", is_surrogate=True),
        _metric("numeracy", "UniDet, surrogate", "layout", is_surrogate=True),
        _metric("non_spatial", "CLIPScore", "clipscore"),
        Metric(
            prompt_class="complex",
            name="3-in-1, with surrogate",
            judges=("blip_vqa", "layout", "clipscore"),
            value_of=_three_in_one,
            is_surrogate=True,
        ),
    ),
    files={name: f"{name}_val.txt" for name in _COMPBENCH_CLASSES},
    published_by="the project T2I-CompBench (Karine-H), in its folder examples/dataset",
    notes=(
        "BLIP-VQA asks about the noun chunks of our own parser unless blip_vqa has a chunker; the "
        "published ones are spaCy's.",
        "3-in-1 takes CLIPScore over the whole prompt; the published one leaves adjectives out. "
        "Complex prompts in neither list get the mean of all three.",
        "Surrogates: another detector and another depth network than published. Compare them with "
        "each other, and not with published numbers.",
    ),
)

_GENEVAL_CLASSES = (
    *("single_object", "two_object", "counting", "colors", "position"),
    "color_attr",
)

GENEVAL = Suite(
    name="geneval",
    title="GenEval-native",
    images_per_prompt=4,
    judges={"geneval": {}},
    more_judges={"soft_geneval": {}},
    metrics=(
        *(
            _metric(name, "GenEval-native", "geneval", is_surrogate=True)
            for name in _GENEVAL_CLASSES
        ),
        *(
            _metric(name, "soft, like GenEval 2", "soft_geneval", is_surrogate=True)
            for name in _GENEVAL_CLASSES
        ),
    ),
    totals=(
        Total(name="mean of the classes", of="GenEval-native"),
        Total(name="mean of the classes", of="soft, like GenEval 2"),
    ),
    files={"": "evaluation_metadata.jsonl"},  # a prompt's class is its tag
    published_by="the project GenEval (djghosh13), in its folder prompts",
    notes=(
        "GenEval-native: an open-vocabulary detector and CLIP on boxes stand for Mask2Former and "
        "CLIP on masks. Compare such numbers with each other, and not with published ones.",
    ),
)

SUITES: Mapping[str, Suite] = {suite.name: suite for suite in (COMPBENCH, GENEVAL, TOY)}


def find_suite(name: str) -> Suite:
    """The suite of this name. Raises InputError."""
    if name not in SUITES:
        raise InputError(f"there is no suite {name!r:.80}; known: {', '.join(SUITES)}")
    return SUITES[name]
