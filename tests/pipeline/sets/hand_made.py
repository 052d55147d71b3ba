"""Canonical rows made by hand, and the object of one small rollout that was redrawn once."""

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.engine.fake import fake_geometry
from pipeline.pictures import decode_picture, encode_png, encode_webp
from pipeline.plan.packs import load_pack
from pipeline.sets.exports import EXPORTS
from pipeline.sets.exports.form import Source, TraceFacts
from pipeline.twig.programs import Settings
from schemas.config import ReflectionConfig, ScheduleConfig
from schemas.rows import (
    DrawRow,
    GroupRow,
    ImageCell,
    LineageRow,
    PreferenceRow,
    TextRow,
    TrainingRow,
)
from schemas.trace import Image, Reflection, Role, Trace, Verdict
from tests.support import SMALL, fake_method, some_event, some_trace, write_shard

CRITIQUE = "SCORE: 40\nIMPROVED_DESCRIPTION: a blue sky."
PRAISE = "SCORE: 95"
BANDS = ((5,) * 8, (6,) * 8, (7,) * 8)
"""Of the first region as it was drawn first, of the same drawn again, and of the second region."""


def lineage(task: str, event: int | None = 1) -> LineageRow:
    return {
        "id": "run-record-0-1",
        "task": task,
        "run_id": "run",
        "trace_id": "run-record-0",
        "event": event,
        "record_id": "record",
        "recipe": "digest",
        "model": {"name": "toy", "digest": "none"},
        "backend": "engine",
        "prompt": "a red sky",
        "category": None,
        "score": 0.5,
    }


def picture(grey: int = 7) -> ImageCell:
    """Of 4 x 4 tokens, 32 pixels wide."""
    return {"bytes": encode_webp(np.full((32, 32, 3), grey, np.uint8)), "path": "some.webp"}


def as_png(cell: ImageCell) -> ImageCell:
    return {"bytes": encode_png(decode_picture(cell["bytes"])), "path": "some.png"}


def facts(**changes: Any) -> TraceFacts:
    """Of a trace of two regions of 8 tokens, whose drawings were events 1 and 3."""
    known: dict[str, Any] = {
        "canvases": {1: picture(1), 3: picture(3)},
        "region_stops": [8, 16],
        "cfg_weight": 5.0,
        "image_temperature": 1.0,
        "text_temperature": 0.8,
        "reward_mean": 0.75,
        "reward_std": 0.4330127018922193,  # of 1, 1, 1, 0
        "num_rewards": 4,
    }
    return TraceFacts(**(known | changes))


def exported(name: str, *rows: TrainingRow, **changes: Any) -> list[dict[str, Any]]:
    """The rows of an export, of all sub-folders."""
    result = EXPORTS[name].of(Source(row=row, facts=facts(**changes)) for row in rows)
    return [row for table in result.tables.values() for row in table.to_pylist()]


def left_out(name: str, row: TrainingRow, **changes: Any) -> dict[str, int]:
    """Why an export takes nothing of a row."""
    return dict(EXPORTS[name].of([Source(row=row, facts=facts(**changes))]).left_out)


def text_row(task: str = "reflect_1", *, num_pictures: int = 1) -> TextRow:
    return {
        **lineage(task),
        "messages": [
            {"role": "system", "content": "You draw."},
            {"role": "user", "content": "What is it?"},
            {"role": "assistant", "content": "A sky."},
        ],
        "images": [picture()] * num_pictures,
        "canvas": [5, 5],
        "input_ids": [1, 2, 3],
        "labels": [-100, -100, 3],
        "modality_mask": [0, 0, 0],
        "droppable_start": None,
        "droppable_stop": None,
    }


def draw_row() -> DrawRow:
    return {
        **lineage("draw_1"),
        "text": "a red sky.",
        "input_ids": [1, 2, 5],
        "labels": [-100, -100, 5],
        "modality_mask": [0, 0, 1],
        "droppable_start": 1,
        "droppable_stop": 1,
        "cfg_weight": 5.0,
        "temperature": 1.0,
    }


def pair(chosen: str = "a blue sky.", rejected: str = "a red sky.") -> PreferenceRow:
    def side(thoughts: str) -> Any:
        ids = {"prefix_ids": [1], "context": [], "codes": [5]}
        return {"trace_id": "run-record-0", "event": 1, "thoughts": thoughts, "score": 1.0, **ids}

    sides = {"chosen": side(chosen), "rejected": side(rejected)}
    return {**lineage("revision"), "margin": 0.5, "images": [], **sides}


def group_row() -> GroupRow:
    def segment(event: int, modality: str, *, is_policy: bool) -> Any:
        return {
            "event": event,
            "role": "draw" if modality == "image" else "think",
            "region": 0,
            "revision": 0,
            "modality": modality,
            "is_policy": is_policy,
            "is_kept": True,
            "prefix_ids": [1, event],
            "canvas": [5] * event,
            "tokens": [7, 8, 9],
            "logp_sample": [-1.0, -2.0, -3.0] if is_policy else None,
            "logp_cond": [-1.5, -2.5, -3.5] if is_policy else None,
        }

    segments = [
        segment(0, "text", is_policy=False),
        segment(1, "image", is_policy=True),
        segment(2, "text", is_policy=True),
    ]
    return {
        **lineage("group", event=None),
        "group_id": "run-record",
        "group_size": 4,
        "rollout_index": 0,
        "reward": 0.5,
        "advantage": -1.0,
        "reward_names": ["toy.value"],
        "rewards": [0.5],
        "segments": segments,
        "codes": [5],
        "images": [],
    }


def redrawn_settings() -> Settings:
    """Two regions of 4 x 4 tokens, each judged and redrawn once at most."""
    method = fake_method(
        schedule=ScheduleConfig(num_regions=2), reflection=ReflectionConfig(max_revisions=1)
    )
    return Settings(method=method, pack=load_pack("default"), geometry=fake_geometry(SMALL))


def redrawn_trace(*, has_pictures: bool = True, has_logp: bool = True) -> Trace:
    """The first region is drawn, judged and drawn again; the second one is accepted."""
    revise = Reflection(verdict=Verdict.REVISE, score=40.0, better_thought="a blue sky.")
    accept = Reflection(verdict=Verdict.ACCEPT, score=95.0, better_thought="")
    both = "a blue sky. a sea."
    first, again, second = BANDS

    def said(index: int, role: Role, raw_text: str, **changes: Any) -> Any:
        answer = {"text": " ".join(raw_text.split()), "raw_text": raw_text, "token_ids": (8, 9)}
        logps = {"logp_sample": (-1.0, -2.0), "logp_cond": (-1.5, -2.5)} if has_logp else {}
        return some_event(index, role, **answer, **logps, **changes)

    def drawn(index: int, text: str, codes: tuple[int, ...], picture: int, **changes: Any) -> Any:
        logps = {"logp_sample": (-1.0,) * 8, "logp_cond": (-1.5,) * 8}
        kept = {"picture": picture} if has_pictures else {}
        return some_event(index, Role.DRAW, text=text, codes=codes, **logps, **kept, **changes)

    return some_trace(
        events=(
            said(0, Role.THINK, "a red\nsky."),
            drawn(1, "a red sky.", first, 0, superseded_by=3),
            said(2, Role.REFLECT, f"{CRITIQUE}\n", reflection=revise),
            drawn(3, "a blue sky.", again, 1, revision=1),
            said(4, Role.THINK, "a sea.", region=1),
            drawn(5, both, second, 2, region=1),
            said(6, Role.REFLECT, PRAISE, region=1, reflection=accept),
        ),
        codes=again + second,
        images=tuple(
            Image(data=f"canvas {index}".encode(), path=f"{index}.webp") for index in range(3)
        )
        if has_pictures
        else (),
        final_picture=2 if has_pictures else None,
    )


def write_object(folder: Path, *traces: Trace) -> str:
    """An object of these traces in a store at this folder; its key."""
    (folder / "traces").mkdir(parents=True)
    write_shard(folder / "traces" / "shard-00000.parquet", *traces)
    return "traces/shard-00000.parquet"
