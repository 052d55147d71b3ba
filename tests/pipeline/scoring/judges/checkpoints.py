"""Tiny checkpoints with random weights, one of each class that judges load."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers as tf
from tokenizers import pre_tokenizers

_TEXT = (
    "a an the photo of dog cat cup table red blue green wooden yes no to on left right top and "
    "two three roll paper towel is in picture ? . ,"
)
WORDS = _TEXT.split()
SQUARE = {"height": 64, "width": 64}


class File(NamedTuple):
    """Text that lies beside a model."""

    name: str
    text: str

    def save_pretrained(self, folder: Path) -> None:
        (folder / self.name).write_text(self.text)


def checkpoint(parts_of: Callable[..., tuple[Any, ...]]) -> Callable[..., Path]:
    """A model, its tokenizer and its image processor, saved into a folder. Random, and the same
    each time, whatever was drawn before.
    """

    def built(folder: Path, **changes: Any) -> Path:
        with torch.random.fork_rng():
            torch.manual_seed(7)
            for part in parts_of(**changes):
                part.save_pretrained(folder)
        return folder

    return built


def tower(layers: int = 1, **changes: Any) -> dict[str, Any]:
    """The sizes of a small transformer."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    return {"num_hidden_layers": layers, **sizes, **changes}


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


def clip_text(layers: int, **changes: Any) -> dict[str, Any]:
    size = len(clip_tokenizer())
    ends = {"vocab_size": size, "bos_token_id": size - 2, "eos_token_id": size - 1}
    return tower(layers, **ends, **changes)


def clip_config(**changes: Any) -> tf.CLIPConfig:
    return tf.CLIPConfig(
        text_config=clip_text(2, max_position_embeddings=77, **changes),
        vision_config=tower(2, image_size=32, patch_size=16, **changes),
        projection_dim=8,
    )


@checkpoint
def clip(**changes: Any) -> tuple[Any, ...]:
    model = shaken(tf.CLIPModel(clip_config(**changes)))
    return model, clip_tokenizer(), _clip_pictures()


@checkpoint
def grounding_dino() -> tuple[Any, ...]:
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
    pictures = tf.GroundingDinoImageProcessorPil(size={"shortest_edge": 96, "longest_edge": 160})
    return shaken(tf.GroundingDinoForObjectDetection(config)), bert_tokenizer(), pictures


@checkpoint
def owlv2() -> tuple[Any, ...]:
    config = tf.Owlv2Config(
        text_config=clip_text(1, max_position_embeddings=16, pad_token_id=0),
        vision_config=tower(image_size=64, patch_size=16),
        projection_dim=16,
    )
    pictures = tf.Owlv2ImageProcessorPil(size=SQUARE)
    return shaken(tf.Owlv2ForObjectDetection(config)), clip_tokenizer(), pictures


@checkpoint
def dpt() -> tuple[Any, ...]:
    config = tf.DPTConfig(
        **tower(4, image_size=64, patch_size=16),
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        is_hybrid=False,
        use_auxiliary_head=False,
        reassemble_factors=[4, 2, 1, 0.5],
    )
    return tf.DPTForDepthEstimation(config), tf.DPTImageProcessorPil(size=SQUARE)


@checkpoint
def git() -> tuple[Any, ...]:
    config = tf.GitConfig(
        vision_config=tower(image_size=32, patch_size=16),
        **tower(vocab_size=len(bert_words()), max_position_embeddings=64),
        bos_token_id=101,
        eos_token_id=102,
        pad_token_id=0,
    )
    model = shaken(tf.GitForCausalLM(config))
    _favour(model.output, ["yes", "no"])
    return model, bert_tokenizer(), _clip_pictures()


@checkpoint
def blip() -> tuple[Any, ...]:
    tokenizer = bert_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    ids = {"bos_token_id": len(tokenizer) - 1, "sep_token_id": 102, "eos_token_id": 102}
    sizes = {"vocab_size": len(tokenizer), "encoder_hidden_size": 16, "pad_token_id": 0}
    config = tf.BlipConfig(
        text_config=tower(projection_dim=16, max_position_embeddings=64, **ids, **sizes),
        vision_config=tower(projection_dim=16, image_size=32, patch_size=16),
        projection_dim=16,
        image_text_hidden_size=16,
    )
    model = shaken(tf.BlipForQuestionAnswering(config))
    _favour(model.text_decoder.cls.predictions, ["yes", "no"])
    return model, tokenizer, tf.BlipImageProcessorPil(size={"height": 32, "width": 32})


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


@checkpoint
def qwen3_vl() -> tuple[Any, ...]:
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
    model = shaken(tf.Qwen3VLForConditionalGeneration(config))
    _favour_spellings(model.lm_head, tokenizer)
    pictures = tf.Qwen2VLImageProcessorPil(
        patch_size=16, merge_size=2, size={"shortest_edge": 32 * 32, "longest_edge": 112 * 112}
    )
    return model, tokenizer, pictures, _template("<|vision_start|><|image_pad|><|vision_end|>")


@checkpoint
def llava_onevision() -> tuple[Any, ...]:
    tokenizer = qwen_tokenizer("<image>", "<video>")
    image, video = (tokenizer.convert_tokens_to_ids(name) for name in ("<image>", "<video>"))
    sizes = [[32, 32], [64, 64]]
    config = tf.LlavaOnevisionConfig(
        vision_config=tf.SiglipVisionConfig(
            **tower(2, image_size=32, patch_size=16, vision_use_head=False)
        ),
        text_config=tf.Qwen2Config(
            **tower(vocab_size=len(tokenizer), num_key_value_heads=1, max_position_embeddings=512)
        ),
        image_token_index=image,
        image_token_id=image,
        video_token_index=video,
        image_grid_pinpoints=sizes,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    model = shaken(tf.LlavaOnevisionForConditionalGeneration(config))
    _favour_spellings(model.lm_head, tokenizer)
    pictures = tf.LlavaOnevisionImageProcessorPil(
        size={"height": 32, "width": 32}, image_grid_pinpoints=sizes
    )
    settings = {"num_image_tokens": 4, "vision_feature_select_strategy": "full"}
    told = File("processor_config.json", json.dumps(settings))
    return model, tokenizer, pictures, told, _template("<image>")


def _clip_pictures() -> tf.CLIPImageProcessorPil:
    crop = {"height": 32, "width": 32}
    return tf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=crop)


def _template(image: str) -> File:
    return File("chat_template.jinja", TEMPLATE.replace("IMAGE", image))


def shaken(model: Any) -> Any:
    """With larger weights than models begin with, so that pictures and texts make a difference."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    return model


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
