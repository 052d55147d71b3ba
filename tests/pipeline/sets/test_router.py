"""Which stream a row goes to, and which columns the stream has."""

import pytest

from pipeline.sets.exports import EXPORTS
from pipeline.sets.router import schema_of, streams_of
from schemas.recipes import Recipe, SetKind
from schemas.rows import TrainingRow
from schemas.training import DRAW, GROUP, PREFERENCE, TEXT
from tests.pipeline.sets.hand_made import draw_row, group_row, pair, text_row

ROWS = {
    SetKind.SFT: Recipe(name="s", exports=tuple(EXPORTS)),
    SetKind.PREFERENCE: Recipe.model_validate(
        {"name": "d", "kind": "preference", "pairs": {"by": "a.b"}, "exports": list(EXPORTS)}
    ),
    SetKind.GRPO: Recipe.model_validate(
        {"name": "g", "kind": "grpo", "groups": {"rewards": ["a.b"]}, "exports": list(EXPORTS)}
    ),
}


@pytest.mark.parametrize(
    ("kind", "row", "stream", "exports"),
    [
        (
            SetKind.SFT,
            text_row("think_2"),
            "sft/think_2/train",
            {"trl", "llama-factory", "ms-swift", "verl", "webdataset", "nemo-curator"},
        ),
        (SetKind.SFT, draw_row(), "sft/draw_1/train", set()),
        (SetKind.PREFERENCE, pair(), "preference/train", {"trl-dpo"}),
        (SetKind.PREFERENCE, pair("a sky.", "a sky."), "preference/train", set()),
        (SetKind.GRPO, group_row(), "grpo/train", {"verl-grpo"}),
    ],
)
def test_a_row_goes_to_its_own_stream_and_to_exports_that_have_a_column_for_it(
    kind: SetKind, row: TrainingRow, stream: str, exports: set[str]
):
    own, *others = streams_of(row, "train", ROWS[kind])

    assert own == stream
    assert set(others) == {f"exports/{name}/train/part" for name in exports}


def test_an_export_that_was_not_asked_for_gets_no_row():
    assert streams_of(text_row(), "validation", Recipe(name="s", exports=("trl",))) == [
        *("sft/reflect_1/validation", "exports/trl/validation/part")
    ]


def test_a_stream_has_the_columns_of_its_rows():
    assert schema_of("sft/think_1/train") == schema_of("sft/reflect_3/validation") == TEXT
    assert schema_of("sft/draw_2/train") == DRAW
    assert schema_of("preference/train") == PREFERENCE
    assert schema_of("grpo/validation") == GROUP
    assert schema_of("exports/trl/train/part").names == ["messages", "images"]
