"""Replay a golden folder, call by call: `python -m tests.conformance DIR [--backend reference]`.

The folder holds `golden.json` (see `tests/golden/README.md`), a checkpoint in a folder of its own,
and the finished pictures. The real program runs against the real backend; only the verdicts come
from the golden critiques, because a random model cannot judge. Prints `N of N calls equal`.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from pipeline.engine.checkpoints import load_janus
from pipeline.engine.engine import Engine
from pipeline.engine.reference import Reference
from pipeline.pictures import Painter, decode_picture
from pipeline.twig.drive import Backends, Given, Outcome, Rollout, drive
from pipeline.twig.programs import Settings, think_while_generating
from pipeline.twig.reflections import single_line
from pipeline.twig.requests import (
    Answer,
    Backend,
    Codes,
    Request,
    RequestId,
    Text,
    TextAnswer,
    Visual,
    VisualAnswer,
)
from pipeline.twig.templates import TemplatePack
from schemas.config import (
    MethodConfig,
    ModelConfig,
    PackConfig,
    ReflectionConfig,
    SamplingConfig,
    ScheduleConfig,
)
from schemas.errors import RolloutError
from schemas.geometry import Geometry
from schemas.trace import Role

BACKENDS = {"reference": Reference, "engine": Engine}
_QUESTIONS = ("think_first", "think_next", "reflect")
_GREY_LEVELS = 1  # what another processor's rounding may change in a picture


class PaintingBackend(Backend, Painter, Protocol):
    """A backend that can show what it drew."""

    geometry: Geometry


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Where a replay left the golden trace."""

    trace: int
    call: str
    golden: object
    ours: object

    def __str__(self) -> str:
        return (
            f"trace {self.trace}, {self.call}: golden {self.golden!s:.300}, ours {self.ours!s:.300}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """How many of the golden calls were equal, and what was not."""

    num_calls: int
    num_equal: int
    differences: list[Difference]

    def __str__(self) -> str:
        line = f"{self.num_equal} of {self.num_calls} calls equal"
        return f"{line}; first difference: {self.differences[0]}" if self.differences else line


class Scripted:
    """Passes requests on, keeps every call, and swaps each critique for the golden verdict."""

    def __init__(self, backend: Backend, verdicts: Sequence[dict[str, Any]]) -> None:
        self._backend = backend
        self._verdicts = iter(verdicts)
        self._requests: dict[RequestId, Request] = {}
        self.calls: list[tuple[Request, Answer]] = []

    def submit(self, request_id: RequestId, request: Request) -> None:
        self._requests[request_id] = request
        self._backend.submit(request_id, request)

    def poll(self) -> Sequence[tuple[RequestId, Answer | RolloutError]]:
        return [
            (request_id, self._swap(self._requests.pop(request_id), answer))
            for request_id, answer in self._backend.poll()
        ]

    def _swap(self, request: Request, answer: Answer | RolloutError) -> Answer | RolloutError:
        if isinstance(answer, RolloutError):
            return answer
        self.calls.append((request, answer))
        if request.role is not Role.REFLECT or not isinstance(answer, TextAnswer):
            return answer
        verdict = next(self._verdicts, {"accept": True})
        improved = verdict.get("improved", "")
        text = "SCORE: 100" if verdict["accept"] else f"SCORE: 0\nIMPROVED_DESCRIPTION: {improved}"
        return replace(answer, text=text)


def replay(folder: Path, backend: PaintingBackend) -> Report:
    """Run every golden trace of a folder on a backend and compare."""
    golden = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    settings = _settings(golden, backend.geometry)
    differences: list[Difference] = []
    num_calls = num_equal = 0
    for number, trace in enumerate(golden["traces"]):
        outcome, calls = _run(trace, settings, backend)
        in_calls = list(_compare_calls(number, trace["events"], calls))
        num_calls += len(trace["events"])
        num_equal += len(trace["events"]) - len({difference.call for difference in in_calls})
        differences += in_calls
        differences += _compare_ends(number, trace, outcome, calls, folder, backend)
    return Report(num_calls=num_calls, num_equal=num_equal, differences=differences)


def _run(
    trace: dict[str, Any], settings: Settings, backend: Backend
) -> tuple[Outcome, list[tuple[Request, Answer]]]:
    verdicts = [event for event in trace["events"] if event["kind"] == "reflect"]
    scripted = Scripted(backend, verdicts)
    program = think_while_generating(trace["prompt"], settings)
    rollout = Rollout(record_id="golden", rollout_index=0, run_seed=0, program=program)
    backends = Backends({"golden": scripted}, dict.fromkeys(Role, "golden"))
    (outcome,) = drive(Given([rollout]), backends, max_live=1)
    return outcome, scripted.calls


def _compare_calls(
    number: int, events: list[dict[str, Any]], calls: list[tuple[Request, Answer]]
) -> Iterator[Difference]:
    """Golden events against our calls; a canvas as it stood before the next question."""
    position, canvas = 0, list[int]()
    for index, event in enumerate(events):
        while position < len(calls) and isinstance(calls[position][0], Visual):
            canvas = _canvas_after(*calls[position])
            position += 1
        name = f"call {index} ({event['kind']})"
        if event["kind"] == "canvas":
            golden = event["tokens"]
            ours = canvas + [0] * (len(golden) - len(canvas))
            if golden != ours:
                yield Difference(trace=number, call=name, golden=golden, ours=ours)
            continue
        if position == len(calls):
            yield Difference(trace=number, call=name, golden=event["text"], ours="no such call")
            continue
        yield from _compare_texts(number, name, event, *calls[position])
        position += 1
    if position < len(calls) and not isinstance(calls[-1][0], Visual):
        yield Difference(trace=number, call="end", golden="nothing", ours=calls[position])


def _canvas_after(request: Request, answer: Answer) -> list[int]:
    assert isinstance(request, Visual)
    assert isinstance(answer, VisualAnswer)
    return [*request.codes, *answer.codes]


def _compare_texts(
    number: int, name: str, event: dict[str, Any], request: Request, answer: Answer
) -> Iterator[Difference]:
    assert isinstance(request, Text)
    assert isinstance(answer, TextAnswer)
    ours: dict[str, object] = {
        "kind": request.role.value,
        "input_ids": list(answer.prefix_ids),
        "output_ids": list(answer.token_ids),
        "text": single_line(answer.text),
    }
    if "band" in event:
        ours["band"] = request.region + 1
    for key, value in ours.items():
        if event[key] != value:
            yield Difference(trace=number, call=f"{name} {key}", golden=event[key], ours=value)
            return


def _compare_ends(
    number: int,
    trace: dict[str, Any],
    outcome: Outcome,
    calls: list[tuple[Request, Answer]],
    folder: Path,
    painter: Painter,
) -> Iterator[Difference]:
    """The finished tokens, the words they were drawn from, and the picture."""
    drawn_from = [request.text for request, _ in calls if isinstance(request, Visual)]
    ends = {
        "final_tokens": (trace["final_tokens"], list(outcome.codes)),
        "final_descriptions": (trace["final_descriptions"], drawn_from[-1]),
    }
    for call, (golden, ours) in ends.items():
        if golden != ours:
            yield Difference(trace=number, call=call, golden=golden, ours=ours)
    picture = decode_picture((folder / trace["final_image"]).read_bytes()).astype(int)
    off = _largest_difference(picture, painter, outcome.codes)
    if off > _GREY_LEVELS:
        yield Difference(
            trace=number, call="final_image", golden="its pixels", ours=f"{off} grey levels off"
        )


def _largest_difference(picture: np.ndarray, painter: Painter, codes: Codes) -> int:
    (ours,) = painter.paint([codes])
    if ours.shape != picture.shape:
        return 255
    return int(np.abs(picture - ours).max())


def _settings(golden: dict[str, Any], geometry: Geometry) -> Settings:
    """The golden settings as ours."""
    wanted, unnamed = golden["settings"], "golden"
    method = MethodConfig(
        model=ModelConfig(name=unnamed, digest=unnamed),
        pack=PackConfig(name=unnamed, digest=unnamed),
        schedule=ScheduleConfig(num_regions=wanted["bands"]),
        reflection=ReflectionConfig(max_revisions=wanted["max_reflections_per_band"]),
        sampling=SamplingConfig(
            cfg_weight=wanted["cfg_weight"],
            image_temperature=0,
            max_text_tokens=wanted["max_new_text_tokens"],
        ),
    )
    questions = {name: _as_our_template(golden["templates"][name]) for name in _QUESTIONS}
    # Golden bands are slices of tokens, not of rows: one token a row cuts them alike.
    strip = replace(geometry, rows=geometry.num_tokens, columns=1)
    pack = TemplatePack(name=unnamed, digest=unnamed, questions=questions)
    return Settings(method=method, pack=pack, geometry=strip)


def _as_our_template(template: str) -> str:
    renamed = template.replace("{band}", "{region_number}").replace("{bands}", "{num_regions}")
    return renamed.replace("[[", "[[[[").replace("]]", "]]]]")


def _checkpoint_in(folder: Path) -> Path:
    (config,) = folder.glob("*/config.json")
    return config.parent


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if everything is equal, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--backend", choices=sorted(BACKENDS), default="reference")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # so small a model waits longer for a second thread than it gains
    janus = load_janus(_checkpoint_in(options.folder), dtype=torch.float32, device="cpu")
    report = replay(options.folder, BACKENDS[options.backend](janus))
    sys.stdout.write(f"{report}\n")
    return 1 if report.differences else 0


if __name__ == "__main__":
    sys.exit(main())
