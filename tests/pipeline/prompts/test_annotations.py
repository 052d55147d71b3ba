from typing import Any

import pytest

from pipeline.prompts.annotations import known_category, read_annotation
from schemas.specs import Category, PromptSpec, SpecSource


def spec(prompt: str, **annotation: Any) -> PromptSpec:
    found = read_annotation(prompt, annotation, None)
    assert found.fault is None
    assert found.spec is not None
    return found.spec


def fault(prompt: str, **annotation: Any) -> str:
    found = read_annotation(prompt, annotation, None)
    assert found.spec is None
    assert found.fault is not None
    return found.fault


def phrases(found: PromptSpec) -> list[str]:
    return list(found.detector_phrases)


@pytest.mark.parametrize(
    ("source", "metadata", "category"),
    [
        ("data/color_train.txt", {}, Category.COLOR),
        ("3d_spatial_val.txt", {}, Category.SPATIAL_3D),
        ("s3://bucket/t2i/non_spatial_train.txt", {}, Category.NON_SPATIAL),
        ("prompts.jsonl", {"task_type": "non"}, Category.NON_SPATIAL),
        ("color_train.txt", {"task_type": "shape"}, Category.SHAPE),
        ("a.jsonl", {"category": "complex", "task_type": "color"}, Category.COMPLEX),
        ("a.jsonl", {"category": "animals"}, None),
        ("a.jsonl", {"category": ["color"]}, None),
        ("color.txt", {}, None),
        ("mood_train.txt", {}, None),
    ],
)
def test_a_category_is_known_from_a_column_or_the_name_of_the_file(
    source: str, metadata: dict[str, Any], category: Category | None
):
    assert known_category(source, metadata) is category


def test_a_row_without_annotation_has_neither_spec_nor_fault():
    found = read_annotation("a cat", {"nouns_of": 3}, None)

    assert (found.spec, found.fault) == (None, None)


def test_the_parser_fills_in_what_the_annotation_does_not_say():
    found = spec("a conical pencil sharpener on a table", nouns=["sharpener", "table"])

    assert found.source is SpecSource.ANNOTATION
    assert phrases(found) == ["conical pencil sharpener", "table"]
    assert [relation.relation for relation in found.relations] == ["on"]


def test_the_annotation_names_what_the_parser_cannot_read():
    found = spec(
        "a photo of four headphoneses",
        nouns=["headphones"],
        numeracy_info=[{"obj_name": "headphones", "num": 4}],
    )

    assert [(thing.noun, thing.count) for thing in found.objects] == [("headphones", 4)]


def test_an_annotated_relation_gets_its_name_and_is_not_said_twice():
    found = spec(
        "a cat on the left of a cat",
        nouns=["cat", "cat"],
        spatial_info={"obj1": "cat", "obj2": "cat", "locality": "on the left of"},
    )

    (relation,) = found.relations
    assert (relation.subject, relation.relation, relation.object) == (0, "left of", 1)


def test_attributes_that_the_prompt_lacks_are_left_out():
    found = spec("a fabric pillow", nouns=["pillow"], attr_nouns=["soft pillow"])

    assert phrases(found) == ["fabric pillow"]


def test_nouns_that_cannot_be_shown_are_left_out():
    assert phrases(spec("a cat of great beauty", nouns=["cat", "beauty"])) == ["cat"]


@pytest.mark.parametrize(
    ("annotation", "complaint"),
    [
        ({"nouns": ["dog"]}, "'dog', which is not in the prompt"),
        ({"nouns": "cat"}, "nouns"),
        ({"nouns": [3]}, "nouns.0"),
        ({"nouns": [""]}, "not in the prompt"),
        ({"nouns": ["cat"], "spatial_info": {"obj1": "cat"}}, "spatial_info.obj2"),
        (
            {
                "nouns": ["cat", "side"],
                "spatial_info": {"obj1": "cat", "obj2": "side", "locality": "on side of"},
            },
            "'side', which is no object",
        ),
        (
            {
                "nouns": ["cat"],
                "spatial_info": {"obj1": "cat", "obj2": "key", "locality": "sideways to"},
            },
            "'sideways to'",
        ),
        ({"nouns": ["cat"], "numeracy_info": [{"obj_name": "cat", "num": 0}]}, "0 of 'cat'"),
    ],
)
def test_an_annotation_that_does_not_fit_is_set_aside(annotation: dict[str, Any], complaint: str):
    assert complaint in fault("a cat on side of a key", **annotation)
