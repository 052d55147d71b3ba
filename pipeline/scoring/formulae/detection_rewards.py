"""The reward of a detector asked for a prompt's nouns: are they there, as many, in place?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from pipeline.scoring.formulae.boxes import (
    Box,
    Detection,
    by_score,
    is_same_thing,
    kept_by_nms,
    seen_within,
)
from pipeline.scoring.formulae.phrases import published_label
from pipeline.scoring.formulae.relations import (
    T2I_R1_WORDS,
    boxes_can_tell,
    degree,
    published_position,
)

Query: TypeAlias = tuple[float, float, float, float, float]
"""Score, then cx, cy, w, h as shares of the picture."""

BOX_THRESHOLD = 0.3
"""A score has to be above it."""

_NMS_IOU = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class SpatialInfo:
    """T2I-R1's annotation of a relation: `subject` stands in `relation` to `target`."""

    subject: str
    target: str
    relation: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CountInfo:
    """T2I-R1's annotation of a number."""

    name: str
    number: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectionTask:
    """What the detector was asked for, in T2I-R1's terms."""

    task_type: str
    nouns: Sequence[str]
    width: float
    height: float
    spatial: SpatialInfo | None = None
    counts: Sequence[CountInfo] = field(default=())


def detection_reward(task: DetectionTask, detections: Sequence[Sequence[Query]]) -> float | None:
    """From 0 to 1; None where nothing was asked for or boxes cannot tell.

    `detections` are the queries of each noun.
    """
    if not task.nouns:
        return None
    pools = _pools(task, detections)
    if task.task_type == "numeracy":
        return _counts(task.counts, pools)
    if task.task_type == "spatial":
        return _spatial(task, pools)
    share = _share(task.nouns, pools)
    if task.task_type != "complex" or task.spatial is None:
        return share
    if not boxes_can_tell(task.spatial.relation):
        return share
    return (share + _place(task, task.spatial, pools)) / 2


def _pools(
    task: DetectionTask, detections: Sequence[Sequence[Query]]
) -> dict[str, list[Detection]]:
    """What was seen of each noun, once: in pixels, highest score first."""
    queries: dict[str, list[Detection]] = {noun: [] for noun in task.nouns}
    for noun, rows in zip(task.nouns, detections, strict=True):
        queries[noun] += [
            Detection(label=noun, score=row[0], box=box_in_pixels(row, task.width, task.height))
            for row in rows
            if row[0] > BOX_THRESHOLD
        ]
    return {
        noun: kept_by_nms(seen_within(rows, task.width, task.height), _NMS_IOU)
        for noun, rows in queries.items()
    }


def box_in_pixels(query: Query, width: float, height: float) -> Box:
    """The box of a query in a picture of this size, unclipped."""
    _, cx, cy, w, h = query
    return (
        (cx - w / 2) * width,
        (cy - h / 2) * height,
        (cx + w / 2) * width,
        (cy + h / 2) * height,
    )


def _share(nouns: Sequence[str], pools: Mapping[str, Sequence[Detection]]) -> float:
    """Two umbrellas asked for are two umbrellas."""
    listed = list(nouns)
    return sum(min(listed.count(noun), len(seen)) for noun, seen in pools.items()) / len(listed)


def _counts(counts: Sequence[CountInfo], pools: Mapping[str, Sequence[Detection]]) -> float | None:
    """Three of four is better than one of four."""
    if not counts:
        return None
    pairs = [(len(_named(count.name, pools)), count.number) for count in counts]
    shares = [min(pair) / max(pair) if max(pair) else 1.0 for pair in pairs]
    return sum(shares) / len(shares)


def _spatial(task: DetectionTask, pools: Mapping[str, Sequence[Detection]]) -> float | None:
    spatial = task.spatial
    if spatial is None or not boxes_can_tell(spatial.relation):
        return None
    subjects, targets = _named(spatial.subject, pools), _named(spatial.target, pools)
    is_same = spatial.subject == spatial.target  # then two boxes are needed
    presence = 0.25 * (len(subjects) > 0) + 0.25 * (len(targets) > is_same)
    return presence + 0.5 * _place(task, spatial, pools)


def _place(
    task: DetectionTask, spatial: SpatialInfo, pools: Mapping[str, Sequence[Detection]]
) -> float:
    """The best degree over all pairs of different boxes."""
    degrees = (
        degree(spatial.relation, a.box, b.box, width=task.width, height=task.height)
        for a in _named(spatial.subject, pools)
        for b in _named(spatial.target, pools)
        if a is not b
    )
    return max((held for held in degrees if held is not None), default=0.0)


def _named(name: str, pools: Mapping[str, Sequence[Detection]]) -> Sequence[Detection]:
    """What was seen of a name: under the noun that equals it, or else under those that mean it."""
    if name in pools:
        return pools[name]
    return [
        detection for noun, seen in pools.items() if is_same_thing(noun, name) for detection in seen
    ]


def published_detection_reward(task: DetectionTask, detections: Sequence[Sequence[Query]]) -> float:
    """T2I-R1's GroundingDINO reward, 0 to 1; a right relation gets 0.9 at most, `above` 0.4."""
    if not task.nouns:
        return 1.0
    pools: dict[str, list[Query]] = {}
    for noun, rows in zip(task.nouns, detections, strict=True):
        sure = [row for row in rows if row[0] > BOX_THRESHOLD]
        if sure:
            pools.setdefault(published_label(noun), []).extend(sure)
    if task.task_type == "numeracy":
        return _published_counts(task.counts, pools)
    if task.task_type == "spatial":
        return _published_spatial(task.spatial, pools)
    return sum(noun in pools for noun in task.nouns) / len(task.nouns)


def _published_counts(counts: Sequence[CountInfo], pools: Mapping[str, Sequence[Query]]) -> float:
    scores: list[float] = []
    for count in counts:
        rows = pools.get(count.name)
        if rows is None:
            scores.append(0.0)
        else:
            scores.append(1.0 if _published_number(rows) == count.number else 0.2)
    return sum(scores) / len(scores) if scores else 0.0


def _published_number(rows: Sequence[Query]) -> int:
    """The count after a suppression that takes cx, cy, w, h for corners: ordinary duplicates are
    never merged, large boxes near the upper left are merged wrongly.
    """
    kept: list[Query] = []
    for index in by_score([row[0] for row in rows]):
        if not any(_misread_iou(rows[index], other) > _NMS_IOU for other in kept):
            kept.append(rows[index])
    return len(kept)


def _misread_iou(query: Query, other: Query) -> float:
    (_, ax0, ay0, ax1, ay1), (_, bx0, by0, bx1, by1) = query, other
    overlap = max(min(ax1, bx1) - max(ax0, bx0), 0.0) * max(min(ay1, by1) - max(ay0, by0), 0.0)
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - overlap
    if not union:
        return math.inf if overlap else math.nan  # as the processor divides
    return overlap / union


def _published_spatial(spatial: SpatialInfo | None, pools: Mapping[str, Sequence[Query]]) -> float:
    if spatial is None:
        return 0.0  # the published code fails, which counts as 0
    subjects, targets = pools.get(spatial.subject), pools.get(spatial.target)
    if subjects is None or targets is None:
        return 0.2 * (subjects is not None) + 0.2 * (targets is not None)
    if spatial.subject == spatial.target:
        return 0.0  # it fails too
    # On shares of the picture: everything is within 150 "pixels" of everything.
    a, b = (
        box_in_pixels(rows[by_score([row[0] for row in rows])[0]], 1, 1)
        for rows in (subjects, targets)
    )
    return 0.2 + 0.2 + published_position(spatial.relation, a, b, T2I_R1_WORDS) / 2
