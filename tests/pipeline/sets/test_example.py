"""The example that fine-tunes a Janus on a curated set, and the early toy that it starts from."""

from pathlib import Path

import torch

from examples.sft_toy import fine_tune
from pipeline.engine.checkpoints import load_janus, resolve_checkpoint
from pipeline.store.objects import Store
from pipeline.toy.model import write_early
from tests.pipeline.sets.test_write import ALL, curate


def test_a_curated_set_makes_another_model(toy_run: Store, tmp_path: Path):
    curate(toy_run, ALL, tmp_path / "set")
    write_early(tmp_path / "early")

    loss = fine_tune(
        str(tmp_path / "early"), tmp_path / "set", tmp_path / "tuned", num_steps=3, seed=0
    )

    assert 0 < loss < 5
    before, after = (_weights(tmp_path / name) for name in ("early", "tuned"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not any(".vqmodel." in name for name in changed)


def test_the_early_toy_has_the_decoder_of_the_bundled_one_and_thoughts_of_its_own(tmp_path: Path):
    write_early(tmp_path)
    early, whole = _weights(tmp_path), _weights(resolve_checkpoint("toy"))

    differ = {name for name in whole if not torch.equal(early[name], whole[name])}
    assert early.keys() == whole.keys()
    assert differ
    assert not any(".vqmodel." in name for name in differ)


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_janus(folder, dtype=torch.float32, device="cpu").model.state_dict()
