"""Exports of rows made by hand: what each trainer finds in its columns."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.pictures import decode_picture
from pipeline.sets.exports import EXPORTS
from pipeline.sets.exports.advantages import ADVANTAGES
from pipeline.sets.exports.form import DrawingPair, Source, ThoughtPair
from schemas.recipes import SetKind
from schemas.rows import GroupRow, TrainingRow
from tests.pipeline.sets.hand_made import (
    as_png,
    draw_row,
    exported,
    facts,
    group_row,
    left_out,
    pair,
    picture,
    text_row,
)

NOTE = {
    "id": "run-record-0-1",
    "task": "reflect_1",
    "run_id": "run",
    "trace_id": "run-record-0",
    "event": 1,
    "record_id": "record",
    "recipe": "digest",
}
TAGS = ("<image>", "<video>", "<audio>")
THOUGHTS = ThoughtPair(
    question=[{"role": "user", "content": "And the sky?"}],
    images=[],
    has_one_prompt=True,
    chosen="a blue sky.",
    rejected="a red sky.",
)
DRAWINGS = DrawingPair(
    has_one_prompt=True, prompt_ids=[1, 2], canvas=[5], chosen=[6, 7], rejected=[7, 6]
)


def rows_by_kind() -> dict[SetKind, list[TrainingRow]]:
    return {
        SetKind.SFT: [text_row(), draw_row()],
        SetKind.PREFERENCE: [pair()],
        SetKind.GRPO: [group_row()],
    }


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_keeps_the_names_of_its_rows_and_counts_what_it_leaves_out(name: str):
    export = EXPORTS[name]
    known = facts(thoughts=THOUGHTS, drawings=DRAWINGS, region_stops=[1])
    for kind in export.kinds:
        rows = rows_by_kind()[kind]
        made = export.of(Source(row=row, facts=known) for row in rows)

        assert all(table.schema == export.schema for table in made.tables.values())
        assert made.tables, "it takes something of every set that it is for"
        assert sum(made.left_out.values()) < len(rows)
        cells = [row for table in made.tables.values() for row in table.to_pylist()]
        names = [row.get("metadata", row) for row in cells]
        assert all(row["id"] and row["task"] in ("reflect_1", "draw_1", *KINDS) for row in names)
    assert export.of([]).tables == {}


KINDS = ("revision", "group")


def test_trl_has_the_answer_apart_so_that_the_loss_falls_on_it_alone():
    (row,) = exported("trl", text_row())

    *prompt, answer = text_row()["messages"]
    assert (row["prompt"], row["completion"]) == (prompt, [answer])
    assert row["images"] == [as_png(picture())]
    assert left_out("trl", draw_row()) == {"drawing": 1}


def test_trl_messages_has_the_messages_as_they_are():
    (row,) = exported("trl-messages", text_row())

    assert (row["id"], row["task"]) == (NOTE["id"], "reflect_1")
    assert (row["messages"], row["images"]) == (text_row()["messages"], [as_png(picture())])


def test_pictures_of_exports_are_the_same_to_the_pixel():
    (row,) = exported("trl", text_row())

    (image,) = row["images"]
    assert image["bytes"].startswith(b"\x89PNG")
    assert (decode_picture(image["bytes"]) == decode_picture(picture()["bytes"])).all()


@pytest.mark.parametrize("name", ["llama-factory", "ms-swift", "verl"])
@pytest.mark.parametrize("num_pictures", [0, 1, 2])
def test_tags_stand_before_the_first_question(name: str, num_pictures: int):
    canonical = text_row(num_pictures=num_pictures)
    (row,) = exported(name, canonical)

    assert [message["content"] for message in row["messages"]] == [
        *("You draw.", "<image>" * num_pictures + "What is it?", "A sky.")
    ]
    assert len(row["images"]) == num_pictures
    assert canonical == text_row(num_pictures=num_pictures), "ours is left as it was"


def texts() -> st.SearchStrategy[str]:
    spelt = st.sampled_from([*TAGS, "<IMAGE>", "<|image|>", "</image>", "<", "image", ">", "<ima"])
    return st.lists(spelt | st.text(max_size=4), max_size=8).map("".join)


@given(texts(), texts(), texts())
def test_a_tag_that_is_spelt_is_text(system: str, question: str, answer: str):
    row = text_row()
    for message, text in zip(row["messages"], (system, question, answer), strict=True):
        message["content"] = text
    for name in ("llama-factory", "ms-swift", "verl", "veomni"):
        (made,) = exported(name, row)
        turns = made.get("messages") or made["conversations"]
        told = json.dumps(turns)
        assert [told.count(tag) for tag in TAGS] == [1, 0, 0]


def test_verl_has_the_conversation_and_the_question_and_the_truth_apart():
    (row,) = exported("verl", text_row())

    assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant"]
    assert row["prompt"] == row["messages"][:-1]
    assert row["prompt"][-1]["content"] == "<image>What is it?"
    assert row["reward_model"] == {"style": "rule", "ground_truth": "A sky."}
    assert (row["data_source"], row["ability"]) == ("coppice/reflect_1", "reflect")
    assert json.loads(row["extra_info"]["note"]) == NOTE


def test_webdataset_keeps_samples_with_pictures_and_without_apart():
    without = text_row(num_pictures=0) | {"id": "other"}
    rows: list[Any] = [text_row(), without]
    tables = EXPORTS["webdataset"].of(Source(row=row) for row in rows).tables

    assert {folder: table.num_rows for folder, table in tables.items()} == {
        "pictured": 1,
        "text": 1,
    }
    (row,) = tables["pictured"].to_pylist()
    assert (row["__key__"], row["png"]) == (NOTE["id"], [as_png(picture())])
    assert json.loads(row["json"]) == {"messages": text_row()["messages"], **NOTE}


def test_nemo_curator_has_a_part_for_each_picture_and_text():
    rows = exported("nemo-curator", text_row(num_pictures=2))

    assert [(row["position"], row["modality"]) for row in rows] == [
        *((-1, "metadata"), (0, "image"), (1, "image"), (2, "text"), (3, "text"))
    ]
    assert [row["text_content"] for row in rows[3:]] == ["You draw.\n\nWhat is it?", "A sky."]
    assert {row["sample_id"] for row in rows} == {NOTE["id"]}


def test_verl_grpo_has_a_row_for_each_segment_with_its_session():
    drawing, thought = exported("verl-grpo", group_row())

    assert [(row["uid"], row["session_id"], row["index"]) for row in (drawing, thought)] == [
        *(("run-record", 0, 0), ("run-record", 0, 1))
    ]
    assert drawing["response_ids"] == [5, 7, 8, 9], "the canvas, then what was drawn"
    assert drawing["response_mask"] == [0, 1, 1, 1]
    assert drawing["response_logprobs"] == [0.0, -1.0, -2.0, -3.0]
    assert (thought["response_ids"], thought["response_mask"]) == ([7, 8, 9], [1, 1, 1])
    assert thought["images"] == [as_png(picture(1))], "the canvas after the drawing before it"
    assert drawing["images"] == []
    assert drawing["extra_fields"]["num_canvas"] == 1
    assert left_out("verl-grpo", group_row(), canvases={}) == {"no_picture": 1}


def test_every_trainer_has_its_own_advantage_and_ours_says_how_it_was_made():
    drawing, thought = exported("grpo", group_row())

    assert drawing["advantage_verl"] == pytest.approx((0.5 - 0.75) / (0.5 + 1e-6))
    assert drawing["advantage_trl"] == pytest.approx((0.5 - 0.75) / (0.5 + 1e-4))
    assert drawing["advantage_unirl"] == pytest.approx((0.5 - 0.75) / (3**0.5 / 4 + 1e-8))
    assert (drawing["advantage"], drawing["advantage_ddof"]) == (-1.0, 0)
    assert drawing["advantage_eps"] == pytest.approx(1e-4)
    assert set(ADVANTAGES) == {"coppice", "trl", "verl", "unirl"}
    for segment, canvas in ((drawing, [5]), (thought, [5, 5])):
        assert segment["canvas"] == canvas
        assert len(segment["logp_sample"]) == len(segment["logp_cond"]) == 3
    assert (drawing["cfg_weight"], drawing["temperature"]) == (5.0, 1.0)
    assert (thought["cfg_weight"], thought["temperature"]) == (None, pytest.approx(0.8))


@pytest.mark.parametrize("num_revisions", [0, 1, 5])
def test_a_rollout_weighs_as_much_however_often_it_was_revised(num_revisions: int):
    row = group_row()
    row["segments"] += [row["segments"][1] | {"event": 3 + n} for n in range(num_revisions)]
    made = exported("grpo", row)

    assert len(made) == 2 + num_revisions
    assert sum(segment["weight"] * len(segment["tokens"]) for segment in made) == pytest.approx(1)


def lacking(**changes: Any) -> Iterator[GroupRow]:
    """The rollout with something else in one policy segment, and with it in another."""
    for index in (1, 2):
        row = group_row()
        row["segments"][index] = row["segments"][index] | changes  # type: ignore[assignment]
        yield row


@pytest.mark.parametrize("name", ["grpo", "verl-grpo", "unirl"])
def test_a_rollout_without_token_ids_is_left_out_whole(name: str):
    for row in [*lacking(tokens=None), *lacking(prefix_ids=None)]:
        assert left_out(name, row) == {"no_token_ids": 1}


@pytest.mark.parametrize("name", ["grpo", "verl-grpo", "unirl"])
def test_a_rollout_of_which_nothing_was_sampled_or_rewarded_is_left_out(name: str):
    row = group_row()
    given: Any = row | {"segments": [row["segments"][0]]}

    assert left_out(name, given) == {"not_sampled": 1}
    unrewarded: Any = row | {"reward": None}
    assert left_out(name, unrewarded) == {"no_reward": 1}


def test_unirl_has_the_canvas_before_the_region_and_learns_the_region():
    row = draw_row() | {
        "input_ids": [1, 2, 5, 6],
        "labels": [-100, -100, -100, 6],
        "modality_mask": [0, 0, 1, 1],
    }
    (sample,) = exported("unirl", row)  # type: ignore[arg-type]

    assert (sample["sample_id"], sample["prompt"]) == (NOTE["id"], "a red sky")
    metadata = sample["metadata"]
    assert (metadata["prompt_ids"], metadata["tokens"]) == ([1, 2], [5, 6])
    assert (metadata["loss_mask"], metadata["log_probs"]) == ([0, 1], None)
    assert left_out("unirl", draw_row() | {"temperature": 0.7}) == {"temperature": 1}  # type: ignore[arg-type]
    assert left_out("unirl", text_row()) == {"words": 1}


def test_unirl_has_of_groups_the_drawings_with_their_own_log_probabilities():
    (sample,) = exported("unirl", group_row(), cfg_weight=2.5)

    metadata = sample["metadata"]
    assert metadata["tokens"] == [5, 7, 8, 9]
    assert metadata["log_probs"] == [0.0, -1.0, -2.0, -3.0]
    assert (metadata["advantage_ddof"], metadata["advantage_eps"]) == (0, pytest.approx(1e-8))
    tables = EXPORTS["unirl"].of([Source(row=group_row(), facts=facts(cfg_weight=2.5))]).tables
    assert list(tables) == ["cfg-2.5"], "a batch of UniRL's has one weight"


def test_imagefolder_tells_where_the_region_lies():
    codes = [5] * 16
    second: Any = draw_row() | {
        "id": "second",
        "event": 3,
        "input_ids": [1, *codes],
        "labels": [-100] * 9 + codes[8:],
        "modality_mask": [0] + [1] * 16,
    }
    first: Any = draw_row() | {
        "input_ids": [1, *codes[:8]],
        "labels": [-100, *codes[:8]],
        "modality_mask": [0] + [1] * 8,
    }
    upper, lower = exported("imagefolder", first, second)

    assert (upper["region"], upper["top"], upper["bottom"]) == (1, 0, 16)
    assert (lower["region"], lower["top"], lower["bottom"]) == (2, 16, 32)
    assert (upper["is_whole"], lower["is_whole"]) == (False, True)
    assert lower["file_name"] == lower["output_image"] == "images/second.png"
    assert lower["png"] == as_png(picture(3))["bytes"]
    assert left_out("imagefolder", first, canvases={}) == {"no_picture": 1}
    assert left_out("veomni", first) == {"not_whole": 1}
    (whole,) = exported("veomni", second)
    assert whole["conversations"] == [
        {"from": "human", "value": "a red sky."},
        {"from": "gpt", "value": "<image>"},
    ]


def test_veomni_shows_the_canvas_before_the_question():
    (row,) = exported("veomni", text_row())

    assert row["source_name"] == "sharegpt4v_sft"
    assert row["conversations"][0] == {"from": "human", "value": "<image>What is it?"}
    assert [turn["from"] for turn in row["conversations"]] == ["human", "gpt"]
    assert EXPORTS["veomni"].schema.metadata is None, "datasets 2.21 cannot read the notes of 5"


def test_trl_dpo_has_the_question_that_both_thoughts_answer():
    (row,) = exported("trl-dpo", pair(), thoughts=THOUGHTS)

    assert (row["prompt"], row["images"]) == (THOUGHTS.question, [])
    assert row["chosen"] == [{"role": "assistant", "content": "a blue sky."}]
    assert row["rejected"] == [{"role": "assistant", "content": "a red sky."}]


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("trl-dpo", {}, "other_prompt"),
        ("janus-dpo", {}, "other_prompt"),
        ("trl-dpo", {"has_one_prompt": False}, "other_prompt"),
        ("janus-dpo", {"has_one_prompt": False}, "other_prompt"),
        ("trl-dpo", {"rejected": "a blue sky."}, "same_answer"),
        ("janus-dpo", {"rejected": [6, 7]}, "same_answer"),
    ],
)
def test_pairs_that_do_not_share_their_prompt_are_left_out(
    name: str, changes: dict[str, Any], reason: str
):
    known = {}
    if changes:
        known = {"thoughts": THOUGHTS, "drawings": DRAWINGS}
        of = "thoughts" if name == "trl-dpo" else "drawings"
        known = {of: replace(known[of], **changes)}  # type: ignore[type-var]
    assert left_out(name, pair(), **known) == {reason: 1}


def test_janus_dpo_has_what_stands_before_both_drawings():
    (row,) = exported("janus-dpo", pair(), drawings=DRAWINGS)

    assert (row["prompt_ids"], row["canvas"]) == ([1, 2], [5])
    assert (row["chosen"], row["rejected"]) == ([6, 7], [7, 6])
    assert (row["cfg_weight"], row["temperature"]) == (5.0, 1.0)
