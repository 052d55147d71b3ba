"""Chat models of random weights, made on the spot: a few megabytes, a real server's whole surface.

Their tokenizer has a token for every byte, so that they can say everything, and the words of a
verdict as single tokens, as real models have them. What they say is noise.
"""

import json
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

TEXT, PICTURES = "tiny-text", "tiny-pictures"
_CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_VISION = [f"<|{name}|>" for name in ("vision_start", "vision_end", "image_pad", "video_pad")]
_VERDICTS = ("Yes", "No", "yes", "no")
_POSITIONS = 8192
_CHAT = """\
{%- for turn in messages -%}<|im_start|>{{ turn.role }}
{% if turn.content is string %}{{ turn.content }}{% else %}{% for part in turn.content -%}
{%- if part.type == 'text' %}{{ part.text }}{% else %}<|vision_start|><|image_pad|><|vision_end|>\
{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
_SIZES = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": _POSITIONS,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
    "bos_token_id": None,
}
_PIXELS = {
    "processor_class": "Qwen2_5_VLProcessor",
    "min_pixels": 56 * 56,
    "max_pixels": 448 * 448,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def made(kind: str, folder: Path) -> Path:
    """The model of a kind in its folder below this one, made if it is not there."""
    model = folder / kind
    if not (model / "config.json").exists():
        torch.manual_seed(0)
        model.mkdir(parents=True, exist_ok=True)
        (_make_text if kind == TEXT else _make_pictures)(model)
    return model


def leaning(model: Path) -> dict[str, float]:
    """A bias of logits by token, for requests: towards the end of what is said, and of a string.

    Without it a random model goes on to its limit.
    """
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    return {str(tokenizer.token_to_id(token)): 4.0 for token in ('"', "<|im_end|>")}


def _make_text(folder: Path) -> None:
    tokenizer = _tokenizer(_CONTROL)
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(vocab_size=_rows(tokenizer), head_dim=32, **_SIZES, **_ends(tokenizer))
    _save(LlamaForCausalLM(config), folder)


def _make_pictures(folder: Path) -> None:
    tokenizer = _tokenizer([*_CONTROL, *_VISION])
    tokenizer.save_pretrained(folder)
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in _VISION}
    rope = {"type": "mrope", "rope_type": "default", "mrope_section": [4, 6, 6]}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": _rows(tokenizer),
            "rope_scaling": rope,
            **_SIZES,
            **_ends(tokenizer),
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "out_hidden_size": 128,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [1],
            "dtype": "bfloat16",
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
        dtype="bfloat16",
    )
    _save(Qwen2_5_VLForConditionalGeneration(config), folder)
    image = {"image_processor_type": "Qwen2VLImageProcessor", **_PIXELS}
    (folder / "preprocessor_config.json").write_text(json.dumps(image))
    video = {"video_processor_type": "Qwen2VLVideoProcessor", **_PIXELS}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(video))


def _tokenizer(special: list[str]) -> PreTrainedTokenizerFast:
    """Bytes, and the merges that build the verdicts letter by letter."""
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = []
    for word in _VERDICTS:
        for length in range(1, len(word)):
            merge = (word[:length], word[length])
            if merge not in merges:
                merges.append(merge)
                pieces.append("".join(merge))
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=_CHAT,
        model_max_length=_POSITIONS,
    )


def _rows(tokenizer: PreTrainedTokenizerFast) -> int:
    return -(-len(tokenizer) // 64) * 64


def _ends(tokenizer: PreTrainedTokenizerFast) -> dict[str, int | None]:
    return {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}


def _save(model: PreTrainedModel, folder: Path) -> None:
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)  # no sampling of its own
