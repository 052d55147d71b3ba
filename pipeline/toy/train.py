"""Train the toy Janus from nothing: `python -m pipeline.toy.train --out DIR`.

Three parts after each other: the decoder, the language model with its vision and heads, and the
encoder. The same command goes on where an interrupted one stopped. It uses a GPU if there is one.
Leaves the finished model in `DIR/weights`, and as it was after 30 % of its lessons in
`DIR/weights-30`.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed import all_reduce, destroy_process_group, init_process_group

from pipeline.engine.checkpoints import Janus, digest_of, load_janus
from pipeline.packs import load_pack
from pipeline.toy.codec import train_decoder, train_encoder
from pipeline.toy.model import (
    WIDTH,
    new_model,
    toy_config,
    write_card,
    write_small_files,
    write_weights,
)
from pipeline.toy.pupil import Batch, Losses, batches, losses_of, rate_at
from pipeline.toy.vocabulary import special_ids, write_tokenizer

if TYPE_CHECKING:
    from transformers import JanusForConditionalGeneration

SEED = 0
_DECODER_STEPS = 1800
_ENCODER_STEPS = 600
_PUPIL_STEPS = 6800
_PEAK_RATE = 2.5e-3
_WEIGHT_DECAY = 0.01
_EARLY_SHARE = 0.3
_SAID_EVERY, _SAVED_EVERY = 50, 200  # steps


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a training does, and where."""

    out: Path
    steps_share: float = 1.0  # of the steps of a full training

    def steps(self, full: int) -> int:
        return max(2, round(full * self.steps_share))


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far the lessons have come."""

    step: int = 0  # the next one
    num_tokens: int = 0
    num_exercises: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Team:
    """The processes that learn together, and which of them this one is."""

    rank: int
    size: int
    meeting: Path  # a file where they find each other


def main(arguments: list[str] | None = None) -> None:
    """Train as the command line says."""
    parser = argparse.ArgumentParser(description="Train the toy Janus from nothing.")
    parser.add_argument("--out", type=Path, default=Path("toy-janus"), metavar="DIR")
    parser.add_argument("--steps-share", type=float, default=1.0, help="0.01 for a quick try")
    options = parser.parse_args(arguments)
    folder = train(Plan(out=options.out, steps_share=options.steps_share))
    _say(f"the toy Janus is in {folder}")


def train(plan: Plan) -> Path:
    """Do what is left to do, and return the folder of the finished model."""
    janus = _open(plan.out)
    vq = janus.model.model.vqmodel

    def fit_decoder() -> None:
        train_decoder(vq, num_steps=plan.steps(_DECODER_STEPS), seed=SEED, say=_say)

    def fit_encoder() -> None:
        train_encoder(vq, num_steps=plan.steps(_ENCODER_STEPS), seed=SEED, say=_say)

    _once(plan.out / "decoder.pt", vq, fit_decoder)
    progress = _teach(janus, plan)
    _once(plan.out / "encoder.pt", vq, fit_encoder)
    for name, share in (("weights-30", _EARLY_SHARE), ("weights", 1.0)):
        _load_pupil(janus.model, plan.out / f"pupil-{share:.0%}.pt")
        _finish(janus, plan, progress, plan.out / name, share)
    return plan.out / "weights"


def _open(out: Path) -> Janus:
    """The untrained model with its tokenizer, made the first time and loaded like any other."""
    draft = out / "draft"
    if not (draft / "model.safetensors").is_file():
        draft.mkdir(parents=True, exist_ok=True)
        write_tokenizer(draft, seed=SEED)
        ids = special_ids(draft)
        config = toy_config(ids.pop("vocab_size"), ids)
        write_small_files(draft, config)
        torch.manual_seed(SEED)
        write_weights(draft, new_model(config), dtype=torch.float32)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_janus(draft, dtype=torch.float32, device=device)


def _once(path: Path, module: torch.nn.Module, fit: Callable[[], None]) -> None:
    """Fit a module, or take what an earlier call left."""
    if path.is_file():
        module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        return
    fit()
    _save(module.state_dict(), path)


def _teach(janus: Janus, plan: Plan) -> Progress:
    """The lessons: all of the model but its VQ part. Takes up what an earlier call left.

    On a CPU a process for each of two cores takes its own batches, and their gradients are
    averaged: that is nearly twice as fast as two threads at matrices this small.
    """
    size = 1 if janus.model.device.type == "cuda" else min(2, os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as meeting:
        team = Team(rank=0, size=size, meeting=Path(meeting) / "point")
        helpers = [
            get_context("spawn").Process(
                target=_help, args=(plan, replace(team, rank=rank)), daemon=False
            )
            for rank in range(1, size)
        ]
        for helper in helpers:
            helper.start()
        try:
            return _learn(janus, plan, team)
        finally:
            for helper in helpers:
                helper.join(timeout=60)
                helper.terminate()


def _help(plan: Plan, team: Team) -> None:
    """Another process's part in the lessons."""
    janus = _open(plan.out)
    vq = torch.load(plan.out / "decoder.pt", map_location="cpu", weights_only=True)
    janus.model.model.vqmodel.load_state_dict(vq)
    _learn(janus, plan, team)


def _learn(janus: Janus, plan: Plan, team: Team) -> Progress:
    model, num_steps = janus.model, plan.steps(_PUPIL_STEPS)
    probe = torch.nn.Linear(WIDTH, janus.geometry.num_codes, device=model.device)
    torch.nn.init.zeros_(probe.weight)  # it must not shout before it knows anything
    torch.nn.init.zeros_(probe.bias)
    weights = [*_pupil_of(model).values(), *probe.parameters()]
    optimiser = torch.optim.AdamW(
        weights, lr=_PEAK_RATE, betas=(0.9, 0.98), weight_decay=_WEIGHT_DECAY
    )
    progress = _resume(model, probe, optimiser, plan.out / "lessons.pt")
    seed = [SEED, team.rank, progress.step]
    if team.size > 1:
        torch.set_num_threads(1)
        init_process_group(
            "gloo", init_method=f"file://{team.meeting}", rank=team.rank, world_size=team.size
        )
    for weight in weights:
        weight.requires_grad_(True)
    noise = torch.Generator().manual_seed(sum(seed))
    diary = _Diary(num_steps, progress, team)
    lessons = batches(plan.out / "draft", seed)
    for step in range(progress.step, num_steps):
        batch = next(lessons)
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, num_steps, peak=_PEAK_RATE)
        losses = losses_of(model, probe, batch, noise)
        optimiser.zero_grad()
        losses.total.backward()
        _share_gradients(weights, team)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        progress = diary.write(batch, losses)
        if not team.rank:
            _keep(model, probe, optimiser, plan, progress)
    lessons.close()
    for weight in weights:
        weight.requires_grad_(False)
    if team.size > 1:
        destroy_process_group()
    return progress


def _share_gradients(weights: list[torch.nn.Parameter], team: Team) -> None:
    """Average the gradients over the team. A weight that a batch does not touch has gradient 0."""
    for weight in weights:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
    if team.size == 1:
        return
    flat = torch.cat([weight.grad.flatten() for weight in weights if weight.grad is not None])
    all_reduce(flat)
    flat /= team.size
    for weight, part in zip(
        weights, flat.split([weight.numel() for weight in weights]), strict=True
    ):
        weight.grad = part.view_as(weight)


def _keep(
    model: "JanusForConditionalGeneration",
    probe: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    plan: Plan,
    progress: Progress,
) -> None:
    """Save what is due after this step."""
    num_steps = plan.steps(_PUPIL_STEPS)
    for share in (_EARLY_SHARE, 1.0):
        if progress.step == max(1, round(num_steps * share)):
            _save(_pupil_of(model), plan.out / f"pupil-{share:.0%}.pt")
    if progress.step % _SAVED_EVERY == 0 or progress.step == num_steps:
        _save_progress(model, probe, optimiser, progress, plan.out / "lessons.pt")


class _Diary:
    """Counts what has been learned, and says so every few steps."""

    def __init__(self, num_steps: int, progress: Progress, team: Team) -> None:
        self._team = team
        self._num_steps = num_steps
        self._first, self._now = progress, progress
        self._started = time.monotonic()
        self._losses: dict[str, list[float]] = {}

    def write(self, batch: Batch, losses: Losses) -> Progress:
        elapsed = time.monotonic() - self._started
        self._now = Progress(
            step=self._now.step + 1,
            num_tokens=self._now.num_tokens + batch.num_tokens * self._team.size,
            num_exercises=self._now.num_exercises + len(batch.ids) * self._team.size,
            seconds=self._first.seconds + elapsed,
        )
        for name, loss in losses.by_name.items():
            if loss.requires_grad:  # a batch without any has a constant for a loss
                self._losses.setdefault(name, []).append(loss.item())
        if self._team.rank:
            return self._now
        if self._now.step % _SAID_EVERY == 0 or self._now.step == self._num_steps:
            self._say(elapsed)
        return self._now

    def _say(self, elapsed: float) -> None:
        means = ", ".join(
            f"{name} {sum(values) / len(values):.4f}" for name, values in self._losses.items()
        )
        self._losses = {}
        done = self._now.step - self._first.step
        rate = (self._now.num_tokens - self._first.num_tokens) / elapsed
        left = elapsed / done * (self._num_steps - self._now.step)
        _say(
            f"lessons step {self._now.step} of {self._num_steps}, loss of {means}, "
            f"{rate:.0f} tokens/s, {left / 60:.1f} min left"
        )


def _pupil_of(model: "JanusForConditionalGeneration") -> dict[str, torch.Tensor]:
    """Every weight but the VQ part's, by name."""
    return {name: weight for name, weight in model.named_parameters() if ".vqmodel." not in name}


def _load_pupil(model: "JanusForConditionalGeneration", path: Path) -> None:
    left = model.load_state_dict(
        torch.load(path, map_location="cpu", weights_only=True), strict=False
    )
    assert all(".vqmodel." in name for name in left.missing_keys)


def _resume(
    model: "JanusForConditionalGeneration",
    probe: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    path: Path,
) -> Progress:
    if not path.is_file():
        return Progress()
    saved = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(saved["pupil"], strict=False)
    probe.load_state_dict(saved["probe"])
    optimiser.load_state_dict(saved["optimiser"])
    return Progress(**saved["progress"])


def _save_progress(
    model: "JanusForConditionalGeneration",
    probe: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    progress: Progress,
    path: Path,
) -> None:
    fields = {name: getattr(progress, name) for name in Progress.__dataclass_fields__}
    _save(
        {
            "pupil": _pupil_of(model),
            "probe": probe.state_dict(),
            "optimiser": optimiser.state_dict(),
            "progress": fields,
        },
        path,
    )


def _save(content: Any, path: Path) -> None:
    """Whole or not at all: a training may be stopped at any time."""
    draft = path.with_suffix(".part")
    torch.save(content, draft)
    os.replace(draft, path)


def _finish(janus: Janus, plan: Plan, progress: Progress, folder: Path, share: float) -> None:
    """Write a model's folder: bfloat16, with a card."""
    folder.mkdir(exist_ok=True)
    draft = plan.out / "draft"
    for name in ("config.json", "preprocessor_config.json", "tokenizer.json"):
        (folder / name).write_bytes((draft / name).read_bytes())
    write_weights(folder, janus.model, dtype=torch.bfloat16)
    pack = load_pack("toy")
    write_card(
        folder,
        {
            "pack": pack.name,
            "pack_digest": pack.digest,
            "about": "A small Janus that thinks, draws and judges scenes of the toy world.",
            "made_by": "python -m pipeline.toy.train",
            "data": "scenes, prompts and critiques of pipeline.toy, made as they are learned",
            "seed": SEED,
            "share_of_lessons": share,
            "steps": {
                "decoder": plan.steps(_DECODER_STEPS),
                "encoder": plan.steps(_ENCODER_STEPS),
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
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
