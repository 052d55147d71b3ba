"""Fine-tune a small Janus on a curated set: `python examples/sft_toy.py MODEL SET OUT`.

MODEL is a checkpoint folder (or `toy`), SET what `coppice curate` wrote, OUT a new checkpoint
folder that `--model` takes. All nine tasks are learned together, drawings as tokens.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from datasets import concatenate_datasets, disable_progress_bars, load_dataset

from pipeline.curate.collator import Collator, janus_loss
from pipeline.engine.checkpoints import load_janus, resolve_checkpoint
from pipeline.toy.model import copy_small_files, write_weights

_BATCH_ROWS = 24
_RATE = 3e-4
_LARGEST_GRADIENT = 1.0


def fine_tune(model: str, training_set: Path, out: Path, *, num_steps: int, seed: int) -> float:
    """Learn a set for so many steps, write the checkpoint, and return the last steps' mean loss."""
    folder = resolve_checkpoint(model)
    janus = load_janus(folder, dtype=torch.float32, device="cpu")
    collate = Collator.for_janus(janus, seed=seed)
    learned = [weight for name, weight in janus.model.named_parameters() if ".vqmodel." not in name]
    for weight in learned:
        weight.requires_grad_(True)
    optimiser = torch.optim.AdamW(learned, lr=_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    losses = []
    for step, rows in zip(range(num_steps), batches(training_set, collate, seed), strict=False):
        for group in optimiser.param_groups:
            group["lr"] = _RATE * (1 - step / num_steps)
        loss = janus_loss(janus.model, collate(rows))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, _LARGEST_GRADIENT)
        optimiser.step()
        losses.append(loss.item())
    copy_small_files(folder, out)
    write_weights(out, janus.model, dtype=torch.float32)
    last = losses[-num_steps // 10 :]
    return sum(last) / len(last)


def batches(training_set: Path, collate: Collator, seed: int) -> Iterator[list[dict[str, Any]]]:
    """Rows of all tasks, shuffled anew in each epoch, without end; like lengths together."""
    disable_progress_bars()
    tasks = sorted(path.parent.name for path in training_set.glob("sft/*/train-00000.parquet"))
    rows = concatenate_datasets(
        [
            load_dataset("parquet", data_files=str(training_set / f"sft/{task}/train-*.parquet"))[
                "train"
            ]
            for task in tasks
        ]
    )
    lengths = torch.tensor([len(ids) for ids in rows["input_ids"]])
    generator = torch.Generator().manual_seed(seed)
    while True:
        noise = torch.rand(len(rows), generator=generator)
        order = torch.argsort(lengths + 8 * noise)
        chunks = order.split(_BATCH_ROWS)
        for place in torch.randperm(len(chunks), generator=generator).tolist():
            yield list(rows.select(chunks[place].tolist()))
        collate.epoch += 1


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tune a small Janus on a curated set.")
    parser.add_argument("model")
    parser.add_argument("set", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    loss = fine_tune(
        options.model, options.set, options.out, num_steps=options.steps, seed=options.seed
    )
    sys.stdout.write(f"loss {loss:.4f}; the checkpoint is in {options.out}\n")


if __name__ == "__main__":
    main()
