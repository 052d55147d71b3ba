"""The lessons: how the language model, its vision and its heads are trained.

On a CPU a process for each of two cores takes its own batches, and their gradients are averaged:
that is nearly twice as fast as two threads at matrices this small.
"""

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed import all_reduce, destroy_process_group, init_process_group

from pipeline.engine.checkpoints import Janus
from pipeline.toy.training.batches import TrainingBatch, endless_batches
from pipeline.toy.training.losses import Losses, Probe, losses_of

if TYPE_CHECKING:
    from transformers import JanusForConditionalGeneration

_PEAK_RATE = 1.2e-3
_WARM_STEPS = 200
_FALLING_SHARE = 0.15  # of the steps
_WEIGHT_DECAY = 0.01
_LARGEST_GRADIENT = 1.0
_SAID_EVERY, _SAVED_EVERY = 50, 200  # steps

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingPlan:
    """The lessons of a training. Every process of a team reads it alike."""

    folder: Path  # of the untrained model: its tokenizer writes the exercises
    record: Path  # the file that keeps how far it has come
    num_steps: int
    kept: dict[int, Path]  # after which steps the weights are kept, and where
    seed: int


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


Opener = Callable[[], Janus]
"""Opens the model with its decoder trained and the rest not. Helpers call it in their process."""


def train_student(janus: Janus, plan: TrainingPlan, opener: Opener, say: Say) -> Progress:
    """Take the lessons that are left. What is learned ends up in the model.

    The same plan goes on where an earlier call was interrupted. `say` is told a line now and then.
    """
    size = 1 if janus.model.device.type == "cuda" else min(2, os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as meeting:
        team = Team(rank=0, size=size, meeting=Path(meeting) / "point")
        helpers = [
            get_context("spawn").Process(
                target=_help, args=(plan, replace(team, rank=rank), opener)
            )
            for rank in range(1, size)
        ]
        for helper in helpers:
            helper.start()
        num_threads = torch.get_num_threads()
        try:
            return _learn(janus, plan, team, say)
        finally:
            torch.set_num_threads(num_threads)
            for helper in helpers:
                helper.join(timeout=60)
                helper.terminate()


def _help(plan: TrainingPlan, team: Team, opener: Opener) -> None:
    """Another process's part in the lessons."""
    _learn(opener(), plan, team, lambda line: None)


def _learn(janus: Janus, plan: TrainingPlan, team: Team, say: Say) -> Progress:
    student = Student(janus)
    progress = student.resume(plan.record)
    seed = [plan.seed, team.rank, progress.step]
    noise = torch.Generator().manual_seed(sum(seed))
    loss_log = _LossLog(plan.num_steps, progress, team, say if team.rank == 0 else None)
    lessons = endless_batches(plan.folder, seed)
    if team.size > 1:
        torch.set_num_threads(1)
        meeting = f"file://{team.meeting}"
        init_process_group("gloo", init_method=meeting, rank=team.rank, world_size=team.size)
    for step in range(progress.step, plan.num_steps):
        batch = next(lessons)
        losses = student.learn(batch, rate_at(step, plan.num_steps), noise, team)
        progress = loss_log.note(batch, losses)
        if team.rank == 0:
            student.keep(plan, progress)
    lessons.close()
    student.end()
    if team.size > 1:
        destroy_process_group()
    return progress


class Student:
    """The part of a model that takes lessons (all but its VQ part), and what training adds to it.

    It changes the weights of the model that it is made from.
    """

    def __init__(self, janus: Janus) -> None:
        self._model = janus.model
        self._probe = Probe(janus)
        self._weights = [*weights_of_student(self._model).values(), *self._probe.parameters()]
        self._optimiser = torch.optim.AdamW(
            self._weights, lr=_PEAK_RATE, betas=(0.9, 0.98), weight_decay=_WEIGHT_DECAY
        )
        for weight in self._weights:
            weight.requires_grad_(True)

    def learn(
        self, batch: TrainingBatch, rate: float, noise: torch.Generator, team: Team
    ) -> Losses:
        """One step at this learning rate. `noise` is on the CPU; it is drawn from, and moves on."""
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        losses = losses_of(self._model, self._probe, batch, noise)
        self._optimiser.zero_grad()
        losses.total.backward()
        _share_gradients(self._weights, team)
        torch.nn.utils.clip_grad_norm_(self._weights, _LARGEST_GRADIENT)
        self._optimiser.step()
        return losses

    def end(self) -> None:
        """Leave the model as it is used: without gradients."""
        for weight in self._weights:
            weight.requires_grad_(False)

    def keep(self, plan: TrainingPlan, progress: Progress) -> None:
        """Save what is due after this step."""
        if progress.step in plan.kept:
            save_whole(weights_of_student(self._model), plan.kept[progress.step])
        if progress.step % _SAVED_EVERY == 0 or progress.step == plan.num_steps:
            state = {
                "student": weights_of_student(self._model),
                "probe": self._probe.state_dict(),
                "optimiser": self._optimiser.state_dict(),
                "progress": asdict(progress),
            }
            save_whole(state, plan.record)

    def resume(self, record: Path) -> Progress:
        """Take up what an earlier call left in the file; from the beginning, if there is none."""
        if not record.is_file():
            return Progress()
        state = torch.load(record, map_location="cpu", weights_only=True)
        self._model.load_state_dict(state["student"], strict=False)
        self._probe.load_state_dict(state["probe"])
        self._optimiser.load_state_dict(state["optimiser"])
        return Progress(**state["progress"])


def weights_of_student(model: "JanusForConditionalGeneration") -> dict[str, torch.nn.Parameter]:
    """Every weight but the VQ part's, by name."""
    return {name: weight for name, weight in model.named_parameters() if ".vqmodel." not in name}


def save_whole(content: Any, path: Path) -> None:
    """Write a file whole or not at all: a training may be stopped at any time."""
    draft = path.with_suffix(".part")
    torch.save(content, draft)
    os.replace(draft, path)


def rate_at(step: int, num_steps: int) -> float:
    """The learning rate: a short rise, a long plateau (seeing comes late), a straight line to 0."""
    warm = max(1, min(_WARM_STEPS, num_steps // 20))
    rise, fall = (step + 1) / warm, (num_steps - step) / (num_steps * _FALLING_SHARE)
    return _PEAK_RATE * min(1.0, rise, fall)


def _share_gradients(weights: list[torch.nn.Parameter], team: Team) -> None:
    """Average the gradients over the team. A weight that a batch does not touch has gradient 0."""
    grads = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
    if team.size > 1:
        flat = torch.cat([grad.flatten() for grad in grads])
        all_reduce(flat)
        parts = (flat / team.size).split([grad.numel() for grad in grads])
        grads = [part.view_as(grad) for part, grad in zip(parts, grads, strict=True)]
    for weight, grad in zip(weights, grads, strict=True):
        weight.grad = grad


class _LossLog:
    """Counts what has been learned, and says so every few steps."""

    def __init__(self, num_steps: int, progress: Progress, team: Team, say: Say | None) -> None:
        self._num_steps = num_steps
        self._first, self._now = progress, progress
        self._team = team
        self._say = say
        self._started = time.monotonic()
        self._losses: dict[str, list[float]] = {}

    def note(self, batch: TrainingBatch, losses: Losses) -> Progress:
        """Note a step; how far it has come."""
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
        is_due = self._now.step % _SAID_EVERY == 0 or self._now.step == self._num_steps
        if self._say and is_due:
            self._say(self._summary(elapsed))
            self._losses = {}
        return self._now

    def _summary(self, elapsed: float) -> str:
        means = ", ".join(
            f"{name} {sum(values) / len(values):.4f}" for name, values in self._losses.items()
        )
        done = self._now.step - self._first.step
        rate = (self._now.num_tokens - self._first.num_tokens) / elapsed
        left = elapsed / done * (self._num_steps - self._now.step)
        return (
            f"lessons step {self._now.step} of {self._num_steps}, loss of {means}, "
            f"{rate:.0f} tokens/s, {left / 60:.1f} min left"
        )
