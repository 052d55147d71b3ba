"""Fine-tune Janus-Pro on a curated set, on one GPU: `python examples/sft_janus.py MODEL SET OUT`.

MODEL is a checkpoint folder, a hub name or `toy`; SET what `coppice curate` wrote. Every step
learns thoughts, critiques and drawings, each as much as the others, and drawings as they were
sampled: under guidance. With --rank adapters alone are learned (LoRA, by `peft`) and OUT holds an
adapter; without it the language model, the heads and the embeddings of codes are.
"""

import argparse
import shutil
import sys
from pathlib import Path

import torch

from coppice import Collator, janus_loss
from examples.sft_toy import rows_by_role, shuffled
from pipeline.engine.checkpoints import load_janus, resolve_checkpoint

# Of the language model's layers and of the two layers between a hidden state and a code.
ADAPTED = (
    r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj)|.*generation_head\.(proj_out|vision_head)"
)


def fine_tune(
    model: str,
    training_set: Path,
    out: Path,
    *,
    num_steps: int,
    rank: int = 0,
    rate: float = 1e-5,
    device: str = "cuda",
    seed: int = 0,
) -> list[float]:
    """Learn a set for so many steps and write what was learned; the loss of each step."""
    folder = resolve_checkpoint(model)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    janus = load_janus(folder, dtype=dtype, device=device)
    collate = Collator.for_janus(janus, as_sampled=True, seed=seed)
    learned = janus.model.requires_grad_(False)
    if rank:
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=ADAPTED)
        learned = get_peft_model(janus.model, config)  # in place: the model has adapters now
    else:
        for name, weight in janus.model.named_parameters():
            weight.requires_grad_(not any(part in name for part in (".vqmodel.", ".vision_model.")))
    weights = [weight for weight in learned.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
    roles = [shuffled(rows, seed) for rows in rows_by_role(training_set)]
    losses = []
    for _ in range(num_steps):
        losses.append(0.0)
        for rows in roles:
            batch = {
                name: value.to(device) if isinstance(value, torch.Tensor) else value
                for name, value in collate(next(rows)).items()
            }
            loss = janus_loss(janus.model, batch) / len(roles)
            loss.backward()
            losses[-1] += loss.item()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        optimiser.zero_grad()
    if rank:
        learned.save_pretrained(out)
    else:
        janus.model.save_pretrained(out)
        for name in ("tokenizer.json", "preprocessor_config.json"):
            shutil.copy(folder / name, out / name)
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tune Janus-Pro on a curated set.")
    parser.add_argument("model")
    parser.add_argument("set", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rank", type=int, default=0, help="of adapters; 0: the whole model")
    parser.add_argument("--rate", type=float, default=1e-5)
    parser.add_argument("--device", default="cuda")
    told = parser.parse_args()
    losses = fine_tune(
        *(told.model, told.set, told.out),
        num_steps=told.steps,
        rank=told.rank,
        rate=told.rate,
        device=told.device,
    )
    sys.stdout.write(f"loss {losses[0]:.4f} to {losses[-1]:.4f}; see {told.out}\n")


if __name__ == "__main__":
    main()
