"""T2I-CompBench's layout scores (relations in 2D and by depth, numeracy) by a surrogate of UniDet:
a native detector asked for the prompt's own things, and a native network of depth.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from pipeline.pictures import Pixels
from pipeline.scoring.formulae.boxes import Detection, kept_by_nms, seen_within
from pipeline.scoring.formulae.compbench import (
    PUBLISHED_NAMES,
    CountTask,
    RelationTask,
    count_score,
    published_count_score,
    published_depth_score,
    published_relation_score,
    relation_score,
)
from pipeline.scoring.formulae.detection_rewards import BOX_THRESHOLD, Query, box_in_pixels
from pipeline.scoring.formulae.modes import Mode
from pipeline.scoring.formulae.relations import DEPTH_RELATIONS, Depth
from pipeline.scoring.judges.depth import DepthModel
from pipeline.scoring.judges.detectors import (
    Detector,
    DetectorKind,
    Wanted,
    load_detector,
    seen_by,
)
from pipeline.scoring.judges.judge import Judge
from pipeline.scoring.judges.outcomes import Judgement, Outcome, View, columns_with
from pipeline.scoring.judges.questions import Questions, questions_of
from pipeline.scoring.judges.settings import JudgeSettings
from pipeline.scoring.scorers import TorchDevice
from schemas.specs import CATEGORY_KEY, Category

_NMS_IOU = 0.5
_ASKED = (Category.SPATIAL, Category.SPATIAL_3D, Category.NUMERACY, Category.COMPLEX)
_LOCALITIES = (  # T2I-CompBench looks for these words, in this order
    *("on side of", "next to", "near", "on the left of", "on the right of", "on the bottom of"),
    *("on the top of", "in front of", "behind", "hidden"),
)


class LayoutSettings(JudgeSettings):
    MODELS = ("model", "depth")
    MODES = (Mode.FIXED, Mode.OFFICIAL)

    kind: DetectorKind = "grounding-dino"
    model: str = "IDEA-Research/grounding-dino-tiny"
    depth: str = "Intel/dpt-hybrid-midas"
    """A network of relative depth, for relations such as behind."""
    depth_revision: str | None = None
    threshold: float = Field(default=BOX_THRESHOLD, ge=0, le=1)  # a score has to be above it


@dataclass(frozen=True, kw_only=True, slots=True)
class _Task:
    """What a prompt asks for: a relation, or numbers."""

    nouns: Sequence[str]  # to look for
    relation: RelationTask | None = None
    counts: Sequence[CountTask] = ()

    @property
    def needs_depth(self) -> bool:
        return self.relation is not None and self.relation.relation in DEPTH_RELATIONS


@dataclass(frozen=True, kw_only=True, slots=True)
class _Eyes:
    """What looks: depth is looked at where it is asked for alone."""

    detector: Detector
    depth: DepthModel

    def start(self, pictures: Sequence[Pixels]) -> None:
        self.detector.start(pictures)


class Layout(Judge[LayoutSettings, _Eyes, _Task]):
    """T2I-CompBench's formulae (mode official), or the right ones, on what a detector sees."""

    name = "layout"
    columns = columns_with("num_seen")
    Settings = LayoutSettings

    def load_model(self, device: TorchDevice) -> _Eyes:
        settings = self.settings
        return _Eyes(
            detector=load_detector(settings.kind, settings.folder(), settings.dtype, device),
            depth=DepthModel(settings.folder("depth"), dtype=settings.dtype, device=device),
        )

    def ask(self, view: View) -> _Task | Judgement:
        task = _task_of(view, self.settings.mode)
        return task if isinstance(task, _Task) else Judgement.without(task)

    def answers(
        self, model: _Eyes, views: Sequence[View], questions: Sequence[_Task]
    ) -> list[Judgement]:
        asked = list(zip(views, questions, strict=True))
        wanted = [Wanted(pixels=view.pixels, nouns=task.nouns) for view, task in asked]
        deep = [view.pixels for view, task in asked if task.needs_depth]
        depths = iter(model.depth.depths(deep))
        return [
            self._judgement(view, task, seen, next(depths) if task.needs_depth else None)
            for (view, task), seen in zip(asked, seen_by(model.detector, wanted), strict=True)
        ]

    def _judgement(
        self,
        view: View,
        task: _Task,
        seen: Sequence[Sequence[Query]] | Outcome,
        depth: Depth | None,
    ) -> Judgement:
        if isinstance(seen, Outcome):
            return Judgement.without(seen)
        detections = detections_of(view, task.nouns, seen, self.settings.threshold)
        value = _value(view, task, detections, depth, self.settings.mode)
        outcome = Outcome.OK if value is not None else Outcome.NOT_APPLICABLE
        parts = {"num_seen": float(len(detections))}
        return Judgement(value=value, outcome=outcome, parts=parts)


def detections_of(
    view: View, nouns: Sequence[str], queries: Sequence[Sequence[Query]], threshold: float
) -> list[Detection]:
    """What was seen of each noun above the threshold, in pixels within the picture, surest first,
    and nothing twice.
    """
    kept: list[Detection] = []
    for noun, rows in zip(nouns, queries, strict=True):
        sure = [
            Detection(label=noun, score=row[0], box=box_in_pixels(row, view.width, view.height))
            for row in rows
            if row[0] > threshold
        ]
        kept += kept_by_nms(seen_within(sure, view.width, view.height), _NMS_IOU)
    return sorted(kept, key=lambda detection: -detection.score)


def _value(
    view: View,
    task: _Task,
    detections: Sequence[Detection],
    depth: Depth | None,
    mode: Mode,
) -> float | None:
    size = {"width": float(view.width), "height": float(view.height)}
    if task.relation is None:
        if mode is Mode.FIXED:
            return count_score(task.counts, detections, **size)
        return published_count_score(task.counts, detections)
    if mode is Mode.FIXED:
        return relation_score(task.relation, detections, **size, depth=depth)
    if depth is not None:
        return published_depth_score(task.relation, detections, depth)
    return published_relation_score(task.relation, detections)


def _task_of(view: View, mode: Mode) -> _Task | Outcome:
    """What to look for, or why nothing can be."""
    questions = questions_of(view, Mode.FIXED)
    if questions is None or not questions.nouns:
        return Outcome.NOTHING_ASKED
    category = view.metadata.get(CATEGORY_KEY, questions.task_type)
    if category not in _ASKED:
        return Outcome.NOT_APPLICABLE
    if category == Category.NUMERACY:
        counts = [CountTask(name=count.name, number=count.number) for count in questions.counts]
        nouns = _looked_for([count.name for count in counts], mode)
        return _Task(nouns=nouns, counts=counts) if counts else Outcome.NOTHING_ASKED
    relation = _relation_of(questions, view.prompt, mode)
    if relation is None:
        return Outcome.NOTHING_ASKED
    nouns = _looked_for([relation.subject, relation.target], mode)
    return _Task(nouns=nouns, relation=relation)


def _relation_of(questions: Questions, prompt: str, mode: Mode) -> RelationTask | None:
    """In the published form of any two things, in words that T2I-CompBench looks for."""
    spatial = questions.spatial
    if mode is Mode.FIXED:
        if spatial is None:
            return None
        return RelationTask(
            subject=spatial.subject, target=spatial.target, relation=spatial.relation
        )
    pair = [spatial.subject, spatial.target] if spatial else [*questions.nouns]
    if len(pair) < 2:
        return None
    said = next((words for words in _LOCALITIES if words in prompt.lower()), None)
    return RelationTask(subject=pair[0], target=pair[1], relation=said)


def _looked_for(names: Sequence[str], mode: Mode) -> list[str]:
    """Each once; in the published form under the names that its detector knows."""
    asked = names if mode is Mode.FIXED else [PUBLISHED_NAMES.get(name, name) for name in names]
    return list(dict.fromkeys(asked))
