"""Exports of rows made by hand: what each trainer finds in its columns."""

import json

import pytest

from pipeline.sets.exports import EXPORTS
from tests.pipeline.sets.hand_made import draw_row, group_row, pair, picture, text_row

NOTE = {
    "id": "run-record-0-1",
    "task": "reflect_1",
    "run_id": "run",
    "trace_id": "run-record-0",
    "event": 1,
    "record_id": "record",
    "recipe": "digest",
}


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_of_any_rows_has_its_columns_and_takes_what_is_its_own(name: str):
    rows = [text_row(), draw_row(), pair(), group_row()]
    table = EXPORTS[name].table(rows)

    assert table.schema == EXPORTS[name].schema
    assert table.num_rows > 0
    assert sum(EXPORTS[name].takes(row) for row in rows) == 1
    assert EXPORTS[name].table([]).num_rows == 0


def test_trl_has_the_messages_as_they_are():
    (row,) = EXPORTS["trl"].table([text_row()]).to_pylist()

    assert row == {"messages": text_row()["messages"], "images": [picture()]}


@pytest.mark.parametrize("name", ["llama-factory", "ms-swift"])
@pytest.mark.parametrize("num_pictures", [0, 1, 2])
def test_tags_stand_before_the_first_question(name: str, num_pictures: int):
    canonical = text_row(num_pictures=num_pictures)
    (row,) = EXPORTS[name].table([canonical]).to_pylist()

    assert [message["content"] for message in row["messages"]] == [
        *("You draw.", "<image>" * num_pictures + "What is it?", "A sky.")
    ]
    assert len(row["images"]) == num_pictures
    assert canonical == text_row(num_pictures=num_pictures), "ours is left as it was"


def test_verl_has_the_question_and_the_truth_apart():
    (row,) = EXPORTS["verl"].table([text_row()]).to_pylist()

    assert [message["role"] for message in row["prompt"]] == ["system", "user"]
    assert row["prompt"][-1]["content"] == "<image>What is it?"
    assert row["reward_model"] == {"style": "rule", "ground_truth": "A sky."}
    assert (row["data_source"], row["ability"]) == ("coppice/reflect_1", "reflect")
    assert row["extra_info"]["index"] == NOTE["id"]
    assert json.loads(row["extra_info"]["note"]) == NOTE


def test_webdataset_has_a_key_and_a_note():
    (row,) = EXPORTS["webdataset"].table([text_row()]).to_pylist()

    assert (row["__key__"], row["webp"]) == (NOTE["id"], [picture()])
    assert json.loads(row["json"]) == {"messages": text_row()["messages"], **NOTE}


def test_nemo_curator_has_a_part_for_each_picture_and_text():
    rows = EXPORTS["nemo-curator"].table([text_row(num_pictures=2)]).to_pylist()

    assert [(row["position"], row["modality"]) for row in rows] == [
        *((-1, "metadata"), (0, "image"), (1, "image"), (2, "text"), (3, "text"))
    ]
    assert [row["binary_content"] for row in rows] == [None, b"webp", b"webp", None, None]
    assert [row["text_content"] for row in rows[3:]] == ["You draw.\n\nWhat is it?", "A sky."]
    assert {row["sample_id"] for row in rows} == {NOTE["id"]}


def test_verl_grpo_has_a_row_for_each_segment_to_be_learned():
    drawing, thought = EXPORTS["verl-grpo"].table([group_row()]).to_pylist()

    for row in (drawing, thought):
        assert (row["uid"], row["reward_score"], row["num_turns"]) == ("run-record", 0.5, 1)
        assert row["response_ids"] == [7, 8, 9]
        assert row["response_mask"] == [1, 1, 1]
        assert row["response_logprobs"] == [-1.0, -2.0, -3.0]
    assert (drawing["prompt_ids"], thought["prompt_ids"]) == ([1, 1], [1, 2])
    told = json.loads(drawing["extra_fields"])
    assert (told["event"], told["modality"], told["canvas"]) == (1, "image", [5])
    assert told["logp_cond"] == [-1.5, -2.5, -3.5]
    assert told["record_id"] == "record"


def test_trl_dpo_has_one_prompt_and_two_answers():
    (row,) = EXPORTS["trl-dpo"].table([pair()]).to_pylist()

    assert row == {
        "prompt": [{"role": "user", "content": "a red sky"}],
        "chosen": [{"role": "assistant", "content": "a blue sky."}],
        "rejected": [{"role": "assistant", "content": "a red sky."}],
    }
    assert EXPORTS["trl-dpo"].table([pair("a sky.", "a sky.")]).num_rows == 0
