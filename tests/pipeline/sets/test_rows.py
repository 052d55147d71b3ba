"""Rows of traces: what is asked, what is learned, and how long each list is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.select.columns import WHOLE
from pipeline.sets.picks import GroupPick, PairPick, Pick, TracePosition
from pipeline.sets.rows import ObjectWork, make_rows
from pipeline.store.open import open_store
from schemas.errors import FatalFailure
from schemas.recipes import Recipe
from schemas.trace import Trace
from tests.pipeline.sets.hand_made import (
    BANDS,
    CRITIQUE,
    PRAISE,
    redrawn_settings,
    redrawn_trace,
    write_object,
)

FIRST, AGAIN, SECOND = map(list, BANDS)
SFT = Recipe(name="sft")
DPO = Recipe.model_validate({"name": "d", "kind": "preference", "pairs": {"by": "toy.value"}})
GROUP_OF_FOUR: Any = {"size": 4, "reward_mean": 0.9, "reward_std": 0.1, "num_rewards": 4}
GRPO = Recipe.model_validate(
    {"name": "g", "kind": "grpo", "groups": {"rewards": ["toy.value", "tokens.value"]}}
)


def a_pick(event: int, task: str, **changes: Any) -> Pick:
    return Pick(event=event, task=task, split="train", category="", score=0.75, **changes)


def rows_of(
    folder: Path, recipe: Recipe, picks: Sequence[Pick], *traces: Trace, position: int = 0
) -> list[Any]:
    """The rows that these picks of one trace make."""
    work = ObjectWork(
        url=str(folder),
        key=write_object(folder, *traces),
        picks={position: picks},
        settings=redrawn_settings(),
        recipe=recipe,
        recipe_digest="digest",
    )
    picked_rows = list(make_rows(open_store(work.url), work))
    assert [pick for pick, _ in picked_rows] == list(picks)
    return [source.row for _, source in picked_rows]


def test_a_thought_is_learned_after_its_question_and_the_canvas_in_sight(tmp_path: Path):
    first, second = rows_of(
        tmp_path, SFT, [a_pick(0, "think_1"), a_pick(4, "think_2")], redrawn_trace()
    )

    for row in (first, second):
        assert row["input_ids"] == [1, 2, 3, 8, 9]
        assert row["labels"] == [-100, -100, -100, 8, 9]
        assert row["modality_mask"] == [0] * 5
        assert row["messages"][-2]["role"] == "user"
        assert "a red cube" in row["messages"][-2]["content"]
    assert (first["canvas"], first["images"]) == ([], [])
    assert first["messages"][-1] == {"role": "assistant", "content": "a red sky."}
    assert second["canvas"] == AGAIN
    assert second["images"] == [{"bytes": b"canvas 1", "path": "1.webp"}]


def test_a_critique_is_learned_as_it_was_said_with_the_drawing_that_it_judged(tmp_path: Path):
    first, second = rows_of(
        tmp_path, SFT, [a_pick(2, "reflect_1"), a_pick(6, "reflect_2")], redrawn_trace()
    )

    assert first["messages"][-1]["content"] == CRITIQUE
    assert second["messages"][-1]["content"] == PRAISE
    assert first["canvas"] == FIRST
    assert second["canvas"] == AGAIN + SECOND
    assert [image["bytes"] for image in first["images"] + second["images"]] == [
        *(b"canvas 0", b"canvas 2")
    ]


def test_a_drawing_is_learned_after_its_text_and_the_regions_above(tmp_path: Path):
    (row,) = rows_of(tmp_path, SFT, [a_pick(5, "draw_2")], redrawn_trace())

    assert row["text"] == "a blue sky. a sea."
    assert row["input_ids"] == [1, 2, 3, *AGAIN, *SECOND]
    assert row["labels"] == [-100] * 11 + SECOND
    assert row["modality_mask"] == [0] * 3 + [1] * 16
    # Neither begin of sentence nor begin of image is dropped.
    assert (row["droppable_start"], row["droppable_stop"]) == (1, 2)
    assert (row["cfg_weight"], row["temperature"]) == (5.0, 1.0)


def test_a_row_says_where_it_comes_from(tmp_path: Path):
    trace = redrawn_trace()
    (row,) = rows_of(tmp_path, SFT, [a_pick(5, "draw_2")], trace)

    assert row["id"] == f"{row['trace_id']}-5"
    assert row["trace_id"] == f"some-run-{trace.record_id}-0"
    assert (row["run_id"], row["record_id"]) == ("some-run", trace.record_id)
    assert (row["event"], row["task"], row["backend"]) == (5, "draw_2", "fake")
    assert (row["recipe"], row["score"], row["category"]) == ("digest", 0.75, None)


def test_a_row_of_a_run_without_pictures_keeps_the_canvas_as_tokens(tmp_path: Path):
    (row,) = rows_of(tmp_path, SFT, [a_pick(6, "reflect_2")], redrawn_trace(has_pictures=False))

    assert (row["images"], row["canvas"]) == ([], AGAIN + SECOND)


def test_a_redrawn_region_makes_a_pair_with_its_revision(tmp_path: Path):
    pair = PairPick(chosen_score=1.0, rejected_score=0.25, worse_trace=None)
    (row,) = rows_of(tmp_path, DPO, [a_pick(1, "revision", pair=pair)], redrawn_trace())

    assert row["margin"] == 0.75
    assert (row["chosen"]["event"], row["chosen"]["codes"]) == (3, AGAIN)
    assert (row["rejected"]["event"], row["rejected"]["codes"]) == (1, FIRST)
    assert (row["chosen"]["thoughts"], row["rejected"]["thoughts"]) == (
        *("a blue sky.", "a red sky."),
    )
    assert (row["chosen"]["score"], row["rejected"]["score"]) == (1.0, 0.25)
    assert row["chosen"]["context"] == row["rejected"]["context"] == []
    assert [image["bytes"] for image in row["images"]] == [b"canvas 1", b"canvas 0"]


@pytest.mark.parametrize("has_pictures", [True, False])
def test_the_best_trace_of_a_prompt_makes_a_pair_with_the_worst(tmp_path: Path, has_pictures: bool):
    worse = TracePosition(key="traces/shard-00000.parquet", position=1)
    pair = PairPick(chosen_score=1.0, rejected_score=None, worse_trace=worse)
    (row,) = rows_of(
        tmp_path,
        DPO,
        [a_pick(WHOLE, "group", pair=pair)],
        redrawn_trace(),
        redrawn_trace(has_pictures=has_pictures),
    )

    assert row["event"] is row["backend"] is row["margin"] is None
    assert row["id"] == row["trace_id"]
    assert row["chosen"]["event"] is None
    assert row["chosen"]["codes"] == row["rejected"]["codes"] == AGAIN + SECOND
    assert row["chosen"]["thoughts"] == "a blue sky. a sea."
    assert len(row["images"]) == (2 if has_pictures else 0), "both, or none"


def test_a_rollout_of_a_group_is_whole(tmp_path: Path):
    group = GroupPick(advantage=-1.5, rewards=(0.75, None), **GROUP_OF_FOUR)
    (row,) = rows_of(tmp_path, GRPO, [a_pick(WHOLE, "group", group=group)], redrawn_trace())

    assert row["group_id"] == f"some-run-{row['record_id']}"
    assert (row["group_size"], row["reward"], row["advantage"]) == (4, 0.75, -1.5)
    assert (row["reward_names"], row["rewards"]) == (["toy.value", "tokens.value"], [0.75, None])
    segments = row["segments"]
    assert [segment["event"] for segment in segments] == list(range(7))
    assert all(segment["is_policy"] for segment in segments)
    assert [segment["event"] for segment in segments if not segment["is_kept"]] == [1]
    for segment in segments:
        assert len(segment["tokens"]) == len(segment["logp_sample"]) == len(segment["logp_cond"])
    canvases = [[], [], FIRST, [], AGAIN, AGAIN, AGAIN + SECOND]
    assert [segment["canvas"] for segment in segments] == canvases


def test_what_was_not_sampled_is_context(tmp_path: Path):
    group = GroupPick(advantage=0.0, rewards=(1.0, 1.0), **GROUP_OF_FOUR)
    (row,) = rows_of(
        tmp_path, GRPO, [a_pick(WHOLE, "group", group=group)], redrawn_trace(has_logp=False)
    )

    policy = {segment["modality"] for segment in row["segments"] if segment["is_policy"]}
    assert policy == {"image"}


def test_a_trace_that_its_program_does_not_make_is_refused(tmp_path: Path):
    trace = redrawn_trace()
    damaged = type(trace)(
        **{name: getattr(trace, name) for name in trace.__slots__} | {"events": trace.events[:-1]}
    )
    with pytest.raises(FatalFailure, match="is not what its program does"):
        rows_of(tmp_path, SFT, [a_pick(0, "think_1")], damaged)
