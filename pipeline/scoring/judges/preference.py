"""How well a picture goes with its prompt, by CLIP: HPS v2.1, PickScore, and CLIPScore."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.pictures import Pixels
from pipeline.scoring.formulae.answers import cosine, published_cosine
from pipeline.scoring.formulae.modes import Mode
from pipeline.scoring.formulae.phrases import FloatArray
from pipeline.scoring.judges import open_clip
from pipeline.scoring.judges.judge import Judge
from pipeline.scoring.judges.loading import (
    load_image_processor,
    load_model,
    load_tokenizer,
    read_state_dict,
    refuse_missing,
)
from pipeline.scoring.judges.outcomes import Judgement, Outcome, View, columns_with
from pipeline.scoring.judges.picture_reader import PictureReader
from pipeline.scoring.judges.settings import FILES, JudgeSettings
from pipeline.scoring.scorers import TorchDevice
from schemas.errors import InputError

if TYPE_CHECKING:
    import torch
    from transformers import CLIPModel

_HPS_WEIGHTS = ("HPS_v2.1_compressed.pt", "HPS_v2.1.pt", "model.safetensors")


class Towers:
    """A loaded CLIP: pictures and texts to embeddings, not normalised."""

    def __init__(self, model: "CLIPModel", folder: Path) -> None:
        from transformers import CLIPImageProcessorPil

        self._model = model
        self._tokenizer = load_tokenizer(folder)
        processor = load_image_processor(CLIPImageProcessorPil, folder)
        self._reader = PictureReader(processor, on_device=True)
        self.start = self._reader.start
        config: Any = model.config  # its annotation allows for less than it has
        self._max_tokens: int = config.text_config.max_position_embeddings

    @property
    def logit_scale(self) -> float:
        """What the model multiplies a cosine with."""
        return float(self._model.logit_scale.double().exp())

    def embed_pictures(self, pictures: Sequence[Pixels]) -> FloatArray:
        """[pictures, dimensions]."""
        import torch

        with torch.inference_mode():
            # Beside the outputs stands the pooled one: projected, and not normalised.
            return _as_doubles(
                self._model.get_image_features(
                    pixel_values=self._reader.read(pictures, self._model)
                ).pooler_output
            )

    def embed_texts(self, texts: Sequence[str]) -> FloatArray:
        """[texts, dimensions]. The same text again costs nothing."""
        import torch

        distinct = list(dict.fromkeys(texts))
        tokens = self._tokenizer(
            distinct,
            padding="max_length",
            max_length=self._max_tokens,
            truncation=True,
            return_tensors="pt",
        ).to(self._model.device)
        with torch.inference_mode():
            said = self._model.get_text_features(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            ).pooler_output
        row_of = {text: row for row, text in enumerate(distinct)}
        return _as_doubles(said)[[row_of[text] for text in texts]]

    def is_cut(self, text: str) -> bool:
        """Whether the text is longer than the model reads."""
        return len(self._tokenizer(text)["input_ids"]) > self._max_tokens


def load_towers(folder: Path, dtype: str, device: str) -> Towers:
    """The CLIP of a folder. Raises InputError."""
    from transformers import CLIPModel

    return Towers(load_model(CLIPModel, folder, dtype, device), folder)


def _as_doubles(tensor: "torch.Tensor") -> FloatArray:
    numbers: FloatArray = tensor.double().cpu().numpy()
    return numbers


class _ClipJudge(Judge[JudgeSettings, Towers, str]):
    """What the three have in common: the value is the cosine, without the model's logit scale."""

    columns = columns_with(
        "logit",  # the cosine times the model's own scale
        "prompt_cut",  # 1: the model read only the beginning of the prompt
    )

    def load_model(self, device: TorchDevice) -> Towers:
        return load_towers(self.settings.folder(), self.settings.dtype, device)

    def ask(self, view: View) -> str:
        return view.prompt

    def answers(
        self, model: Towers, views: Sequence[View], questions: Sequence[str]
    ) -> list[Judgement]:
        likeness = cosine if self.settings.mode is Mode.FIXED else published_cosine
        is_cut = {prompt: model.is_cut(prompt) for prompt in set(questions)}
        judgements: list[Judgement] = []
        embedded = model.embed_pictures([view.pixels for view in views])
        for prompt, shown, said in zip(
            questions, embedded, model.embed_texts(questions), strict=True
        ):
            value = likeness(shown, said) if np.isfinite([*shown, *said]).all() else math.nan
            if value is None:
                judgements.append(Judgement.without(Outcome.NOT_APPLICABLE))
                continue
            parts = {"logit": value * model.logit_scale, "prompt_cut": float(is_cut[prompt])}
            judgements.append(Judgement(value=value, parts=parts))
        return judgements


class PickScoreSettings(JudgeSettings):
    MODES = (Mode.FIXED,)

    model: str = "yuvalkirstain/PickScore_v1"


class PickScore(_ClipJudge):
    """PickScore (Kirstain et al. 2023). The published score is `logit`."""

    name = "pickscore"
    Settings = PickScoreSettings


class ClipScoreSettings(JudgeSettings):
    MODES = (Mode.FIXED, Mode.OFFICIAL)

    model: str = "openai/clip-vit-base-patch32"


class ClipScore(_ClipJudge):
    """The plain cosine of picture and prompt, as T2I-CompBench has it for non-spatial prompts."""

    name = "clipscore"
    Settings = ClipScoreSettings


class HpsSettings(JudgeSettings):
    MODELS = ("model", "base")

    model: str = "xswu/HPSv2"
    """Where HPS's checkpoint lies: open_clip's names, or `CLIPModel`'s own."""
    base: str = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    """A `CLIPModel` of the same sizes, for its config, tokenizer and image processor."""
    base_revision: str | None = None


class Hps(_ClipJudge):
    """HPS v2.1 (Wu et al. 2023): the cosine alone.

    Pictures are resized by Pillow, and by the published code as tensors: its scores may differ a
    little.
    """

    name = "hps"
    Settings = HpsSettings

    def load_model(self, device: TorchDevice) -> Towers:
        small_files = tuple(
            name for name in FILES if "safetensors" not in name and "bin" not in name
        )
        base = self.settings.folder("base", small_files)
        folder = self.settings.folder(patterns=(*_HPS_WEIGHTS, *FILES[:1]))
        return Towers(_hps_model(folder, base, self.settings.dtype, device), base)


def _hps_model(folder: Path, base: Path, dtype: str, device: str) -> "CLIPModel":
    import torch
    from transformers import CLIPConfig, CLIPModel

    path = next((folder / name for name in _HPS_WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise InputError(f"{folder} holds no weights of HPS; expected {' or '.join(_HPS_WEIGHTS)}")
    weights = read_state_dict(path)
    if open_clip.is_open_clip(weights):
        weights = open_clip.to_clip_model(weights)
    try:
        model = CLIPModel(CLIPConfig.from_pretrained(base, local_files_only=True))
        report = model.load_state_dict(weights, strict=False)
    except Exception as error:  # a config that is none, or a weight of another size
        raise InputError(
            f"the weights of {path} do not fit the model of {base} ({error!s:.300}); give the base "
            "that HPS was trained from"
        ) from error
    refuse_missing(path, [name for name in report.missing_keys if "position_ids" not in name])
    model.eval().requires_grad_(False)
    whole: Any = model  # whose `to` has an annotation that takes no device
    placed: CLIPModel = whole.to(device=device, dtype=getattr(torch, dtype))
    return placed
