"""Are the things there that the prompt names, as many, and in place? By a detector."""

from collections.abc import Sequence

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
    Wanted,
    load_detector,
    seen_by,
)
from pipeline.scoring.judges.judge import Judge
from pipeline.scoring.judges.outcomes import Judgement, Outcome, View, columns_with
from pipeline.scoring.judges.questions import Questions, questions_of
from pipeline.scoring.judges.settings import JudgeSettings
from pipeline.scoring.scorers import TorchDevice
from schemas.rows import BoxRow


class GroundingSettings(JudgeSettings):
    kind: DetectorKind = "grounding-dino"
    model: str = "IDEA-Research/grounding-dino-tiny"


class Grounding(Judge[GroundingSettings, Detector, Questions]):
    """T2I-R1's detection reward, or the right one: see `pipeline.scoring.formulae`."""

    name = "detector"
    columns = columns_with(boxes="boxes")
    Settings = GroundingSettings

    def load_model(self, device: TorchDevice) -> Detector:
        settings = self.settings
        return load_detector(
            settings.kind, settings.folder(), settings.dtype, device, settings.mode
        )

    def ask(self, view: View) -> Questions | Judgement:
        questions = questions_of(view, self.settings.mode)
        if questions is not None and questions.nouns:
            return questions
        if questions is None or self.settings.mode is Mode.FIXED:
            return Judgement.without(Outcome.NOTHING_ASKED)
        return Judgement(value=1.0)  # so T2I-R1 has it

    def answers(
        self, model: Detector, views: Sequence[View], questions: Sequence[Questions]
    ) -> list[Judgement]:
        wanted = [
            Wanted(pixels=view.pixels, nouns=asked.nouns)
            for view, asked in zip(views, questions, strict=True)
        ]
        return [
            _judgement(view, asked, seen, self.settings.mode)
            for view, asked, seen in zip(views, questions, seen_by(model, wanted), strict=True)
        ]


def _judgement(
    view: View, questions: Questions, seen: Sequence[Sequence[Query]] | Outcome, mode: Mode
) -> Judgement:
    if isinstance(seen, Outcome):
        return Judgement.without(seen)
    task = DetectionTask(
        task_type=questions.task_type,
        nouns=questions.nouns,
        width=view.width,
        height=view.height,
        spatial=questions.spatial,
        counts=questions.counts,
    )
    value = (detection_reward if mode is Mode.FIXED else published_detection_reward)(task, seen)
    return Judgement(
        value=value,
        outcome=Outcome.OK if value is not None else Outcome.NOT_APPLICABLE,
        parts={"boxes": [_as_row(detection) for detection in _sure(task, seen)]},
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
