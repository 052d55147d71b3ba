"""Find a Janus checkpoint, and load it: Hugging Face's format or DeepSeek's own.

Nothing is guessed and no weight is made up: what is missing, left over or of another size is an
error that names it. Finding imports neither torch nor transformers.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.engine import deepseek
from pipeline.engine.tiny import tiny_checkpoint
from pipeline.engine.tokenizer import SpecialTokens, load_tokenizer
from pipeline.engine.weights import build_model, map_weights
from schemas.errors import InputError
from schemas.geometry import Geometry

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import (
        JanusConfig,
        JanusForConditionalGeneration,
        LlamaConfig,
        PreTrainedTokenizerFast,
    )

    from schemas.json_values import JsonObject

    Shapes = Mapping[str, tuple[int, ...]]


def _toy_checkpoint() -> Path:
    """The folder of the bundled trained model: package data, made by `pipeline.toy.training`."""
    return Path(__file__).parent.parent / "toy" / "weights"


_BUNDLED = {"toy": _toy_checkpoint, "tiny": tiny_checkpoint}
_HUB_ID = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", re.ASCII)  # owner/name, @revision
_FETCH_AGAIN = "fetch or export the model again"
_HUB_FILES = ["*.json", "*.safetensors", "pytorch_model*.bin"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Janus:
    """A loaded checkpoint."""

    model: "JanusForConditionalGeneration"  # for inference only: eval mode, no gradients
    tokenizer: "PreTrainedTokenizerFast"
    special: SpecialTokens
    geometry: Geometry
    max_positions: int  # the most tokens, pictures included, that the language model holds
    image_mean: tuple[float, ...]  # of each channel, for pixels from 0 to 1
    image_std: tuple[float, ...]
    card: "JsonObject | None"  # `coppice.json` beside the weights: may name a template pack

    @property
    def text_config(self) -> "LlamaConfig":
        """The sizes of the language model: the model's own, not a copy."""
        return text_config_of(self.model.config)


def resolve_checkpoint(name: str) -> Path:
    """The folder of a model: a bundled name, a folder, or `owner/name[@revision]` on the hub.

    Builds or downloads what is not on this machine yet. Raises InputError for a name that means
    nothing, and for what cannot be fetched.
    """
    if name in _BUNDLED:
        return _BUNDLED[name]()
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if hub_id := _HUB_ID.fullmatch(name):
        return _download(name, *hub_id.groups())
    raise InputError(
        f"{name!r} is not a folder and not the name of a model; give a folder, "
        f"a hub id such as deepseek-ai/Janus-Pro-1B, or one of: {', '.join(_BUNDLED)}"
    )


def _download(name: str, repo_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=_HUB_FILES))
    except Exception as error:  # offline, unknown, private, disk full: the advice is the same
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{name!r} is not a folder, and could not be fetched from the Hugging Face hub "
            f"({reason}); check the name and the network, run `hf auth login` if it is private, "
            "or give a folder that holds the model"
        ) from error


def digest_of(folder: Path) -> str:
    """Hex sha256 of the files that `load_janus` computes with, in name order.

    In that folder, `sha256sum config.json ... | sha256sum` prints the same. Raises InputError for a
    file that is missing.
    """
    small = [
        folder / name for name in ("config.json", "preprocessor_config.json", "tokenizer.json")
    ]
    digest = hashlib.sha256()
    for path in sorted(small + _weight_files(folder)):
        with _present(path).open("rb") as file:
            file_digest = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{file_digest}  {path.name}\n".encode())
    return digest.hexdigest()


def load_janus(folder: Path, *, dtype: "torch.dtype", device: str) -> Janus:
    """The checkpoint in `folder`, whichever format and dtype it is stored in.

    Raises InputError for what is missing, left over, of another size or cannot be read.
    """
    tokenizer, special = load_tokenizer(folder)
    config, weights = _read_checkpoint(folder)
    config.image_token_id = special.image
    _check_sizes(folder, config, num_words=len(tokenizer))
    card = folder / "coppice.json"
    return Janus(
        tokenizer=tokenizer,
        special=special,
        geometry=geometry_of(config),
        max_positions=text_config_of(config).max_position_embeddings,
        image_mean=_per_channel(folder, "image_mean"),
        image_std=_per_channel(folder, "image_std"),
        card=_read_json(card) if card.is_file() else None,
        model=build_model(config, weights, dtype, device),  # last: all else is known to be good
    )


def text_config_of(config: "JanusConfig") -> "LlamaConfig":
    """The sizes of the language model. Raises InputError for one that is no LLaMA."""
    from transformers import LlamaConfig

    text = config.text_config
    if not isinstance(text, LlamaConfig):
        raise InputError(
            f"the language model is a {getattr(text, 'model_type', text)!r}, where Janus has a "
            "'llama'; give a Janus checkpoint"
        )
    return text


def geometry_of(config: "JanusConfig") -> Geometry:
    """The sizes of the pictures that a model of this config draws."""
    from transformers import JanusVQVAEConfig

    vq = config.vq_config
    assert isinstance(vq, JanusVQVAEConfig)
    return Geometry(
        image_size=vq.num_patches * 2 ** (len(vq.channel_multiplier) - 1),
        rows=vq.num_patches,
        columns=vq.num_patches,
        num_codes=vq.num_embeddings,
    )


def _read_checkpoint(folder: Path) -> "tuple[JanusConfig, dict[str, Tensor]]":
    """Its config and weights in Hugging Face's terms: one weight for every name, of its shape."""
    path = folder / "config.json"
    content = _read_json(path)
    if content.get("model_type") not in ("janus", "multi_modality"):
        raise InputError(
            f"{path} has model_type {content.get('model_type')!r}; "
            "give a Janus checkpoint, whose model_type is 'janus' or 'multi_modality'"
        )
    weights = _map_weights(folder)
    try:
        config, weights = _in_hugging_face_terms(content, weights)
        wanted = _model_shapes(config)
    except InputError:
        raise
    except Exception as error:  # the many checks of transformers and torch share no base class
        raise InputError(
            f"{path} and the weights beside it make no Janus model ({error!r}); {_FETCH_AGAIN}"
        ) from error
    _check_weights(folder, wanted, _shapes(weights))
    return config, weights


def _in_hugging_face_terms(
    content: "JsonObject", weights: "dict[str, Tensor]"
) -> "tuple[JanusConfig, dict[str, Tensor]]":
    from transformers import JanusConfig

    if deepseek.is_deepseek(content):
        config = deepseek.janus_config(content, _shapes(weights))
        return config, dict(deepseek.to_hugging_face(weights.items()))
    # No Janus ties its embeddings, but True is the default of a config that does not say so.
    return JanusConfig.from_dict(content | {"tie_word_embeddings": False}), weights


def _model_shapes(config: "JanusConfig") -> "Shapes":
    import torch
    from transformers import JanusForConditionalGeneration

    with torch.device("meta"):
        return _shapes(JanusForConditionalGeneration(config).state_dict())


def _shapes(weights: "Mapping[str, Tensor]") -> "Shapes":
    return {name: tuple(weight.shape) for name, weight in weights.items()}


def _check_weights(folder: Path, wanted: "Shapes", stored: "Shapes") -> None:
    """Refuse, before anything is loaded, what transformers would fill in at random or leave out."""
    wrong = [f"{name} is missing" for name in wanted if name not in stored]
    wrong += [f"{name} is not part of the model" for name in stored if name not in wanted]
    wrong += [
        f"{name} is {stored[name]} and should be {wanted[name]}"
        for name in wanted
        if stored.get(name, wanted[name]) != wanted[name]
    ]
    if wrong:
        first = "; ".join(wrong[:3]) + ("; ..." if len(wrong) > 3 else "")
        raise InputError(
            f"{len(wrong)} weights in {folder} do not fit its config.json: {first}. {_FETCH_AGAIN}"
        )


def _check_sizes(folder: Path, config: "JanusConfig", *, num_words: int) -> None:
    from transformers import JanusVisionConfig

    vision, text = config.vision_config, text_config_of(config)
    assert isinstance(vision, JanusVisionConfig)
    drawn, read = geometry_of(config).image_size, vision.image_size
    if drawn != read:
        raise InputError(
            f"the model in {folder} draws pictures of {drawn} pixels and reads them at {read}; "
            "give one whose sizes are the same, as those of Janus-Pro are"
        )
    if num_words > text.vocab_size:
        raise InputError(
            f"the tokenizer in {folder} has {num_words} tokens and the model knows "
            f"{text.vocab_size}; copy the tokenizer.json that belongs to the model"
        )


def _weight_files(folder: Path) -> list[Path]:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            weight_map = _read_json(index).get("weight_map")
            shards = weight_map.values() if isinstance(weight_map, dict) else ()
            return [_present(folder / shard) for shard in sorted({str(shard) for shard in shards})]
    raise InputError(f"{folder} has no model.safetensors and no pytorch_model.bin; {_FETCH_AGAIN}")


def _map_weights(folder: Path) -> "dict[str, Tensor]":
    """All weights by name, mapped into memory: pages are read when they are used."""
    weights: dict[str, Tensor] = {}
    for path in _weight_files(folder):
        weights |= map_weights(path)
    return weights


def _per_channel(folder: Path, key: str) -> tuple[float, ...]:
    path = folder / "preprocessor_config.json"
    values = _read_json(path).get(key)
    numbers: list[float] = []
    if isinstance(values, list):
        numbers = [float(value) for value in values if isinstance(value, int | float)]
    if len(numbers) != 3 or numbers != values:
        raise InputError(
            f"{path} has {values!r} for {key}, where three numbers are due; "
            "copy the file of the Janus model that this one was made from"
        )
    return tuple(numbers)


def _read_json(path: Path) -> "JsonObject":
    from schemas.json_values import read_json_object  # pydantic, which running a model does without

    try:
        return read_json_object(_present(path).read_bytes())
    except ValueError as error:
        raise InputError(f"{path} is not a JSON object ({error}); {_FETCH_AGAIN}") from error


def _present(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"{path.parent} has no {path.name}, which the model needs; {_FETCH_AGAIN}")
    return path
