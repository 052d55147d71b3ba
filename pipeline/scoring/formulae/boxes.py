"""Boxes in pixels, and the detections that detectors make of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

Box: TypeAlias = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels; y grows downwards."""

_SAME_NAMES = {
    **dict.fromkeys(("girl", "boy", "man", "woman"), "person"),
    "ship": "boat",
    **dict.fromkeys(("telivision", "television"), "tv"),
    "goldfish": "fish",
    "painting": "picture",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Detection:
    """One thing that a detector saw."""

    label: str
    score: float  # 0 to 1
    box: Box


def width_of(box: Box) -> float:
    return box[2] - box[0]


def height_of(box: Box) -> float:
    return box[3] - box[1]


def area_of(box: Box) -> float:
    """Square pixels."""
    return width_of(box) * height_of(box)


def centre_of(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def is_solid(box: Box) -> bool:
    """Whether anything of it is to be seen: its width, height and area are positive numbers."""
    return box[2] > box[0] and box[3] > box[1] and area_of(box) > 0


def clipped(box: Box, width: float, height: float) -> Box | None:
    """The part of a box inside a picture of this size; None if nothing of it is to be seen."""
    if not is_solid(box):
        return None
    x0, y0, x1, y1 = box
    inside = (max(x0, 0.0), max(y0, 0.0), min(x1, width), min(y1, height))
    return inside if is_solid(inside) else None


def intersection_of(a: Box, b: Box) -> float:
    """Square pixels that both boxes cover."""
    shared_width = min(a[2], b[2]) - max(a[0], b[0])
    shared_height = min(a[3], b[3]) - max(a[1], b[1])
    return max(shared_width, 0.0) * max(shared_height, 0.0)


def iou(a: Box, b: Box) -> float:
    """Intersection over union, 0 to 1; not a number for two boxes without area."""
    intersection = intersection_of(a, b)
    union = area_of(a) + area_of(b) - intersection
    return intersection / union if union else float("nan")


def share_of_smaller(a: Box, b: Box) -> float:
    """The intersection as a share of the smaller of two solid boxes."""
    return intersection_of(a, b) / min(area_of(a), area_of(b))


def by_score(scores: Sequence[float]) -> list[int]:
    """Indices, highest score first; of equals the first in the list."""
    return sorted(range(len(scores)), key=lambda index: -scores[index])


def kept_by_nms(detections: Sequence[Detection], threshold: float) -> list[Detection]:
    """Non-maximum suppression: highest score first, without what overlaps a kept box with an IoU
    above the threshold. Labels are not looked at.
    """
    kept: list[Detection] = []
    for index in by_score([detection.score for detection in detections]):
        candidate = detections[index]
        if not any(iou(candidate.box, other.box) > threshold for other in kept):
            kept.append(candidate)
    return kept


def seen_within(detections: Sequence[Detection], width: float, height: float) -> list[Detection]:
    """Detections clipped to a picture, without those of which nothing is to be seen; in order."""
    boxes = (clipped(detection.box, width, height) for detection in detections)
    return [
        Detection(label=detection.label, score=detection.score, box=box)
        for detection, box in zip(detections, boxes, strict=True)
        if box is not None
    ]


def is_same_thing(label: str, name: str) -> bool:
    """Whether a detector's label is what a prompt names: `dining table` is a table, `carriage` no
    car, and a girl a person.
    """
    label, name = _plain(label), _plain(name)
    return label == name or label.split()[-1:] == [name]


def _plain(name: str) -> str:
    name = name.strip().lower()
    return _SAME_NAMES.get(name, name)
