"""Models on the hub: planned from headers, pinned to a commit, and the same as in a folder.

The tests ask a stand-in on loopback, by processes of their own: the client reads its endpoint, its
cache and whether it is offline once, when it is imported, which takes seconds.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.engine.checkpoints import digest_of
from pipeline.engine.tiny import build_tiny
from tests.pipeline.engine.model_files.hub import Hub, serving

WEIGHTS = "model.safetensors"
_SCRIPT = """
import json, sys
from schemas.errors import InputError
from schemas.config import ModelConfig
from pipeline.plan.models import describe_model
from pipeline.engine.checkpoints import planned_model

def answer(name):
    if name.startswith("{"):
        planned = json.loads(name)
        model = ModelConfig(name=planned["name"], digest=planned["digest"])
        return {"folder": str(planned_model(model, planned["files"]))}
    facts = describe_model(name)
    model = {**facts.model.model_dump(), "files": dict(facts.files)}
    return {"model": model, "dtype": facts.own_dtype, "layers": facts.num_layers}

for line in sys.stdin:
    try:
        told = answer(line.strip())
    except InputError as error:
        told = {"refused": str(error)}
    print(json.dumps(told), flush=True)
"""


class Machines:
    """Machines that plan models and fetch them: each has a cache, and a process online or not."""

    def __init__(self, hub: Hub, folder: Path):
        self._hub = hub
        self._folder = folder
        self._processes: dict[tuple[str, bool], subprocess.Popen[str]] = {}

    def ask(self, machine: str, *names: str, is_offline: bool = False) -> list[dict[str, Any]]:
        """What planning is told of models by name, and a node of models as they were planned."""
        if (machine, is_offline) not in self._processes:
            self._processes[machine, is_offline] = self._start(machine, is_offline)
        process = self._processes[machine, is_offline]
        assert process.stdin is not None
        assert process.stdout is not None
        answers = []
        for name in names:
            process.stdin.write(f"{name}\n")
            process.stdin.flush()
            answers.append(json.loads(process.stdout.readline()))
        return answers

    def _start(self, machine: str, is_offline: bool) -> "subprocess.Popen[str]":
        cache = self._folder / machine
        settings = {
            "HF_ENDPOINT": self._hub.url,
            "HF_HOME": str(cache / "hf"),
            "COPPICE_CACHE": str(cache),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": str(int(is_offline)),
            **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
        }
        return subprocess.Popen(
            [sys.executable, "-c", _SCRIPT],
            env=os.environ | settings,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def end(self) -> None:
        for process in self._processes.values():
            process.communicate()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build_tiny(tmp_path / "tiny")
    (tmp_path / "tiny" / "README.md").write_text("hello")
    return tmp_path / "tiny"


@pytest.fixture(scope="module")
def served() -> Iterator[Hub]:
    with serving() as server:
        yield server


@pytest.fixture
def hub(served: Hub) -> Hub:
    served.bodies_read.clear()
    return served


@pytest.fixture(scope="module")
def machines(served: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    machines = Machines(served, tmp_path_factory.mktemp("machines"))
    yield machines
    machines.end()


def test_a_model_is_planned_from_headers_and_known_as_from_a_folder(
    hub: Hub, folder: Path, machines: Machines
):
    commit = hub.push(folder)

    told, unknown = machines.ask("laptop", "owner/name", "owner/another")

    assert told["model"]["name"] == f"owner/name@{commit}"
    assert told["model"]["digest"] == digest_of(folder)[:16]
    assert (told["layers"], told["dtype"]) == (2, "float32")
    header = int.from_bytes((folder / WEIGHTS).read_bytes()[:8], "little")
    assert hub.bodies_read == [(WEIGHTS, 8), (WEIGHTS, header)]
    refused = unknown["refused"]
    assert refused.startswith("'owner/another' is not a folder, and could not be fetched")
    assert "\n" not in refused


@pytest.mark.slow
def test_what_was_planned_is_what_nodes_fetch_though_the_branch_moves(
    hub: Hub, folder: Path, tmp_path: Path, machines: Machines
):
    commit = hub.push(folder)
    planned = machines.ask("laptop", "owner/name")[0]["model"]
    build_tiny(tmp_path / "other", seed=1)
    moved = hub.push(tmp_path / "other")
    not_pinned = json.dumps(planned | {"name": "owner/name"})

    fetched, changed, anew = machines.ask("node", json.dumps(planned), not_pinned, "owner/name")

    fetched_folder = Path(fetched["folder"])
    assert digest_of(fetched_folder)[:16] == planned["digest"]
    assert not (fetched_folder / "README.md").exists()
    assert WEIGHTS in changed["refused"]
    assert planned["digest"] in changed["refused"]
    assert "tokenizer.json" not in changed["refused"]
    assert (planned["name"], anew["model"]["name"]) == (
        f"owner/name@{commit}",
        f"owner/name@{moved}",
    )
    assert anew["model"]["digest"] == digest_of(tmp_path / "other")[:16] != planned["digest"]


def test_pickled_shards_are_planned_from_their_headers_too(
    hub: Hub, folder: Path, machines: Machines
):
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    filler = max(weights, key=lambda name: weights[name].numel())
    shards = {"part-1.bin": [filler], "part-2.bin": [name for name in weights if name != filler]}
    for shard, names in shards.items():
        torch.save({name: weights[name] for name in names}, folder / shard)
    weight_map = {name: shard for shard, names in shards.items() for name in names}
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    commit = hub.push(folder)

    (told,) = machines.ask("laptop", f"owner/name@{commit}")

    assert told["model"]["digest"] == digest_of(folder)[:16]
    assert set(told["model"]["files"]) >= {"part-1.bin", "part-2.bin"}
    assert hub.num_bytes_read() < sum((folder / shard).stat().st_size for shard in shards) * 0.8


def test_what_a_node_would_refuse_is_refused_without_its_weights(
    hub: Hub, folder: Path, tmp_path: Path, machines: Machines
):
    weights = load_file(folder / WEIGHTS)
    spoilt = {
        "is missing": {f"a.{name}": weights[name] for name in list(weights)[1:]},
        "quantised": {name: weight.to(torch.float8_e4m3fn) for name, weight in weights.items()},
        "x is not part of the model": weights | {"x": torch.zeros(3)},
    }
    commits = []
    for number, changed in enumerate(spoilt.values()):
        copy = Path(shutil.copytree(folder, tmp_path / f"spoilt-{number}"))
        save_file(changed, copy / WEIGHTS)
        commits.append(hub.push(copy, branch=f"branch-{number}"))

    answers = machines.ask("laptop", *(f"owner/name@branch-{n}" for n in range(3)))

    for complaint, commit, told in zip(spoilt, commits, answers, strict=True):
        assert complaint in told["refused"]
        assert f"owner/name@{commit}" in told["refused"]
    assert hub.num_bytes_read() < 100_000


def test_a_fetched_model_is_planned_without_the_hub(hub: Hub, folder: Path, machines: Machines):
    commit = hub.push(folder)
    name = f"owner/name@{commit}"
    (online,) = machines.ask("laptop", name)
    (nothing,) = machines.ask("laptop", name, is_offline=True)
    machines.ask("laptop", json.dumps(online["model"]))

    offline, fetched = machines.ask("laptop", name, json.dumps(online["model"]), is_offline=True)

    assert "could not be fetched" in nothing["refused"]
    assert offline == online
    assert digest_of(Path(fetched["folder"]))[:16] == online["model"]["digest"]
