"""Runs and sets as they lie on a disk: plans, traces and scores, row by row."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow.parquet as pq

Row: TypeAlias = dict[str, Any]
Score: TypeAlias = float | int | None

JUDGE = "judge.value"
_OBJECT = re.compile(r"shard-(\d+)(?:\.s(\d+))?\.parquet")


@dataclass(frozen=True)
class Run:
    """A run, with the rows of its objects in the order of shards and supplements."""

    folder: Path
    manifest: Row
    objects: list[tuple[str, list[Row]]]  # name and rows
    planned: set[tuple[str, int]]  # keys: record and rollout, over all parts of the plan
    scores: dict[str, dict[tuple[str, int | None], Row]] = field(default_factory=dict)
    judge: Row | None = None  # who says `judge.value`

    @property
    def run_id(self) -> str:
        return str(self.manifest["run_id"])

    def rows(self) -> Iterator[Row]:
        for _, rows in self.objects:
            yield from rows

    def score(self, column: str, trace_id: str, event: int | None) -> Score:
        """What a scorer says of a trace, or of an event of it; None: nothing. Of judges who compare
        rollouts it counts here whether they say anything, so their mean stands for it.
        """
        if column == JUDGE:
            assert self.judge is not None
            columns = map(self.judging, self.judge["scorers"])
            told = [self.score(name, trace_id, event) for name in columns]
            how = self.judge["aggregate"]
            known = [float(score) for score in told if score is not None]
            return combined(known, how if how in ("min", "sum") else "mean")
        scorer, _, name = column.partition(".")
        row = self.scores[scorer].get((trace_id, event))
        value: Score = None if row is None else row[name]
        return value

    @staticmethod
    def judging(name: str) -> str:
        """The column of a judge: its value, where none is named."""
        bare = name.partition("@")[0]
        return bare if "." in bare else f"{bare}.value"


def combined(known: list[float], how: str) -> float | None:
    """The sum, the least or the mean of some scores; None: there are none."""
    if not known:
        return None
    return min(known) if how == "min" else sum(known) / (len(known) if how == "mean" else 1)


def read_run(folder: Path, scorers: list[str], judge: Row | None = None) -> Run:
    """A run with the scores of these, each given as name@version."""
    names = sorted(
        (path.name for path in (folder / "traces").iterdir() if _OBJECT.fullmatch(path.name)),
        key=_order,
    )
    manifest = json.loads((folder / "run.json").read_text())
    parts = [manifest["plan"]]
    parts += [json.loads(path.read_text())["part"] for path in sorted(folder.glob("plan/*.json"))]
    planned = {
        (row["record_id"], index)
        for part in parts
        for path in (folder / part["folder"]).glob("shard-*.parquet")
        for row in pq.read_table(path).to_pylist()
        for index in range(row["rollout_start"], row["rollout_stop"])
    }
    objects = [(name, pq.read_table(folder / "traces" / name).to_pylist()) for name in names]
    scores = {
        scorer.partition("@")[0]: {
            (row["trace_id"], row["event"]): row
            for name in names
            for row in pq.read_table(folder / "scores" / scorer / name).to_pylist()
        }
        for scorer in scorers
    }
    return Run(folder, manifest, objects, planned, scores, judge)


def _order(name: str) -> tuple[int, int]:
    match = _OBJECT.fullmatch(name)
    assert match is not None
    return int(match[1]), int(match[2] or 0)


def is_ok(row: Row) -> bool:
    return bool(row["status"] == "ok")


def is_broken(row: Row) -> bool:
    """Whether any number of a trace is NaN or infinite."""
    numbers = [row["duration_seconds"]]
    for event in row["events"]:
        numbers += [event["score"], event["duration_seconds"]]
        numbers += [*(event["logp_sample"] or ()), *(event["logp_cond"] or ())]
    return any(number is not None and not math.isfinite(number) for number in numbers)


def drawing_of(row: Row, event: Row) -> int | None:
    """The index of the drawing that an event is about."""
    if event["role"] == "draw":
        return int(event["index"])
    for other in row["events"]:
        if other["role"] == "draw" and other["region"] == event["region"]:
            if event["role"] == "reflect":
                if other["revision"] == event["revision"]:
                    return int(other["index"])
            elif other["superseded_by"] is None:
                return int(other["index"])
    return None


def category_of(row: Row) -> str:
    metadata = json.loads(row["metadata"])
    for name in ("category", "task_type"):
        if isinstance(metadata.get(name), str):
            return str(metadata[name])
    return ""
