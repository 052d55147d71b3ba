"""What is known of a trace at a glance: one value a column, by which traces are chosen and shown.

The columns are those of the trace table under their own names, what its events come to, what each
scorer said, and in a set whether its rows stayed.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from pipeline.select.judging import category_of
from pipeline.view.where import METADATA, Kind, Value
from schemas.json_values import JsonObject, JsonValue, read_json_object
from schemas.rows import DecisionRow, EventRow, TraceRow
from schemas.trace import Role, Status, Verdict

TRACE_FIELDS: Mapping[str, Kind] = {
    "trace_id": "text",
    "run_id": "text",
    "record_id": "text",
    "rollout_index": "number",
    "status": "text",
    "dead": "flag",
    "dead_reason": "text",
    "dead_message": "text",
    "prompt": "text",
    "category": "text",
    "program": "text",
    "score": "number",  # the lowest that the critic gave; of drawings that were replaced, too
    "verdict": "text",  # the gravest: revise, unparseable, accept
    "revised": "flag",
    "num_revisions": "number",
    "num_unparseable": "number",
    "num_events": "number",
    "attempts": "number",
    "worker": "text",
    "duration_seconds": "number",
}
"""What there is without any scorer, in the order in which it is told of."""

SET_FIELDS: Mapping[str, Kind] = {
    "kept": "flag",  # whether any row made of the trace is in the set
    "num_kept": "number",  # rows
    "dropped_as": "text",  # the reasons of the others, with commas
}
"""What there is of a trace in a set, too."""

SLIM_COLUMNS = (
    *("trace_id", "run_id", "record_id", "rollout_index", "status", "dead_reason", "dead_message"),
    *("prompt", "metadata", "program", "attempts", "worker", "duration_seconds"),
    *(f"events.list.element.{name}" for name in ("role", "score", "verdict", "superseded_by")),
)
"""The columns of a trace object that `facts_of` looks at: no tokens and no pictures."""

_GRAVEST = (Verdict.REVISE, Verdict.UNPARSEABLE, Verdict.ACCEPT)

EventScores: TypeAlias = Mapping[int | None, Mapping[str, Value]]
"""What scorers said of one trace: columns by the index of an event; None: of the whole trace."""


def facts_of(
    row: TraceRow, scores: EventScores, decisions: Sequence[DecisionRow] | None
) -> dict[str, Value]:
    """Everything known of a trace. `decisions` are about its rows in a set; None: there is no set.

    A score of the whole trace stands under its column's name; of a column that has none the lowest
    of the trace's events.
    """
    metadata = read_metadata(row["metadata"])
    facts: dict[str, Value] = {
        "trace_id": row["trace_id"],
        "run_id": row["run_id"],
        "record_id": row["record_id"],
        "rollout_index": row["rollout_index"],
        "status": row["status"],
        "dead": row["status"] == Status.DEAD,
        "dead_reason": row["dead_reason"],
        "dead_message": row["dead_message"],
        "prompt": row["prompt"],
        "category": category_of(metadata) or None,
        "program": row["program"],
        "attempts": row["attempts"],
        "worker": row["worker"],
        "duration_seconds": _plain(row["duration_seconds"]),
    }
    facts |= _of_events(row["events"])
    facts |= {f"{METADATA}{name}": _plain(value) for name, value in metadata.items()}
    if decisions is not None:
        reasons = {decision["reason"] or "" for decision in decisions} - {""}
        num_kept = sum(decision["is_kept"] for decision in decisions)
        facts |= {"kept": num_kept > 0, "num_kept": num_kept}
        facts["dropped_as"] = ", ".join(sorted(reasons)) or None
    return facts | _of_scores(scores)


def read_metadata(text: str) -> JsonObject:
    """The metadata of a record; nothing where a foreign row holds no JSON object."""
    try:
        return read_json_object(text)
    except (ValueError, RecursionError):
        return {}


def _of_events(events: Sequence[EventRow]) -> dict[str, Value]:
    critiques = [event for event in events if event["role"] == Role.REFLECT]
    verdicts = [critique["verdict"] for critique in critiques]
    num_revisions = sum(event["superseded_by"] is not None for event in events)
    return {
        "score": _lowest(critique["score"] for critique in critiques),
        "verdict": next((verdict.value for verdict in _GRAVEST if verdict in verdicts), None),
        "revised": num_revisions > 0,
        "num_revisions": num_revisions,
        "num_unparseable": verdicts.count(Verdict.UNPARSEABLE),
        "num_events": len(events),
    }


def _of_scores(scores: EventScores) -> dict[str, Value]:
    values: dict[str, Value] = {}
    of_events = [of_event for event, of_event in scores.items() if event is not None]
    for name in {name for of_event in of_events for name in of_event}:
        values[name] = _lowest(of_event.get(name) for of_event in of_events)
    whole = {name: value for name, value in scores.get(None, {}).items() if value is not None}
    return values | whole


def _lowest(values: Iterable[Value]) -> float | None:
    """The lowest of the numbers; None: there is none."""
    return min((v for v in values if v is not None and not isinstance(v, str)), default=None)


def _plain(value: JsonValue) -> Value:
    """A cell as a fact: what is neither text nor number is told as JSON."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return json.dumps(value, ensure_ascii=False)
