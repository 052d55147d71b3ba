"""Train the toy Janus from nothing: `python -m pipeline.toy.training.train --out DIR`.

Three parts after each other: the decoder, the language model with its vision and heads, and the
encoder. The same command goes on where an interrupted one stopped. It uses a GPU if there is one.
Leaves the finished model in `DIR/weights`, as it was after 30 % of its lessons in `DIR/weights-30`,
and what the lessons had made of it by then, without the decoder, in `DIR/early`.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from pipeline.engine.checkpoints import Janus, digest_of, load_janus
from pipeline.plan.packs import load_pack
from pipeline.toy.model import (
    new_model,
    toy_config,
    write_card,
    write_small_files,
    write_student,
    write_weights,
)
from pipeline.toy.training.codec import train_decoder, train_encoder
from pipeline.toy.training.student import Progress, TrainingPlan, save_whole, train_student
from pipeline.toy.training.vocabulary import special_ids, write_tokenizer

SEED = 0
_DECODER_STEPS = 2800
_ENCODER_STEPS = 600
_LESSON_STEPS = 12800
_EARLY_SHARE = 0.3


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """A training from nothing: how long it is, and where its files are."""

    out: Path
    steps_share: float = 1.0  # of the steps of a full training

    def steps(self, full: int) -> int:
        return max(2, round(full * self.steps_share))

    @property
    def draft(self) -> Path:
        """The folder of the untrained model."""
        return self.out / "draft"

    def part(self, name: str) -> Path:
        """The file that a finished part of the training is kept in."""
        return self.out / f"{name}.pt"

    @property
    def plan(self) -> TrainingPlan:
        num_steps = self.steps(_LESSON_STEPS)
        return TrainingPlan(
            folder=self.draft,
            record=self.part("lessons"),
            num_steps=num_steps,
            kept={
                max(1, round(num_steps * _EARLY_SHARE)): self.part("student-30"),
                num_steps: self.part("student-100"),
            },
            seed=SEED,
        )


def main(arguments: list[str] | None = None) -> None:
    """Train as the command line says."""
    parser = argparse.ArgumentParser(description="Train the toy Janus from nothing.")
    parser.add_argument("--out", type=Path, default=Path("toy-janus"), metavar="DIR")
    parser.add_argument("--steps-share", type=float, default=1.0, help="0.01 for a quick try")
    options = parser.parse_args(arguments)
    folder = train(Training(out=options.out, steps_share=options.steps_share))
    _say(f"the toy Janus is in {folder}")


def train(training: Training) -> Path:
    """Do what is left to do, and return the folder of the finished model.

    A part that an earlier call finished is read from its file.
    """
    janus = _open(training)
    vq = janus.model.model.vqmodel

    def fit_decoder() -> None:
        train_decoder(vq, num_steps=training.steps(_DECODER_STEPS), seed=SEED, say=_say)

    def fit_encoder() -> None:
        train_encoder(vq, num_steps=training.steps(_ENCODER_STEPS), seed=SEED, say=_say)

    _once(training.part("decoder"), vq, fit_decoder)
    progress = train_student(janus, training.plan, partial(_open_to_help, training), _say)
    _once(training.part("encoder"), vq, fit_encoder)
    for name, share in (("30", _EARLY_SHARE), ("100", 1.0)):
        _take_lessons_of(training.part(f"student-{name}"), janus)
        folder = training.out / ("weights" if share == 1 else f"weights-{name}")
        _finish(janus, training, progress, folder, share)
        if share < 1:
            write_student(training.out / "early" / "student.safetensors", janus.model)
    return training.out / "weights"


def _open(training: Training) -> Janus:
    """The untrained model with its tokenizer, made the first time and loaded like any other."""
    folder = training.draft
    if not (folder / "model.safetensors").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_tokenizer(folder, seed=SEED)
        ids = special_ids(folder)
        config = toy_config(ids.pop("vocab_size"), ids)
        write_small_files(folder, config)
        torch.manual_seed(SEED)
        write_weights(folder, new_model(config), dtype=torch.float32)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_janus(folder, dtype=torch.float32, device=device)


def _open_to_help(training: Training) -> Janus:
    """The same in another process, once the decoder is trained."""
    janus = _open(training)
    _once(training.part("decoder"), janus.model.model.vqmodel, lambda: None)
    return janus


def _once(path: Path, module: torch.nn.Module, fit: Callable[[], None]) -> None:
    """Fit a module, or take what an earlier call left."""
    if path.is_file():
        module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        return
    fit()
    save_whole(module.state_dict(), path)


def _take_lessons_of(path: Path, janus: Janus) -> None:
    weights = torch.load(path, map_location="cpu", weights_only=True)
    left = janus.model.load_state_dict(weights, strict=False)
    assert all(".vqmodel." in name for name in left.missing_keys)


def _finish(
    janus: Janus, training: Training, progress: Progress, folder: Path, share: float
) -> None:
    """Write a model's folder: bfloat16, with a card."""
    folder.mkdir(exist_ok=True)
    for name in ("config.json", "preprocessor_config.json", "tokenizer.json"):
        (folder / name).write_bytes((training.draft / name).read_bytes())
    write_weights(folder, janus.model, dtype=torch.bfloat16)
    pack = load_pack("toy")
    write_card(
        folder,
        {
            "pack": pack.name,
            "pack_digest": pack.digest,
            "about": "A small Janus that thinks, draws and judges scenes of the toy world.",
            "made_by": "python -m pipeline.toy.training.train",
            "data": "scenes, prompts and critiques of pipeline.toy, made as they are learned",
            "seed": SEED,
            "share_of_lessons": share,
            "steps": {
                "decoder": training.steps(_DECODER_STEPS),
                "encoder": training.steps(_ENCODER_STEPS),
                "lessons": round(progress.step * share),
            },
            "exercises": round(progress.num_exercises * share),
            "tokens": round(progress.num_tokens * share),
            "lesson_minutes": round(progress.seconds * share / 60, 1),
            "machine": f"{janus.model.device.type}, {os.cpu_count()} cores, {platform.machine()}",
            "torch": torch.__version__,
            "sha256": digest_of(folder),
        },
    )


def _say(line: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
