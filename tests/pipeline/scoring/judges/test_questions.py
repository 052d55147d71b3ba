import pytest

from pipeline.prompts.parser import parse
from pipeline.scoring.formulae.detection_rewards import CountInfo, SpatialInfo
from pipeline.scoring.formulae.modes import Mode
from pipeline.scoring.formulae.relations import degree
from pipeline.scoring.judges.outcomes import View
from pipeline.scoring.judges.questions import Questions, questions_of
from schemas.errors import InputError
from schemas.json_values import JsonMapping
from schemas.specs import SPEC_KEY
from tests.pipeline.scoring.judges.conftest import picture

ANNOTATION: JsonMapping = {
    "task_type": "numeracy",
    "nouns": ["dog"],
    "numeracy_info": [{"obj_name": "dog", "num": 3}],
}


def read(prompt: str, metadata: JsonMapping | None = None, mode: Mode = Mode.FIXED) -> Questions:
    view = View(pixels=picture(1, 16, 16), prompt=prompt, metadata=metadata or {})
    questions = questions_of(view, mode)
    assert questions is not None
    return questions


def test_a_prompt_is_asked_about_by_its_things_with_what_is_said_of_them():
    questions = read("a red cup and two blue plates")

    assert questions.nouns == ["cup", "plate"]
    assert list(questions.phrases) == ["red cup", "blue plate"]
    assert questions.counts == [
        CountInfo(name="cup", number=1),
        CountInfo(name="plate", number=2),
    ]
    assert questions.task_type == "numeracy"
    assert read("a cup and a plate").attr_nouns is None


def test_two_things_of_one_kind_are_counted_together():
    questions = read("a red cup and two blue cups")

    assert questions.nouns == ["cup", "cup"]
    assert questions.counts == [CountInfo(name="cup", number=3)]


@pytest.mark.parametrize(
    ("prompt", "relation"),
    [
        ("a cat on top of a table", "on top of"),
        ("a cat on the top of a table", "on the top of"),
        ("a cat above a table", "above"),
        ("a cat under a table", "under"),
        ("a cat beneath a table", "under"),
        ("a cat below a table", "below"),
        ("a cat on the left of a table", "left of"),
        ("a cat near a table", "near"),
        ("a cat in front of a table", "in front of"),
    ],
)
def test_a_relation_is_judged_by_the_words_that_the_prompt_has_for_it(prompt: str, relation: str):
    spatial = read(prompt).spatial

    assert spatial == SpatialInfo(subject="cat", target="table", relation=relation)
    box = (0.0, 0.0, 5.0, 5.0)
    told = degree(relation, box, box, width=9, height=9)
    assert (told is None) is (relation == "in front of")


def test_the_records_own_spec_comes_before_annotations_but_for_the_published_mode():
    spec = parse("two cats").spec
    assert spec is not None
    metadata = {**ANNOTATION, SPEC_KEY: spec.to_json()}

    assert read("x", metadata).nouns == ["cat"]
    assert read("x", metadata, Mode.T2I_R1).nouns == ("dog",)
    assert read("zzz", {**ANNOTATION, SPEC_KEY: None}).nouns == ("dog",)


def test_a_prompt_that_nobody_could_read_asks_nothing_and_a_spec_that_is_none_is_an_error():
    view = View(pixels=picture(1, 16, 16), prompt="a dog", metadata={SPEC_KEY: None})
    assert questions_of(view, Mode.FIXED) is None

    with pytest.raises(InputError, match="prompt_spec of 'a dog' is str"):
        read("a dog", {SPEC_KEY: "dog"})
