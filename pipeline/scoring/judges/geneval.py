"""GenEval on native models: an open-vocabulary detector, and CLIP for the colours of boxes.

GenEval's own detector is Mask2Former, which knows COCO's classes and gives masks. So what comes out
is called GenEval-native. The soft score asks a vision-language model about each thing, number,
colour and place by itself, as GenEval 2 does, and takes the geometric mean of P(yes).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError

from pipeline.pictures import Pixels
from pipeline.scoring.formulae.boxes import Box
from pipeline.scoring.formulae.geneval import COLOURS, Clause, SeenObject, Task, evaluate
from pipeline.scoring.formulae.phrases import FloatArray
from pipeline.scoring.judges.detectors import Detector, DetectorKind, Queries, Wanted, load_detector
from pipeline.scoring.judges.layouts import detections_of
from pipeline.scoring.judges.loading import load_model
from pipeline.scoring.judges.outcomes import (
    Judgement,
    Outcome,
    View,
    columns_with,
    judged,
    subjects_of_look,
)
from pipeline.scoring.judges.preference import Towers
from pipeline.scoring.judges.settings import JudgeSettings, model_folder, pinned_model
from pipeline.scoring.judges.vision_language import VisionLanguageModel, judgement_of
from pipeline.scoring.scorers import Score, ScoringInput, TorchDevice
from schemas.config import Frozen
from schemas.errors import InputError
from schemas.json_values import JsonMapping
from schemas.scores import ColumnType

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
    MODES = JudgeSettings.MODES[:1]

    kind: DetectorKind = "grounding-dino"
    model: str = "IDEA-Research/grounding-dino-tiny"
    clip: str = "openai/clip-vit-large-patch14"
    clip_revision: str | None = None
    threshold: float = Field(default=0.3, ge=0, le=1)
    """A detection's score has to be above it. GenEval's 0.9 for counting is of a classifier over
    80 classes, and no open-vocabulary score comes near it.
    """

    def pinned(self) -> Self:
        clip, revision = pinned_model(self.clip, self.clip_revision)
        both = {"clip": clip, "clip_revision": revision}
        return super().pinned().model_copy(update=both)


class GenEvalNative:
    """1 if all clauses of a record's GenEval metadata hold, else 0 and the first reason."""

    name = "geneval"
    version = "1"
    needs_pictures = True
    columns: Mapping[str, ColumnType] = {**columns_with("num_seen"), "reason": "string"}
    Settings = GenEvalSettings

    def __init__(self, settings: GenEvalSettings) -> None:
        self.settings = settings
        self.subjects = subjects_of_look(settings.look)
        self._detector: Detector | None = None
        self._clip: Towers | None = None

    def load(self, device: TorchDevice) -> None:
        """Read the weights. Raises InputError."""
        settings = self.settings
        folder = model_folder(settings.model, settings.revision)
        self._detector = load_detector(settings.kind, folder, settings.dtype, device)
        self._clip = _towers(
            model_folder(settings.clip, settings.clip_revision), settings.dtype, device
        )

    def score(self, batch: Sequence[ScoringInput]) -> list[Score]:
        return judged(batch, self.settings.look, self.settings.batch_size, self._judge)

    def _judge(self, views: Sequence[View]) -> list[Judgement]:
        assert self._detector is not None, "load it first"
        tasks = [task_of(view.metadata, self.settings.threshold) for view in views]
        wanted = [
            Wanted(pixels=view.pixels, nouns=_names(task))
            for view, task in zip(views, tasks, strict=True)
            if task is not None
        ]
        seen = iter(self._detector.detect(wanted) if wanted else ())
        return [
            Judgement.without(Outcome.NOTHING_ASKED)
            if task is None
            else self._judgement(view, task, next(seen))
            for view, task in zip(views, tasks, strict=True)
        ]

    def _judgement(self, view: View, task: Task, seen: Sequence[Queries]) -> Judgement:
        if any(rows is None for rows in seen):
            return Judgement.without(Outcome.TOO_LONG)
        numbers = (number for rows in seen for row in rows or () for number in row)
        if not all(map(math.isfinite, numbers)):
            return Judgement.without(Outcome.NOT_FINITE)
        detections = detections_of(view, _names(task), seen, self.settings.threshold)
        coloured = {clause.name for clause in task.include if clause.colour is not None}
        objects = [
            SeenObject(
                name=shown.label,
                score=shown.score,
                box=shown.box,
                colour=self._colour(view.pixels, shown.box, shown.label)
                if shown.label in coloured
                else None,
            )
            for shown in detections
        ]
        finding = evaluate(task, objects)
        return Judgement(
            value=float(finding.correct),
            parts={"num_seen": float(len(objects)), "reason": finding.reason},
        )

    def _colour(self, pixels: Pixels, box: Box, name: str) -> str:
        """The likeliest colour of what a box holds, by CLIP, zero-shot."""
        assert self._clip is not None, "load it first"
        x0, y0, x1, y1 = (
            math.floor(box[0]),
            math.floor(box[1]),
            math.ceil(box[2]),
            math.ceil(box[3]),
        )
        crop = pixels[y0:y1, x0:x1]
        views = [View(pixels=crop, prompt=f"a photo of a {colour} {name}") for colour in COLOURS]
        shown, said = self._clip.embed(views)
        likeness = _normalised(shown) * _normalised(said)
        return COLOURS[int(likeness.sum(axis=1).argmax())]


class SoftGenEvalSettings(JudgeSettings):
    MODES = JudgeSettings.MODES[:1]

    model: str = "Qwen/Qwen3-VL-4B-Instruct"


class SoftGenEval:
    """The geometric mean of P(yes) over what a record's GenEval metadata asks for."""

    name = "soft_geneval"
    version = "1"
    needs_pictures = True
    columns: Mapping[str, ColumnType] = columns_with("num_asked", "num_refused", "mean")
    Settings = SoftGenEvalSettings

    def __init__(self, settings: SoftGenEvalSettings) -> None:
        self.settings = settings
        self.subjects = subjects_of_look(settings.look)
        self._model: VisionLanguageModel | None = None

    def load(self, device: TorchDevice) -> None:
        """Read the weights. Raises InputError."""
        settings = self.settings
        folder = model_folder(settings.model, settings.revision)
        self._model = VisionLanguageModel(folder, dtype=settings.dtype, device=device)

    def score(self, batch: Sequence[ScoringInput]) -> list[Score]:
        return judged(batch, self.settings.look, self.settings.batch_size, self._judge)

    def _judge(self, views: Sequence[View]) -> list[Judgement]:
        model = self._model
        assert model is not None, "load it first"
        tasks = [task_of(view.metadata, 0.0) for view in views]
        asked = [list(_questions(task)) if task is not None else [] for task in tasks]
        shown = [view for view, own in zip(views, asked, strict=True) for _ in own]
        flat = [question for own in asked for question in own]
        size = self.settings.batch_size
        logits = [
            row
            for start in range(0, len(flat), size)
            for row in model.first_logits(shown[start : start + size], flat[start : start + size])
        ]
        answers = iter([judgement_of(row, model.spelled) for row in logits])
        return [_soft([next(answers) for _ in own]) for own in asked]


def _soft(answers: Sequence[Judgement]) -> Judgement:
    """No value where one of the answers has none: a mean of the rest says something else."""
    if not answers:
        return Judgement.without(Outcome.NOTHING_ASKED)
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


def _towers(folder: Path, dtype: str, device: str) -> Towers:
    from transformers import CLIPModel

    return Towers(load_model(CLIPModel, folder, dtype, device), folder)


def _normalised(rows: FloatArray) -> FloatArray:
    lengths: FloatArray = (rows**2).sum(axis=1, keepdims=True) ** 0.5
    return rows / lengths.clip(min=1e-12)
