import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import InputError
from schemas.specs import (
    Attribute,
    AttributeKind,
    Category,
    PromptSpec,
    Relation,
    RelationKind,
    SpecObject,
    SpecSource,
)

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
attributes = st.builds(Attribute, kind=st.sampled_from(AttributeKind), value=words)
things = st.builds(
    SpecObject,
    noun=words,
    attributes=st.lists(attributes, max_size=3).map(tuple),
    count=st.none() | st.integers(1, 99),
)


@st.composite
def specs(draw: st.DrawFn) -> PromptSpec:
    objects = tuple(draw(st.lists(things, min_size=1, max_size=4)))
    index = st.integers(0, len(objects) - 1)
    relations = st.builds(
        Relation,
        subject=index,
        relation=words,
        object=st.none() | index,
        kind=st.sampled_from(RelationKind),
    )
    return PromptSpec(
        category=draw(st.sampled_from(Category)),
        source=draw(st.sampled_from(SpecSource)),
        objects=objects,
        relations=tuple(draw(st.lists(relations, max_size=3))),
    )


CAT = PromptSpec(
    category=Category.COLOR,
    source=SpecSource.PARSER,
    objects=(
        SpecObject(noun="cat", attributes=(Attribute(kind=AttributeKind.COLOUR, value="red"),)),
    ),
)


@given(specs())
def test_a_spec_survives_json(spec: PromptSpec):
    assert PromptSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_json_says_what_to_ask_a_detector_for():
    assert CAT.to_json()["detector_phrases"] == ["red cat"]
    assert CAT.to_json()["version"] == 2


@pytest.mark.parametrize(
    "change",
    [
        {"version": 3},
        {"objects": []},
        {"objects": [{"noun": ""}]},
        {"objects": [{"noun": "cat", "count": 0}]},
        {"relations": [{"subject": 0, "relation": "on", "object": 1, "kind": "2d-spatial"}]},
        {"mood": "happy"},
        {"category": "colour"},
        {"detector_phrases": ["blue cat"]},
    ],
)
def test_what_is_no_spec_of_this_version_is_refused(change: dict[str, object]):
    with pytest.raises(InputError, match="expected"):
        PromptSpec.from_json(CAT.to_json() | change)
