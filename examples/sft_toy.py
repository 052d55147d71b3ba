"""Fine-tune a small Janus on a curated set: `python examples/sft_toy.py MODEL SET OUT`.

MODEL is a checkpoint folder (or `toy`), SET what `coppice curate` wrote, OUT a new checkpoint
folder that `--model` takes. Every step learns thoughts, critiques and drawings, each as much as the
others, and drawings as they were sampled: under guidance.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, concatenate_datasets, disable_progress_bars, load_dataset

from coppice import Collator, janus_loss
from pipeline.engine.checkpoints import load_janus, resolve_checkpoint
from pipeline.toy.model import copy_small_files, write_weights

_ROLES = ("think", "reflect", "draw")
_ROWS = 8  # of each role in a step
_RATE = 3e-4
_WARM_SHARE = 0.1  # of the steps: AdamW's moments are not worth much in the first ones
_LARGEST_GRADIENT = 1.0


def fine_tune(model: str, training_set: Path, out: Path, *, num_steps: int, seed: int) -> float:
    """Learn a set for so many steps, write the checkpoint, and return the last steps' mean loss."""
    folder = resolve_checkpoint(model)
    janus = load_janus(folder, dtype=torch.float32, device="cpu")
    collate = Collator.for_janus(janus, as_sampled=True)
    learned = [weight for name, weight in janus.model.named_parameters() if ".vqmodel." not in name]
    for weight in learned:
        weight.requires_grad_(True)
    optimiser = torch.optim.AdamW(learned, lr=_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate_at(step, num_steps))
    roles = [shuffled(rows, seed) for rows in rows_by_role(training_set)]
    losses = []
    for _ in range(num_steps):
        losses.append(0.0)
        for rows in roles:
            loss = janus_loss(janus.model, collate(next(rows))) / len(roles)
            loss.backward()
            losses[-1] += loss.item()
        torch.nn.utils.clip_grad_norm_(learned, _LARGEST_GRADIENT)
        optimiser.step()
        rate.step()
        optimiser.zero_grad()
    copy_small_files(folder, out)
    write_weights(out, janus.model, dtype=torch.float32)
    last = losses[-max(1, num_steps // 10) :]
    return sum(last) / len(last)


def _rate_at(step: int, num_steps: int) -> float:
    """A share of the full rate: up in a straight line, then down to 0 in another."""
    rise = (step + 1) / max(1, num_steps * _WARM_SHARE)
    fall = (num_steps - step) / (num_steps * (1 - _WARM_SHARE))
    return min(1.0, rise, fall)


def rows_by_role(training_set: Path) -> list[Dataset]:
    """The rows to learn of each role that the set has."""
    disable_progress_bars()
    files = {
        role: sorted(str(path) for path in training_set.glob(f"sft/{role}_*/train-*.parquet"))
        for role in _ROLES
    }
    return [
        concatenate_datasets(
            [load_dataset("parquet", data_files=path, split="train") for path in paths]
        )
        for paths in files.values()
        if paths
    ]


def shuffled(rows: Dataset, seed: int) -> Iterator[list[dict[str, Any]]]:
    """A few rows at a time, shuffled anew whenever all were had, without end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        for indices in torch.randperm(len(rows), generator=generator).split(_ROWS):
            yield list(rows.select(indices.tolist()))


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tune a small Janus on a curated set.")
    parser.add_argument("model")
    parser.add_argument("set", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    loss = fine_tune(
        options.model, options.set, options.out, num_steps=options.steps, seed=options.seed
    )
    sys.stdout.write(f"loss {loss:.4f}; the checkpoint is in {options.out}\n")


if __name__ == "__main__":
    main()
