"""From the rows of a trace file to the inputs that scorers are asked about."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from pipeline.pictures import Pixels, decode_picture
from pipeline.scoring.scorers import TRACE, Scorer, ScoringInput
from schemas.json_values import read_json_object
from schemas.rows import TraceRow
from schemas.trace import Role

_EVENT_COLUMNS = (
    *("index", "role", "region", "revision", "candidate", "text", "score", "verdict"),
    *("better_thought", "token_ids", "codes", "finish", "superseded_by", "picture"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What is scored, and the key of its score."""

    trace_id: str
    event: int | None  # index in its trace; None: the whole trace
    tokens: str  # digest of the tokens that it is about
    scoring_input: ScoringInput


def columns_for(scorer: Scorer) -> list[str]:
    """The columns of a trace file that this scorer's inputs are made from, as Parquet names them.

    Pictures only for a scorer that needs them.
    """
    columns = ["trace_id", "status", "prompt", "metadata", "region_stops", "codes"]
    columns += [f"events.list.element.{name}" for name in _EVENT_COLUMNS]
    return [*columns, "final_picture", "images"] if scorer.needs_pictures else columns


def subjects_of(row: TraceRow, scorer: Scorer) -> Iterator[Subject]:
    """What the scorer is to be asked about one ok trace: the trace, then its events in order.

    The row needs the columns of `columns_for` alone.
    """
    input_of = partial(
        ScoringInput,
        prompt=row["prompt"],
        metadata=read_json_object(row["metadata"]),
        num_regions=len(row["region_stops"] or ()),
        events=row["events"],
    )
    if TRACE in scorer.subjects:
        pixels = _picture(row, row["final_picture"]) if scorer.needs_pictures else None
        yield Subject(
            trace_id=row["trace_id"],
            event=None,
            tokens=digest_of_tokens(row["codes"]),
            scoring_input=input_of(codes=row["codes"], pixels=pixels),
        )
    for event in row["events"]:
        if event["role"] in scorer.subjects:
            is_seen = scorer.needs_pictures and event["role"] == Role.DRAW
            yield Subject(
                trace_id=row["trace_id"],
                event=event["index"],
                tokens=digest_of_tokens(event["codes"] or event["token_ids"]),
                scoring_input=input_of(
                    codes=event["codes"],
                    pixels=_picture(row, event["picture"]) if is_seen else None,
                    region=event["region"],
                    event=event,
                ),
            )


def digest_of_tokens(tokens: Sequence[int]) -> str:
    """16 hex digits."""
    return hashlib.sha256(json.dumps(list(tokens)).encode()).hexdigest()[:16]


def _picture(row: TraceRow, index: int | None) -> Pixels | None:
    return None if index is None else decode_picture(row["images"][index]["bytes"])
