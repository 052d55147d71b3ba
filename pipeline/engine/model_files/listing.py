"""Which files make a checkpoint, told from their names, and which ones forbid to use it.

Knows nothing of where they lie: a folder, a repository on the hub or a bucket is a `ModelSource`.
"""

import posixpath
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from schemas.errors import InputError

if TYPE_CHECKING:
    from schemas.json_values import JsonObject, JsonValue

CARD = "coppice.json"
CONFIG = "config.json"
FETCH_AGAIN = "fetch or export the model again"
PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
TOKENIZER = "tokenizer.json"

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first that is there is read
_LIKE_WEIGHTS = (".bin", ".ckpt", ".gguf", ".h5", ".pt", ".pth", ".safetensors")
_ADAPTER = re.compile(
    r"adapter_config\.json|adapters?([._-].*)?\.(bin|npz|pt|pth|safetensors)"
    r"|non_lora_trainables\.bin|.*lora.*\.(bin|pt|pth|safetensors)",
    re.I,
)
_QUANTISED = re.compile(
    r".*quant.*\.json|(gptq_model|.*[._-](awq|gptq|int4|int8|[48]bit)(?=[._-])).*\.(bin|pt|safetensors)",
    re.I,
)
_ADAPTER_CONFIG = "adapter_config.json"
_POINTER = b"version https://git-lfs"
_MOST_SHARDS = 10_000


class ModelSource(Protocol):
    """Where the files of a checkpoint lie. Names are relative, with '/' between folders."""

    @property
    def label(self) -> str:
        """What messages call it."""
        ...

    def names(self) -> Collection[str]:
        """The files directly in it."""
        ...

    def has(self, name: str) -> bool:
        """Whether there is such a file, in it or below it."""
        ...

    def read(self, name: str) -> bytes:
        """A small file as a whole. Raises InputError."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointFiles:
    """The files that a checkpoint is read from, by name."""

    small: tuple[str, ...]  # config, image processor and tokenizer
    weights: tuple[str, ...]
    beside: tuple[str, ...]  # the card and the index of the weights: no part of the identity

    @property
    def computed_with(self) -> tuple[str, ...]:
        """Those that make up the model's identity, in the order of its digest."""
        return tuple(sorted(self.small + self.weights, key=lambda name: name.split("/")))


class Folder:
    """A folder of this machine as a source."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def label(self) -> str:
        return str(self._folder)

    def names(self) -> Collection[str]:
        try:
            return [entry.name for entry in self._folder.iterdir()]
        except OSError as error:
            raise InputError(f"{self._folder} cannot be read ({error.strerror})") from error

    def has(self, name: str) -> bool:
        return (self._folder / name).is_file()

    def read(self, name: str) -> bytes:
        path = self._folder / name
        refuse_pointer(path)
        try:
            return path.read_bytes()
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror})") from error


def checkpoint_files(source: ModelSource) -> CheckpointFiles:
    """The files that a model is computed with.

    Raises InputError for what is missing, and for what lies there, would change the answers and is
    not read: an adapter, a quantisation, weights a second time.
    """
    names = source.names()
    _refuse_adapters(source, names)
    if quantised := sorted(filter(_QUANTISED.fullmatch, names)):
        raise refused_as_quantised(f"{source.label} has a {quantised[0]}")
    processor = processor_name(source)
    weights, index = _weights(source)
    small = (CONFIG, processor, TOKENIZER)
    for name in small:
        require(source, name)
    for name in weights:
        require(source, name)
    beside = [name for name in (CARD, PROCESSOR, *index) if name != processor and source.has(name)]
    return CheckpointFiles(small=small, weights=weights, beside=tuple(beside))


def processor_name(source: ModelSource) -> str:
    """The file that tells how pictures are shown to the model.

    `processor_config.json` is it as transformers 5 writes it, with all in `image_processor`;
    DeepSeek's file of this name tells nothing of pictures.
    """
    if source.has(PREPROCESSOR) or not source.has(PROCESSOR):
        return PREPROCESSOR
    return PROCESSOR if "image_processor" in read_json(source, PROCESSOR) else PREPROCESSOR


def require(source: ModelSource, name: str) -> None:
    """Raises InputError if there is no such file."""
    if not source.has(name):
        what = "no file, but a folder or a link to nothing, at" if name in source.names() else "no"
        raise InputError(f"{source.label} has {what} {name}, which the model needs; {FETCH_AGAIN}")


def read_json(source: ModelSource, name: str) -> "JsonObject":
    """The JSON object in a file. Raises InputError, also if there is no such file."""
    from schemas.json_values import read_json_object  # pydantic, which running a model does without

    require(source, name)
    try:
        return read_json_object(source.read(name))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{source.label}/{name} is not a JSON object ({error}); {FETCH_AGAIN}"
        ) from error


def refuse_pointer(path: Path) -> None:
    """Raises InputError if a file is what git keeps in the place of a large one."""
    try:
        with path.open("rb") as file:
            is_pointer = file.read(len(_POINTER)) == _POINTER
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error
    if is_pointer:
        raise InputError(
            f"{path} is a pointer of git LFS and not the file itself; "
            f"run `git lfs pull` in {path.parent}"
        )


def refused_as_quantised(finding: str) -> InputError:
    """What to say of a model whose weights are not plain numbers."""
    return InputError(
        f"{finding}, so the weights are quantised, and quantised weights are not read; "
        "give the plain ones (bfloat16 or float32) that they were made from"
    )


def refused_as_adapter(finding: str, base: "JsonValue" = None) -> InputError:
    """What to say of weights that are a change to others."""
    of = f" (its base model is {base!r:.100})" if isinstance(base, str) and base else ""
    return InputError(
        f"{finding} is an adapter{of}, and adapters are not applied: merge it into its base model "
        "with peft (model.merge_and_unload().save_pretrained(FOLDER)) and give the merged folder"
    )


def _refuse_adapters(source: ModelSource, names: Collection[str]) -> None:
    adapters = sorted(filter(_ADAPTER.fullmatch, names))
    configs = [name for name in (_ADAPTER_CONFIG, *_below(names)) if source.has(name)]
    if adapters or configs:
        base = read_json(source, configs[0]).get("base_model_name_or_path") if configs else None
        raise refused_as_adapter(f"{source.label}/{(adapters or configs)[-1]}", base)


def _below(names: Collection[str]) -> list[str]:
    """Where adapters would be that a training job left in folders beside the weights."""
    return sorted(f"{name}/{_ADAPTER_CONFIG}" for name in names if "." not in name)


def _weights(source: ModelSource) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The files of the weights, and the index that names them if there is one."""
    names = source.names()
    for single in _WEIGHTS:
        if single in names:
            require(source, single)
        index = f"{single}.index.json"
        if source.has(single) and source.has(index):
            raise InputError(
                f"{source.label} has both {single} and {index}, and which of them are the weights "
                "cannot be told; remove the one that is left from before"
            )
        if source.has(single):
            return (single,), ()
        if source.has(index):
            return _shards(source, index, suffix=posixpath.splitext(single)[1]), (index,)
    similar = sorted(name for name in names if name.endswith(_LIKE_WEIGHTS))[:3]
    others = f" (but {', '.join(similar)})" if similar else ""
    raise InputError(
        f"{source.label} has no {_WEIGHTS[0]} and no {_WEIGHTS[1]}, nor an index of shards "
        f"({_WEIGHTS[0]}.index.json){others}; {FETCH_AGAIN}"
    )


def _shards(source: ModelSource, index: str, *, suffix: str) -> tuple[str, ...]:
    """The files that an index names. Raises InputError for one that could lie anywhere else."""
    weight_map = read_json(source, index).get("weight_map")
    shards = set(map(str, weight_map.values())) if isinstance(weight_map, dict) else set()
    if not shards or len(shards) > _MOST_SHARDS:
        raise InputError(f"{source.label}/{index} names no files of weights; {FETCH_AGAIN}")
    for shard in shards:
        is_plain = shard == posixpath.normpath(shard) and shard.isprintable() and "\\" not in shard
        if not is_plain or shard.startswith(("/", "..")) or not shard.endswith(suffix):
            raise InputError(
                f"{source.label}/{index} names {shard!r:.100}, which is no *{suffix} file in the "
                f"model's folder; {FETCH_AGAIN}"
            )
    return tuple(sorted(shards))
