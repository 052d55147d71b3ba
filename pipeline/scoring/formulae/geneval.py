"""GenEval: does a picture show the things that a prompt's clauses ask for?"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TypeAlias

from pipeline.scoring.formulae.boxes import (
    Box,
    by_score,
    centre_of,
    iou,
    is_solid,
)

_THRESHOLD, _COUNTING_THRESHOLD = 0.3, 0.9  # a score has to be above it
_MOST_OBJECTS = 16  # of a class, in the published code
_MARGIN = 0.1  # of the two sizes: so far apart things may be without a relation
_LEAST_OFFSET = 1e-3  # pixels
_LEAST_SHARE = 0.5  # of the offset, for a relation
_DUPLICATE_IOU = 0.9
COLOURS = (
    *("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black"),
    "white",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Clause:
    """So many things of a class, all of a colour, all in a relation to those of another clause."""

    name: str
    count: int
    colour: str | None = None
    position: tuple[str, int] | None = None  # the relation, and the index of the other clause


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """GenEval's metadata of a prompt. `exclude`: so many of a class, or more, are too many."""

    tag: str
    include: Sequence[Clause]
    exclude: Sequence[Clause] = field(default=())
    least_score: float | None = None  # that a score has to be above; None: GenEval's own

    @property
    def threshold(self) -> float:
        if self.least_score is not None:
            return self.least_score
        return _COUNTING_THRESHOLD if self.tag == "counting" else _THRESHOLD


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenObject:
    """A detection with the colour that a classifier said it has."""

    name: str
    score: float
    box: Box
    colour: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Whether all clauses hold, and what does not."""

    correct: bool
    reason: str | None


Deal: TypeAlias = Mapping[int, Sequence[SeenObject]]
"""The objects that each clause got so far, by its index."""


def evaluate(task: Task, objects: Sequence[SeenObject]) -> Finding:
    """Correct if any deal of different objects to the clauses will do. The reason is None, or the
    first that holds of `missing`, `color`, `position`, `too_many`.
    """
    seen = _seen_of(task, [shown for shown in objects if is_solid(shown.box)])
    seen = {name: _without_duplicates(shown) for name, shown in seen.items()}
    reason = _fault(task, seen)
    return Finding(correct=reason is None, reason=reason)


def _fault(task: Task, seen: Mapping[str, Sequence[SeenObject]]) -> str | None:
    needed: Counter[str] = Counter()
    of_colour: Counter[tuple[str, str]] = Counter()
    for clause in task.include:
        needed[clause.name] += clause.count
        if clause.colour is not None:
            of_colour[clause.name, clause.colour] += clause.count
    if any(len(seen.get(name, ())) < count for name, count in needed.items()):
        return "missing"
    # Every object has one colour, so no two colours ask for the same object.
    for (name, colour), count in of_colour.items():
        if sum(shown.colour == colour for shown in seen.get(name, ())) < count:
            return "color"
    # Those that are hardest to please choose first.
    order = sorted(
        range(len(task.include)),
        key=lambda index: (task.include[index].colour is None, task.include[index].count),
    )
    if next(_deals(task.include, order, {}, seen), None) is None:
        return "position"
    if any(len(seen.get(clause.name, ())) >= clause.count for clause in task.exclude):
        return "too_many"
    return None


def _deals(
    clauses: Sequence[Clause],
    order: Sequence[int],
    deal: Deal,
    seen: Mapping[str, Sequence[SeenObject]],
) -> Iterator[Deal]:
    """Every way to give the clauses of these indices different objects that fit, in turn."""
    if not order:
        yield deal
        return
    index = order[0]
    clause = clauses[index]
    taken = {id(shown) for group in deal.values() for shown in group}
    free = [
        shown
        for shown in seen.get(clause.name, ())
        if id(shown) not in taken and clause.colour in (None, shown.colour)
    ]
    for group in combinations(free, clause.count):
        longer = {**deal, index: group}
        if _stands_right(clauses, index, longer):
            yield from _deals(clauses, order[1:], longer, seen)


def _stands_right(clauses: Sequence[Clause], newest: int, deal: Deal) -> bool:
    """Whether the newest group stands right to all others that have been dealt."""
    for index, group in deal.items():
        position = clauses[index].position
        if position is None or (index != newest and position[1] != newest):
            continue
        relation, target = position
        for shown in group:
            for other in deal.get(target, ()):
                if relation not in relative_positions(shown.box, other.box):
                    return False
    return True


def relative_positions(a: Box, b: Box) -> list[str]:
    """The relations in which `a` stands to `b`, none, one or two, in alphabetical order."""
    offsets = [p - q for p, q in zip(centre_of(a), centre_of(b), strict=True)]
    sizes = [abs(a[axis + 2] - a[axis]) + abs(b[axis + 2] - b[axis]) for axis in (0, 1)]
    reduced = [
        math.copysign(max(abs(offset) - _MARGIN * size, 0.0), offset)
        for offset, size in zip(offsets, sizes, strict=True)
    ]
    if all(abs(offset) < _LEAST_OFFSET for offset in reduced):
        return []
    dx, dy = (offset / math.hypot(*offsets) for offset in reduced)
    held = {
        "above": dy < -_LEAST_SHARE,
        "below": dy > _LEAST_SHARE,
        "left of": dx < -_LEAST_SHARE,
        "right of": dx > _LEAST_SHARE,
    }
    return [relation for relation, holds in held.items() if holds]


def _seen_of(task: Task, objects: Sequence[SeenObject]) -> dict[str, list[SeenObject]]:
    """The objects above the threshold, by class, highest score first."""
    seen: dict[str, list[SeenObject]] = {}
    for index in by_score([shown.score for shown in objects]):
        if objects[index].score > task.threshold:
            seen.setdefault(objects[index].name, []).append(objects[index])
    return seen


def _without_duplicates(objects: Sequence[SeenObject]) -> list[SeenObject]:
    kept: list[SeenObject] = []
    for shown in objects:
        if not any(iou(shown.box, other.box) > _DUPLICATE_IOU for other in kept):
            kept.append(shown)
    return kept


def published_evaluate(task: Task, objects: Sequence[SeenObject]) -> Finding:
    """GenEval's own: each clause looks at the surest objects of its class alone, two clauses may
    take the same object, and duplicates count.
    """
    seen = {name: shown[:_MOST_OBJECTS] for name, shown in _seen_of(task, objects).items()}
    groups: list[Sequence[SeenObject] | None] = []
    reasons: list[str] = []
    for clause in task.include:
        group = seen.get(clause.name, [])[: clause.count]
        reason = _published_fault(clause, group, groups)
        groups.append(group if reason is None else None)
        if reason is not None:
            reasons.append(reason)
    for clause in task.exclude:
        count = len(seen.get(clause.name, ()))
        if count >= clause.count:
            reasons.append(f"expected {clause.name}<{clause.count}, found {count}")
    return Finding(correct=not reasons, reason="\n".join(reasons))


def _published_fault(
    clause: Clause,
    group: Sequence[SeenObject],
    groups: Sequence[Sequence[SeenObject] | None],
) -> str | None:
    """What does not hold of a clause, after the groups of those before it."""
    if len(group) < clause.count:
        return f"expected {clause.name}>={clause.count}, found {len(group)}"
    if clause.colour is not None:
        colours = [shown.colour for shown in group]
        num_right = colours.count(clause.colour)
        if num_right < clause.count:
            listed = ", ".join(f"{colours.count(c)} {c}" for c in COLOURS if c in colours)
            return (
                f"expected {clause.colour} {clause.name}>={clause.count}, "
                f"found {num_right} {clause.colour}; and {listed}"
            )
    if clause.position is None:
        return None
    relation, index = clause.position
    targets = groups[index] if index < len(groups) else None
    if targets is None:
        return f"no target for {clause.name} to be {relation}"
    for shown in group:
        for target in targets:
            held = relative_positions(shown.box, target.box)
            if relation not in held:
                return (
                    f"expected {clause.name} {relation} target, found {' and '.join(held)} target"
                )
    return None
