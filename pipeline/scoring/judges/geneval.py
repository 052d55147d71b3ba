"""GenEval on native models: an open-vocabulary detector, and CLIP for the colours of boxes.

GenEval's own detector is Mask2Former, which knows COCO's classes and gives masks. So what comes out
is called GenEval-native. The soft score asks a vision-language model about each thing, number,
colour and place by itself, as GenEval 2 does, and takes the geometric mean of P(yes).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import Field, ValidationError

from pipeline.pictures import Pixels
from pipeline.scoring.formulae.boxes import Detection
from pipeline.scoring.formulae.detection_rewards import Query
from pipeline.scoring.formulae.geneval import COLOURS, Clause, SeenObject, Task, evaluate
from pipeline.scoring.formulae.phrases import FloatArray
from pipeline.scoring.judges.detectors import (
    Detector,
    DetectorKind,
    Wanted,
    load_detector,
    seen_by,
)
from pipeline.scoring.judges.judge import Judge
from pipeline.scoring.judges.layouts import detections_of
from pipeline.scoring.judges.outcomes import Judgement, Outcome, View, columns_with
from pipeline.scoring.judges.preference import Towers, load_towers
from pipeline.scoring.judges.settings import JudgeSettings
from pipeline.scoring.judges.vision_language import VisionLanguageModel, judgement_of
from pipeline.scoring.scorers import TorchDevice
from schemas.config import Frozen
from schemas.errors import InputError
from schemas.json_values import JsonMapping

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class _Clause(Frozen):
    """GenEval's form: `{"class": "cup", "count": 1, "color": "red", "position": ["above", 0]}`."""

    name: str = Field(alias="class", min_length=1)
    count: int = Field(ge=1)
    color: str | None = None
    position: tuple[str, int] | None = None


class _Metadata(Frozen):
    tag: str
    include: tuple[_Clause, ...] = Field(min_length=1)
    exclude: tuple[_Clause, ...] = ()


class GenEvalSettings(JudgeSettings):
    MODELS = ("model", "clip")
    MODES = JudgeSettings.MODES[:1]

    kind: DetectorKind = "grounding-dino"
    model: str = "IDEA-Research/grounding-dino-tiny"
    clip: str = "openai/clip-vit-large-patch14"
    clip_revision: str | None = None
    threshold: float = Field(default=0.3, ge=0, le=1)
    """A detection's score has to be above it. GenEval's 0.9 for counting is of a classifier over
    80 classes, and no open-vocabulary score comes near it.
    """


@dataclass(frozen=True, kw_only=True, slots=True)
class _Eyes:
    """What looks: one for things, the other for the colours of their boxes."""

    detector: Detector
    clip: Towers

    def start(self, pictures: Sequence[Pixels]) -> None:
        self.detector.start(pictures)


class GenEvalNative(Judge[GenEvalSettings, _Eyes, Task]):
    """1 if all clauses of a record's GenEval metadata hold, else 0 and the first reason."""

    name = "geneval"
    columns = columns_with("num_seen", reason="string")
    Settings = GenEvalSettings

    def load_model(self, device: TorchDevice) -> _Eyes:
        settings = self.settings
        return _Eyes(
            detector=load_detector(settings.kind, settings.folder(), settings.dtype, device),
            clip=load_towers(settings.folder("clip"), settings.dtype, device),
        )

    def ask(self, view: View) -> Task | Judgement:
        task = task_of(view.metadata, self.settings.threshold)
        return task or Judgement.without(Outcome.NOTHING_ASKED)

    def answers(
        self, model: _Eyes, views: Sequence[View], questions: Sequence[Task]
    ) -> list[Judgement]:
        wanted = [
            Wanted(pixels=view.pixels, nouns=_names(task))
            for view, task in zip(views, questions, strict=True)
        ]
        return [
            Judgement.without(seen)
            if isinstance(seen, Outcome)
            else self._judgement(model.clip, view, task, seen)
            for view, task, seen in zip(
                views, questions, seen_by(model.detector, wanted), strict=True
            )
        ]

    def _judgement(
        self, clip: Towers, view: View, task: Task, seen: Sequence[Sequence[Query]]
    ) -> Judgement:
        detections = detections_of(view, _names(task), seen, self.settings.threshold)
        colour_of: dict[Detection, str] = {}
        for name in {clause.name for clause in task.include if clause.colour is not None}:
            coloured = [shown for shown in detections if shown.label == name]
            for start in range(0, len(coloured), self.settings.batch_size):
                boxes = coloured[start : start + self.settings.batch_size]
                colour_of |= zip(boxes, _colours(clip, view.pixels, boxes, name), strict=True)
        objects = [
            SeenObject(
                name=shown.label, score=shown.score, box=shown.box, colour=colour_of.get(shown)
            )
            for shown in detections
        ]
        finding = evaluate(task, objects)
        return Judgement(
            value=float(finding.correct),
            parts={"num_seen": float(len(objects)), "reason": finding.reason},
        )


def _colours(clip: Towers, pixels: Pixels, boxes: Sequence[Detection], name: str) -> list[str]:
    """The likeliest colour of what each box holds, by CLIP, zero-shot."""
    crops = [
        pixels[math.floor(y0) : math.ceil(y1), math.floor(x0) : math.ceil(x1)]
        for x0, y0, x1, y1 in (shown.box for shown in boxes)
    ]
    said = clip.embed_texts([f"a photo of a {colour} {name}" for colour in COLOURS])
    likeness = clip.embed_pictures(crops) @ _normalised(said).T
    return [COLOURS[index] for index in likeness.argmax(axis=1)]


class SoftGenEvalSettings(JudgeSettings):
    MODES = JudgeSettings.MODES[:1]

    model: str = "Qwen/Qwen3-VL-4B-Instruct"


class SoftGenEval(Judge[SoftGenEvalSettings, VisionLanguageModel, list[str]]):
    """The geometric mean of P(yes) over what a record's GenEval metadata asks for."""

    name = "soft_geneval"
    columns = columns_with("num_asked", "num_refused", "mean")
    Settings = SoftGenEvalSettings

    def load_model(self, device: TorchDevice) -> VisionLanguageModel:
        settings = self.settings
        return VisionLanguageModel(settings.folder(), dtype=settings.dtype, device=device)

    def ask(self, view: View) -> list[str] | Judgement:
        task = task_of(view.metadata, 0.0)
        return list(_questions(task)) if task else Judgement.without(Outcome.NOTHING_ASKED)

    def answers(
        self, model: VisionLanguageModel, views: Sequence[View], questions: Sequence[list[str]]
    ) -> list[Judgement]:
        flat = [
            (view, question) for view, own in zip(views, questions, strict=True) for question in own
        ]
        told: list[Judgement] = []
        for start in range(0, len(flat), self.settings.batch_size):
            shown, asked = zip(*flat[start : start + self.settings.batch_size], strict=True)
            told += (judgement_of(row, model.spelled) for row in model.first_logits(shown, asked))
        left = iter(told)
        return [_soft([next(left) for _ in own]) for own in questions]


def _soft(answers: Sequence[Judgement]) -> Judgement:
    """No value where one of the answers has none: a mean of the rest says something else."""
    values = [answer.value for answer in answers if answer.value is not None]
    parts = {
        "num_asked": float(len(answers)),
        "num_refused": float(sum(answer.outcome is Outcome.REFUSED for answer in answers)),
    }
    if len(values) < len(answers):
        failed = next(answer.outcome for answer in answers if answer.value is None)
        return Judgement(value=None, outcome=failed, parts=parts)
    value = math.prod(values) ** (1 / len(values))
    return Judgement(value=value, parts={**parts, "mean": sum(values) / len(values)})


def task_of(metadata: JsonMapping, threshold: float) -> Task | None:
    """GenEval's metadata of a record; None: it has none. Raises InputError for another form."""
    if "include" not in metadata:
        return None
    columns = {name: metadata[name] for name in _Metadata.model_fields if name in metadata}
    try:
        read = _Metadata.model_validate(columns)
    except ValidationError as error:
        raise InputError(
            f"a record's tag, include and exclude are not GenEval's metadata ({error.errors()[0]}"
            "); give its evaluation_metadata.jsonl as prompts"
        ) from error
    bad = [clause for clause in read.include if clause.position is not None]
    if any(clause.position[1] not in range(len(read.include)) for clause in bad if clause.position):
        raise InputError("a position in GenEval's metadata names a clause that is not there")
    return Task(
        tag=read.tag,
        include=[_as_clause(clause) for clause in read.include],
        exclude=[_as_clause(clause) for clause in read.exclude],
        least_score=threshold,
    )


def _as_clause(clause: _Clause) -> Clause:
    return Clause(
        name=clause.name, count=clause.count, colour=clause.color, position=clause.position
    )


def _names(task: Task) -> list[str]:
    return list(dict.fromkeys(clause.name for clause in (*task.include, *task.exclude)))


def _questions(task: Task) -> Iterator[str]:
    """Each thing, number, colour and place by itself, to be answered by yes or no."""
    ending = " Answer yes or no."
    for clause in task.include:
        if clause.count == 1:
            yield f"Is there a {clause.name} in the picture?{ending}"
        else:
            number = _NUMBERS[clause.count] if clause.count < len(_NUMBERS) else str(clause.count)
            yield f"Are there exactly {number} of {clause.name} in the picture?{ending}"
        if clause.colour is not None:
            yield f"Is the {clause.name} {clause.colour}?{ending}"
        if clause.position is not None:
            relation, target = clause.position
            yield f"Is the {clause.name} {relation} the {task.include[target].name}?{ending}"


def _normalised(rows: FloatArray) -> FloatArray:
    lengths: FloatArray = (rows**2).sum(axis=1, keepdims=True) ** 0.5
    return rows / lengths.clip(min=1e-12)
