"""Tables of suites: what counts once, what is left out, how two models compare."""

import pytest

from pipeline.evaluation.suites import CLASS_KEY, COMPBENCH, GENEVAL, LISTS_KEY, TOY, Picture, Suite
from pipeline.evaluation.tables import Line, differences, lines_of
from schemas.json_values import JsonObject
from schemas.rows import ScoreValue


def picture(
    record: str, rollout: int = 0, metadata: JsonObject | None = None, **values: ScoreValue
) -> Picture:
    """One whose judges gave these values."""
    return Picture(
        record_id=record,
        rollout=rollout,
        prompt=record,
        metadata=metadata or {},
        is_ok=True,
        cells={name: {"value": value} for name, value in values.items()},
    )


def line_of(suite: Suite, pictures: list[Picture], name: str) -> Line:
    lines = lines_of(suite, pictures, [*suite.judges, *suite.more_judges])
    return next(line for line in lines if name in (line.metric, line.prompt_class))


def test_a_prompt_counts_once_however_many_pictures_it_has():
    pictures = [picture("a", rollout, toy=1.0) for rollout in range(9)]
    line = line_of(TOY, [*pictures, picture("b", toy=0.0)], "attributes")

    assert line.value == 0.5
    assert (line.num_prompts, line.num_pictures, line.num_without) == (2, 10, 0)
    assert line.interval == (0.0, 1.0)


def test_a_picture_without_a_value_is_counted_and_takes_no_part():
    line = line_of(TOY, [picture("a", toy=1.0), picture("a", 1, toy=None)], "attributes")

    assert line.value == 1.0
    assert line.num_without == 1


def test_a_class_without_any_value_has_no_mean():
    line = line_of(TOY, [picture("a", toy=None)], "attributes")

    assert line.value is None
    assert line.as_json()["value"] is None


@pytest.mark.parametrize(
    ("lists", "expected"), [(["spatial"], 0.5), (["action"], 0.7), ([], 0.6), (None, 0.6)]
)
def test_three_in_one_is_the_mean_of_what_fits_the_prompt(lists: list[str] | None, expected: float):
    metadata: JsonObject = {CLASS_KEY: "complex", LISTS_KEY: None if lists is None else [*lists]}
    shown = picture("A dog.", metadata=metadata, blip_vqa=0.6, layout=0.4, clipscore=0.8)
    line = line_of(COMPBENCH, [shown], "complex")

    assert line.value == pytest.approx(expected)
    assert line.is_surrogate


def test_three_in_one_has_no_value_where_one_of_the_three_has_none():
    shown = picture("a", metadata={CLASS_KEY: "complex"}, blip_vqa=0.6, layout=None, clipscore=0.8)

    assert line_of(COMPBENCH, [shown], "complex").num_without == 1


def geneval_pictures(**of_classes: list[float]) -> list[Picture]:
    return [
        picture(f"{name} {index}", metadata={CLASS_KEY: name}, geneval=value)
        for name, values in of_classes.items()
        for index, value in enumerate(values)
    ]


def test_genevals_total_counts_every_class_the_same():
    pictures = geneval_pictures(counting=[0.0] * 9, colors=[1.0])
    line = line_of(GENEVAL, pictures, "mean of the classes")

    assert line.value == 0.5
    assert line.metric == "GenEval-native"


def test_one_prompt_of_a_class_has_a_mean_and_tells_nothing_of_other_prompts():
    pictures = geneval_pictures(counting=[0.0] * 9, colors=[1.0])
    lines = {line.prompt_class: line for line in lines_of(GENEVAL, pictures, ["geneval"])}

    assert lines["counting"].interval == (0.0, 0.0)
    for name in ("colors", "mean of the classes"):
        assert lines[name].value is not None
        assert lines[name].interval is None
        assert lines[name].as_json()["low"] is None


def test_judges_that_were_not_asked_have_no_rows():
    metrics = {line.metric for line in lines_of(GENEVAL, geneval_pictures(colors=[1]), ["geneval"])}

    assert metrics == {"GenEval-native"}


def test_two_models_are_compared_on_the_prompts_that_both_have():
    own = [picture(f"p{index}", toy=index / 10 + 0.1) for index in range(8)]
    others = [picture(f"p{index}", toy=index / 10) for index in range(6)]
    line = next(
        line for line in differences(TOY, own, others, ["toy"]) if line.metric == "attributes"
    )

    assert line.num_prompts == 6
    assert line.value == pytest.approx(0.1)
    # Prompts differ by far more than the models do on each of them.
    assert line.interval == pytest.approx((0.1, 0.1))


def test_a_model_against_itself_differs_by_nothing():
    own = [picture(f"p{index}", toy=index / 10) for index in range(8)]
    lines = [line for line in differences(TOY, own, own, ["toy"]) if line.interval]

    assert lines
    assert {line.interval for line in lines} == {(0, 0)}
