"""DeepSeek's own checkpoint format (`multi_modality`) in Hugging Face's terms: sizes and names.

Opens no file and builds no model. Names and sizes are those of the published Janus-1.3B,
Janus-Pro-1B and -7B of deepseek-ai; the other side of it all is `transformers.models.janus`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict, TypeGuard

from schemas.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import JanusConfig

    from schemas.json_values import JsonMapping, JsonObject


class _SizedPart(TypedDict):
    """A part of a config, with as much of its sizes as is said."""

    params: "_Sizes"


class _Sizes(TypedDict):
    """Of each part only a few of these are there."""

    image_size: int  # pixels of a side
    model_name: str
    n_embed: int
    depth: int
    image_token_size: int  # codes


class DeepSeekConfig(TypedDict):
    """`config.json` as far as it is read."""

    language_config: "JsonObject"
    vision_config: _SizedPart
    aligner_config: _SizedPart
    gen_vision_config: _SizedPart
    gen_aligner_config: _SizedPart
    gen_head_config: _SizedPart


# LLaMA's own, taken where `language_config` is silent: the published 7B leaves all five out.
_LLAMA_DEFAULTS = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
}
_NOT_SIZES = {"model_type", "torch_dtype", "_attn_implementation_autoset"}

# The one size that neither the config nor a weight tells, by the name of the vision tower.
# Janus and Janus-Pro have the first (heads: SigLIP's ViT-L/16), the golden traces the second.
_SIGLIP_HEADS = {"siglip_large_patch16_384": 16, "siglip_tiny_patch16": 4}

# What a name begins with in DeepSeek's files and in Hugging Face's, part by part; the first line
# that fits is the one that counts. # is a layer's number, - means not needed, [qkv] three in one.
_PARTS = {
    ("language_model.", ""): """
        model.layers.#.self_attn.rotary_emb.  -
        model.                                model.language_model.
        lm_head.                              lm_head.
    """,
    ("aligner.", "model.aligner."): """
        layers.0.  fc1.
        layers.2.  hidden_layers.0.
    """,
    ("gen_aligner.", "model.generation_aligner."): """
        layers.0.  fc1.
        layers.2.  hidden_layers.0.
    """,
    ("gen_", "model.generation_"): """
        embed.                      embeddings.
        head.output_mlp_projector.  head.proj_out.
        head.vision_head.           head.vision_head.
    """,
    ("vision_model.vision_tower.", "model.vision_model."): """
        patch_embed.proj.    embeddings.patch_embedding.
        pos_embed            embeddings.position_embedding.weight
        blocks.#.norm1.      encoder.layers.#.layer_norm1.
        blocks.#.attn.qkv.   encoder.layers.#.self_attn.[qkv]_proj.
        blocks.#.attn.proj.  encoder.layers.#.self_attn.projection_layer.
        blocks.#.norm2.      encoder.layers.#.layer_norm2.
        blocks.#.mlp.        encoder.layers.#.mlp.
        norm.                post_layernorm.
        attn_pool.           -
    """,
    ("gen_vision_model.", "model.vqmodel."): """
        quantize.codebook_used      -
        quantize.embedding.         quantize.embedding.
        quant_conv.                 quant_conv.
        post_quant_conv.            post_quant_conv.
        encoder.conv_blocks.#.res.  encoder.down.#.block.
        encoder.conv_blocks.#.      encoder.down.#.
        encoder.mid.0.              encoder.mid.block_1.
        encoder.mid.1.              encoder.mid.attn_1.
        encoder.mid.2.              encoder.mid.block_2.
        encoder.                    encoder.
        decoder.conv_blocks.#.res.  decoder.up.#.block.
        decoder.conv_blocks.#.      decoder.up.#.
        decoder.mid.0.              decoder.mid.block_1.
        decoder.mid.1.              decoder.mid.attn_1.
        decoder.mid.2.              decoder.mid.block_2.
        decoder.                    decoder.
    """,
}
_RENAMES = [
    (
        re.compile(re.escape(old_part + old).replace(r"\#", r"(\d+)")),
        None if new == "-" else (new_part + new).replace("#", r"\1"),
    )
    for (old_part, new_part), lines in _PARTS.items()
    for old, new in map(str.split, lines.strip().splitlines())
]


def is_deepseek(content: "JsonMapping") -> TypeGuard[DeepSeekConfig]:
    """Whether a `config.json` says that it is in this format; its parts may yet be missing."""
    return content.get("model_type") == "multi_modality"


def to_hugging_face(weights: "Iterable[tuple[str, Tensor]]") -> "Iterator[tuple[str, Tensor]]":
    """The same weights under Hugging Face's names, one at a time, as views.

    A name that the table does not know is passed on as it is: the loader counts it as unexpected.
    """
    for name, weight in weights:
        renamed = _rename(name)
        if renamed is None:
            continue
        if "[qkv]" in renamed:
            for part, third in zip("qkv", weight.chunk(3), strict=True):
                yield renamed.replace("[qkv]", part), third
        elif name.endswith(".pos_embed"):
            yield renamed, weight.squeeze(0)  # [1, patches, width]: an embedding of the patches
        else:
            yield renamed, weight


def _rename(name: str) -> str | None:
    for pattern, replacement in _RENAMES:
        if match := pattern.match(name):
            return replacement and match.expand(replacement) + name[match.end() :]
    return name


def janus_config(deepseek: DeepSeekConfig, shapes: Mapping[str, Sequence[int]]) -> "JanusConfig":
    """`config.json` as a Hugging Face config.

    `shapes` are those of the checkpoint's weights, by DeepSeek's names: they tell the depths and
    widths that the config leaves to names such as `siglip_large_patch16_384` and `VQ-16`.

    Raises KeyError for what the config or the weights have to say and do not, and InputError for a
    vision tower that it does not know.
    """
    from transformers import JanusConfig, LlamaConfig

    language = {
        name: value for name, value in deepseek["language_config"].items() if name not in _NOT_SIZES
    }
    return JanusConfig(
        text_config=LlamaConfig.from_dict(
            {**_LLAMA_DEFAULTS, **language, "tie_word_embeddings": False}
        ),
        vision_config=_vision_config(deepseek, shapes),
        vq_config=_vq_config(deepseek, shapes),
        tie_word_embeddings=False,  # Hugging Face's default is True, and wrong for every Janus
    )


def _vision_config(deepseek: DeepSeekConfig, shapes: Mapping[str, Sequence[int]]) -> "JsonObject":
    tower = "vision_model.vision_tower"
    aligner = deepseek["aligner_config"]["params"]
    vision = deepseek["vision_config"]["params"]
    width, _, _, patch_size = shapes[f"{tower}.patch_embed.proj.weight"]
    return {
        "image_size": vision["image_size"],
        "patch_size": patch_size,
        "num_image_tokens": (vision["image_size"] // patch_size) ** 2,
        "hidden_size": width,
        "num_hidden_layers": sum(
            name.startswith(f"{tower}.blocks.") and name.endswith(".norm1.weight")
            for name in shapes
        ),
        "num_attention_heads": _num_siglip_heads(vision["model_name"]),
        "mlp_ratio": shapes[f"{tower}.blocks.0.mlp.fc1.weight"][0] / width,
        "projection_dim": aligner["n_embed"],
        "depth": aligner["depth"],
    }


def _num_siglip_heads(tower: str) -> int:
    if tower not in _SIGLIP_HEADS:
        raise InputError(
            f"config.json does not say how many heads the vision tower {tower!r} has (those of "
            f"{', '.join(_SIGLIP_HEADS)} are known); convert it to Hugging Face's format"
        )
    return _SIGLIP_HEADS[tower]


def _vq_config(deepseek: DeepSeekConfig, shapes: Mapping[str, Sequence[int]]) -> "JsonObject":
    codebook = deepseek["gen_vision_config"]["params"]
    aligner = deepseek["gen_aligner_config"]["params"]
    return {
        "embed_dim": codebook["n_embed"],
        "num_embeddings": codebook["image_token_size"],
        "base_channels": shapes["gen_vision_model.decoder.norm_out.weight"][0],
        "latent_channels": shapes["gen_vision_model.post_quant_conv.weight"][0],
        # VQ-16 is a name for these two: LlamaGen's tokenizer (Sun et al., arXiv 2406.06525).
        "channel_multiplier": [1, 1, 2, 2, 4],
        "num_res_blocks": 2,
        "projection_dim": aligner["n_embed"],
        "num_hidden_layers": aligner["depth"],
        "image_token_embed_dim": deepseek["gen_head_config"]["params"]["n_embed"],
    }
