"""What to ask a judge about a picture: the things that its prompt names, and how they stand.

From the record's own spec, from T2I-R1's annotations, or from the prompt by the parser. In the mode
`t2i-r1` annotations come first, as there.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from pipeline.prompts.parser import parse
from pipeline.scoring.formulae.detection_rewards import CountInfo, SpatialInfo
from pipeline.scoring.formulae.modes import Mode
from pipeline.scoring.judges.outcomes import View
from schemas.config import Frozen
from schemas.errors import InputError
from schemas.json_values import JsonMapping
from schemas.specs import SPEC_KEY, Category, PromptSpec, RelationKind

_TASK_TYPES = {Category.NON_SPATIAL: "non", Category.SPATIAL_3D: "spatial"}
# What the parser calls by one name, people say in ways that a layout tells apart.
_SAID = {
    "above": (
        ("on the top of", "on the top of"),
        ("on top of", "on top of"),
        ("atop", "on top of"),
    ),
    "below": (("underneath", "under"), ("beneath", "under"), ("under", "under")),
    "on": (("on", "on top of"),),
}


class _Spatial(Frozen):
    obj1: str
    obj2: str
    locality: str


class _Count(Frozen):
    obj_name: str
    num: int


class _Annotation(Frozen):
    """T2I-R1's columns, as its rewards read them."""

    task_type: str
    nouns: tuple[str, ...]
    attr_nouns: tuple[str, ...] | None = None
    spatial_info: _Spatial | None = None
    numeracy_info: tuple[_Count, ...] | None = None


_ANNOTATION = TypeAdapter(_Annotation)


@dataclass(frozen=True, kw_only=True, slots=True)
class Questions:
    """What a prompt asks for, in T2I-R1's terms."""

    task_type: str
    nouns: Sequence[str]
    attr_nouns: Sequence[str] | None  # None: nobody said; empty: there are none
    spatial: SpatialInfo | None = None
    counts: Sequence[CountInfo] = ()

    @property
    def phrases(self) -> Sequence[str]:
        """The things with what is said of them, or else the things."""
        return self.attr_nouns or self.nouns


def questions_of(view: View, mode: Mode) -> Questions | None:
    """What to ask about a view. None for a prompt that could not be read."""
    annotated = _annotated(view.metadata)
    if annotated is not None and mode is Mode.T2I_R1:
        return annotated
    spec = spec_of(view)
    return _from_spec(spec, view.prompt) if spec is not None else annotated


def spec_of(view: View) -> PromptSpec | None:
    """What a view is to show, by its record's own spec or by the parser; None: nobody can tell."""
    if SPEC_KEY not in view.metadata:
        return parse(view.prompt).spec
    table = view.metadata[SPEC_KEY]
    if table is None:  # whoever annotated the prompts could not read this one
        return None
    if not isinstance(table, dict):
        raise InputError(
            f"the {SPEC_KEY} of {view.prompt!r} is {type(table).__name__}, and no table"
        )
    return PromptSpec.from_json(table)


def _annotated(metadata: JsonMapping) -> Questions | None:
    """T2I-R1's columns, where a record has them in a form that can be used."""
    columns = {name: metadata[name] for name in _Annotation.model_fields if name in metadata}
    try:
        annotation = _ANNOTATION.validate_python(columns)
    except ValidationError:
        return None
    spatial = annotation.spatial_info
    return Questions(
        task_type=annotation.task_type,
        nouns=annotation.nouns,
        attr_nouns=annotation.attr_nouns,
        spatial=None
        if spatial is None
        else SpatialInfo(subject=spatial.obj1, target=spatial.obj2, relation=spatial.locality),
        counts=[
            CountInfo(name=count.obj_name, number=count.num)
            for count in annotation.numeracy_info or ()
        ],
    )


def _from_spec(spec: PromptSpec, prompt: str) -> Questions:
    nouns = [shown.noun for shown in spec.objects]
    is_described = any(shown.phrase != shown.noun for shown in spec.objects)
    return Questions(
        task_type=_TASK_TYPES.get(spec.category, spec.category.value),
        nouns=nouns,
        attr_nouns=list(spec.detector_phrases) if is_described else None,
        spatial=next(_spatial(spec, prompt), None),
        counts=list(_counts(spec)),
    )


def _spatial(spec: PromptSpec, prompt: str) -> Iterator[SpatialInfo]:
    """The relations of place, those first that boxes tell."""
    for kind in (RelationKind.SPATIAL_2D, RelationKind.SPATIAL_3D):
        for relation in spec.relations:
            target = relation.object
            if relation.kind is kind and target is not None:
                yield SpatialInfo(
                    subject=spec.objects[relation.subject].noun,
                    target=spec.objects[target].noun,
                    relation=_as_said(relation.relation, prompt),
                )


def _as_said(relation: str, prompt: str) -> str:
    for words, meant in _SAID.get(relation, ()):
        if re.search(rf"\b{words}\b", prompt, re.IGNORECASE):
            return meant
    return relation


def _counts(spec: PromptSpec) -> Iterator[CountInfo]:
    """Numbers by noun: a red cup and two blue ones are three cups."""
    numbers: dict[str, int] = {}
    for shown in spec.objects:
        if shown.count is not None:
            numbers[shown.noun] = numbers.get(shown.noun, 0) + shown.count
    for noun, number in numbers.items():
        yield CountInfo(name=noun, number=number)
