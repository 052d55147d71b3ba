"""Checkpoints of a published shape with random weights.

`python -m benchmarks.checkpoint 1b FOLDER` writes one in Hugging Face's format and bfloat16, with a
tokenizer of one token a byte (the other words of the published vocabulary are never said). It is
loaded, planned and run as a real one is, and as large; what it says and draws is noise. Weights go
to the disk one at a time. `tiny` is for tests of this code.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from benchmarks.harness import Rows, commit, show
from benchmarks.random_janus import JANUS_1B, JANUS_7B, SMALL, Shape, config_of
from pipeline.engine.tiny import build_tiny
from schemas.json_values import read_json_object

if TYPE_CHECKING:
    from schemas.json_values import JsonObject

SHAPES = {"tiny": SMALL, "1b": JANUS_1B, "7b": JANUS_7B}
SHARD_BYTES = 5 * 10**9  # what the published ones are cut to
_GAIN = 2.0  # what a layer makes of unit inputs, as in the bundled random model
_COPIED = ("tokenizer.json", "preprocessor_config.json")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="made, and not there yet")
    parser.add_argument("--shard-bytes", type=int, default=SHARD_BYTES, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    shape = SHAPES[options.shape]
    rows = write_checkpoint(
        shape, options.folder, seed=options.seed, shard_bytes=options.shard_bytes
    )
    show({"benchmark": "checkpoint", "shape": shape.name} | rows | {"commit": commit()})


def write_checkpoint(
    shape: Shape, folder: Path, *, seed: int = 0, shard_bytes: int = SHARD_BYTES
) -> Rows:
    """Write a checkpoint into `folder`, which must not exist yet, and say how large it is.

    Equal arguments give equal weights. Holds one weight at a time, the largest twice.
    """
    started = time.monotonic()
    folder.mkdir(parents=True)
    config = _write_small_files(shape, folder)
    shards = _dealt(_shapes(config), shard_bytes)
    names = [
        f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        for number in range(1, len(shards) + 1)
    ]
    if len(shards) == 1:
        names = ["model.safetensors"]
    else:
        _write_index(folder, dict(zip(names, shards, strict=True)))
    generator = torch.Generator().manual_seed(seed)
    for name, shard in zip(names, shards, strict=True):
        _write_shard(folder / name, shard, generator)
    num_weights = sum(math.prod(size) for shard in shards for size in shard.values())
    return {
        "weights": num_weights,
        "gigabytes": round(2 * num_weights / 1e9, 3),
        "files": len(names),
        "seconds": round(time.monotonic() - started, 1),
    }


def _write_small_files(shape: Shape, folder: Path) -> "JsonObject":
    """Everything but the weights. Returns the config."""
    with tempfile.TemporaryDirectory() as scratch:
        tiny = Path(scratch) / "tiny"
        sides = {"image_size": shape.image_size}
        build_tiny(tiny, sizes={"vision_config": sides})
        for name in _COPIED:
            (folder / name).write_bytes((tiny / name).read_bytes())
        bundled = read_json_object((tiny / "config.json").read_bytes())
    config: JsonObject = {
        **{name: value for name, value in bundled.items() if not isinstance(value, dict)},
        **config_of(shape),
        "dtype": "bfloat16",
    }
    text, tiny_text = config["text_config"], bundled["text_config"]
    assert isinstance(text, dict)
    assert isinstance(tiny_text, dict)
    text |= {name: value for name, value in tiny_text.items() if name.endswith("_token_id")}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return config


def _shapes(config: "JsonObject") -> dict[str, tuple[int, ...]]:
    from transformers import JanusConfig, JanusForConditionalGeneration

    with torch.device("meta"):
        model = JanusForConditionalGeneration(JanusConfig.from_dict(config))
    return {name: tuple(weight.shape) for name, weight in model.state_dict().items()}


def _dealt(
    shapes: dict[str, tuple[int, ...]], shard_bytes: int
) -> list[dict[str, tuple[int, ...]]]:
    """The weights in files of at most so many bytes, but for a weight that is larger by itself."""
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    num_bytes = 0
    for name, size in shapes.items():
        num_more = 2 * math.prod(size)
        if shards[-1] and num_bytes + num_more > shard_bytes:
            shards.append({})
            num_bytes = 0
        shards[-1][name] = size
        num_bytes += num_more
    return shards


def _write_index(folder: Path, shards: dict[str, dict[str, tuple[int, ...]]]) -> None:
    weight_map = {name: file for file, shard in shards.items() for name in shard}
    total = sum(2 * math.prod(size) for shard in shards.values() for size in shard.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def _write_shard(
    path: Path, shapes: dict[str, tuple[int, ...]], generator: torch.Generator
) -> None:
    """A safetensors file: the header's length, the header, and the weights one behind the other."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    stop = 0
    for name, size in shapes.items():
        start, stop = stop, stop + 2 * math.prod(size)
        header[name] = {"dtype": "BF16", "shape": size, "data_offsets": [start, stop]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for weight in _weights(shapes, generator):
            weight.view(torch.uint8).numpy().tofile(file)


def _weights(shapes: dict[str, tuple[int, ...]], generator: torch.Generator) -> Iterator[Tensor]:
    """bfloat16, flat: norms and biases that do nothing, and uniform numbers for the others."""
    for name, size in shapes.items():
        weight = torch.empty(math.prod(size), dtype=torch.bfloat16)
        if len(size) == 1:
            yield weight.fill_(float(name.endswith("weight")))
        else:
            reach = _GAIN * math.sqrt(3 / math.prod(size[1:]))
            yield weight.uniform_(-reach, reach, generator=generator)


if __name__ == "__main__":
    main(sys.argv[1:])
