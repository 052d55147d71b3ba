"""Weights from files into a model, each byte at most once in the memory of a machine.

Files are mapped. A weight that has the dtype to compute in and stays on the CPU is never copied:
the parameter is the mapped pages themselves, which all processes of a machine share. Any other one
is converted or sent to its device by itself, so beside the result there is one weight at a time.

Mapped pages are private: who trains such a model changes a copy of its own, and never the file.
Whoever changes the file in place changes the model under a run; put a new file in its place.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.engine.model_files.headers import load_pickle, unreadable

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import JanusConfig, JanusForConditionalGeneration, JanusVQVAE

_VQ = "model.vqmodel."  # how the names of its weights begin


def map_weights(path: Path) -> "dict[str, Tensor]":
    """The weights of one file by name, mapped: a page is read when it is first used.

    Raises InputError for a file that cannot be read as weights.
    """
    from safetensors.torch import load_file

    if path.suffix != ".safetensors":
        return load_pickle(path)
    try:
        return load_file(path)
    except Exception as error:  # cut short, or of another kind: the library's own errors
        raise unreadable(path, error) from error


def build_model(
    config: "JanusConfig", weights: "dict[str, Tensor]", dtype: "torch.dtype", device: str
) -> "JanusForConditionalGeneration":
    """The model for inference, with these weights, one for every name of its own.

    Takes them out of `weights` one by one.
    """
    import torch
    from transformers import JanusForConditionalGeneration

    with torch.device("meta"):  # no memory yet
        model = JanusForConditionalGeneration(config)
    model.eval().requires_grad_(False)
    placed = {name: _placed(weights.pop(name), dtype, device) for name in list(weights)}
    model.load_state_dict(placed, strict=False, assign=True)
    _compute_buffers(model, device)
    empty = [name for name, tensor in _tensors(model) if tensor.is_meta]
    assert not empty, f"nothing fills {', '.join(empty)}"
    return model


def build_decoder(
    config: "JanusConfig", weights: "Mapping[str, Tensor]", dtype: "torch.dtype", device: str
) -> "JanusVQVAE":
    """The VQ model of a Janus without its encoder, for inference, with its share of the weights."""
    import torch
    from transformers import JanusVQVAE, JanusVQVAEConfig

    assert isinstance(config.vq_config, JanusVQVAEConfig)
    with torch.device("meta"):  # no memory yet
        decoder = JanusVQVAE(config.vq_config)
    del decoder.encoder, decoder.quant_conv
    decoder.eval().requires_grad_(False)
    placed = {
        name: _placed(weights[f"{_VQ}{name}"], dtype, device) for name in decoder.state_dict()
    }
    decoder.load_state_dict(placed, assign=True)
    return decoder


def _placed(weight: "Tensor", dtype: "torch.dtype", device: str) -> "Tensor":
    """The weight where and as the model has it: itself, if it is that already."""
    if weight.data_ptr() % weight.element_size():  # as old files have it; kernels expect better
        weight = weight.clone()
    weight = weight.to(device)  # before it is converted: fewer bytes, or a faster device
    return weight.to(dtype) if weight.is_floating_point() else weight


def _compute_buffers(model: "nn.Module", device: str) -> None:
    """Fill in what no file holds: buffers that are computed from the config."""
    import torch
    from transformers.models.janus.modeling_janus import JanusVisionEmbeddings
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    for module in model.modules():
        if isinstance(module, LlamaRotaryEmbedding):
            for name, buffer in LlamaRotaryEmbedding(module.config).named_buffers():
                setattr(module, name, buffer.to(device))
        elif isinstance(module, JanusVisionEmbeddings):
            positions = torch.arange(module.num_positions, device=device)[None]
            module.register_buffer("position_ids", positions, persistent=False)


def _tensors(model: "nn.Module") -> "Iterator[tuple[str, Tensor]]":
    yield from model.named_parameters()
    yield from model.named_buffers()
