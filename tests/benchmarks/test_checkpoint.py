"""Random checkpoints of a published shape are such that everything else can work with them."""

import json
from pathlib import Path

import torch

from benchmarks.checkpoint import write_checkpoint
from benchmarks.random_janus import SMALL
from pipeline.engine.checkpoints import check_janus, load_janus
from pipeline.engine.engine import Engine
from pipeline.engine.soundness import check_weights
from pipeline.twig.requests import Canvas, Message, Text
from schemas.trace import Role


def test_a_checkpoint_in_several_files_is_planned_loaded_and_asked(tmp_path: Path):
    folder = tmp_path / "small"

    written = write_checkpoint(SMALL, folder, shard_bytes=200_000)

    assert written["files"] > 2
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert check_janus(folder).own_dtype == "bfloat16"
    janus = load_janus(folder, dtype=torch.bfloat16, device="cpu")
    check_weights(janus.model, folder)
    question = Text(
        role=Role.REFLECT,
        temperature=0,
        messages=(Message(role="user", text="what is it?"),),
        pictures=(Canvas(tuple(range(36))),),
        max_tokens=4,
        with_logp=True,
    )
    engine = Engine(janus, kv_bytes=2**22, max_rows=4)
    engine.submit(7, question)
    answers = [answer for _ in range(9) for answer in engine.poll()]
    assert [request_id for request_id, _ in answers] == [7]
    assert len(answers[0][1].token_ids) > 0


def test_equal_seeds_give_equal_bytes(tmp_path: Path):
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        write_checkpoint(SMALL, tmp_path / name, seed=seed)

    first, again, other = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "again", "other")
    )
    assert first == again
    assert first != other
