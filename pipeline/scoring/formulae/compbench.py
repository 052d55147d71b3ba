"""T2I-CompBench: relations, numbers, and the mean of three that complex prompts get."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.scoring.formulae.boxes import (
    Box,
    Detection,
    area_of,
    by_score,
    intersection_of,
    iou,
    is_same_thing,
    seen_within,
)
from pipeline.scoring.formulae.relations import (
    Depth,
    degree,
    published_depth_position,
    published_position,
)

_FLOOR = 0.5  # T2I-CompBench: a relation scored below it is 0
_DUPLICATE = 0.9
_PERSONS = dict.fromkeys(("girl", "boy", "man", "woman"), "person")
PUBLISHED_NAMES = {
    **_PERSONS,
    "ship": "boat",
    "telivision": "tv",
    "goldfish": "fish",
    "painting": "picture",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RelationTask:
    """What a prompt says of two things; None: no relation was read in it."""

    subject: str
    target: str
    relation: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class CountTask:
    """How many of a thing a prompt asks for."""

    name: str
    number: int


def relation_score(
    task: RelationTask,
    detections: Sequence[Detection],
    *,
    width: float,
    height: float,
    depth: Depth | None = None,
) -> float | None:
    """From 0 to 1, by the best pair of different boxes; None for a relation that cannot be told."""
    if task.relation is None:
        return None
    seen = seen_within(detections, width, height)
    subjects = [detection for detection in seen if is_same_thing(detection.label, task.subject)]
    targets = [detection for detection in seen if is_same_thing(detection.label, task.target)]
    scores: list[float] = []
    if degree(task.relation, _ANYWHERE, _ANYWHERE, width=1, height=1, depth=depth) is None:
        return None
    for a in subjects:
        for b in targets:
            if a is not b:
                held = degree(task.relation, a.box, b.box, width=width, height=height, depth=depth)
                scores.append(0.25 * a.score + 0.25 * b.score + 0.5 * (held or 0.0))
    if scores:
        return max(scores)
    return 0.25 * max((detection.score for detection in (*subjects, *targets)), default=0.0)


_ANYWHERE: Box = (0.0, 0.0, 0.0, 0.0)


def published_relation_score(task: RelationTask, detections: Sequence[Detection]) -> float:
    """T2I-CompBench's 2D score: the first box of each exact label, and a cliff at one half."""
    a, b = (
        next(
            (detection for detection in detections if detection.label == _PERSONS.get(name, name)),
            None,
        )
        for name in (task.subject, task.target)
    )
    score = _published_sum(a, b)
    if a is not None and b is not None:
        score += published_position(task.relation, a.box, b.box) / 2
    return 0.0 if score < _FLOOR else score


def published_depth_score(
    task: RelationTask, detections: Sequence[Detection], depth: Depth
) -> float:
    """T2I-CompBench's 3D score, by its description alone: names are searched within labels (cat in
    cattle), the last box before both are there counts, and there is no floor.
    """
    names = [_PERSONS.get(name, name) for name in (task.subject, task.target)]
    chosen: list[Detection | None] = [None, None]
    for detection in detections:
        for index, name in enumerate(names):
            if name in detection.label:
                chosen[index] = detection
        if None not in chosen:
            break
    a, b = chosen
    score = _published_sum(a, b)
    if a is not None and b is not None:
        score += published_depth_position(task.relation, a.box, b.box, depth) / 2
    return score


def _published_sum(a: Detection | None, b: Detection | None) -> float:
    return sum(0.25 * detection.score for detection in (a, b) if detection is not None)


def count_score(
    tasks: Sequence[CountTask],
    detections: Sequence[Detection],
    *,
    width: float,
    height: float,
) -> float | None:
    """The mean over things: half for being there, half for the number; None without any."""
    if not tasks:
        return None
    seen = seen_within(detections, width, height)
    counts = (
        len(
            _without_duplicates(
                [detection for detection in seen if is_same_thing(detection.label, task.name)]
            )
        )
        for task in tasks
    )
    scores = [
        0.5 * (count > 0) + 0.5 * (count == task.number)
        for task, count in zip(tasks, counts, strict=True)
    ]
    return sum(scores) / len(scores)


def _without_duplicates(detections: Sequence[Detection]) -> list[Detection]:
    kept: list[Detection] = []
    for index in by_score([detection.score for detection in detections]):
        box = detections[index].box
        if not any(_is_duplicate(box, other.box) for other in kept):
            kept.append(detections[index])
    return kept


def _is_duplicate(a: Box, b: Box) -> bool:
    intersection = intersection_of(a, b)
    shares = (iou(a, b), intersection / area_of(a), intersection / area_of(b))
    return max(shares) > _DUPLICATE


def published_count_score(tasks: Sequence[CountTask], detections: Sequence[Detection]) -> float:
    """T2I-CompBench's: duplicates in the detector's order, pixels counted as posts and not as the
    fields between, and labels that contain a name renamed to it for all that follows.
    """
    labels = [detection.label for detection in _published_kept(detections)]
    scores: list[float] = []
    for task in tasks:
        name = PUBLISHED_NAMES.get(task.name, task.name)
        if name not in labels:
            labels = [name if name in label else label for label in labels]
        count = labels.count(name)
        scores.append(0.5 * (count > 0) + 0.5 * (count > 0 and count == task.number))
    return sum(scores) / len(scores) if scores else float("nan")


def _published_kept(detections: Sequence[Detection]) -> list[Detection]:
    kept: list[Detection] = []
    for detection in detections:
        same = (other for other in kept if other.label == detection.label)
        if not any(max(_published_shares(detection.box, other.box)) > _DUPLICATE for other in same):
            kept.append(detection)
    return kept


def _published_shares(a: Box, b: Box) -> Iterator[float]:
    """IoU, and the intersection as a share of either box, with 1 added to every side."""
    sides = (min(a[2], b[2]) - max(a[0], b[0]) + 1, min(a[3], b[3]) - max(a[1], b[1]) + 1)
    intersection = max(sides[0], 0.0) * max(sides[1], 0.0)
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    for size in (sum(areas) - intersection, *areas):
        yield intersection / size if size else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ThreeScores:
    """Of one picture; None: does not apply. The published mean has no None."""

    blip: float | None
    unidet: float | None
    clip: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptLists:
    """Complex prompts that are about a relation, and those about an action."""

    spatial: Sequence[str]
    action: Sequence[str]


def three_in_one(prompt: str, scores: ThreeScores, lists: PromptLists) -> float | None:
    """The mean of the scores that fit the prompt; None if there is none of them."""
    is_spatial = _plain(prompt) in map(_plain, lists.spatial)
    is_action = _plain(prompt) in map(_plain, lists.action)
    is_both = is_spatial == is_action  # or neither: all three
    parts = [scores.blip]
    parts += [scores.unidet] if is_spatial or is_both else []
    parts += [scores.clip] if is_action or is_both else []
    told = [score for score in parts if score is not None]
    return sum(told) / len(told) if told else None


def published_three_in_one(
    prompt: str, blip: float, unidet: float, clip: float, lists: PromptLists
) -> float:
    """T2I-CompBench's: prompts end at their first full stop, a relation goes before an action."""
    if _published_plain(prompt) in map(_published_plain, lists.spatial):
        return (blip + unidet) / 2
    if _published_plain(prompt) in map(_published_plain, lists.action):
        return (blip + clip) / 2
    return (blip + unidet + clip) / 3


def _plain(prompt: str) -> str:
    return prompt.strip().lower().rstrip(".")


def _published_plain(prompt: str) -> str:
    return prompt.lower().partition(".")[0]
