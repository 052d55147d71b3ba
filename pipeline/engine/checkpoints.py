"""Find a Janus checkpoint, and load it: Hugging Face's format or DeepSeek's own.

Nothing is guessed and no weight is made up: what is missing, left over or of another size is an
error that names it. Finding imports neither torch nor transformers.
"""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.engine import deepseek
from pipeline.engine.model_files.configs import own_dtype, read_config
from pipeline.engine.model_files.digests import digest_of_files
from pipeline.engine.model_files.headers import header_of, read_headers, refuse_twice
from pipeline.engine.model_files.listing import (
    CARD,
    CONFIG,
    FETCH_AGAIN,
    Folder,
    checkpoint_files,
    read_json,
    refuse_pointer,
)
from pipeline.engine.model_files.names import is_computed, plain_names, refuse_quantised
from pipeline.engine.model_files.pictures import read_pixel_scale
from pipeline.engine.model_files.places import file_digests, find_checkpoint
from pipeline.engine.tokenizer import SpecialTokens, load_tokenizer
from pipeline.engine.weights import build_decoder, build_model, map_weights
from schemas.errors import InputError
from schemas.geometry import Geometry

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import (
        JanusConfig,
        JanusForConditionalGeneration,
        JanusVQVAE,
        LlamaConfig,
        PreTrainedTokenizerFast,
    )

    from schemas.config import ModelConfig
    from schemas.json_values import JsonObject

    Shapes = Mapping[str, tuple[int, ...]]

_WORDS, _HEAD = "model.language_model.embed_tokens.weight", "lm_head.weight"


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
    """The folder of a model: a bundled name, a folder, `owner/name[@revision]` on the hub, or
    `s3://bucket/folder`.

    Builds or fetches what is not on this machine yet. Raises InputError for a name that means
    nothing, and for what cannot be fetched.
    """
    return find_checkpoint(name)


def planned_model(model: "ModelConfig", files: Mapping[str, str]) -> Path:
    """The folder of the model that a run was planned with, on this machine.

    `files` are the sha256 of its files by name, as far as they were kept. Raises InputError, which
    names those that are others here.
    """
    folder = find_checkpoint(model.name, tuple(files))
    digests = file_digests(folder)
    if (digest := digest_of_files(digests)[:16]) == model.digest:
        return folder
    changed = [
        f"{name} is {digests.get(name, 'not there')[:16]} and was {files.get(name, 'not')[:16]}"
        for name in sorted(digests.keys() | files.keys())
        if files and digests.get(name) != files.get(name)
    ]
    raise InputError(
        f"{model.name} is {digest} on {platform.node()}, and the run was planned with "
        f"{model.digest}{''.join(f' ({change})' for change in changed[:3])}: "
        "put the same weights on every node"
    )


def digest_of(folder: Path) -> str:
    """Hex sha256 of the files that `load_janus` computes with, in name order.

    In that folder, `sha256sum config.json ... | sha256sum` prints the same. Raises InputError for a
    file that is missing.
    """
    return digest_of_files(file_digests(folder))


@dataclass(frozen=True, kw_only=True, slots=True)
class JanusSizes:
    """What planning has to know of a checkpoint: what `load_janus` would find in it."""

    geometry: Geometry
    num_layers: int  # of the language model
    max_positions: int
    own_dtype: str  # what to compute in where nobody says; any word that a config may have


def check_janus(folder: Path) -> JanusSizes:
    """All that `load_janus` checks, from the headers of the weights alone. Raises InputError."""
    import torch

    source = Folder(folder)
    files = checkpoint_files(source)
    headers = read_headers(folder / name for name in files.weights)
    content = read_config(source, num_weights=len(headers))
    refuse_quantised(headers, str(folder))
    with torch.device("meta"):
        weights = {
            name: torch.empty(header.shape, dtype=getattr(torch, header.dtype))
            for name, header in headers.items()
            if not is_computed(name)
        }
    config = _read_parts(folder, content, weights).config
    text = text_config_of(config)
    return JanusSizes(
        geometry=geometry_of(config),
        num_layers=text.num_hidden_layers,
        max_positions=text.max_position_embeddings,
        own_dtype=own_dtype(read_json(source, CONFIG), headers),
    )


def load_janus(folder: Path, *, dtype: "torch.dtype", device: str) -> Janus:
    """The checkpoint in `folder`, whichever format and dtype it is stored in.

    Raises InputError for what is missing, left over, of another size or cannot be read.
    """
    stored = _map_weights(folder)
    refuse_quantised({name: header_of(weight) for name, weight in stored.items()}, str(folder))
    parts = _read_parts(folder, read_config(Folder(folder), num_weights=len(stored)), stored)
    card = folder / CARD
    return Janus(
        tokenizer=parts.tokenizer,
        special=parts.special,
        geometry=geometry_of(parts.config),
        max_positions=text_config_of(parts.config).max_position_embeddings,
        image_mean=parts.image_mean,
        image_std=parts.image_std,
        card=read_json(Folder(folder), CARD) if card.is_file() else None,
        model=build_model(parts.config, parts.weights, dtype, device),  # last: all else is good
    )


def load_decoder(
    folder: Path, *, dtype: "torch.dtype", device: str
) -> "tuple[JanusVQVAE, Geometry]":
    """The part of a checkpoint that turns image tokens into pixels, for inference, and its sizes.

    The whole checkpoint is checked by its headers; of its weights only the decoder's are read.
    Raises InputError as `load_janus` does.
    """
    stored = _map_weights(folder)
    refuse_quantised({name: header_of(weight) for name, weight in stored.items()}, str(folder))
    content = read_config(Folder(folder), num_weights=len(stored))
    config, weights = _read_checkpoint(folder, content, stored)
    return build_decoder(config, weights, dtype, device), geometry_of(config)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Parts:
    """A checkpoint that was read and found to be whole, and not built yet."""

    config: "JanusConfig"
    weights: "dict[str, Tensor]"
    tokenizer: "PreTrainedTokenizerFast"
    special: SpecialTokens
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]


def _read_parts(folder: Path, content: "JsonObject", stored: "dict[str, Tensor]") -> _Parts:
    """All but the model of a checkpoint with this config and these weights. Raises InputError."""
    tokenizer, special = load_tokenizer(folder)
    config, weights = _read_checkpoint(folder, content, stored)
    config.image_token_id = special.image
    _check_sizes(folder, config, last_token=max(tokenizer.get_vocab().values()))
    pictures = read_pixel_scale(Folder(folder))
    return _Parts(
        config=config,
        weights=weights,
        tokenizer=tokenizer,
        special=special,
        image_mean=pictures.mean,
        image_std=pictures.std,
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


def _read_checkpoint(
    folder: Path, content: "JsonObject", stored: "dict[str, Tensor]"
) -> "tuple[JanusConfig, dict[str, Tensor]]":
    """Its config and weights in Hugging Face's terms: one weight for every name, of its shape."""
    path = folder / CONFIG
    plain = plain_names(stored, str(folder))
    weights = {plain[name]: weight for name, weight in stored.items() if name in plain}
    try:
        config, weights = _in_hugging_face_terms(content, weights)
        wanted = _model_shapes(config)
    except InputError:
        raise
    except Exception as error:  # the many checks of transformers and torch share no base class
        raise InputError(
            f"{path} and the weights beside it make no Janus model ({error!r:.300}); {FETCH_AGAIN}"
        ) from error
    _check_weights(folder, wanted, _shapes(weights))
    return config, weights


def _in_hugging_face_terms(
    content: "JsonObject", weights: "dict[str, Tensor]"
) -> "tuple[JanusConfig, dict[str, Tensor]]":
    from transformers import JanusConfig
    from transformers.utils import logging

    logging.set_verbosity_error()  # what it warns of is checked here, or none of the user's
    if deepseek.is_deepseek(content):
        config = deepseek.janus_config(content, _shapes(weights))
        return config, dict(deepseek.to_hugging_face(weights.items()))
    if content.get("tie_word_embeddings", True) and _HEAD not in weights and _WORDS in weights:
        weights[_HEAD] = weights[_WORDS]  # as transformers stores and loads a tied model
    content["tie_word_embeddings"] = False  # of every Janus, and True where a config is silent
    for part in ("vision_config", "vq_config"):  # Janus's own, whatever they say that they are
        if isinstance(table := content.get(part), dict):
            table.pop("model_type", None)
    return JanusConfig.from_dict(content), weights


def _model_shapes(config: "JanusConfig") -> "Shapes":
    import torch
    from transformers import JanusForConditionalGeneration

    with torch.device("meta"):
        return _shapes(JanusForConditionalGeneration(config).state_dict())


def _shapes(weights: "Mapping[str, Tensor]") -> "Shapes":
    return {name: tuple(weight.shape) for name, weight in weights.items()}


def _check_weights(folder: Path, wanted: "Shapes", stored: "Shapes") -> None:
    """Refuse, before anything is loaded, what transformers would fill in at random or leave out."""
    missing = [
        f"{name} is missing" for name in wanted if name not in stored and not is_computed(name)
    ]
    unknown = [f"{name:.200} is not part of the model" for name in stored if name not in wanted]
    others = [
        f"{name} is {stored[name]} and should be {wanted[name]}"
        for name in wanted
        if stored.get(name, wanted[name]) != wanted[name]
    ]
    if wrong := [*missing, *unknown, *others]:
        shown = [problem for kind in (missing, unknown, others) for problem in kind[:2]]
        first = "; ".join(shown) + ("; ..." if len(wrong) > len(shown) else "")
        raise InputError(
            f"weights in {folder} do not fit its config.json ({len(wrong)} of them): {first}; "
            f"{FETCH_AGAIN}"
        )


def _check_sizes(folder: Path, config: "JanusConfig", *, last_token: int) -> None:
    from transformers import JanusVisionConfig

    vision, text = config.vision_config, text_config_of(config)
    assert isinstance(vision, JanusVisionConfig)
    drawn, read = geometry_of(config).image_size, vision.image_size
    if drawn != read:
        raise InputError(
            f"the model in {folder} draws pictures of {drawn} pixels and reads them at {read}; "
            "give one whose sizes are the same, as those of Janus-Pro are"
        )
    if last_token >= text.vocab_size:
        raise InputError(
            f"the tokenizer in {folder} has tokens up to id {last_token} and the model knows "
            f"{text.vocab_size}; copy the tokenizer.json that belongs to the model"
        )


def _map_weights(folder: Path) -> "dict[str, Tensor]":
    """All weights by stored name, mapped into memory: pages are read when they are used."""
    weights: dict[str, Tensor] = {}
    for name in checkpoint_files(Folder(folder)).weights:
        refuse_pointer(folder / name)
        of_file = map_weights(folder / name)
        refuse_twice(weights, of_file, folder / name)
        weights |= of_file
    return weights
