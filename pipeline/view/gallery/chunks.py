"""The data of a gallery as the page reads it: classic scripts that hand over JSON, in chunks.

Pages from `file://` may neither fetch nor load modules, so each chunk is a script that calls one of
the page's functions. It is ASCII, and names from outside stand in lists, never as keys.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.scoring.painting import Pictures
from pipeline.view.gallery.sheets import SheetWriter
from pipeline.view.strips import Critique, Strip
from pipeline.view.text import visible
from pipeline.view.where import Facts, Kind, Value
from schemas.json_values import JsonObject, JsonValue

Put = Callable[[str, bytes], None]
"""Takes a name below the gallery's data, and what to write there."""

TRACES_PER_CHUNK = 50  # of what the strip shows, all text of a trace
ROWS_PER_CHUNK = 5_000  # of what the grid shows
_LONGEST = 300  # characters of a prompt in the grid

WORDS = ("trace_id", "record_id", "status", "dead_reason", "prompt", "category", "verdict")
FLAGS = ("revised", "kept")
_LEFT_OUT = frozenset({"rollout_index", "attempts", "num_events"})


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownTrace:
    """A trace of the grid: whose it is, what is known of it, and where its thumbnail is."""

    run: int  # index
    rank: int  # in the order that was asked for
    thumb: int  # of its run's thumbnails; -1: it has no picture
    facts: Facts


def script(function: str, *arguments: JsonValue) -> bytes:
    """A script that calls a function of the page."""
    texts = (json.dumps(value, separators=(",", ":"), allow_nan=False) for value in arguments)
    return f"coppice.{function}({','.join(texts)});\n".encode("ascii")


def number_columns(columns: Mapping[str, Kind], traces: Sequence[ShownTrace]) -> list[str]:
    """The columns of numbers that any of the traces has; not those of hashes."""

    def is_quantity(name: str) -> bool:
        values = [shown.facts.get(name) for shown in traces]
        return any(value is not None for value in values) and not any(map(_is_hash, values))

    names = [name for name, kind in columns.items() if kind == "number" and name not in _LEFT_OUT]
    return list(filter(is_quantity, names))


def put_grid(put: Put, traces: Sequence[ShownTrace], names: Sequence[str]) -> int:
    """Put what the grid shows, column by column, and say in how many chunks."""
    chunks = range(0, len(traces), ROWS_PER_CHUNK)
    for number, start in enumerate(chunks):
        shown = traces[start : start + ROWS_PER_CHUNK]
        columns: list[JsonValue] = [
            [trace.run for trace in shown],
            [trace.rank for trace in shown],
            [trace.thumb for trace in shown],
            [_cell(trace.facts.get("rollout_index")) for trace in shown],
            *([_word(trace.facts.get(name)) for trace in shown] for name in WORDS),
            *([_cell(trace.facts.get(name)) for trace in shown] for name in (*FLAGS, *names)),
            [_word(trace.facts.get("dropped_as")) for trace in shown],
        ]
        put(f"grid-{number:05d}.js", script("grid", number, columns))
    return len(chunks)


class DetailsWriter:
    """Puts what the strip shows, so many traces a chunk, in the order in which they come."""

    def __init__(self, put: Put) -> None:
        self._put = put
        self._waiting: list[JsonValue] = []
        self._num_chunks = 0

    def add(self, strip: Strip, pictures: Pictures, sheets: SheetWriter) -> None:
        """Add a trace, and its pictures to the sheets."""
        self._waiting.append(_trace(strip, pictures, sheets))
        if len(self._waiting) == TRACES_PER_CHUNK:
            self.finish()

    def finish(self) -> None:
        """Put what is not put yet."""
        if self._waiting:
            body = script("traces", self._num_chunks, self._waiting)
            self._put(f"traces-{self._num_chunks:05d}.js", body)
        self._waiting, self._num_chunks = [], self._num_chunks + 1


def _trace(strip: Strip, pictures: Pictures, sheets: SheetWriter) -> JsonObject:
    def slot(subject: int | None) -> JsonValue:
        """Where a picture is; None: there is none of it."""
        pixels = pictures.get(subject)
        return None if pixels is None else list(sheets.add(pixels))

    frames: list[JsonValue] = [
        {
            "region": frame.region,
            "revision": frame.revision,
            "replaced": frame.is_replaced,
            "thought": frame.thought,
            "thought_chips": _chips(frame.thought_chips),
            "picture": slot(frame.event),
            "chips": _chips(frame.chips),
            "critique": None if frame.critique is None else _critique(frame.critique),
        }
        for frame in strip.frames
    ]
    return {
        "prompt": strip.prompt,
        "metadata": [list(pair) for pair in strip.metadata],
        "made_by": strip.made_by,
        "frames": frames,
        "finished": strip.is_finished,
        "picture": slot(None),
        "dead": strip.dead,
        "chips": _chips(strip.chips),
        "decisions": list(strip.decisions),
    }


def _critique(critique: Critique) -> JsonObject:
    return {
        "score": _cell(critique.score),
        "verdict": visible(critique.verdict),
        "better": critique.better,
        "problem": critique.problem,
        "said": critique.said,
        "chips": _chips(critique.chips),
    }


def _chips(chips: Sequence[tuple[str, Value]]) -> JsonValue:
    return [[name, _cell(value)] for name, value in chips]


def _cell(value: Value) -> JsonValue:
    """A value as JSON; of a fraction six digits, and a hash as text."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return str(value) if _is_hash(value) else value


def _is_hash(value: Value) -> bool:
    """Whether it is a whole number that JavaScript would round."""
    return isinstance(value, int) and abs(value) > 2**53


def _word(value: Value) -> JsonValue:
    return None if value is None else visible(str(value), _LONGEST)
