"""The sizes of the toy Janus, and how its files are written.

Every part of Janus is there, in Hugging Face's format, as small as its world allows.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.toy.patches import IMAGE_SIZE, ROWS, SIDE, patches
from schemas.json_values import JsonMapping, JsonObject, read_json_object

if TYPE_CHECKING:
    import torch
    from transformers import JanusForConditionalGeneration

WIDTH = 128
NUM_LAYERS = 4
WEIGHTS = Path(__file__).parent / "weights"
"""The folder of the bundled toy."""
EARLY = Path(__file__).parent / "early" / "student.safetensors"
"""Its language model, vision and heads after 30 % of a training, in bfloat16."""
MAX_POSITIONS = 4096
"""Far more than its own questions need: the default limit on words leaves room for a prompt."""


def toy_config(vocab_size: int, special_ids: dict[str, int]) -> JsonObject:
    """The `config.json` of the toy Janus, for a tokenizer of so many tokens. Ids are by role."""
    return {
        "architectures": ["JanusForConditionalGeneration"],
        "model_type": "janus",
        "image_token_id": special_ids["image"],
        "tie_word_embeddings": False,
        "text_config": {
            "model_type": "llama",
            "vocab_size": vocab_size,
            "hidden_size": WIDTH,
            "intermediate_size": 3 * WIDTH,
            "num_hidden_layers": NUM_LAYERS,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": MAX_POSITIONS,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            "bos_token_id": special_ids["bos"],
            "eos_token_id": special_ids["eos"],
            "pad_token_id": special_ids["pad"],
            "tie_word_embeddings": False,
        },
        "vision_config": {
            "model_type": "janus_vision_model",
            "image_size": IMAGE_SIZE,
            "patch_size": SIDE,
            "num_image_tokens": ROWS * ROWS,
            "hidden_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "mlp_ratio": 2,
            "projection_dim": WIDTH,
            "depth": 2,
        },
        "vq_config": {
            "model_type": "janus_vqgan",
            "num_embeddings": len(patches()),
            "embed_dim": 32,
            "base_channels": 32,  # the group norms have 32 groups
            "latent_channels": 128,
            "channel_multiplier": [1, 1, 2, 4],
            "num_res_blocks": 1,
            "num_patches": ROWS,
            "projection_dim": WIDTH,
            "image_token_embed_dim": WIDTH,
            "num_hidden_layers": 2,
        },
    }


PREPROCESSOR: JsonObject = {
    "image_processor_type": "JanusImageProcessor",
    "size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "rescale_factor": 1 / 255,
}


def new_model(config: JsonObject) -> "JanusForConditionalGeneration":
    """A model of that config with random weights, from torch's global generator."""
    from transformers import JanusConfig, JanusForConditionalGeneration

    return JanusForConditionalGeneration(JanusConfig.from_dict(config))


def write_small_files(folder: Path, config: JsonMapping) -> None:
    """Everything beside tokenizer, weights and card."""
    _write_json(folder / "config.json", config)
    _write_json(folder / "preprocessor_config.json", PREPROCESSOR)


def write_weights(
    folder: Path, model: "JanusForConditionalGeneration", *, dtype: "torch.dtype"
) -> None:
    """`model.safetensors`, with every weight in that dtype. The model is left as it is."""
    from safetensors.torch import save_file

    weights = {
        name: weight.detach().to("cpu", dtype).contiguous()
        for name, weight in model.state_dict().items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def copy_small_files(source: Path, folder: Path) -> None:
    """Everything beside the weights, from one checkpoint to another; of the card, only its pack."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "preprocessor_config.json", "tokenizer.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    card = read_json_object((source / "coppice.json").read_bytes())
    write_card(folder, {name: card[name] for name in ("pack", "pack_digest")})


def write_student(path: Path, model: "JanusForConditionalGeneration") -> None:
    """All but the VQ part of a model, in bfloat16."""
    import torch
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {
        name: weight.detach().to("cpu", torch.bfloat16).contiguous()
        for name, weight in model.state_dict().items()
        if ".vqmodel." not in name
    }
    save_file(weights, path, metadata={"format": "pt"})


def write_early(folder: Path) -> None:
    """A checkpoint of the toy as it was after the first part of its training: not good yet.

    The bundled toy's files, with the early language model, vision and heads in their place.
    """
    from safetensors.torch import load_file, save_file

    copy_small_files(WEIGHTS, folder)
    weights = load_file(WEIGHTS / "model.safetensors") | load_file(EARLY)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def write_card(folder: Path, card: JsonMapping) -> None:
    """`coppice.json`: which template pack the model wants, and where it came from."""
    _write_json(folder / "coppice.json", card)


def _write_json(path: Path, content: JsonMapping) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
