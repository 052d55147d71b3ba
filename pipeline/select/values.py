"""What a column that a recipe names says of each row: a field of trace or event, or a score."""

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.select.candidates import CandidateRows
from pipeline.select.columns import WHOLE, Floats, SidecarColumns, TraceColumns, Words
from schemas.trace import Verdict


class RowValues:
    """Looks up columns for the rows of one trace object."""

    def __init__(
        self,
        rows: CandidateRows,
        columns: TraceColumns,
        scores: Mapping[str, SidecarColumns],
        categories: Sequence[str],
    ) -> None:
        """`scores` are by the names of scorers; `categories` [traces] may be empty words."""
        self._rows, self._columns, self._scores = rows, columns, scores
        self._categories = categories

    def of(self, column: str, whose: str) -> Floats | Words:
        """A column's value [rows] for each row; NaN or None: there is none.

        `whose` score, of trace, event or drawing, is asked of columns of scorers alone.
        """
        source, _, name = column.partition(".")
        rows = self._rows
        if source == "event":
            return self._event_field(name)[rows.event_row]
        if source == "trace":
            return self._trace_field(name)[rows.trace]
        scores = self._scores[source]
        if whose == "trace":
            return scores.at(name, rows.trace, np.full(len(rows), WHOLE))
        events = rows.event if whose == "event" else rows.drawing
        # -1 is no such drawing here; as an event it would ask for the score of the whole trace.
        return np.where(events == WHOLE, np.nan, scores.at(name, rows.trace, events))

    def gain(self, column: str) -> Floats:
        """How much more the drawing that replaced each row's drawing scores; NaN: not known."""
        source, _, name = column.partition(".")
        rows, scores = self._rows, self._scores[source]
        after = self._columns.successors()[rows.trace, rows.drawing]
        gain = scores.at(name, rows.trace, after) - scores.at(name, rows.trace, rows.drawing)
        return np.where(after >= 0, gain, np.nan)

    def _event_field(self, name: str) -> Floats | Words:
        """A field of every event [events]."""
        if name == "num_revisions":
            return self._columns.num_revisions().astype(np.float64)
        events = self._columns.events
        words: Mapping[str, Words] = {"verdict": events.verdict, "finish": events.finish}
        if name in words:
            return words[name]
        numbers = {"score": events.score, "region": events.region, "revision": events.revision}
        return numbers[name].astype(np.float64)

    def _trace_field(self, name: str) -> Floats | Words:
        """A field of every trace [traces]."""
        if name == "category":
            return np.array([category or None for category in self._categories], np.object_)
        if name == "rollout_index":
            return self._columns.rollout.astype(np.float64)
        events = self._columns.events
        is_counted = {
            "num_events": np.ones(len(events.trace), np.bool_),
            "num_revisions": events.is_replaced,
            "num_unparseable": events.verdict == Verdict.UNPARSEABLE,
        }[name]
        counts = np.bincount(events.trace[is_counted], minlength=len(self._columns))
        return counts.astype(np.float64)
