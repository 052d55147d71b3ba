"""Is what the prompt names in the picture? By models that answer short questions: GIT and BLIP."""

import importlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from pipeline.pictures import Pixels
from pipeline.scoring.formulae.answers import (
    YesNo,
    chunk_product,
    chunks_asked,
    phrase_answers,
    published_chunk_product,
    published_chunks_asked,
    published_phrase_answers,
)
from pipeline.scoring.formulae.modes import Mode
from pipeline.scoring.judges.batches import grouped
from pipeline.scoring.judges.judge import Judge
from pipeline.scoring.judges.loading import load_image_processor, load_model, load_tokenizer
from pipeline.scoring.judges.outcomes import Judgement, Outcome, View, columns_with
from pipeline.scoring.judges.picture_reader import PictureReader
from pipeline.scoring.judges.questions import Questions, questions_of
from pipeline.scoring.judges.settings import JudgeSettings
from pipeline.scoring.scorers import TorchDevice
from schemas.errors import InputError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

Question = tuple[int, str]  # index of the picture, and what to ask about it


class Answering(Protocol):
    """Answers questions about pictures by yes or no."""

    def start(self, pictures: Sequence[Pixels]) -> None:
        """Begin to read pictures that are shown soon."""
        ...

    def answers(self, pictures: Sequence[Pixels], questions: Sequence[Question]) -> list[YesNo]:
        """The probabilities of yes and of no of each question, of all that could be answered."""
        ...


class Git:
    """Wang et al. 2022. It goes on with `[CLS] question`, pictures before text."""

    def __init__(self, folder: Path, *, dtype: str, device: str) -> None:
        from transformers import CLIPImageProcessorPil, GitForCausalLM

        self._model = load_model(GitForCausalLM, folder, dtype, device)
        self._tokenizer = load_tokenizer(folder)
        processor = load_image_processor(CLIPImageProcessorPil, folder)
        self._reader = PictureReader(processor, on_device=True)
        self.start = self._reader.start
        self._yes_no = _single_tokens(self._tokenizer, folder)

    def answers(self, pictures: Sequence[Pixels], questions: Sequence[Question]) -> list[YesNo]:
        import torch

        model, tokenizer = self._model, self._tokenizer
        pixels = self._reader.read(pictures, model)
        ids_of = {
            text: [tokenizer.cls_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
            for text in {text for _, text in questions}
        }
        ids = [ids_of[text] for _, text in questions]
        answers: list[YesNo] = [(math.nan, math.nan)] * len(questions)
        for indices in grouped([len(tokens) for tokens in ids], at_most=len(pictures)):
            rows = torch.tensor([ids[index] for index in indices], device=model.device)
            shown = pixels[[questions[index][0] for index in indices]]
            with torch.inference_mode():
                logits = model(pixel_values=shown, input_ids=rows).logits[:, -1]
            for index, answer in zip(indices, _masses(logits, self._yes_no), strict=True):
                answers[index] = answer
        return answers


class BlipVqa:
    """Li et al. 2022: the picture is read at 480 pixels, the question looks at it, and the answer
    begins at one token.
    """

    def __init__(self, folder: Path, *, dtype: str, device: str, side: int) -> None:
        from transformers import BlipForQuestionAnswering, BlipImageProcessorPil

        self._model = load_model(BlipForQuestionAnswering, folder, dtype, device)
        self._tokenizer = load_tokenizer(folder)
        processor = load_image_processor(
            BlipImageProcessorPil, folder, size={"height": side, "width": side}
        )
        self._reader = PictureReader(processor, on_device=True)
        self.start = self._reader.start
        self._yes_no = _single_tokens(self._tokenizer, folder)

    def answers(self, pictures: Sequence[Pixels], questions: Sequence[Question]) -> list[YesNo]:
        import torch

        model = self._model
        pixels = self._reader.read(pictures, model)
        with torch.inference_mode():  # once a picture, however many questions it gets
            shown = model.vision_model(pixel_values=pixels, interpolate_pos_encoding=True)[0]
        ids = [self._tokenizer(text)["input_ids"] for _, text in questions]
        answers: list[YesNo] = [(math.nan, math.nan)] * len(questions)
        for indices in grouped([len(tokens) for tokens in ids], at_most=len(pictures)):
            rows = torch.tensor([ids[index] for index in indices], device=model.device)
            seen = shown[[questions[index][0] for index in indices]]
            logits = self._first_logits(rows, seen)
            for index, answer in zip(indices, _masses(logits, self._yes_no), strict=True):
                answers[index] = answer
        return answers

    def _first_logits(self, rows: "torch.Tensor", seen: "torch.Tensor") -> "torch.Tensor":
        """Of the first token of each answer, [questions, vocabulary]."""
        import torch

        model = self._model
        with torch.inference_mode():
            asked = model.text_encoder(
                input_ids=rows,
                attention_mask=torch.ones_like(rows),
                encoder_hidden_states=seen,
                encoder_attention_mask=torch.ones(
                    seen.shape[:2], dtype=torch.long, device=seen.device
                ),
                return_dict=True,
            )[0]
            start = torch.full_like(rows[:, :1], model.decoder_start_token_id)
            told = model.text_decoder(
                input_ids=start,
                encoder_hidden_states=asked,
                encoder_attention_mask=torch.ones_like(rows),
            )
        return told.logits[:, 0]


def _single_tokens(tokenizer: "PreTrainedTokenizerBase", folder: Path) -> tuple[int, int]:
    """The ids of yes and of no. Raises InputError for a vocabulary that has none of them."""
    yes, no = (tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
    if not isinstance(yes, int) or not isinstance(no, int) or tokenizer.unk_token_id in (yes, no):
        raise InputError(f"the tokenizer of {folder} has no token yes or no; it cannot be asked")
    return yes, no


def _masses(logits: "torch.Tensor", yes_no: tuple[int, int]) -> list[YesNo]:
    probabilities = logits.double().softmax(dim=-1)[:, list(yes_no)].cpu().tolist()
    return [(yes, no) for yes, no in probabilities]


_Phrases: TypeAlias = tuple[Questions, Sequence[str]]
"""What a prompt asks for, and the phrases of it that GIT is asked about."""


class GitSettings(JudgeSettings):
    model: str = "microsoft/git-large-vqav2"


class GitVqa(Judge[GitSettings, Git, _Phrases]):
    """Each phrase of the prompt is asked as `red cup?`: the mean of P(yes)."""

    name = "git_vqa"
    columns = columns_with("num_asked", "num_refused")
    Settings = GitSettings

    def load_model(self, device: TorchDevice) -> Git:
        return Git(self.settings.folder(), dtype=self.settings.dtype, device=device)

    def ask(self, view: View) -> _Phrases | Judgement:
        mode = self.settings.mode
        questions = questions_of(view, mode)
        if questions is None:
            return Judgement.without(Outcome.NOTHING_ASKED)
        phrases = _phrases(questions, mode)
        return (questions, phrases) if phrases else _phrase_judgement(questions, (), mode)

    def answers(
        self, model: Git, views: Sequence[View], questions: Sequence[_Phrases]
    ) -> list[Judgement]:
        told = _ask(model, views, [phrases for _, phrases in questions])
        return [
            _phrase_judgement(asked, own, self.settings.mode)
            for (asked, _), own in zip(questions, told, strict=True)
        ]


def _phrases(questions: Questions, mode: Mode) -> Sequence[str]:
    """What GIT is asked about."""
    if questions.task_type in ("spatial", "numeracy"):
        return ()
    if mode is not Mode.FIXED and questions.attr_nouns is not None:
        return questions.attr_nouns  # even if there are none
    return questions.phrases


def _phrase_judgement(questions: Questions, answers: Sequence[YesNo], mode: Mode) -> Judgement:
    if not _is_finite(answers):
        return Judgement.without(Outcome.NOT_FINITE)
    if mode is not Mode.FIXED:
        attributes = None if questions.attr_nouns is None else answers
        return Judgement(value=published_phrase_answers(questions.task_type, answers, attributes))
    value = phrase_answers(questions.task_type, answers, None)
    outcome = Outcome.OK
    if value is None:
        is_asked = questions.task_type not in ("spatial", "numeracy")
        outcome = Outcome.NOT_APPLICABLE if not is_asked else Outcome.NOTHING_ASKED
        outcome = Outcome.REFUSED if answers else outcome
    return Judgement(value=value, outcome=outcome, parts=_counts(answers))


class BlipSettings(JudgeSettings):
    MODES = (Mode.FIXED, Mode.OFFICIAL)

    model: str = "Salesforce/blip-vqa-capfilt-large"
    image_size: int = 480
    chunker: str | None = None
    """`module:function` from a prompt to its noun chunks. None: those of our own parser, which have
    no articles; T2I-CompBench's are spaCy's.
    """


class BlipVqaJudge(Judge[BlipSettings, BlipVqa, list[str]]):
    """T2I-CompBench's BLIP-VQA: each noun chunk is asked as a question; the product of P(yes)."""

    name = "blip_vqa"
    columns = columns_with("num_asked", "num_refused")
    Settings = BlipSettings

    def __init__(self, settings: BlipSettings) -> None:
        super().__init__(settings)
        self._chunks_of = _chunker(settings.chunker) if settings.chunker else self._own_chunks
        self._is_fixed = settings.mode is Mode.FIXED

    def load_model(self, device: TorchDevice) -> BlipVqa:
        settings = self.settings
        return BlipVqa(
            settings.folder(), dtype=settings.dtype, device=device, side=settings.image_size
        )

    def ask(self, view: View) -> list[str] | Judgement:
        chunks = self._chunks_of(view)
        choose = chunks_asked if self._is_fixed else published_chunks_asked
        asked = [chunks[index] for index in choose(chunks)]
        return asked or _chunk_judgement((), is_fixed=self._is_fixed)

    def answers(
        self, model: BlipVqa, views: Sequence[View], questions: Sequence[list[str]]
    ) -> list[Judgement]:
        told = _ask(model, views, questions)
        return [_chunk_judgement(own, is_fixed=self._is_fixed) for own in told]

    def _own_chunks(self, view: View) -> Sequence[str]:
        questions = questions_of(view, self.settings.mode)
        return questions.phrases if questions is not None else ()


def _chunk_judgement(answers: Sequence[YesNo], *, is_fixed: bool) -> Judgement:
    if not _is_finite(answers):
        return Judgement.without(Outcome.NOT_FINITE)
    if not is_fixed:
        return Judgement(value=published_chunk_product(answers), parts=_counts(answers))
    value = chunk_product(answers)
    outcome = Outcome.OK
    if value is None:
        outcome = Outcome.REFUSED if answers else Outcome.NOTHING_ASKED
    return Judgement(value=value, outcome=outcome, parts=_counts(answers))


def _chunker(path: str) -> "Callable[[View], Sequence[str]]":
    """The user's function. Raises InputError."""
    module, _, attribute = path.partition(":")
    try:
        chunks_of = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"the chunker {path} cannot be loaded: {error}") from error

    def chunks(view: View) -> Sequence[str]:
        chunks = list(chunks_of(view.prompt))
        if not all(isinstance(chunk, str) for chunk in chunks):
            raise InputError(f"{path} gave {chunks!r:.200}; expected the noun chunks as text")
        return chunks

    return chunks


def _ask(
    model: Answering, views: Sequence[View], phrases: Sequence[Sequence[str]]
) -> list[list[YesNo]]:
    """The answers of each view, by phrase."""
    questions = [(index, f"{phrase}?") for index, own in enumerate(phrases) for phrase in own]
    answers = iter(model.answers([view.pixels for view in views], questions))
    return [[next(answers) for _ in own] for own in phrases]


def _is_finite(answers: Sequence[YesNo]) -> bool:
    return all(math.isfinite(yes) and math.isfinite(no) for yes, no in answers)


def _counts(answers: Sequence[YesNo]) -> dict[str, float]:
    num_refused = sum(phrase_answers("", [answer], None) is None for answer in answers)
    return {"num_asked": float(len(answers)), "num_refused": float(num_refused)}
