"""The weights of open_clip's CLIP under the names that `CLIPModel` has for them.

HPS v2.1 is published so. open_clip itself would bring torchvision and timm along.
"""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from schemas.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)")
_IN_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_OUTSIDE = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",  # so it is spelled there
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "logit_scale": "logit_scale",
}
_TRANSPOSED = {
    "visual.proj": "visual_projection.weight",
    "text_projection": "text_projection.weight",
}
_COMPUTED = {"attn_mask"}  # no weight


def is_open_clip(names: Mapping[str, "Tensor"]) -> bool:
    """Whether weights have open_clip's names."""
    return "visual.conv1.weight" in names


def to_clip_model(weights: Mapping[str, "Tensor"]) -> "dict[str, Tensor]":
    """The same tensors by the names of `CLIPModel`, queries, keys and values apart.

    Raises InputError for a weight that has no counterpart there.
    """
    return dict(item for name, tensor in weights.items() for item in _renamed(name, tensor))


def _renamed(name: str, tensor: "Tensor") -> Iterator[tuple[str, "Tensor"]]:
    if name in _COMPUTED:
        return
    if name in _OUTSIDE:
        yield _OUTSIDE[name], tensor
    elif name in _TRANSPOSED:
        yield _TRANSPOSED[name], tensor.T.contiguous()
    elif block := _BLOCK.fullmatch(name):
        tower = "vision_model" if block[1] else "text_model"
        prefix = f"{tower}.encoder.layers.{block[2]}"
        module, _, kind = block[3].rpartition(".")
        if block[3] in ("attn.in_proj_weight", "attn.in_proj_bias"):
            kind = block[3].rpartition("_")[2]
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                yield f"{prefix}.self_attn.{part}_proj.{kind}", piece.clone()
        elif module in _IN_BLOCK:
            yield f"{prefix}.{_IN_BLOCK[module]}.{kind}", tensor
        else:
            raise _unknown(name)
    else:
        raise _unknown(name)


def _unknown(name: str) -> InputError:
    return InputError(
        f"the weight {name} has no counterpart in CLIPModel; expected the CLIP of open_clip with "
        "a plain vision transformer, as HPS v2.1 has it"
    )
