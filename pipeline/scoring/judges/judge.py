"""What all judges have in common: settings, what they look at, weights, and one score an input.

A judge says what it asks about a view, and what its model's answers are worth. Views about which
there is nothing to ask are never shown to the model.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar

from pipeline.pictures import Pixels
from pipeline.scoring.judges.outcomes import Judgement, Outcome, View, view_of
from pipeline.scoring.judges.settings import JudgeSettings
from pipeline.scoring.scorers import Score, ScoringInput, TorchDevice
from schemas.scores import ColumnType


class Model(Protocol):
    """What a judge has loaded: one model, or several that work together."""

    def start(self, pictures: Sequence[Pixels]) -> None:
        """Begin to read pictures that are shown soon, while others are looked at."""
        ...


SettingsT = TypeVar("SettingsT", bound=JudgeSettings)
ModelT = TypeVar("ModelT", bound=Model)
QuestionT = TypeVar("QuestionT")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked(Generic[QuestionT]):
    """A view that the model is asked about."""

    index: int  # of its input
    view: View
    question: QuestionT


class Judge(ABC, Generic[SettingsT, ModelT, QuestionT]):
    """A scorer that looks at pictures with a model: see `pipeline.scoring.scorers`."""

    name: ClassVar[str]
    version = "1"
    needs_pictures = True
    columns: Mapping[str, ColumnType]

    def __init__(self, settings: SettingsT) -> None:
        self.settings = settings
        self.subjects = frozenset({"draw" if settings.look == "crop" else settings.look})
        self._model: ModelT | None = None

    @abstractmethod
    def load_model(self, device: TorchDevice) -> ModelT:
        """The model with its weights. Raises InputError."""

    @abstractmethod
    def ask(self, view: View) -> QuestionT | Judgement:
        """What the model is to be asked about a view, or what there is to say without it."""

    @abstractmethod
    def answers(
        self, model: ModelT, views: Sequence[View], questions: Sequence[QuestionT]
    ) -> Sequence[Judgement]:
        """A judgement a view, by the model."""

    def load(self, device: TorchDevice) -> None:
        """Read the weights. Raises InputError."""
        self._model = self.load_model(device)

    def score(self, batch: Sequence[ScoringInput]) -> list[Score]:
        """One score an input. A value or part that is no finite number becomes an outcome."""
        model = self._model
        assert model is not None, "load it first"
        judgements: dict[int, Judgement] = {}
        asked: list[_Asked[QuestionT]] = []
        for index, scoring_input in enumerate(batch):
            told = self._asked(index, scoring_input)
            if isinstance(told, _Asked):
                asked.append(told)
            else:
                judgements[index] = told
        size = self.settings.batch_size
        for start in range(0, len(asked), size):
            model.start([each.view.pixels for each in asked[start : start + 2 * size]])
            shown = asked[start : start + size]
            answers = self.answers(
                model, [each.view for each in shown], [each.question for each in shown]
            )
            for each, judgement in zip(shown, answers, strict=True):
                judgements[each.index] = judgement
        return [judgements[index].as_score() for index in range(len(batch))]

    def _asked(self, index: int, scoring_input: ScoringInput) -> _Asked[QuestionT] | Judgement:
        view = view_of(scoring_input, self.settings.look)
        if isinstance(view, Outcome):
            return Judgement.without(view)
        question = self.ask(view)
        if isinstance(question, Judgement):
            return question
        return _Asked(index=index, view=view, question=question)
