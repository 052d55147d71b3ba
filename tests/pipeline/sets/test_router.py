"""Which stream a row goes to, and which columns the stream has."""

import pytest

from pipeline.sets.exports import EXPORTS, exports_of
from pipeline.sets.exports.form import Source
from pipeline.sets.router import schema_of, tables_of
from schemas.recipes import Recipe, SetKind
from schemas.rows import TrainingRow
from schemas.training import DRAW, GROUP, PREFERENCE, TEXT
from tests.pipeline.sets.hand_made import draw_row, facts, group_row, pair, text_row

RECIPES = {
    SetKind.SFT: {"name": "s"},
    SetKind.PREFERENCE: {"name": "d", "kind": "preference", "pairs": {"by": "a.b"}},
    SetKind.GRPO: {"name": "g", "kind": "grpo", "groups": {"rewards": ["a.b"]}},
}
OF_WORDS = {"trl", "trl-messages", "llama-factory", "ms-swift", "verl", "veomni", "nemo-curator"}


@pytest.mark.parametrize(
    ("kind", "row", "stream", "exports"),
    [
        (SetKind.SFT, text_row("think_2"), "sft/think_2/train", {*OF_WORDS, "webdataset"}),
        (SetKind.SFT, draw_row(), "sft/draw_1/train", {"unirl", "imagefolder"}),
        (SetKind.PREFERENCE, pair(), "preference/train", set()),
        (SetKind.GRPO, group_row(), "grpo/train", {"grpo", "verl-grpo", "unirl"}),
    ],
)
def test_a_row_goes_to_its_own_stream_and_to_exports_that_take_it_or_say_why_not(
    kind: SetKind, row: TrainingRow, stream: str, exports: set[str]
):
    names = exports_of(kind)
    recipe = Recipe.model_validate(RECIPES[kind] | {"exports": names})
    tables, left_out = tables_of({"train": [Source(row=row, facts=facts())]}, recipe)

    own, *others = tables
    assert own == stream
    assert {key.split("/")[1] for key in others} == exports
    assert all(key.startswith("exports/") and key.endswith("/part") for key in others)
    assert {name for name in names if left_out[name]} == set(names) - exports


def test_an_export_that_was_not_asked_for_gets_no_row():
    recipe = Recipe(name="s", exports=("trl",))
    tables, _ = tables_of({"validation": [Source(row=text_row())]}, recipe)

    assert list(tables) == ["sft/reflect_1/validation", "exports/trl/validation/part"]


def test_a_stream_has_the_columns_of_its_rows():
    assert schema_of("sft/think_1/train") == schema_of("sft/reflect_3/validation") == TEXT
    assert schema_of("sft/draw_2/train") == DRAW
    assert schema_of("preference/train") == PREFERENCE
    assert schema_of("grpo/validation") == GROUP
    assert schema_of("exports/trl/train/part") == EXPORTS["trl"].schema
