"""Whether a model is what was asked for, and whether its numbers are numbers.

Weights are looked at once, when they are read: what is broken there is refused by its name. A model
whose weights are sound may still overflow, in bfloat16 say: so each choice of a token is looked at,
too (`pipeline.engine.sampling.evidence_of`).

Whatever an answer depends on shows in its own logits. What is not a number in a picture's features,
in a prefix or in the cache weighs NaN in every sum, even with a weight of 0.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from schemas.errors import InputError, RecordFailure

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import JanusForConditionalGeneration

Device = Literal["cpu", "gpu"]
"""What a process is to compute on. A GPU is the first that it sees: the one that Ray gave it."""

NOT_FINITE = "not_finite"
"""The reason of rollouts that came upon NaN or infinity."""

_NAMED = 3  # weights, in a message
_ADVICE = (
    "fetch or export the model again, and plan with it: coppice plan PROMPTS RUN --model MODEL"
)
# Only training encodes pictures to codes, so checkpoints may come without what does it.
_UNUSED = ("model.vqmodel.encoder.", "model.vqmodel.quant_conv.")
# The ends of residual branches: zeros there are a block that passes on what came in, as it begins.
_BRANCH_ENDS = ("o_proj", "down_proj", "projection_layer", "fc2", "conv2", "proj_out")
_BRANCHES = ("layers", "block", "attn", "block_1", "block_2", "attn_1")


def torch_device(device: Device, asked: str, node: str) -> str:
    """The name of a device for torch. `asked` is the setting that asked for it, for the message.

    Raises InputError for a GPU that torch does not see on this node.
    """
    import torch

    if device == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    built = torch.version.cuda or torch.version.hip
    why = "finds no working driver or no device" if built else "is built for CPUs alone"
    raise InputError(
        f"asked for a GPU on {node} ({asked}), and found none: torch {torch.__version__} {why}; "
        "install the torch of your GPU and see that nvidia-smi lists it, or run on CPUs with: "
        "--set execution.device=cpu"
    )


def check_model(
    model: "JanusForConditionalGeneration", *, dtype: "torch.dtype", device: str
) -> None:
    """Refuse a model on another device, of another dtype or of another size than was asked for.

    `device` is torch's. Raises InputError.
    """
    import torch

    weights = list(model.parameters())
    with torch.device("meta"):
        planned = type(model)(model.config)
    asked = (device, str(dtype), _num_numbers(planned))
    loaded = (
        "+".join(sorted({weight.device.type for weight in weights})),
        "+".join(sorted({str(weight.dtype) for weight in weights})),
        _num_numbers(model),
    )
    if loaded != asked:
        raise InputError(
            f"asked for a model on {asked[0]} of {asked[1]} with {asked[2]:,} parameters, and "
            f"loaded one on {loaded[0]} of {loaded[1]} with {loaded[2]:,}; use the versions of "
            "torch and transformers that coppice names, and plain weights of that config"
        )


def check_weights(model: "nn.Module", folder: Path) -> None:
    """Refuse weights with NaN or infinity, and matrices that were never filled.

    Looks at the model as it was loaded, in its dtype, and waits for its device once. `folder` is
    where it comes from. Raises InputError that names the weights.
    """
    import torch

    weights = {
        name: weight
        for name, weight in model.state_dict().items()
        if weight.is_floating_point() and weight.numel()
    }
    # The least and the most, and no sum: that could overflow, where every number is sound.
    bounds = [torch.stack(torch.aminmax(weight)).double() for weight in weights.values()]
    problems = [
        f"{name} of {_file_of(folder, name)} {problem}"
        for (name, weight), (least, most) in zip(
            weights.items(), torch.stack(bounds).tolist(), strict=True
        )
        if (problem := _problem_of(name, weight, least, most))
    ]
    if problems:
        first = "; ".join(problems[:_NAMED]) + ("; ..." if len(problems) > _NAMED else "")
        count = "a weight is" if len(problems) == 1 else f"{len(problems)} weights are"
        raise InputError(f"{count} broken in {folder}: {first}; {_ADVICE}")


def is_sound(evidence: Sequence[float], *logps: Sequence[float]) -> bool:
    """Whether tokens were chosen by numbers, and are as likely as a number says.

    All come from float32, so that no sum of them overflows.
    """
    return math.isfinite(sum(evidence) + sum(map(sum, logps)))


def not_finite(what: str) -> RecordFailure:
    """The failure of a rollout that came upon `what`, in the plural."""
    return RecordFailure(
        f"{what} are not finite: the weights are broken, or too large for this dtype; plan a run "
        "with sound weights, or with method.dtype=float32: coppice plan PROMPTS RUN --model MODEL",
        reason=NOT_FINITE,
    )


def _num_numbers(model: "JanusForConditionalGeneration") -> int:
    """In all weights by name, so that it is the same whether some of them are one or not."""
    return sum(weight.numel() for weight in model.state_dict().values())


def _problem_of(name: str, weight: "Tensor", least: float, most: float) -> str:
    """What is wrong with a weight; empty: nothing."""
    if not (math.isfinite(least) and math.isfinite(most)):
        return f"holds numbers that are not finite (as {str(weight.dtype).removeprefix('torch.')})"
    if least != most or weight.numel() == 1 or _may_be_blank(name):
        return ""
    if weight.ndim > 1:
        return f"holds nothing but {most:g}, as if it was never filled"
    if name.endswith(".weight") and most == 0:  # the scale of a norm
        return "holds nothing but 0, as if it was never filled"
    return ""


def _may_be_blank(name: str) -> bool:
    *path, part, _ = ("", *name.split("."))
    is_end = part in _BRANCH_ENDS and not set(path).isdisjoint(_BRANCHES)
    return is_end or name.startswith(_UNUSED)


def _file_of(folder: Path, name: str) -> str:
    """The file that holds a weight, as far as the folder tells."""
    from schemas.json_values import read_json_object  # pydantic, which running a model does without

    for single in ("model.safetensors", "pytorch_model.bin"):
        if (folder / single).is_file():
            return single
        index = folder / f"{single}.index.json"
        if index.is_file():
            weight_map = read_json_object(index.read_bytes()).get("weight_map")
            if isinstance(weight_map, dict) and name in weight_map:
                return str(weight_map[name])
    return "its files"
