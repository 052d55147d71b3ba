"""How well a picture goes with its prompt, by CLIP: HPS v2.1, PickScore, and CLIPScore."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from pipeline.scoring.formulae.answers import cosine, published_cosine
from pipeline.scoring.formulae.modes import Mode
from pipeline.scoring.formulae.phrases import FloatArray
from pipeline.scoring.judges import open_clip
from pipeline.scoring.judges.loading import (
    load_image_processor,
    load_model,
    load_tokenizer,
    read_state_dict,
    refuse_missing,
)
from pipeline.scoring.judges.outcomes import (
    Judgement,
    Outcome,
    View,
    columns_with,
    judged,
    subjects_of_look,
)
from pipeline.scoring.judges.settings import (
    FILES,
    JudgeSettings,
    model_folder,
    pinned_model,
)
from pipeline.scoring.scorers import Score, ScoringInput, TorchDevice
from schemas.errors import InputError
from schemas.scores import ColumnType

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
        self._processor = load_image_processor(CLIPImageProcessorPil, folder)
        config: Any = model.config  # its annotation allows for less than it has
        self._max_tokens: int = config.text_config.max_position_embeddings

    @property
    def logit_scale(self) -> float:
        """What the model multiplies a cosine with."""
        return float(self._model.logit_scale.double().exp())

    def embed(self, views: Sequence[View]) -> tuple[FloatArray, FloatArray]:
        """Of pictures and of their prompts, [views, dimensions] each."""
        import torch

        model = self._model
        texts = list(dict.fromkeys(view.prompt for view in views))
        tokens = self._tokenizer(
            texts,
            padding="max_length",
            max_length=self._max_tokens,
            truncation=True,
            return_tensors="pt",
        ).to(model.device)
        pictures = [view.pixels for view in views]
        pixels = self._processor(pictures, return_tensors="pt", input_data_format="channels_last")
        with torch.inference_mode():
            # Beside the outputs stands the pooled one: projected, and not normalised.
            shown = model.get_image_features(
                pixel_values=pixels["pixel_values"].to(model.device, model.dtype)
            ).pooler_output
            said = model.get_text_features(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            ).pooler_output
        rows = [texts.index(view.prompt) for view in views]
        return _as_doubles(shown), _as_doubles(said)[rows]

    def is_cut(self, text: str) -> bool:
        """Whether the text is longer than the model reads."""
        return len(self._tokenizer(text)["input_ids"]) > self._max_tokens


def _as_doubles(tensor: "torch.Tensor") -> FloatArray:
    numbers: FloatArray = tensor.double().cpu().numpy()
    return numbers


class _ClipJudge:
    """What the three have in common: the value is the cosine, without the model's logit scale."""

    name: ClassVar[str]
    version = "1"
    needs_pictures = True
    columns: Mapping[str, ColumnType] = columns_with(
        "logit",  # the cosine times the model's own scale
        "prompt_cut",  # 1: the model read only the beginning of the prompt
    )

    def __init__(self, settings: JudgeSettings) -> None:
        self.settings = settings
        self.subjects = subjects_of_look(settings.look)
        self._towers: Towers | None = None

    def load(self, device: TorchDevice) -> None:
        """Read the weights. Raises InputError."""
        from transformers import CLIPModel

        folder = model_folder(self.settings.model, self.settings.revision)
        self._towers = Towers(load_model(CLIPModel, folder, self.settings.dtype, device), folder)

    def score(self, batch: Sequence[ScoringInput]) -> list[Score]:
        assert self._towers is not None, "load it first"
        judge = partial(_judge, self._towers, self.settings.mode)
        return judged(batch, self.settings.look, self.settings.batch_size, judge)


def _judge(towers: Towers, mode: Mode, views: Sequence[View]) -> list[Judgement]:
    likeness = cosine if mode is Mode.FIXED else published_cosine
    is_cut = {prompt: towers.is_cut(prompt) for prompt in {view.prompt for view in views}}
    judgements: list[Judgement] = []
    for view, shown, said in zip(views, *towers.embed(views), strict=True):
        value = likeness(shown, said) if np.isfinite([*shown, *said]).all() else float("nan")
        if value is None:
            judgements.append(Judgement.without(Outcome.NOT_APPLICABLE))
            continue
        parts = {
            "logit": value * towers.logit_scale,
            "prompt_cut": float(is_cut[view.prompt]),
        }
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
    model: str = "xswu/HPSv2"
    """Where HPS's checkpoint lies: open_clip's names, or `CLIPModel`'s own."""
    base: str = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    """A `CLIPModel` of the same sizes, for its config, tokenizer and image processor."""
    base_revision: str | None = None

    def pinned(self) -> Self:
        base, base_revision = pinned_model(self.base, self.base_revision)
        both = {"base": base, "base_revision": base_revision}
        return super().pinned().model_copy(update=both)


class Hps(_ClipJudge):
    """HPS v2.1 (Wu et al. 2023): the cosine alone.

    Pictures are resized by Pillow, and by the published code as tensors: its scores may differ a
    little.
    """

    name = "hps"
    Settings = HpsSettings
    settings: HpsSettings

    def __init__(self, settings: HpsSettings) -> None:
        super().__init__(settings)
        self.settings = settings

    def load(self, device: TorchDevice) -> None:
        """Read the weights. Raises InputError."""
        settings = self.settings
        small_files = tuple(
            name for name in FILES if "safetensors" not in name and "bin" not in name
        )
        base = model_folder(settings.base, settings.base_revision, small_files)
        folder = model_folder(settings.model, settings.revision, (*_HPS_WEIGHTS, *FILES[:1]))
        self._towers = Towers(_hps_model(folder, base, settings.dtype, device), base)


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
