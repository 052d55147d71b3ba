"""What weights the files of a checkpoint hold, told from their headers: names, shapes, dtypes.

No weight is read. Both kinds are opened by the library that loads them, so that what it would
refuse then is refused here.
"""

import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.engine.model_files.listing import FETCH_AGAIN, refuse_pointer
from schemas.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

_TORCH_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
SAVE_PLAIN = "save the model's state_dict() alone, as model.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightHeader:
    """One weight of a file."""

    shape: tuple[int, ...]
    dtype: str  # as torch names it, where it is one of torch's; else as the file does


def read_headers(paths: Iterable[Path]) -> dict[str, WeightHeader]:
    """All weights by the name that they are stored under. Raises InputError."""
    headers: dict[str, WeightHeader] = {}
    for path in paths:
        refuse_pointer(path)
        of_file = _safetensors(path) if path.suffix == ".safetensors" else _pickle(path)
        refuse_twice(headers, of_file, path)
        headers |= of_file
    return headers


def header_of(weight: "Tensor") -> WeightHeader:
    """What a header would say of a weight."""
    return WeightHeader(shape=tuple(weight.shape), dtype=str(weight.dtype).removeprefix("torch."))


def refuse_twice(before: Iterable[str], now: Mapping[str, object], path: Path) -> None:
    """Raises InputError if a file has a weight that another one had."""
    if twice := [name for name in before if name in now]:
        raise InputError(
            f"{path} holds {twice[0]!r:.200}, which another file beside it holds, too, and which "
            f"is meant cannot be told; {FETCH_AGAIN}"
        )


def state_dict_in(content: object, path: Path) -> "dict[str, Tensor]":
    """The weights in what a pickle holds: all of it, or the one table of weights in it.

    A training job saves `{"state_dict": {...}, "step": 3}` and the like. Raises InputError, which
    tells the keys, where more than one table could be meant, or none.
    """
    if not isinstance(content, dict):
        raise InputError(
            f"{path} holds a {type(content).__name__} where names and weights are due; {SAVE_PLAIN}"
        )
    if _is_state_dict(content):
        return _dense(content, path)
    tables = [key for key, value in content.items() if _is_state_dict(value)]
    loose = [key for key, value in content.items() if _is_weight(value)]
    if len(tables) == 1 and not loose:
        return _dense(content[tables[0]], path)
    keys = ", ".join(f"{key!r:.60}" for key in list(content)[:5]) + ", ..." * (len(content) > 5)
    raise InputError(
        f"{path} holds {keys or 'nothing'}, and which of it are the weights cannot be told; "
        f"{SAVE_PLAIN}"
    )


def _dense(weights: "Mapping[str, Tensor]", path: Path) -> "dict[str, Tensor]":
    """The same weights. Raises InputError for one whose numbers are not in the file as they are."""
    import torch

    for name, weight in weights.items():
        if weight.is_meta or weight.is_quantized or weight.layout is not torch.strided:
            kind = "no numbers" if weight.is_meta else f"{weight.layout} {weight.dtype} numbers"
            raise InputError(
                f"{name:.200} in {path} has {kind} where dense ones are due; {SAVE_PLAIN}"
            )
    return dict(weights)


def _is_state_dict(value: object) -> bool:
    from torch import Tensor

    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(key, str) for key in value)
        and all(isinstance(weight, Tensor) for weight in value.values())
    )


def _is_weight(value: object) -> bool:
    """A tensor that is more than a number, such as a step or a loss."""
    from torch import Tensor

    return isinstance(value, Tensor) and value.dim() > 0


def _safetensors(path: Path) -> dict[str, WeightHeader]:
    from safetensors import safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {
                name: WeightHeader(
                    shape=tuple(part.get_shape()),
                    dtype=_TORCH_NAMES.get(part.get_dtype(), part.get_dtype()),
                )
                for name, part in slices.items()
            }
    except Exception as error:  # cut short, or of another kind: the library's own errors
        raise unreadable(path, error) from error


def _pickle(path: Path) -> dict[str, WeightHeader]:
    return {name: header_of(weight) for name, weight in load_pickle(path).items()}


def load_pickle(path: Path) -> "dict[str, Tensor]":
    """The weights in a file of torch's, mapped unless it is of the form before torch 1.6.

    Raises InputError.
    """
    import torch

    try:
        is_mapped = zipfile.is_zipfile(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_mapped)
    except Exception as error:  # cut short, of another kind, or with code in it
        raise unreadable(path, error) from error
    return state_dict_in(content, path)


def unreadable(path: Path, error: Exception) -> InputError:
    """What to say of a file that its library does not read."""
    text = str(error)
    if "weights_only" in text or "Weights only" in text:
        return InputError(
            f"{path} cannot be read as weights: it holds Python objects beside them, which are "
            f"not loaded since they could run code; {SAVE_PLAIN}"
        )
    reason = text.strip().partition("\n")[0] or type(error).__name__
    return InputError(f"{path} cannot be read as weights ({reason:.200}); {FETCH_AGAIN}")
