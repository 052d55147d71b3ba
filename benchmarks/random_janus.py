"""Janus with random weights, in the published geometries: speed does not depend on values."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline.engine.checkpoints import Janus, geometry_of, text_config_of
from pipeline.engine.tiny import build_tiny
from pipeline.engine.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from transformers import LlamaConfig

    from schemas.json_values import JsonObject


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A published geometry, or a small one to try the code with."""

    name: str
    layers: int
    width: int
    heads: int
    inner: int
    words: int = 102_400
    image_size: int = 384
    codes: int = 16_384
    vision_layers: int = 24
    vision_width: int = 1024
    base_channels: int = 128


JANUS_1B = Shape(name="1b", layers=24, width=2048, heads=16, inner=5632)
JANUS_7B = Shape(name="7b", layers=30, width=4096, heads=32, inner=11008)
SMALL = Shape(
    name="small",
    layers=2,
    width=64,
    heads=4,
    inner=128,
    words=300,
    image_size=96,
    codes=256,
    vision_layers=1,
    vision_width=64,
    base_channels=32,
)


def random_janus(shape: Shape, device: torch.device, dtype: torch.dtype) -> Janus:
    """A model of that shape with random weights, and a tokenizer of one token a byte."""
    from transformers import JanusConfig, JanusForConditionalGeneration

    config = JanusConfig.from_dict(config_of(shape))
    with torch.device("meta"):
        model = JanusForConditionalGeneration(config)
    model = model.to(dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, weight in [*model.named_parameters(), *model.named_buffers()]:
            _fill(name, weight, generator)
    for module in model.modules():  # buffers that are computed, not stored
        if hasattr(module, "rope_init_fn"):
            module.inv_freq = module.rope_init_fn(module.config, device)[0]
    with tempfile.TemporaryDirectory() as folder:
        build_tiny(Path(folder) / "tiny")
        tokenizer, special = load_tokenizer(Path(folder) / "tiny")
    return Janus(
        model=model.eval().requires_grad_(False),
        tokenizer=tokenizer,
        special=special,
        geometry=geometry_of(config),
        max_positions=text_config_of(config).max_position_embeddings,
        image_mean=(0.5,) * 3,
        image_std=(0.5,) * 3,
        card=None,
    )


def _fill(name: str, weight: Tensor, generator: torch.Generator) -> None:
    if not weight.is_floating_point():
        weight.copy_(torch.arange(weight.numel(), device=weight.device).view_as(weight))
    elif weight.dim() == 1:
        weight.fill_(float(name.endswith("weight")))
    else:
        weight.normal_(0, weight[0].numel() ** -0.5, generator=generator)


def one_layer_of(shape: Shape) -> "LlamaConfig":
    """The language model of that shape, cut down to one layer."""
    from transformers import LlamaConfig

    return LlamaConfig.from_dict({**_text_config_of(shape), "num_hidden_layers": 1})


def config_of(shape: Shape) -> "JsonObject":
    """A Hugging Face config of that shape, in the form of the published ones."""
    side = shape.image_size // 16
    return {
        "tie_word_embeddings": False,
        "text_config": _text_config_of(shape),
        "vision_config": {
            "image_size": shape.image_size,
            "patch_size": 16,
            "num_image_tokens": side**2,
            "hidden_size": shape.vision_width,
            "num_hidden_layers": shape.vision_layers,
            "num_attention_heads": max(4, shape.vision_width // 64),
            "mlp_ratio": 4,
            "projection_dim": shape.width,
            "depth": 2,
        },
        "vq_config": {
            "num_embeddings": shape.codes,
            "embed_dim": 8,
            "base_channels": shape.base_channels,
            "latent_channels": 2 * shape.base_channels,
            "channel_multiplier": [1, 1, 2, 2, 4] if shape.codes > 256 else [1, 1, 1, 1, 1],
            "num_res_blocks": 2 if shape.codes > 256 else 0,
            "num_patches": side,
            "projection_dim": shape.width,
            "image_token_embed_dim": shape.width,
            "num_hidden_layers": 2,
        },
    }


def _text_config_of(shape: Shape) -> "JsonObject":
    return {
        "vocab_size": shape.words,
        "hidden_size": shape.width,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "max_position_embeddings": 16_384,
        "tie_word_embeddings": False,
    }
