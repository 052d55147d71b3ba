"""Checkpoints of judges with random weights: tiny ones, and such of the published geometry.

The published ones have the vocabularies of the tiny ones, so no tokenizer needs to be downloaded;
that makes their last layer smaller.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers as tf

from tests.pipeline.scoring.judges import checkpoints as tiny

Settings = dict[str, str | int]

_CLIP_H = (  # CLIP ViT-H/14, which PickScore and HPS are trained from
    {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "heads": 16},
    {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "heads": 16},
    14,
    1024,
)
_CLIP_B = (  # CLIP ViT-B/32
    {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "heads": 8},
    {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "heads": 12},
    32,
    512,
)
CLIPS = {  # of these shapes, whichever judge it is
    "vit-b16": (*_CLIP_B[:2], 16, 512),
    "vit-l14": (
        {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "heads": 12},
        {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "heads": 16},
        14,
        768,
    ),
}
CLIP_JUDGES = ("clipscore", "hps", "pickscore")
_GIT_SIDE, _BLIP_SIDE = 480, 480  # pixels, as they were fine-tuned for questions


def _clip(folder: Path, size: str, sizes: tuple[dict[str, int], dict[str, int], int, int]) -> None:
    tiny.clip(folder)
    if size == "tiny":
        return
    text, vision, patch, dimensions = CLIPS.get(size, sizes)
    config: Any = tiny.clip_config()
    config.projection_dim = dimensions
    for tower, changes in ((config.text_config, text), (config.vision_config, vision)):
        _update(tower, {**changes, "projection_dim": dimensions})
        tower.num_attention_heads = changes["heads"]
    config.vision_config.image_size, config.vision_config.patch_size = 224, patch
    tf.CLIPModel(config).save_pretrained(folder)
    tf.CLIPImageProcessorPil().save_pretrained(folder)


def _pickscore(folder: Path, size: str) -> Settings:
    _clip(folder, size, _CLIP_H)
    return {"model": str(folder)}


def _hps(folder: Path, size: str) -> Settings:
    _clip(folder, size, _CLIP_H)
    return {"model": str(folder), "base": str(folder)}


def _clipscore(folder: Path, size: str) -> Settings:
    _clip(folder, size, _CLIP_B)
    return {"model": str(folder)}


def _detector(folder: Path, size: str) -> Settings:
    tiny.grounding_dino(folder)
    if size == "published":  # transformers' defaults are GroundingDINO tiny
        config: Any = tf.GroundingDinoConfig(disable_custom_kernels=True)
        config.text_config.vocab_size = len(tiny.bert_words())
        tf.GroundingDinoForObjectDetection(config).save_pretrained(folder)
        tf.GroundingDinoImageProcessorPil().save_pretrained(folder)
    return {"model": str(folder)}


def _git_vqa(folder: Path, size: str) -> Settings:
    tiny.git(folder)
    if size == "published":
        config: Any = tf.GitConfig.from_pretrained(folder)
        _update(config, {"hidden_size": 768, "num_hidden_layers": 6, "num_attention_heads": 12})
        _update(config, {"intermediate_size": 3072, "max_position_embeddings": 1024})
        vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
        _update(config.vision_config, {**vision, "num_attention_heads": 16, "patch_size": 14})
        config.vision_config.image_size = _GIT_SIDE
        tf.GitForCausalLM(config).save_pretrained(folder)
        crop = {"height": _GIT_SIDE, "width": _GIT_SIDE}
        processor = tf.CLIPImageProcessorPil(size={"shortest_edge": _GIT_SIDE}, crop_size=crop)
        processor.save_pretrained(folder)
    return {"model": str(folder)}


def _blip_vqa(folder: Path, size: str) -> Settings:
    tiny.blip(folder)
    if size == "tiny":
        return {"model": str(folder), "image_size": 32}
    config: Any = tf.BlipConfig.from_pretrained(folder)
    base = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
    _update(config.text_config, {**base, "num_attention_heads": 12, "encoder_hidden_size": 768})
    _update(config.text_config, {"projection_dim": 768, "max_position_embeddings": 512})
    vision = {"image_size": _BLIP_SIDE, "projection_dim": 768, "patch_size": 16}
    _update(config.vision_config, {**base, **vision, "num_attention_heads": 12})
    _update(config, {"projection_dim": 512, "image_text_hidden_size": 256})
    tf.BlipForQuestionAnswering(config).save_pretrained(folder)
    return {"model": str(folder), "image_size": _BLIP_SIDE}


def _lmm_yes(folder: Path, size: str) -> Settings:
    tiny.qwen3_vl(folder)
    if size == "published":  # Qwen3-VL-4B
        config: Any = tf.Qwen3VLConfig.from_pretrained(folder)
        text = {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36}
        text |= {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
        _update(config.text_config, {**text, "max_position_embeddings": 8192})
        rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 5e6}
        rope |= {"mrope_section": [24, 20, 20], "mrope_interleaved": True}
        config.text_config.rope_parameters = rope
        vision = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16}
        _update(config.vision_config, {**vision, "out_hidden_size": 2560})
        config.vision_config.deepstack_visual_indexes = [5, 11, 17]
        config.vision_config.num_position_embeddings = 2304
        config.dtype = torch.bfloat16
        with torch.device("cpu"):
            tf.Qwen3VLForConditionalGeneration(config).save_pretrained(folder)
        sides = {"shortest_edge": 256 * 256, "longest_edge": 4096 * 4096}
        processor = tf.Qwen2VLImageProcessorPil(patch_size=16, merge_size=2, size=sides)
        processor.save_pretrained(folder)
    return {"model": str(folder)}


def _update(config: Any, changes: Mapping[str, int]) -> None:
    for name, value in changes.items():
        if name != "heads":
            setattr(config, name, value)


BUILDERS: Mapping[str, Callable[[Path, str], Settings]] = {
    "hps": _hps,
    "pickscore": _pickscore,
    "clipscore": _clipscore,
    "detector": _detector,
    "git_vqa": _git_vqa,
    "blip_vqa": _blip_vqa,
    "lmm_yes": _lmm_yes,
}
"""A checkpoint in this folder, of this size, and the settings that load it."""
