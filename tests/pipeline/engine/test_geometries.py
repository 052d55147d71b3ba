"""The published Janus-Pro models, built without weights from configs of the published form."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from pipeline.engine.checkpoints import geometry_of
from pipeline.engine.deepseek import janus_config, to_hugging_face
from schemas.errors import InputError
from schemas.geometry import Geometry

GOLDEN = Path(__file__).parents[2] / "golden" / "janus-tiny" / "model.safetensors"
TOWER = "vision_model.vision_tower"

# The weights whose shapes tell what the config does not.
SHAPES = {
    f"{TOWER}.patch_embed.proj.weight": (1024, 3, 16, 16),
    f"{TOWER}.blocks.0.mlp.fc1.weight": (4096, 1024),
    "gen_vision_model.decoder.norm_out.weight": (128,),
    "gen_vision_model.post_quant_conv.weight": (256, 8, 1, 1),
} | {f"{TOWER}.blocks.{number}.norm1.weight": (1024,) for number in range(24)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A model and what is known of it; sizes in millions of weights.

    The published totals, 7.42 and 2.09 billion, count the 12.6 million of SigLIP's pooling head,
    which Janus does not use.
    """

    width: int
    num_layers: int
    language: dict[str, int]  # what its `language_config` says beyond what both say
    num_heads: int
    intermediate_size: int
    layers_size: float
    embedding_size: float
    generation_head_size: float
    total_size: float


JANUS_PRO_7B = Published(
    width=4096,
    num_layers=30,
    language={},
    num_heads=32,
    intermediate_size=11008,
    layers_size=6071.5,
    embedding_size=419.4,
    generation_head_size=83.9,
    total_size=7407.8,
)
JANUS_PRO_1B = Published(
    width=2048,
    num_layers=24,
    language={
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
    },
    num_heads=16,
    intermediate_size=5632,
    layers_size=1233.2,
    embedding_size=209.7,
    generation_head_size=37.8,
    total_size=2076.6,
)
both = pytest.mark.parametrize("published", [JANUS_PRO_1B, JANUS_PRO_7B], ids=["1B", "7B"])


def deepseek_config(published: Published) -> dict[str, Any]:
    width = published.width
    return {
        "model_type": "multi_modality",
        "architectures": ["MultiModalityCausalLM"],
        "aligner_config": part(
            "aligner",
            "MlpProjector",
            depth=2,
            input_dim=1024,
            n_embed=width,
            projector_type="mlp_gelu",
        ),
        "gen_aligner_config": part(
            "gen_aligner",
            "MlpProjector",
            depth=2,
            input_dim=8,
            n_embed=width,
            projector_type="mlp_gelu",
        ),
        "gen_head_config": part(
            "gen_head",
            "vision_head",
            image_token_embed=width,
            image_token_size=16384,
            n_embed=width,
        ),
        "gen_vision_config": part("gen_vision", "VQ-16", image_token_size=16384, n_embed=8),
        "language_config": {
            "max_position_embeddings": 16384,
            "model_type": "llama",
            "num_hidden_layers": published.num_layers,
            "torch_dtype": "bfloat16",
            "vocab_size": 102400,
        }
        | published.language,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.33.1",
        "vision_config": part(
            "vision",
            "CLIPVisionTower",
            image_size=384,
            model_name="siglip_large_patch16_384",
            select_feature="same",
            select_layer=-1,
        ),
    }


def part(model_type: str, cls: str, **params: object) -> dict[str, object]:
    return {"cls": cls, "model_type": model_type, "params": params}


def build(published: Published) -> Any:
    from transformers import JanusForConditionalGeneration

    with torch.device("meta"):
        return JanusForConditionalGeneration(janus_config(deepseek_config(published), SHAPES))


def deepseek_names(num_layers: int) -> Iterator[str]:
    """The golden checkpoint's names, with the layers of its two towers numbered further."""
    with safe_open(GOLDEN, "pt") as weights:
        names = list(weights.keys())
    for name in names:
        if not re.search(r"\.(layers|blocks)\.\d+\.", name) or "aligner" in name:
            yield name
        elif ".0." in name:
            depth = 24 if name.startswith(TOWER) else num_layers
            yield from (name.replace(".0.", f".{number}.", 1) for number in range(depth))


def millions(module: torch.nn.Module) -> float:
    return sum(weight.numel() for weight in module.parameters()) / 1e6


@both
def test_the_parts_have_the_published_sizes(published: Published):
    model = build(published)
    janus = model.model

    assert millions(janus.language_model.layers) == pytest.approx(published.layers_size, abs=0.1)
    assert millions(janus.language_model.embed_tokens) == pytest.approx(
        published.embedding_size, abs=0.1
    )
    assert millions(model.lm_head) == pytest.approx(published.embedding_size, abs=0.1)
    assert millions(janus.generation_head) == pytest.approx(published.generation_head_size, abs=0.1)
    assert millions(janus.vision_model) == pytest.approx(303.7, abs=0.1)
    assert millions(janus.vqmodel.decoder) == pytest.approx(42.4, abs=0.1)
    assert millions(model) == pytest.approx(published.total_size, abs=0.1)


@both
def test_the_config_has_what_the_published_one_leaves_out(published: Published):
    config = janus_config(deepseek_config(published), SHAPES)
    text, vision = config.text_config, config.vision_config

    assert text.hidden_size == published.width
    assert text.intermediate_size == published.intermediate_size
    assert text.num_attention_heads == text.num_key_value_heads == published.num_heads
    assert text.max_position_embeddings == 16384
    assert text.rms_norm_eps == 1e-6
    assert text.rope_parameters["rope_theta"] == 10000.0
    assert not config.tie_word_embeddings
    assert (vision.num_attention_heads, vision.mlp_ratio, vision.depth) == (16, 4, 2)
    assert geometry_of(config) == Geometry(image_size=384, rows=24, columns=24, num_codes=16384)


@both
def test_every_weight_gets_its_name_exactly_once(published: Published):
    blank = torch.empty(3, 1, device="meta")
    names = ((name, blank) for name in deepseek_names(published.num_layers))

    translated = Counter(name for name, _ in to_hugging_face(names))

    assert translated == Counter(build(published).state_dict().keys())


def test_an_unknown_vision_tower_is_refused():
    config = deepseek_config(JANUS_PRO_1B)
    config["vision_config"]["params"]["model_name"] = "siglip_giant_patch16_384"

    with pytest.raises(InputError, match="siglip_giant_patch16_384"):
        janus_config(config, SHAPES)
