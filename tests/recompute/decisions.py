"""Every decision of a set, from traces and scores."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from tests.recompute.prompt_forms import EvaluationPrompts, loose_form
from tests.recompute.reading import Row, Run, Score, category_of, drawing_of, is_broken, is_ok
from tests.recompute.rewards import ranks_of

ROLES = ("think", "reflect", "draw", "schedule")
WHOLE_TASKS = {"group": 256, "revision": 257}


@dataclass(eq=False)
class Decision:
    """What becomes of one row that could be."""

    run: Run
    trace: Row
    event: int | None
    task: str
    is_validation: bool
    lot: int
    rank: float  # NaN: none
    reason: str = ""  # empty: kept
    value: float = math.nan
    partner: "Decision | None" = None  # of the better of two traces the worse
    group: tuple[int, float] = (1, math.nan)  # size, advantage

    @property
    def of_event(self) -> Row:
        event: Row = self.trace["events"][self.event]
        return event

    @property
    def role(self) -> str:
        return self.task.partition("_")[0]

    @property
    def is_revise(self) -> bool:
        return self.event is not None and self.of_event["verdict"] == "revise"

    def drop(self, reason: str, value: Score = None) -> None:
        if not self.reason:
            self.reason, self.value = reason, math.nan if value is None else float(value)


def decisions_of(runs: list[Run], recipe: Row, evaluation: EvaluationPrompts) -> list[Decision]:
    """All of them, in the order of runs, objects and rows."""
    first_id, ranks = _first_ids(runs), ranks_of(runs, recipe)
    made: list[Decision] = []
    for run in sorted(runs, key=lambda run: run.run_id):
        for _, traces in run.objects:
            of_object = [
                decision
                for trace in filter(is_ok, traces)
                for decision in _of_trace(
                    run,
                    trace,
                    recipe,
                    first_id[loose_form(trace["prompt"])],
                    ranks[run.run_id, trace["trace_id"]],
                )
            ]
            # Of an object's pairs, first come those of whole traces.
            made += sorted(of_object, key=lambda row: row.task == "revision")
    for decision in made:
        _judge(decision, recipe, evaluation)
    if recipe["groups"]:
        _groups(made, recipe["groups"])
    if recipe["pairs"]:
        _pairs(made, recipe["pairs"]["min_margin"])
    if recipe["per_prompt"]:
        _per_prompt(made, recipe["per_prompt"])
    is_balanced = bool(recipe["agreement"]) and recipe["agreement"]["balance"]
    if is_balanced and not recipe["mix"]:
        critiques = [row for row in made if row.role == "reflect" and not row.reason]
        _keep(critiques, _units(critiques, lambda row: row.is_revise, 2), "unbalanced")
    if recipe["mix"]:
        _mix(made, recipe["mix"], is_balanced=is_balanced)
    return made


def _first_ids(runs: list[Run]) -> dict[str, str]:
    """The lowest id of the records whose prompts are one prompt, by the form of that."""
    first_id: dict[str, str] = {}
    for run in runs:
        for trace in filter(is_ok, run.rows()):
            form = loose_form(trace["prompt"])
            first_id[form] = min(first_id.get(form, trace["record_id"]), trace["record_id"])
    return first_id


def lot(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _of_trace(run: Run, trace: Row, recipe: Row, split_key: str, rank: float) -> Iterable[Decision]:
    rows: list[tuple[int | None, str]] = []
    if recipe["kind"] == "sft":
        for event in trace["events"]:
            task = f"{event['role']}_{event['region'] + 1}"
            stands = event["role"] in ROLES[:3] and event["superseded_by"] is None
            if stands and any(
                task == name or task.startswith(f"{name}_") for name in recipe["tasks"]
            ):
                rows.append((event["index"], task))
    else:
        sources = recipe["pairs"]["sources"] if recipe["pairs"] else ["group"]
        if "group" in sources:
            rows.append((None, "group"))
        if "revision" in sources:
            events = trace["events"]
            rows += [(e["index"], "revision") for e in events if e["superseded_by"] is not None]
    is_validation = lot(f"{recipe['seed']}|split|{split_key}") < int(
        recipe["split"]["validation"] * 2.0**64
    )
    for event, task in rows:
        number = WHOLE_TASKS.get(task)
        if number is None:
            role, _, region = task.partition("_")
            number = ROLES.index(role) * 64 + int(region) - 1
        name = f"{recipe['seed']}|{trace['trace_id']}|{-1 if event is None else event}|{number}"
        yield Decision(run, trace, event, task, is_validation, lot(name), rank)


def _judge(row: Decision, recipe: Row, evaluation: EvaluationPrompts) -> None:
    """What is said against a row by itself; the first reason counts."""
    if is_broken(row.trace):
        row.drop("not_finite")
    for name, value, reason in (
        ("backend", "given", "given"),
        ("verdict", "unparseable", "unparseable"),
        ("finish", "length", "truncated"),
    ):
        if recipe["kind"] == "sft" and row.of_event[name] == value:
            row.drop(reason)
    if level := evaluation.level_of(row.trace, recipe["decontamination"]["levels"]):
        row.drop(f"leak_{level}")
    for rule in recipe["filters"]:
        _filter(row, rule)
    if recipe["agreement"] and row.role == "reflect":
        _agree(row, recipe["agreement"])
    if recipe["pairs"] and row.task == "revision":
        gain = _gain(row, recipe["pairs"]["by"], int(row.event or 0))
        if gain is None:
            row.drop("not_scored")
        elif gain <= 0 or gain < recipe["pairs"]["min_margin"]:
            row.drop("no_margin", gain)


def _filter(row: Decision, rule: Row) -> None:
    if rule["tasks"] and not any(
        row.task == task or row.task.startswith(f"{task}_") for task in rule["tasks"]
    ):
        return
    reason, value = rule["reason"] or rule["column"], _value(row, rule)
    if isinstance(value, str) or rule["column"] in (
        "trace.category",
        "event.verdict",
        "event.finish",
    ):
        is_other = rule["equals"] is not None and value != rule["equals"]
        if (value is None and rule["null"] == "drop") or (value is not None and is_other):
            row.drop(reason)
    elif value is None:
        if rule["null"] == "drop":
            row.drop("not_scored")
    elif (rule["min"] is not None and value < rule["min"]) or (
        rule["max"] is not None and value > rule["max"]
    ):
        row.drop(reason, value)


def _value(row: Decision, rule: Row) -> str | Score:
    source, _, name = rule["column"].partition(".")
    events = row.trace["events"]
    if source == "event":
        if name == "num_revisions":
            region = row.of_event["region"]
            return sum(e["region"] == region and e["superseded_by"] is not None for e in events)
        field: str | Score = row.of_event[name]
        return field
    if source == "trace":
        counts = {
            "num_events": len(events),
            "num_revisions": sum(e["superseded_by"] is not None for e in events),
            "num_unparseable": sum(e["verdict"] == "unparseable" for e in events),
            "rollout_index": row.trace["rollout_index"],
        }
        return counts[name] if name in counts else category_of(row.trace) or None
    about = {"trace": None, "event": row.event, "drawing": None}[rule["of"]]
    if rule["of"] == "drawing":
        about = drawing_of(row.trace, row.of_event)
        if about is None:
            return None
    return row.run.score(rule["column"], row.trace["trace_id"], about)


def _agree(row: Decision, rule: Row) -> None:
    drawing = drawing_of(row.trace, row.of_event)
    if drawing is None:
        row.drop("not_scored")
        return
    judged = row.run.score(rule["by"], row.trace["trace_id"], drawing)
    gain = _gain(row, rule["by"], drawing)
    if judged is not None:
        is_wrong = judged > rule["revise_max"] if row.is_revise else judged < rule["accept_min"]
        if is_wrong:
            row.drop("disagrees", judged)
    if rule["gain_min"] is not None and row.is_revise:
        if gain is not None and gain < rule["gain_min"]:
            row.drop("disagrees", judged)
        elif gain is None:
            row.drop("not_scored")
    if judged is None:
        row.drop("not_scored")


def drawing_scores(row: Decision, column: str, drawing: int) -> tuple[Score, Score]:
    """Of a drawing, and of the one that replaced it; None: no score, or there is none."""
    after = row.trace["events"][drawing]["superseded_by"]
    first = row.run.score(column, row.trace["trace_id"], drawing)
    second = None if after is None else row.run.score(column, row.trace["trace_id"], after)
    return first, second


def _gain(row: Decision, column: str, drawing: int) -> float | None:
    before, after = drawing_scores(row, column, drawing)
    return None if before is None or after is None else float(after) - float(before)


def _by(rows: Iterable[Decision], key: Callable[[Decision], object]) -> list[list[Decision]]:
    groups: dict[object, list[Decision]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return list(groups.values())


def _record(row: Decision) -> tuple[str, str]:
    return row.run.run_id, row.trace["record_id"]


def _groups(rows: list[Decision], rule: Row) -> None:
    for group in _by(rows, _record):
        run, record = group[0].run, group[0].trace["record_id"]
        ended = {
            (row["rollout_index"], is_ok(row)) for row in run.rows() if row["record_id"] == record
        }
        ok = {index for index, is_good in ended if is_good}
        dead = {index for index, _ in ended} - ok
        planned = {index for key, index in run.planned if key == record}
        is_whole = planned == ok | dead and len(dead) <= rule.get("max_dead", 0)
        is_whole = is_whole and not any(row.reason for row in group)
        known = np.array([row.rank for row in group if not math.isnan(row.rank)])
        is_alike = not len(known) or known.min() == known.max()
        for row in group:
            if not math.isnan(row.rank):
                spread = 0.0 if is_alike else float(known.std())
                middle = known[0] if is_alike else known.mean()
                row.group = len(group), float((row.rank - middle) / (spread + 1e-4))
            else:
                row.group = len(group), math.nan
            if not is_whole:
                row.drop("incomplete_group")
            if rule["drop_zero_variance"] and is_alike:
                row.drop("not_scored" if math.isnan(row.rank) else "zero_variance")


def _pairs(rows: list[Decision], min_margin: float) -> None:
    for group in _by((row for row in rows if row.task == "group"), _record):
        for row in group:
            if math.isnan(row.rank):
                row.drop("not_scored")
        left = sorted(
            (row for row in group if not row.reason), key=lambda row: (-row.rank, row.lot)
        )
        ends = [left[0], left[-1]] if len(left) > 1 else []
        for row in left:
            if row not in ends:
                row.drop("not_extreme")
        if ends:
            margin = ends[0].rank - ends[1].rank
            if margin > 0 and margin >= min_margin:
                ends[0].partner = ends[1]
            else:
                ends[0].drop("no_margin")
                ends[1].drop("no_margin")


def _per_prompt(rows: list[Decision], rule: Row) -> None:
    for group in _by(rows, lambda row: loose_form(row.trace["prompt"])):
        traces = _by(group, lambda row: row.trace["trace_id"])
        left = [trace for trace in traces if any(not row.reason for row in trace)]
        left.sort(
            key=lambda trace: (
                math.inf if math.isnan(trace[0].rank) else -trace[0].rank,
                min(row.lot for row in trace),
            )
        )
        kept: list[int | None] = []
        for trace in left:
            first = trace[0]
            own = None
            if rule["min_distance"]:
                score = first.run.score(rule["hash"], first.trace["trace_id"], None)
                own = None if score is None else int(score)
            is_like = any(
                own is not None
                and other is not None
                and (own ^ other).bit_count() < rule["min_distance"]
                for other in kept
            )
            if is_like:
                reason = "near_duplicate"
            elif rule["keep"] is not None and len(kept) >= rule["keep"]:
                is_null = rule["by"] is not None and math.isnan(first.rank)
                reason = "not_scored" if is_null else "not_best"
            else:
                kept.append(own)
                continue
            for row in trace:
                row.drop(reason)


def _units(
    rows: list[Decision], side_of: Callable[[Decision], int], num_sides: int
) -> list[list[Decision]]:
    """As many rows of each side, in each split by itself; the lowest lots first."""
    units = []
    for is_aside in (False, True):
        sides = [
            sorted(
                (row for row in rows if row.is_validation == is_aside and side_of(row) == side),
                key=lambda row: row.lot,
            )
            for side in range(num_sides)
        ]
        units += [list(unit) for unit in zip(*sides, strict=False)]
    return sorted(units, key=lambda unit: max(row.lot for row in unit))


def _keep(rows: list[Decision], units: list[list[Decision]], reason: str) -> None:
    kept = {id(row) for unit in units for row in unit}
    for row in rows:
        if id(row) not in kept:
            row.drop(reason)


def _mix(rows: list[Decision], mix: Row, *, is_balanced: bool) -> None:
    shares = mix["weights"] or mix["counts"]
    pools, units, sides = {}, {}, {}
    for pool in shares:
        members = [row for row in rows if row.task == pool or row.task.startswith(f"{pool}_")]
        tasks = sorted({row.task for row in members}, key=lambda task: int(task.partition("_")[2]))
        pools[pool] = left = [row for row in members if not row.reason]
        num_regions = len(tasks) if mix.get("regions") == "equal" else 1
        num_verdicts = 2 if is_balanced and pool.startswith("reflect") else 1

        def side(
            row: Decision,
            tasks: list[str] = tasks,
            by: tuple[int, int] = (num_regions, num_verdicts),
        ) -> int:
            region = tasks.index(row.task) if by[0] > 1 else 0
            return region * by[1] + (row.is_revise if by[1] > 1 else 0)

        sides[pool] = num_regions * num_verdicts
        units[pool] = _units(left, side, sides[pool])
    if mix["counts"]:
        sizes = dict(mix["counts"])
    else:
        weights = {pool: Fraction(str(weight)) for pool, weight in shares.items()}
        scale = min(len(units[pool]) * sides[pool] / weight for pool, weight in weights.items())
        if mix["max_rows"] is not None:
            scale = min(scale, mix["max_rows"] / sum(weights.values(), Fraction()))
        sizes = {pool: int(scale * weight) for pool, weight in weights.items()}
    for pool in shares:
        _keep(pools[pool], units[pool], "unbalanced")
        _keep(pools[pool], units[pool][: sizes[pool] // sides[pool]], "beyond_mix")
    in_pools = {id(row) for left in pools.values() for row in left}
    for row in rows:
        if id(row) not in in_pools:
            row.drop("beyond_mix")
