"""Are the things there that the prompt names, as many, and in place? By a detector."""

import math
from collections.abc import Mapping, Sequence

from pipeline.scoring.formulae.boxes import Detection
from pipeline.scoring.formulae.detection_rewards import (
    BOX_THRESHOLD,
    DetectionTask,
    Query,
    box_in_pixels,
    detection_reward,
    published_detection_reward,
)
from pipeline.scoring.formulae.modes import Mode
from pipeline.scoring.judges.detectors import (
    Detector,
    DetectorKind,
    Queries,
    Wanted,
    load_detector,
)
from pipeline.scoring.judges.outcomes import (
    Judgement,
    Outcome,
    View,
    columns_with,
    judged,
    subjects_of_look,
)
from pipeline.scoring.judges.questions import Questions, questions_of
from pipeline.scoring.judges.settings import JudgeSettings, model_folder
from pipeline.scoring.scorers import Score, ScoringInput, TorchDevice
from schemas.rows import BoxRow
from schemas.scores import ColumnType


class GroundingSettings(JudgeSettings):
    kind: DetectorKind = "grounding-dino"
    model: str = "IDEA-Research/grounding-dino-tiny"


class Grounding:
    """T2I-R1's detection reward, or the right one: see `pipeline.scoring.formulae`."""

    name = "detector"
    version = "1"
    needs_pictures = True
    columns: Mapping[str, ColumnType] = {**columns_with(), "boxes": "boxes"}
    Settings = GroundingSettings

    def __init__(self, settings: GroundingSettings) -> None:
        self.settings = settings
        self.subjects = subjects_of_look(settings.look)
        self._detector: Detector | None = None

    def load(self, device: TorchDevice) -> None:
        """Read the weights. Raises InputError."""
        settings = self.settings
        folder = model_folder(settings.model, settings.revision)
        self._detector = load_detector(settings.kind, folder, settings.dtype, device, settings.mode)

    def score(self, batch: Sequence[ScoringInput]) -> list[Score]:
        return judged(batch, self.settings.look, self.settings.batch_size, self._judge)

    def _judge(self, views: Sequence[View]) -> list[Judgement]:
        assert self._detector is not None, "load it first"
        asked = [questions_of(view, self.settings.mode) for view in views]
        wanted = [
            Wanted(pixels=view.pixels, nouns=questions.nouns)
            for view, questions in zip(views, asked, strict=True)
            if questions is not None and questions.nouns
        ]
        seen = iter(self._detector.detect(wanted) if wanted else ())
        return [
            _judgement(view, questions, next(seen), self.settings.mode)
            if questions is not None and questions.nouns
            else _without_nouns(questions, self.settings.mode)
            for view, questions in zip(views, asked, strict=True)
        ]


def _without_nouns(questions: Questions | None, mode: Mode) -> Judgement:
    if questions is None or mode is Mode.FIXED:
        return Judgement.without(Outcome.NOTHING_ASKED)
    return Judgement(value=1.0)  # so T2I-R1 has it


def _judgement(view: View, questions: Questions, seen: Sequence[Queries], mode: Mode) -> Judgement:
    detections = [queries for queries in seen if queries is not None]
    if len(detections) < len(seen):
        return Judgement.without(Outcome.TOO_LONG)
    if not all(math.isfinite(number) for rows in detections for row in rows for number in row):
        return Judgement.without(Outcome.NOT_FINITE)
    task = DetectionTask(
        task_type=questions.task_type,
        nouns=questions.nouns,
        width=view.width,
        height=view.height,
        spatial=questions.spatial,
        counts=questions.counts,
    )
    reward = detection_reward if mode is Mode.FIXED else published_detection_reward
    value = reward(task, detections)
    return Judgement(
        value=value,
        outcome=Outcome.OK if value is not None else Outcome.NOT_APPLICABLE,
        parts={"boxes": [_as_row(detection) for detection in _sure(task, detections)]},
    )


def _sure(task: DetectionTask, detections: Sequence[Sequence[Query]]) -> list[Detection]:
    """What was seen above the threshold, in pixels, as the model gave it."""
    return [
        Detection(label=noun, score=row[0], box=box_in_pixels(row, task.width, task.height))
        for noun, rows in zip(task.nouns, detections, strict=True)
        for row in rows
        if row[0] > BOX_THRESHOLD
    ]


def _as_row(detection: Detection) -> BoxRow:
    x0, y0, x1, y1 = detection.box
    return {
        "label": detection.label,
        "score": detection.score,
        "x0": x0,
        "y0": y0,
        "x1": x1,
        "y1": y1,
    }
