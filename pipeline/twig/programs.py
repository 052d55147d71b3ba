"""Thinking-while-Generating and its baselines, as the paper tells them (arXiv 2511.16671).

A program is a generator. It yields a request and is resumed with its answer; it yields a list of
requests and is resumed with the list of their answers; it yields what it read out of an answer
(`Planned`, `Judged`) and is resumed at once, so that the trace says so too. It returns the tokens
of the finished picture. `drive` runs it. A program knows nothing of batches, devices or files:
everything it yields follows from the prompt, the settings and the answers alone.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypeVar

from pipeline.twig.reflections import combined, read_reflection, single_line
from pipeline.twig.requests import Canvas, Codes, Message, Request, Text, Visual
from pipeline.twig.schedules import bands_by_ratio, equal_bands, read_schedule
from pipeline.twig.templates import TemplatePack
from schemas.config import MethodConfig, Program
from schemas.geometry import Geometry
from schemas.trace import Reflection, Region, Role, Schedule, Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What all rollouts of a run share: the method, its wording, the shape of its pictures."""

    method: MethodConfig
    pack: TemplatePack
    geometry: Geometry


@dataclass(frozen=True, slots=True)
class Planned:
    """The regions that a program is going to draw."""

    schedule: Schedule


@dataclass(frozen=True, slots=True)
class Judged:
    """What a program read out of the answer to a critique."""

    question: Text
    reflection: Reflection


@dataclass(frozen=True, slots=True)
class Told:
    """A thought that came with the prompt: the question was put to nobody, see `twig.given`."""

    question: Text
    thought: str


Result = TypeVar("Result")
Yielded: TypeAlias = Request | list[Request] | Planned | Judged | Told
# Resumed with the answer to what was yielded. That a question is answered in words and a drawing in
# codes is said nowhere here: a generator has one type for all that it is sent.
Steps: TypeAlias = Generator[Yielded, Any, Result]  # a part of a program
Running: TypeAlias = Steps[Codes]  # a whole one: returns the picture


def think_while_generating(prompt: str, settings: Settings) -> Running:
    """The paper's method: think, draw a region, look at it, perhaps redraw it, think on."""
    schedule = yield from plan_regions(prompt, settings)
    draft = Draft(prompt, schedule, settings)
    for region in schedule.regions:
        thought = yield from draft.think(region)
        yield from draw_with_reflection(draft, region, thought)
    return draft.codes


def think_before_generating(prompt: str, settings: Settings) -> Running:
    """The baseline that thinks once, of the whole picture, and draws it in one go."""
    schedule = yield from plan_one_region(settings)
    draft = Draft(prompt, schedule, settings)
    thought = yield from draft.think(schedule.regions[0])
    return (yield from draft.draw(schedule.regions[0], thought))


def think_after_generating(prompt: str, settings: Settings) -> Running:
    """The baseline that draws the prompt in one go, and only then looks and thinks."""
    schedule = yield from plan_one_region(settings)
    draft = Draft(prompt, schedule, settings)
    yield from draw_with_reflection(draft, schedule.regions[0], prompt)
    return draft.codes


def generate_plainly(prompt: str, settings: Settings) -> Running:
    """The baseline without a thought: the model draws the prompt."""
    schedule = yield from plan_one_region(settings)
    return (yield from Draft(prompt, schedule, settings).draw(schedule.regions[0], prompt))


PROGRAMS: Mapping[Program, Callable[[str, Settings], Running]] = {
    Program.THINK_WHILE: think_while_generating,
    Program.THINK_BEFORE: think_before_generating,
    Program.THINK_AFTER: think_after_generating,
    Program.PLAIN: generate_plainly,
}


def draw_with_reflection(draft: "Draft", region: Region, thought: str) -> Steps[None]:
    """Draw a region; while it is judged too poor, draw it again from the better thought.

    The last revision is not judged: nothing would follow from it.
    """
    drawn = yield from draft.draw(region, thought)
    for revision in range(1, draft.settings.method.reflection.max_revisions + 1):
        reflection = yield from draft.reflect(region, thought, drawn, revision - 1)
        if reflection.verdict is not Verdict.REVISE:
            break
        thought = reflection.better_thought
        drawn = yield from draft.draw(region, thought, revision)
    draft.keep(thought, drawn)


@dataclass(slots=True)
class Draft:
    """A picture in the making: the thoughts and tokens kept so far, and how to ask for more."""

    prompt: str
    schedule: Schedule
    settings: Settings
    thoughts: list[str] = field(default_factory=list)
    codes: Codes = ()

    def keep(self, thought: str, drawn: Codes) -> None:
        """Settle a region: later questions and regions build on it."""
        self.thoughts.append(thought)
        self.codes += drawn

    def think(self, region: Region) -> Steps[str]:
        """Ask for the thought of a region: from the prompt alone, or with the canvas in sight."""
        name = "think_next" if self.thoughts else "think_first"
        answer = yield self._question(name, Role.THINK, region, canvas=self.codes)
        return single_line(answer.text)

    def draw(self, region: Region, thought: str, revision: int = 0) -> Steps[Codes]:
        """Ask for a region's tokens, after the kept ones and conditioned on all thoughts."""
        sampling = self.settings.method.sampling
        answer = yield Visual(
            role=Role.DRAW,
            region=region.index,
            revision=revision,
            text=join_thoughts([*self.thoughts, thought]),
            codes=self.codes,
            num_tokens=region.num_tokens,
            cfg_weight=sampling.cfg_weight,
            temperature=sampling.image_temperature,
            with_logp=sampling.with_logp,
        )
        codes: Codes = answer.codes
        return codes

    def reflect(
        self, region: Region, thought: str, drawn: Codes, revision: int
    ) -> Steps[Reflection]:
        """Ask for a critique of a region just drawn; once more if it could not be read. Of several
        critics all are asked at once, and what they say together counts.
        """
        question = self._question(
            "reflect", Role.REFLECT, region, self.codes + drawn, thought, revision
        )
        method = self.settings.method
        critics = method.backends_of(Role.REFLECT)
        questions = [
            _sampled_by(replace(question, candidate=candidate), critic, method)
            for candidate, critic in enumerate(critics)
        ]
        judged = yield from self._judge(questions)
        if method.reflection.on_unparseable == "ask_again":
            again = {
                index: ask_again(questions[index], answer, self.settings.pack, len(critics))
                for index, (reflection, answer) in enumerate(judged)
                if reflection.verdict is Verdict.UNPARSEABLE
            }
            better = yield from self._judge(list(again.values()))
            for index, verdict in zip(again, better, strict=True):
                judged[index] = verdict
        reflections = [reflection for reflection, _ in judged]
        return combined(reflections, method.reflection.combine, theta=method.reflection.theta)

    def _judge(self, questions: list[Text]) -> Steps[list[tuple[Reflection, str]]]:
        """Ask all at once. What was read out of each answer, and the answer."""
        judged: list[tuple[Reflection, str]] = []
        if not questions:
            return judged
        answers = [(yield questions[0])] if len(questions) == 1 else (yield [*questions])
        for question, answer in zip(questions, answers, strict=True):
            theta = self.settings.method.reflection.theta
            reflection = read_reflection(answer.text, theta=theta)
            yield Judged(question, reflection)
            judged.append((reflection, answer.text))
        return judged

    def _question(
        self,
        name: str,
        role: Role,
        region: Region,
        canvas: Codes = (),
        thought: str = "",
        revision: int = 0,
    ) -> Text:
        num_regions = len(self.schedule.regions)
        values: dict[str, str | int] = {
            "prompt": self.prompt,
            "previous": join_thoughts(self.thoughts),
            "thought": thought,
            "region_name": self.settings.pack.region_name(region.index, num_regions),
            "region_number": region.index + 1,
            "num_regions": num_regions,
        }
        variant = f"{name}_first"
        if region.index == 0 and variant in self.settings.pack.questions:
            name = variant
        return ask(
            self.settings,
            role,
            self.settings.pack.render(name, values),
            region=region.index,
            revision=revision,
            pictures=(Canvas(canvas),) if canvas else (),
        )


def plan_regions(prompt: str, settings: Settings) -> Steps[Schedule]:
    """The regions of the picture: fixed by the config, or proposed by the model."""
    wanted, geometry = settings.method.schedule, settings.geometry
    if wanted.kind == "adaptive":
        values: dict[str, str | int] = {
            "prompt": prompt,
            "num_regions": wanted.num_regions,
            "num_rows": geometry.rows,
        }
        answer = yield ask(settings, Role.SCHEDULE, settings.pack.render("schedule", values))
        schedule = read_schedule(answer.text, geometry, wanted.num_regions)
    elif wanted.ratios is not None:
        schedule = bands_by_ratio(geometry, wanted.ratios)
    else:
        schedule = equal_bands(geometry, wanted.num_regions)
    yield Planned(schedule)
    return schedule


def plan_one_region(settings: Settings) -> Steps[Schedule]:
    """The whole picture as one region, for the programs that draw it in one go."""
    schedule = equal_bands(settings.geometry, 1)
    yield Planned(schedule)
    return schedule


def ask(
    settings: Settings,
    role: Role,
    question: str,
    *,
    region: int = 0,
    revision: int = 0,
    pictures: tuple[Canvas, ...] = (),
) -> Text:
    """A question to be answered in words, sampled as the config says."""
    method = settings.method
    system = settings.pack.system if pictures else None
    opening = (Message(role="system", text=system),) if system is not None else ()
    sampling = method.sampling_of(method.backend_of(role))
    return Text(
        role=role,
        region=region,
        revision=revision,
        messages=(*opening, Message(role="user", text=question)),
        pictures=pictures,
        temperature=sampling.text_temperature,
        top_p=sampling.text_top_p,
        max_tokens=sampling.max_text_tokens,
        with_logp=sampling.with_logp,
    )


def _sampled_by(question: Text, critic: str, method: MethodConfig) -> Text:
    """The question as it is put to this critic."""
    sampling = method.sampling_of(critic)
    return replace(
        question,
        temperature=sampling.text_temperature,
        top_p=sampling.text_top_p,
        max_tokens=sampling.max_text_tokens,
    )


def ask_again(question: Text, answer: str, pack: TemplatePack, num_critics: int = 1) -> Text:
    """The same question, its unusable answer, and a reminder of the form."""
    turns = (
        Message(role="assistant", text=answer),
        Message(role="user", text=pack.render("ask_again", {})),
    )
    return replace(
        question, messages=question.messages + turns, candidate=question.candidate + num_critics
    )


def join_thoughts(thoughts: list[str]) -> str:
    """The thoughts as one line: what a picture is drawn from."""
    return single_line(" ".join(thoughts))
