"""What a weight is called in the file of a wrapped model, and what is stored there and is none."""

import re
from collections.abc import Collection, Mapping

from pipeline.engine.model_files.headers import SAVE_PLAIN, WeightHeader
from pipeline.engine.model_files.listing import (
    FETCH_AGAIN,
    refused_as_adapter,
    refused_as_quantised,
)
from schemas.errors import InputError

# Parts of names that no model has, only what torch wraps it in.
_WRAPPERS = re.compile(
    r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\."
)
# Computed when a model is built; older versions of transformers stored them.
_COMPUTED = re.compile(
    r"(.*\.)?(position_ids|(original_)?inv_freq|(cos|sin)_cached|codebook_used"
    r"|rotary_emb\.[^.]+)"
)
_ADAPTED = re.compile(r"(^|\.)(lora_\w+|base_layer|modules_to_save|original_module)(\.|$)")
_ROOTS = ("lm_head.", "model.vqmodel.", "model.generation_", "gen_")  # of names without wrappers
_NO_WEIGHTS = ("I64", "int64", "BOOL", "bool", "C64", "complex64", "complex128")
_PLAIN_DTYPES = ("float64", "float32", "bfloat16", "float16")


def is_computed(name: str) -> bool:
    """Whether a stored name is that of a buffer that the model computes, and no weight."""
    return _COMPUTED.fullmatch(name) is not None


def plain_names(stored: Collection[str], source: str) -> dict[str, str]:
    """What each stored weight is called in the model itself, by its stored name.

    Computed buffers are left out. What `torch.compile` and the like put into a name is taken off,
    and so is what all names begin with (`module.`, `base_model.model.`): it tells nothing. The
    names that are left must be the model's, every one of them, so nothing is guessed. Raises
    InputError for an adapter that is not merged, and for names that become one.
    """
    weights = [name for name in stored if not is_computed(name)]
    if adapted := [name for name in weights if _ADAPTED.search(name)]:
        raise refused_as_adapter(f"{adapted[0]:.200} in {source}")
    plain = {name: _WRAPPERS.sub("", name) for name in weights}
    while prefix := _common_prefix(plain.values()):
        plain = {name: short.removeprefix(prefix) for name, short in plain.items()}
    if len(set(plain.values())) < len(plain):
        seen: dict[str, str] = {}
        first, second = next(
            (seen[short], name)
            for name, short in plain.items()
            if seen.setdefault(short, name) != name
        )
        raise InputError(
            f"{source} holds both {first!r:.200} and {second!r:.200}, which name one weight; "
            f"{FETCH_AGAIN}"
        )
    return plain


def refuse_quantised(headers: Mapping[str, WeightHeader], source: str) -> None:
    """Raises InputError for a weight that is not stored as plain numbers."""
    for name, header in headers.items():
        if header.dtype in _PLAIN_DTYPES or is_computed(name):
            continue
        finding = f"{name:.200} in {source} is stored as {header.dtype}"
        if header.dtype in _NO_WEIGHTS:
            raise InputError(f"{finding}, as no weight of a Janus is; {SAVE_PLAIN}")
        raise refused_as_quantised(finding)


def _common_prefix(names: Collection[str]) -> str:
    """The first part of all names, with its dot, if it is the same and no part of the model's."""
    first = {name.partition(".")[0] for name in names}
    is_told = len(first) != 1 or any(name.startswith(_ROOTS) or "." not in name for name in names)
    return "" if is_told else f"{first.pop()}."
