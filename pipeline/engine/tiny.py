"""The bundled random model: every part of Janus, a few hundred thousand weights, no skill at all.

It stands in for a real checkpoint in tests and first tries: it is written in Hugging Face's format
and loaded like any other. It is the same to the byte on every machine, so that digests can be
compared; hence files written by hand, and weights from Philox's raw integers (numpy keeps that
stream stable, but not what its distributions make of it).
"""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.engine.tokenizer import SPECIAL_NAMES
from schemas.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from schemas.json_values import JsonMapping, JsonObject, JsonValue

_GAIN = 2.0  # what a layer makes of unit inputs, as a standard deviation: texts differ at this
_VERSION = "tiny-v1"  # raise it when the bytes change
_CHAT_NAMES = ["<|User|>", "<|Assistant|>"]
_SPECIALS = [*SPECIAL_NAMES.values(), *_CHAT_NAMES]

_CONFIG: "JsonObject" = {
    "architectures": ["JanusForConditionalGeneration"],
    "model_type": "janus",
    "image_token_id": _SPECIALS.index(SPECIAL_NAMES["image"]),
    "tie_word_embeddings": False,
}
_PARTS: "dict[str, JsonObject]" = {
    "text_config": {
        "model_type": "llama",
        "vocab_size": len(_SPECIALS) + 256,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "bos_token_id": _SPECIALS.index(SPECIAL_NAMES["bos"]),
        "eos_token_id": _SPECIALS.index(SPECIAL_NAMES["eos"]),
        "pad_token_id": _SPECIALS.index(SPECIAL_NAMES["pad"]),
        "tie_word_embeddings": False,
    },
    "vision_config": {
        "model_type": "janus_vision_model",
        "image_size": 96,
        "patch_size": 16,
        "num_image_tokens": 36,
        "hidden_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "mlp_ratio": 2,
        "projection_dim": 64,
        "depth": 2,
    },
    "vq_config": {
        "model_type": "janus_vqgan",
        "num_embeddings": 256,
        "embed_dim": 8,
        "base_channels": 32,  # the group norms have 32 groups
        "latent_channels": 32,
        "channel_multiplier": [1, 1, 1, 1, 1],
        "num_res_blocks": 0,
        "num_patches": 6,
        "projection_dim": 64,
        "image_token_embed_dim": 64,
        "num_hidden_layers": 2,
    },
}


def cache_folder() -> Path:
    """Where models that Coppice builds are kept: `$COPPICE_CACHE`, or `~/.cache/coppice`."""
    return Path(os.environ.get("COPPICE_CACHE") or "~/.cache/coppice").expanduser()


def tiny_checkpoint() -> Path:
    """The folder of the bundled model, built on first use. Safe in many processes at once."""
    folder = cache_folder() / "models" / _VERSION
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".building-") as draft:
            build_tiny(Path(draft) / _VERSION)
            (Path(draft) / _VERSION).rename(folder)
    except OSError as error:
        if not folder.is_dir():  # if it is, another process was first, with the same bytes
            raise InputError(
                f"{folder} cannot be written ({error}); set COPPICE_CACHE to a folder that can"
            ) from error
    return folder


def build_tiny(
    folder: Path, *, seed: int = 0, sizes: "Mapping[str, JsonMapping] | None" = None
) -> None:
    """Write the random model into `folder`, which must not exist yet.

    `sizes` are the entries that are to differ, by part of the config ("text_config", ...). The same
    seed and sizes give the same bytes on every machine.
    """
    from safetensors.numpy import save

    parts = _PARTS | {name: {**_PARTS[name], **changes} for name, changes in (sizes or {}).items()}
    config: JsonObject = {**_CONFIG, **parts}
    folder.mkdir()
    _write_json(folder / "config.json", config)
    side = parts["vision_config"]["image_size"]
    _write_json(folder / "preprocessor_config.json", _preprocessor(side))
    _write_json(folder / "tokenizer.json", _tokenizer())
    weights = {name: _weight(name, shape, seed) for name, shape in _shapes(config)}
    (folder / "model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))


def _write_json(path: Path, content: "JsonObject") -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="ascii")


def _preprocessor(side: "JsonValue") -> "JsonObject":
    return {
        "image_processor_type": "JanusImageProcessor",
        "size": {"height": side, "width": side},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "rescale_factor": 1 / 255,
    }


def _tokenizer() -> "JsonObject":
    """One token per byte, after the special ones: `tokenizer.json` for the tokenizers library."""
    from tokenizers.pre_tokenizers import ByteLevel

    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": token, "content": name, "special": True, **flags}
            for token, name in enumerate(_SPECIALS)
        ],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
        "post_processor": _bos_first(),
        "model": {
            "type": "BPE",
            "vocab": {
                name: token for token, name in enumerate(_SPECIALS + sorted(ByteLevel.alphabet()))
            },
            "merges": [],
        },
    }


def _bos_first() -> "JsonObject":
    bos = SPECIAL_NAMES["bos"]
    start: JsonObject = {"SpecialToken": {"id": bos, "type_id": 0}}
    texts: list[JsonValue] = [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"]
    return {
        "type": "TemplateProcessing",
        "single": [start, texts[0]],
        "pair": [start, *texts],
        "special_tokens": {bos: {"id": bos, "ids": [_SPECIALS.index(bos)], "tokens": [bos]}},
    }


def _shapes(config: "JsonObject") -> Iterator[tuple[str, tuple[int, ...]]]:
    import torch
    from transformers import JanusConfig, JanusForConditionalGeneration

    with torch.device("meta"):
        model = JanusForConditionalGeneration(JanusConfig.from_dict(config))
    for name, weight in model.state_dict().items():
        yield name, tuple(weight.shape)


def _weight(name: str, shape: tuple[int, ...], seed: int) -> "np.ndarray":
    """float32, from the seed and the name alone. IEEE arithmetic leaves no step of it open."""
    import numpy as np

    if len(shape) == 1:  # a bias, or the scale of a norm
        return np.full(shape, name.endswith("weight"), dtype=np.float32)
    key = hashlib.sha256(f"{seed} {name}".encode()).digest()[:16]
    raw = np.random.Philox(key=int.from_bytes(key)).random_raw(math.prod(shape))
    unit = (raw >> 40).astype(np.float32) / np.float32(2**23) - np.float32(1)  # in [-1, 1)
    reach = _GAIN * math.sqrt(3 / math.prod(shape[1:]))
    return (unit * np.float32(reach)).reshape(shape)
