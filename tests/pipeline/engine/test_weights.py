"""Weights are mapped: one copy of them in memory, whatever the number of processes."""

import json
import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipeline.engine.checkpoints import load_janus
from pipeline.engine.paged.attention import Cache
from pipeline.engine.tiny import build_tiny

WIDE = {"hidden_size": 1024, "intermediate_size": 4096, "vocab_size": 8192}
PARTS = {
    "text_config": WIDE,
    "vision_config": {"projection_dim": 1024},
    "vq_config": {"projection_dim": 1024, "image_token_embed_dim": 1024},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose weights are float32 in one file."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    build_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of about 200 MB: enough to be seen in a process's memory."""
    folder = tmp_path_factory.mktemp("models") / "large"
    build_tiny(folder, sizes=PARTS)
    return folder


def loaded(folder: Path, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return load_janus(folder, dtype=dtype, device="cpu").model.state_dict()


def mapped_spans(path: Path) -> Iterator[range]:
    """The addresses at which this process has mapped a file."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, name = line.split(maxsplit=5)
        if name == str(path.resolve()):
            start, stop = (int(address, 16) for address in span.split("-"))
            yield range(start, stop)


def copied(weights: dict[str, Tensor], path: Path) -> list[str]:
    """The names of weights that do not lie in the mapped file."""
    spans = list(mapped_spans(path))
    return [
        name
        for name, weight in weights.items()
        if not any(weight.data_ptr() in span for span in spans)
    ]


def test_parameters_are_the_mapped_file_itself(folder: Path):
    weights = loaded(folder)

    assert copied(weights, folder / "model.safetensors") == []


def test_parameters_of_a_torch_file_are_the_mapped_file_itself(folder: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.glob("*.json"):
        (copy / path.name).write_bytes(path.read_bytes())
    torch.save(
        {name: weight.clone() for name, weight in loaded(folder).items()},
        copy / "pytorch_model.bin",
    )

    weights = loaded(copy)

    assert copied(weights, copy / "pytorch_model.bin") == []
    assert all(torch.equal(weight, weights[name]) for name, weight in loaded(folder).items())


def test_another_dtype_is_a_copy_of_its_own(folder: Path):
    weights = loaded(folder, torch.bfloat16)

    assert len(copied(weights, folder / "model.safetensors")) == len(weights)
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    assert all(
        torch.equal(weight.bfloat16(), weights[name]) for name, weight in loaded(folder).items()
    )


def test_no_buffer_is_left_empty(folder: Path):
    model = load_janus(folder, dtype=torch.float32, device="cpu").model
    text = json.loads((folder / "config.json").read_text())["text_config"]
    width = text["hidden_size"] // text["num_attention_heads"]
    exponents = torch.arange(0, width, 2, dtype=torch.float32) / width
    buffers = dict(model.named_buffers())

    frequencies = buffers["model.language_model.rotary_emb.inv_freq"]
    assert torch.equal(frequencies, 1 / text["rope_parameters"]["rope_theta"] ** exponents)
    assert buffers["model.vision_model.embeddings.position_ids"].tolist() == [list(range(36))]


def test_who_writes_to_a_parameter_does_not_change_the_file(folder: Path):
    before = (folder / "model.safetensors").read_bytes()

    for weight in loaded(folder).values():
        weight.zero_()

    assert (folder / "model.safetensors").read_bytes() == before


def test_weights_at_odd_addresses_are_moved(folder: Path, tmp_path: Path):
    """Files of the first safetensors have headers of any length."""
    copy = tmp_path / "odd"
    copy.mkdir()
    for path in folder.glob("*.json"):
        (copy / path.name).write_bytes(path.read_bytes())
    content = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].rstrip()
    header += b" " * (1 + (-len(header)) % 4)
    (copy / "model.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + content[8 + length :]
    )

    weights = loaded(copy)

    assert all(weight.data_ptr() % 4 == 0 for weight in weights.values())
    assert all(torch.equal(weight, weights[name]) for name, weight in loaded(folder).items())


@pytest.mark.slow
def test_a_second_process_takes_no_memory_for_weights(folder: Path, large: Path):
    weights_bytes = (large / "model.safetensors").stat().st_size
    context = multiprocessing.get_context("spawn")
    opened = [context.Pipe() for _ in range(2)]
    processes = [
        context.Process(target=_open_and_wait, args=(folder, large, child)) for _, child in opened
    ]
    for process, (_, child) in zip(processes, opened, strict=True):
        process.start()
        child.close()
    try:
        own = [parent.recv() for parent, _ in opened]
    finally:
        for (parent, _), process in zip(opened, processes, strict=True):
            parent.send("end")
            process.join()

    assert weights_bytes > 150e6
    assert max(own) < 0.5 * weights_bytes  # looking leaves some; a copy would be all of it


def _open_and_wait(small: Path, folder: Path, parent: Connection) -> None:
    """Say how many bytes of its own a process has more once all weights were read."""
    torch.set_num_threads(1)
    loaded(small)  # and so all code that loads
    before = _own_bytes()
    weights = loaded(folder)
    assert all(weight.isfinite().all() for weight in weights.values())
    parent.send(_own_bytes() - before)
    parent.recv()


def _own_bytes() -> int:
    lines = Path(f"/proc/{os.getpid()}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss_Anon:"))


def test_a_cache_takes_memory_when_it_is_used(folder: Path):
    config = load_janus(folder, dtype=torch.float32, device="cpu").text_config
    before = _own_bytes()

    cache = Cache(config, 400_000, torch.float32, "cpu")
    empty = _own_bytes() - before
    cache.keys.fill_(1)

    assert cache.keys.nbytes > 100e6
    assert empty < 20e6
    assert _own_bytes() - before > 0.9 * cache.keys.nbytes
    assert not cache.values.any()
