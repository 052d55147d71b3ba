"""Tiny checkpoints with random weights, one of each class that judges load."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from tokenizers import pre_tokenizers

_TEXT = (
    "a an the photo of dog cat cup table red blue green wooden yes no to on left right top and "
    "two three roll paper towel is in picture ? . ,"
)
WORDS = _TEXT.split()


def seeded(build: Callable[..., Path]) -> Callable[..., Path]:
    """Random, and the same each time, whatever was drawn before."""

    def built(folder: Path, **changes: Any) -> Path:
        with torch.random.fork_rng():
            torch.manual_seed(7)
            return build(folder, **changes)

    return built


def bert_words() -> list[str]:
    """Word pieces; GroundingDINO has the ids of [CLS], [SEP], the stop and the mark built in."""
    words = [f"[unused{index}]" for index in range(1030)]
    special = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
    for index, word in {**special, 1012: ".", 1029: "?"}.items():
        words[index] = word
    letters = "abcdefghijklmnopqrstuvwxyz"
    more = [*WORDS, *letters, *(f"##{letter}" for letter in letters)]
    return words + [word for word in dict.fromkeys(more) if word not in words]


def bert_tokenizer() -> tf.BertTokenizer:
    return tf.BertTokenizer(vocab={word: index for index, word in enumerate(bert_words())})


def clip_tokenizer() -> tf.CLIPTokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "do", "dog</w>"]
    words += ["<|startoftext|>", "<|endoftext|>"]  # the ends of text come last
    vocabulary = {word: index for index, word in enumerate(words)}
    return tf.CLIPTokenizer(vocab=vocabulary, merges=[("d", "o"), ("do", "g</w>")])


def clip_config(**changes: Any) -> tf.CLIPConfig:
    size = len(clip_tokenizer())
    towers = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        **changes,
    }
    return tf.CLIPConfig(
        text_config={
            **towers,
            "vocab_size": size,
            "max_position_embeddings": 77,
            "bos_token_id": size - 2,
            "eos_token_id": size - 1,
        },
        vision_config={**towers, "image_size": 32, "patch_size": 16},
        projection_dim=8,
    )


@seeded
def clip(folder: Path, **changes: Any) -> Path:
    model = tf.CLIPModel(clip_config(**changes))
    _shake(model)
    model.save_pretrained(folder)
    clip_tokenizer().save_pretrained(folder)
    _clip_pictures().save_pretrained(folder)
    return folder


@seeded
def grounding_dino(folder: Path) -> Path:
    backbone = tf.SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        window_size=4,
        out_features=["stage2", "stage3", "stage4"],
    )
    text = tf.BertConfig(
        vocab_size=len(bert_words()),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
    )
    config = tf.GroundingDinoConfig(
        backbone_config=backbone,
        text_config=text,
        num_queries=20,
        d_model=32,
        encoder_layers=1,
        encoder_ffn_dim=8,
        encoder_attention_heads=2,
        decoder_layers=2,
        decoder_ffn_dim=8,
        decoder_attention_heads=2,
        num_feature_levels=4,
        encoder_n_points=1,
        decoder_n_points=1,
        disable_custom_kernels=True,
        max_text_len=256,
    )
    model = tf.GroundingDinoForObjectDetection(config)
    _shake(model)
    model.save_pretrained(folder)
    bert_tokenizer().save_pretrained(folder)
    size = {"shortest_edge": 96, "longest_edge": 160}
    tf.GroundingDinoImageProcessorPil(size=size).save_pretrained(folder)
    return folder


@seeded
def owlv2(folder: Path) -> Path:
    size = len(clip_tokenizer())
    towers = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config = tf.Owlv2Config(
        text_config={
            **towers,
            "vocab_size": size,
            "max_position_embeddings": 16,
            "bos_token_id": size - 2,
            "eos_token_id": size - 1,
            "pad_token_id": 0,
        },
        vision_config={**towers, "image_size": 64, "patch_size": 16},
        projection_dim=16,
    )
    model = tf.Owlv2ForObjectDetection(config)
    _shake(model)
    model.save_pretrained(folder)
    clip_tokenizer().save_pretrained(folder)
    tf.Owlv2ImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


@seeded
def dpt(folder: Path) -> Path:
    config = tf.DPTConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=64,
        patch_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        is_hybrid=False,
        use_auxiliary_head=False,
        reassemble_factors=[4, 2, 1, 0.5],
    )
    tf.DPTForDepthEstimation(config).save_pretrained(folder)
    tf.DPTImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


@seeded
def git(folder: Path) -> Path:
    tower = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config = tf.GitConfig(
        vision_config={**tower, "image_size": 32, "patch_size": 16},
        vocab_size=len(bert_words()),
        **tower,
        max_position_embeddings=64,
        bos_token_id=101,
        eos_token_id=102,
        pad_token_id=0,
    )
    model = tf.GitForCausalLM(config)
    _shake(model)
    _favour(model.output, ["yes", "no"])
    model.save_pretrained(folder)
    bert_tokenizer().save_pretrained(folder)
    _clip_pictures().save_pretrained(folder)
    return folder


@seeded
def blip(folder: Path) -> Path:
    tokenizer = bert_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    tower = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": 16,
    }
    config = tf.BlipConfig(
        text_config={
            **tower,
            "vocab_size": len(tokenizer),
            "encoder_hidden_size": 16,
            "max_position_embeddings": 64,
            "bos_token_id": len(tokenizer) - 1,
            "sep_token_id": 102,
            "pad_token_id": 0,
            "eos_token_id": 102,
        },
        vision_config={**tower, "image_size": 32, "patch_size": 16},
        projection_dim=16,
        image_text_hidden_size=16,
    )
    model = tf.BlipForQuestionAnswering(config)
    _shake(model)
    _favour(model.text_decoder.cls.predictions, ["yes", "no"])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    tf.BlipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}"
    "{% if c.type == 'image' %}IMAGE{% else %}{{ c.text }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def qwen_tokenizer(*special: str) -> tf.Qwen2Tokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    space = "\u0120"  # how byte pairs write it
    merges = [("y", "e"), ("ye", "s"), ("n", "o"), ("Y", "e"), ("Ye", "s"), ("N", "o")]
    merges += [(space, "yes"), (space, "no")]
    words = [*letters, *(left + right for left, right in merges)]
    tokenizer = tf.Qwen2Tokenizer(
        vocab={word: index for index, word in enumerate(words)}, merges=merges
    )
    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<|im_start|>", "<|im_end|>", *special]}
    )
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.pad_token = "<|endoftext|>"
    return tokenizer


@seeded
def qwen3_vl(folder: Path) -> Path:
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    tokenizer = qwen_tokenizer(*names.values())
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}
    config = tf.Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "max_position_embeddings": 512,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [4, 2, 2],
                "mrope_interleaved": True,
            },
            "bos_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": 2,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 32,
            "patch_size": 16,
            "deepstack_visual_indexes": [0],
            "num_position_embeddings": 16,
        },
        **ids,
    )
    model = tf.Qwen3VLForConditionalGeneration(config)
    _shake(model)
    _favour_spellings(model.lm_head, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    pictures = tf.Qwen2VLImageProcessorPil(
        patch_size=16, merge_size=2, size={"shortest_edge": 32 * 32, "longest_edge": 112 * 112}
    )
    pictures.save_pretrained(folder)
    shown = "<|vision_start|><|image_pad|><|vision_end|>"
    (folder / "chat_template.jinja").write_text(TEMPLATE.replace("IMAGE", shown))
    return folder


@seeded
def llava_onevision(folder: Path) -> Path:
    tokenizer = qwen_tokenizer("<image>", "<video>")
    image, video = (tokenizer.convert_tokens_to_ids(name) for name in ("<image>", "<video>"))
    sizes = [[32, 32], [64, 64]]
    config = tf.LlavaOnevisionConfig(
        vision_config=tf.SiglipVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=16,
            vision_use_head=False,
        ),
        text_config=tf.Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=512,
        ),
        image_token_index=image,
        image_token_id=image,
        video_token_index=video,
        image_grid_pinpoints=sizes,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    model = tf.LlavaOnevisionForConditionalGeneration(config)
    _shake(model)
    _favour_spellings(model.lm_head, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    pictures = tf.LlavaOnevisionImageProcessorPil(
        size={"height": 32, "width": 32}, image_grid_pinpoints=sizes
    )
    pictures.save_pretrained(folder)
    settings = {"num_image_tokens": 4, "vision_feature_select_strategy": "full"}
    (folder / "processor_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(TEMPLATE.replace("IMAGE", "<image>"))
    return folder


def _clip_pictures() -> tf.CLIPImageProcessorPil:
    crop = {"height": 32, "width": 32}
    return tf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=crop)


def _shake(model: torch.nn.Module) -> None:
    """Larger weights than models begin with, so that pictures and texts make a difference."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)


def _favour(head: torch.nn.Module, words: list[str]) -> None:
    """Let a model answer with these words, so that an answer is above the floor."""
    bias: torch.Tensor = head.bias
    with torch.no_grad():
        for word in words:
            bias[bert_words().index(word)] += 8.0


def _favour_spellings(head: torch.nn.Linear, tokenizer: tf.Qwen2Tokenizer) -> None:
    """Let the words of yes and no weigh more than all others, for or against."""
    words = ["yes", "Yes", "\u0120yes", "no", "No", "\u0120no"]
    with torch.no_grad():
        head.weight *= 0.3
        head.weight[tokenizer.convert_tokens_to_ids(words)] *= 8
