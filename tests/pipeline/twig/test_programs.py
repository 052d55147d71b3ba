"""The programs, told by what they ask: `draw 1.0` is the first drawing of the second region."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.fake import Fake, fake_geometry
from pipeline.plan.packs import load_pack
from pipeline.twig.drive import Backends, Given, Outcome, Rollout, drive
from pipeline.twig.programs import PROGRAMS, Settings
from pipeline.twig.requests import Canvas, Codes, Request, Text, Visual
from pipeline.twig.templates import TemplatePack
from schemas.config import Program, ReflectionConfig, SamplingConfig, ScheduleConfig
from schemas.errors import InputError
from schemas.trace import Event, Role, Verdict
from tests.support import SMALL, fake_method

PROMPT = "a red cube on a blue sphere"
GEOMETRY = fake_geometry(SMALL)
ACCEPT = "SCORE: 95\nIMPROVED_DESCRIPTION: Nothing to mend."
UNPARSEABLE = "It is a fine picture."

Place = tuple[int, int, int]  # region, revision and candidate of a critique


def revise(better: str) -> str:
    return f"SCORE: 40\nIMPROVED_DESCRIPTION: {better}"


@dataclass(frozen=True)
class Grown:
    """A rollout that ran to its end, and all that it asked, in order."""

    requests: list[Request]
    outcome: Outcome

    @property
    def steps(self) -> list[str]:
        return [step(request) for request in self.requests]

    def asked(self, name: str) -> Any:
        """The request that goes by this name."""
        (request,) = [request for request in self.requests if step(request) == name]
        return request

    def event(self, name: str) -> Event:
        (event,) = [event for event in self.outcome.events if step(event) == name]
        return event


def step(what: Request | Event) -> str:
    again = ", asked again" if what.candidate else ""
    return f"{what.role} {what.region}.{what.revision}{again}"


def grow(
    program: Program = Program.THINK_WHILE,
    *,
    critiques: Mapping[Place, str] | None = None,
    thoughts: Callable[[int], str] = "Thought {}.".format,
    bands: str = "",
    pack: TemplatePack | None = None,
    prompt: str = PROMPT,
    **method: Any,
) -> Grown:
    """Run a program against critiques by place; whatever is not named is accepted."""
    requests: list[Request] = []

    def script(request: Request) -> str | None:
        requests.append(request)
        place = (request.region, request.revision, request.candidate)
        return {
            Role.THINK: thoughts(request.region),
            Role.REFLECT: (critiques or {}).get(place, ACCEPT),
            Role.SCHEDULE: bands,
            Role.DRAW: None,
        }[request.role]

    settings = Settings(
        method=fake_method(program=program, **method),
        pack=pack or load_pack("default"),
        geometry=GEOMETRY,
    )
    running = PROGRAMS[program](prompt, settings)
    rollout = Rollout(record_id="record", rollout_index=0, run_seed=0, program=running)
    backends = Backends({"fake": Fake(SMALL, script=script)}, dict.fromkeys(Role, "fake"))
    (outcome,) = drive(Given([rollout]), backends, max_live=1)
    assert outcome.error is None
    return Grown(requests, outcome)


def equally(num_regions: int) -> ScheduleConfig:
    return ScheduleConfig(num_regions=num_regions)


def canvas_of(question: Text) -> Codes:
    (canvas,) = question.pictures
    assert isinstance(canvas, Canvas)
    return canvas.codes


def canvas_before(request: Request) -> Codes:
    """What a request shows, or draws after."""
    if isinstance(request, Visual):
        return request.codes
    assert isinstance(request, Text)
    return canvas_of(request) if request.pictures else ()


def question_of(request: Text) -> str:
    return request.messages[-1].text


# When to think, draw and look


@pytest.mark.parametrize("num_regions", [1, 2, 3, 4])
def test_every_region_is_thought_of_then_drawn_then_judged(num_regions: int):
    grown = grow(schedule=equally(num_regions))

    assert grown.steps == [
        f"{role} {region}.0"
        for region in range(num_regions)
        for role in ("think", "draw", "reflect")
    ]
    assert len(grown.outcome.codes) == GEOMETRY.num_tokens


def test_a_region_judged_poor_is_drawn_once_more_and_not_judged_again():
    grown = grow(critiques={(1, 0, 0): revise("A better one.")})

    assert grown.steps == [
        *("think 0.0", "draw 0.0", "reflect 0.0"),
        *("think 1.0", "draw 1.0", "reflect 1.0", "draw 1.1"),
        *("think 2.0", "draw 2.0", "reflect 2.0"),
    ]


def test_a_critique_that_cannot_be_read_leaves_the_region_as_it_is():
    grown = grow(critiques={(0, 0, 0): UNPARSEABLE}, schedule=equally(2))

    assert grown.steps == [
        *("think 0.0", "draw 0.0", "reflect 0.0"),
        *("think 1.0", "draw 1.0", "reflect 1.0"),
    ]
    reflection = grown.event("reflect 0.0").reflection
    assert reflection is not None
    assert reflection.verdict is Verdict.UNPARSEABLE
    assert grown.event("reflect 0.0").raw_text == UNPARSEABLE


@pytest.mark.parametrize(
    ("second_answer", "verdict", "redrawn"),
    [
        (ACCEPT, Verdict.ACCEPT, []),
        (revise("A better one."), Verdict.REVISE, ["draw 0.1"]),
        (UNPARSEABLE, Verdict.UNPARSEABLE, []),
    ],
)
def test_a_critique_that_cannot_be_read_is_asked_for_once_more_if_so_wished(
    second_answer: str, verdict: Verdict, redrawn: list[str]
):
    grown = grow(
        critiques={(0, 0, 0): UNPARSEABLE, (0, 0, 1): second_answer},
        schedule=equally(1),
        reflection=ReflectionConfig(on_unparseable="ask_again"),
    )

    assert grown.steps == [
        *("think 0.0", "draw 0.0", "reflect 0.0", "reflect 0.0, asked again"),
        *redrawn,
    ]
    verdicts = [event.reflection.verdict for event in grown.outcome.events if event.reflection]
    assert verdicts == [Verdict.UNPARSEABLE, verdict]


def test_asking_again_shows_the_same_canvas_the_unusable_answer_and_the_form():
    grown = grow(
        critiques={(0, 0, 0): UNPARSEABLE}, reflection=ReflectionConfig(on_unparseable="ask_again")
    )

    first, again = grown.asked("reflect 0.0"), grown.asked("reflect 0.0, asked again")
    assert again.pictures == first.pictures
    assert again.messages[: len(first.messages)] == first.messages
    answer, reminder = again.messages[len(first.messages) :]
    assert (answer.role, answer.text) == ("assistant", UNPARSEABLE)
    assert reminder.role == "user"
    assert "SCORE:" in reminder.text


@pytest.mark.parametrize("critique", [ACCEPT, revise("A better one.")])
def test_a_readable_critique_is_not_asked_for_again(critique: str):
    grown = grow(
        critiques={(0, 0, 0): critique}, reflection=ReflectionConfig(on_unparseable="ask_again")
    )

    assert "reflect 0.0, asked again" not in grown.steps


@pytest.mark.parametrize(
    ("second_critique", "redrawn"),
    [(ACCEPT, []), (UNPARSEABLE, []), (revise("The best one."), ["draw 0.2"])],
)
def test_a_second_round_judges_the_first_revision(second_critique: str, redrawn: list[str]):
    grown = grow(
        critiques={(0, 0, 0): revise("A better one."), (0, 1, 0): second_critique},
        schedule=equally(1),
        reflection=ReflectionConfig(max_revisions=2),
    )

    assert grown.steps == [
        *("think 0.0", "draw 0.0", "reflect 0.0", "draw 0.1", "reflect 0.1"),
        *redrawn,
    ]
    second = grown.asked("reflect 0.1")
    assert canvas_of(second) == grown.event("draw 0.1").codes
    assert "A better one." in question_of(second)
    assert "Thought 0." not in question_of(second)


def test_no_region_is_judged_when_none_may_be_revised():
    grown = grow(reflection=ReflectionConfig(max_revisions=0), schedule=equally(2))

    assert grown.steps == ["think 0.0", "draw 0.0", "think 1.0", "draw 1.0"]


def test_theta_decides_what_is_good_enough():
    critiques = {(0, 0, 0): "SCORE: 70\nIMPROVED_DESCRIPTION: A better one."}

    at_70, at_71 = (
        grow(critiques=critiques, reflection=ReflectionConfig(theta=theta)) for theta in (70, 71)
    )

    assert "draw 0.1" not in at_70.steps
    assert "draw 0.1" in at_71.steps


# Which regions


def test_adaptive_bands_are_asked_for_first_and_then_drawn():
    schedule = ScheduleConfig(kind="adaptive", num_regions=2)
    grown = grow(schedule=schedule, bands="BANDS: 75 25")

    assert grown.steps == [
        "schedule 0.0",
        *("think 0.0", "draw 0.0", "reflect 0.0"),
        *("think 1.0", "draw 1.0", "reflect 1.0"),
    ]
    assert [grown.asked(name).num_tokens for name in ("draw 0.0", "draw 1.0")] == [12, 4]
    assert not grown.asked("schedule 0.0").pictures
    assert grown.outcome.schedule is not None
    assert grown.outcome.schedule.source == "adaptive"


def test_bands_that_cannot_be_read_become_equal_ones_and_the_trace_says_so():
    schedule = ScheduleConfig(kind="adaptive", num_regions=2)
    grown = grow(schedule=schedule, bands="Two of them.")

    assert [grown.asked(name).num_tokens for name in ("draw 0.0", "draw 1.0")] == [8, 8]
    assert grown.outcome.schedule is not None
    assert grown.outcome.schedule.source == "fallback"


def test_given_ratios_are_followed_without_asking():
    grown = grow(schedule=ScheduleConfig(kind="ratios", num_regions=2, ratios=(3, 1)))

    assert "schedule 0.0" not in grown.steps
    assert [grown.asked(name).num_tokens for name in ("draw 0.0", "draw 1.0")] == [12, 4]


def test_more_regions_than_the_picture_has_rows_are_refused():
    with pytest.raises(InputError, match="5 regions do not fit a canvas of 4 token rows"):
        grow(schedule=equally(5))


# What is said and shown


def test_the_first_thought_sees_no_picture_and_later_ones_see_all_that_is_kept():
    grown = grow()

    assert not grown.asked("think 0.0").pictures
    assert canvas_of(grown.asked("think 1.0")) == grown.event("draw 0.0").codes
    assert canvas_of(grown.asked("think 2.0")) == (
        grown.event("draw 0.0").codes + grown.event("draw 1.0").codes
    )


def test_a_region_is_drawn_from_all_thoughts_joined_by_one_space_after_what_is_kept():
    grown = grow()

    last = grown.asked("draw 2.0")
    assert last.text == "Thought 0. Thought 1. Thought 2."
    assert last.codes == grown.event("draw 0.0").codes + grown.event("draw 1.0").codes


def test_thoughts_are_single_lines_without_stray_spaces():
    grown = grow(thoughts="\n A  thought\t of\r\n\n{}. ".format, schedule=equally(2))

    assert grown.asked("draw 1.0").text == "A thought of 0. A thought of 1."
    assert '"A thought of 0."' in question_of(grown.asked("think 1.0"))


def test_an_empty_thought_leaves_no_double_space():
    grown = grow(thoughts=lambda region: "" if region == 1 else f"Thought {region}.")

    assert grown.asked("draw 2.0").text == "Thought 0. Thought 2."


def test_a_better_thought_takes_the_place_of_the_one_that_it_mends():
    grown = grow(critiques={(1, 0, 0): revise("A better one.")})

    assert grown.asked("draw 1.1").text == "Thought 0. A better one."
    assert grown.asked("draw 2.0").text == "Thought 0. A better one. Thought 2."
    assert "Thought 1." not in question_of(grown.asked("think 2.0"))


def test_a_reflection_sees_what_is_kept_and_the_region_just_drawn():
    grown = grow()

    kept, drawn = grown.event("draw 0.0").codes, grown.event("draw 1.0").codes
    assert canvas_of(grown.asked("reflect 1.0")) == kept + drawn
    assert "Thought 1." in question_of(grown.asked("reflect 1.0"))


def test_rejected_codes_are_in_no_later_canvas_but_still_in_the_events():
    grown = grow(critiques={(1, 0, 0): revise("A better one.")})

    rejected, redrawn = grown.event("draw 1.0"), grown.event("draw 1.1")
    assert len(rejected.codes) == len(redrawn.codes) > 0
    assert rejected.codes != redrawn.codes
    assert rejected.superseded_by == redrawn.index
    region = slice(4, 4 + len(rejected.codes))  # the first of three bands is one row of four
    later = grown.requests[grown.steps.index("draw 1.1") + 1 :]
    assert [canvas_before(request)[region] for request in later] == [redrawn.codes] * len(later)
    assert canvas_before(grown.asked("draw 1.1")) == grown.event("draw 0.0").codes
    assert grown.outcome.codes[region] == redrawn.codes


CRITIQUES = st.dictionaries(
    st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 1)),
    st.sampled_from([UNPARSEABLE, revise("A better one."), revise("The best one.")]),
)


@settings(deadline=None)  # each grows a picture
@given(
    critiques=CRITIQUES,
    num_regions=st.integers(1, 4),
    max_revisions=st.integers(0, 3),
    on_unparseable=st.sampled_from(["keep", "ask_again"]),
)
def test_the_picture_is_made_of_the_last_drawing_of_each_region(
    critiques: dict[Place, str], num_regions: int, max_revisions: int, on_unparseable: str
):
    reflection = ReflectionConfig(max_revisions=max_revisions, on_unparseable=on_unparseable)
    grown = grow(critiques=critiques, schedule=equally(num_regions), reflection=reflection)

    assert len(set(grown.steps)) == len(grown.steps)
    drawings = [event for event in grown.outcome.events if event.role is Role.DRAW]
    last = [event for event in drawings if event.superseded_by is None]
    assert [event.region for event in last] == list(range(num_regions))
    assert max(event.revision for event in drawings) <= max_revisions
    assert grown.outcome.codes == tuple(code for event in last for code in event.codes)
    assert grown.outcome.schedule is not None
    assert [event.codes for event in last] == [
        grown.outcome.codes[region.start : region.stop] for region in grown.outcome.schedule.regions
    ]


# How it is asked


def test_requests_are_sampled_as_the_config_says():
    sampling = SamplingConfig(
        cfg_weight=4.5,
        image_temperature=0.75,
        text_temperature=0.5,
        text_top_p=0.9,
        max_text_tokens=77,
        with_logp=False,
    )
    grown = grow(sampling=sampling, schedule=ScheduleConfig(kind="adaptive", num_regions=1))

    for request in grown.requests:
        assert request.with_logp is False
        if isinstance(request, Visual):
            assert (request.cfg_weight, request.temperature) == (4.5, 0.75)
        else:
            assert isinstance(request, Text)
            assert (request.temperature, request.top_p, request.max_tokens) == (0.5, 0.9, 77)


def test_a_packs_system_prompt_opens_the_questions_with_a_picture_alone():
    plain = load_pack("default")
    grown = grow(pack=plain.model_copy(update={"system": "You judge pictures."}))

    for request in grown.requests:
        if isinstance(request, Text):
            opening = [message.text for message in request.messages if message.role == "system"]
            assert opening == (["You judge pictures."] if request.pictures else [])


def test_a_pack_may_ask_about_the_first_region_in_other_words():
    plain = load_pack("default")
    questions = plain.questions | {"reflect_first": "Is {thought} the {region_name}?"}
    grown = grow(pack=plain.model_copy(update={"questions": questions}))

    assert question_of(grown.asked("reflect 0.0")) == "Is Thought 0. the top third?"
    assert question_of(grown.asked("reflect 1.0")) != "Is Thought 1. the middle third?"


def test_questions_name_the_prompt_and_the_region():
    grown = grow(schedule=equally(2))

    for request in grown.requests:
        if isinstance(request, Text):
            name = ["upper half", "lower half"][request.region]
            assert PROMPT in question_of(request)
            assert name in question_of(request)


def test_a_prompt_is_never_read_as_a_template():
    prompt = "[[{thought}]] {0.__class__}"

    assert prompt in question_of(grow(prompt=prompt).asked("reflect 2.0"))


# The baselines


def test_think_before_thinks_once_and_draws_the_whole_picture_from_it():
    grown = grow(Program.THINK_BEFORE)

    assert grown.steps == ["think 0.0", "draw 0.0"]
    assert not grown.asked("think 0.0").pictures
    assert "whole picture" in question_of(grown.asked("think 0.0"))
    drawing = grown.asked("draw 0.0")
    assert (drawing.text, drawing.num_tokens) == ("Thought 0.", GEOMETRY.num_tokens)
    assert grown.outcome.codes == grown.event("draw 0.0").codes


def test_think_after_draws_the_prompt_and_then_judges_it():
    grown = grow(Program.THINK_AFTER)

    assert grown.steps == ["draw 0.0", "reflect 0.0"]
    drawing = grown.asked("draw 0.0")
    assert (drawing.text, drawing.num_tokens) == (PROMPT, GEOMETRY.num_tokens)
    assert canvas_of(grown.asked("reflect 0.0")) == grown.event("draw 0.0").codes
    assert grown.outcome.codes == grown.event("draw 0.0").codes


def test_think_after_draws_the_whole_picture_again_from_the_better_thought():
    grown = grow(Program.THINK_AFTER, critiques={(0, 0, 0): revise("A better one.")})

    assert grown.steps == ["draw 0.0", "reflect 0.0", "draw 0.1"]
    again = grown.asked("draw 0.1")
    assert (again.text, again.codes) == ("A better one.", ())
    assert again.num_tokens == GEOMETRY.num_tokens
    assert grown.outcome.codes == grown.event("draw 0.1").codes


def test_plain_draws_the_prompt_and_nothing_else():
    grown = grow(Program.PLAIN)

    assert grown.steps == ["draw 0.0"]
    drawing = grown.asked("draw 0.0")
    assert (drawing.text, drawing.num_tokens) == (PROMPT, GEOMETRY.num_tokens)
    assert grown.outcome.codes == grown.event("draw 0.0").codes


@pytest.mark.parametrize("program", [Program.THINK_BEFORE, Program.THINK_AFTER, Program.PLAIN])
def test_a_program_that_draws_in_one_go_has_one_region_whatever_the_schedule(program: Program):
    schedule = grow(program, schedule=equally(4)).outcome.schedule

    assert schedule is not None
    assert [(region.start, region.stop) for region in schedule.regions] == [
        (0, GEOMETRY.num_tokens)
    ]
