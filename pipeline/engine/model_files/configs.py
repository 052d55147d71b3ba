"""What `config.json` says that decides whether and how a model can be computed."""

from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING

from pipeline.engine.model_files.headers import WeightHeader
from pipeline.engine.model_files.listing import (
    CONFIG,
    FETCH_AGAIN,
    ModelSource,
    read_json,
    refused_as_quantised,
)
from schemas.errors import InputError

if TYPE_CHECKING:
    from schemas.json_values import JsonMapping, JsonObject

DEFAULT_DTYPE = "bfloat16"
_TEXT_TABLES = ("text_config", "language_config")
_QUANTISED = ("quantization_config", "compression_config", "load_in_4bit", "load_in_8bit")
_COUNTS = ("depth", "num_hidden_layers", "num_res_blocks", "channel_multiplier")
_FEW = 1000  # layers are set up in no time
_NOT_OURS = (  # in which numbers and how another program computes and answers: not the model
    *("attn_implementation", "_attn_implementation", "_attn_implementation_internal"),
    *("_attn_implementation_autoset", "experts_implementation", "dtype", "torch_dtype"),
    *("return_dict", "use_return_dict", "output_attentions", "output_hidden_states", "use_cache"),
)


def read_config(source: ModelSource, *, num_weights: int) -> "JsonObject":
    """The config of a Janus with so many weights, as far as it is the model's.

    Raises InputError for another model, for quantised weights, and for more layers than weights,
    which would take for ever to set up.
    """
    path = f"{source.label}/{CONFIG}"
    content = read_json(source, CONFIG)
    if content.get("model_type") not in ("janus", "multi_modality"):
        raise InputError(
            f"{path} has model_type {content.get('model_type')!r:.60}; "
            "give a Janus checkpoint, whose model_type is 'janus' or 'multi_modality'"
        )
    for table in _tables(content):
        if said := [key for key in _QUANTISED if table.get(key)]:
            raise refused_as_quantised(f"{path} has {said[0]}")
        for key in _COUNTS:
            value = table.get(key)
            count = len(value) if isinstance(value, list) else value
            if isinstance(count, int) and count > max(num_weights, _FEW):
                raise InputError(
                    f"{path} has {count} for {key}, and there are only {num_weights} weights; "
                    f"{FETCH_AGAIN}"
                )
        for key in _NOT_OURS:
            table.pop(key, None)
    return content


def own_dtype(config: "JsonMapping", headers: Mapping[str, WeightHeader]) -> str:
    """What a config says of the whole or of its language model, else what that is stored in.

    Any word that a config may have, also one that Coppice does not compute in.
    """
    inner = [config.get(name) for name in _TEXT_TABLES]
    for table in (config, *(value for value in inner if isinstance(value, dict))):
        for key in ("dtype", "torch_dtype"):
            word = table.get(key)
            if isinstance(word, str) and word not in ("", "auto"):
                return word.removeprefix("torch.")
    counts: Counter[str] = Counter()
    for name, header in headers.items():
        if "language_model" in name.split("."):
            counts[header.dtype] += prod(header.shape)
    return counts.most_common(1)[0][0] if counts else DEFAULT_DTYPE


def _tables(content: "JsonObject") -> "Iterator[JsonObject]":
    """A table and all tables in it, however deep."""
    left = [content]
    while left:
        table = left.pop()
        yield table
        left += [value for value in table.values() if isinstance(value, dict)]
