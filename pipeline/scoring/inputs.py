"""From the rows of a trace file to the inputs that scorers are asked about."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from pipeline.scoring.painting import Pictures, bands_of
from pipeline.scoring.scorers import TRACE, Scorer, ScoringInput
from pipeline.scoring.text_checks import thought_judged
from schemas.geometry import Geometry
from schemas.json_values import read_json_object
from schemas.rows import EventRow, TraceRow
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


def columns_for(scorers: Sequence[Scorer]) -> list[str]:
    """The columns of a trace file that inputs of these scorers are made from, as Parquet names
    them.

    Pictures only if one of them needs some.
    """
    columns = ["trace_id", "status", "prompt", "metadata", "region_stops", "codes"]
    columns += [f"events.list.element.{name}" for name in _EVENT_COLUMNS]
    is_seen = any(scorer.needs_pictures for scorer in scorers)
    return [*columns, "final_picture", "images"] if is_seen else columns


def subjects_of(
    row: TraceRow, scorer: Scorer, pictures: Pictures, geometry: Geometry
) -> Iterator[Subject]:
    """What the scorer is to be asked about one ok trace: the trace, then its events in order.

    The row needs the columns of `columns_for` alone. The pictures are those of `pictures_of`.
    """
    stops = row["region_stops"] or ()
    seen = pictures if scorer.needs_pictures else {}
    input_of = partial(
        ScoringInput,
        prompt=row["prompt"],
        metadata=read_json_object(row["metadata"]),
        num_regions=len(stops),
        bands=bands_of(stops, geometry),
        events=row["events"],
    )
    if TRACE in scorer.subjects:
        yield Subject(
            trace_id=row["trace_id"],
            event=None,
            tokens=digest_of_tokens(row["codes"]),
            scoring_input=input_of(codes=row["codes"], pixels=seen.get(None)),
        )
    for event in row["events"]:
        if event["role"] in scorer.subjects:
            is_drawing = event["role"] == Role.DRAW
            thought = thought_judged(row["events"], event, row["prompt"]) if is_drawing else None
            yield Subject(
                trace_id=row["trace_id"],
                event=event["index"],
                tokens=digest_of_tokens(event["codes"] or _ids(event)),
                scoring_input=input_of(
                    codes=event["codes"],
                    pixels=seen.get(event["index"]),
                    region=event["region"],
                    thought=thought,
                    event=event,
                ),
            )


def _ids(event: EventRow) -> Sequence[int]:
    """The tokens of an answer in words; of a foreign tokenizer its bytes stand for them."""
    ids = event["token_ids"]
    return list(event["text"].encode()) if ids is None else ids


def digest_of_tokens(tokens: Sequence[int]) -> str:
    """16 hex digits."""
    return hashlib.sha256(json.dumps(list(tokens)).encode()).hexdigest()[:16]
