"""Rollouts that draw from thoughts that came with the prompt."""

from typing import Any

import pytest

from pipeline.engine.fake import Fake, fake_geometry
from pipeline.plan.packs import load_pack
from pipeline.twig.drive import Backends, Given, Outcome, Rollout, drive
from pipeline.twig.given import with_thoughts
from pipeline.twig.programs import PROGRAMS, Settings
from pipeline.twig.requests import Request
from schemas.config import Program, ScheduleConfig
from schemas.errors import RecordFailure, RolloutError
from schemas.trace import Role
from tests.support import SMALL, fake_method

THOUGHTS = ("a pale  sky", "a red cube", "wet sand")


def grow(
    thoughts: tuple[str, ...] | None, *, fails: Role | None = None, **method: Any
) -> tuple[Outcome, list[Request]]:
    """Grow one rollout on the fake; what it came to, and all that was asked."""
    asked: list[Request] = []

    def script(request: Request) -> RolloutError | None:
        asked.append(request)
        return RecordFailure("no", reason="scripted") if request.role is fails else None

    settings = Settings(
        method=fake_method(**method), pack=load_pack("default"), geometry=fake_geometry(SMALL)
    )
    program = PROGRAMS[settings.method.program]("a cube", settings)
    if thoughts is not None:
        program = with_thoughts(program, thoughts)
    rollout = Rollout(record_id="00", rollout_index=0, run_seed=0, program=program)
    backends = Backends({"fake": Fake(SMALL, script=script)}, {role: ("fake",) for role in Role})
    (outcome,) = drive(Given([rollout]), backends, max_live=1)
    return outcome, asked


def test_nobody_is_asked_for_a_thought_and_the_trace_says_where_each_came_from():
    outcome, asked = grow(THOUGHTS)
    thoughts = [event for event in outcome.events if event.role is Role.THINK]

    assert Role.THINK not in {request.role for request in asked}
    assert [event.backend for event in thoughts] == ["given"] * 3
    assert [event.raw_text for event in thoughts] == list(THOUGHTS)
    assert [event.text for event in thoughts] == ["a pale sky", "a red cube", "wet sand"]
    assert all(event.token_ids is None and event.logp_sample is None for event in thoughts)
    assert [event.index for event in outcome.events] == list(range(len(outcome.events)))
    assert outcome.error is None


def test_regions_are_drawn_from_the_given_thoughts_until_a_critic_has_a_better_one():
    outcome, _ = grow(THOUGHTS)
    drawings = [event for event in outcome.events if event.role is Role.DRAW]
    mended = [
        event.reflection.better_thought
        for event in outcome.events
        if event.reflection and event.reflection.verdict == "revise"
    ]

    assert drawings[0].text == "a pale sky"
    assert mended
    assert all(any(text in event.text for event in drawings) for text in mended)


def test_a_program_that_was_given_what_it_would_have_thought_draws_the_same():
    own, _ = grow(None)
    said = {e.region: e.raw_text or "" for e in own.events if e.role is Role.THINK}
    given, _ = grow(tuple(said[region] for region in range(3)))

    assert given.codes == own.codes
    assert [e.codes for e in given.events] == [e.codes for e in own.events]


def test_one_thought_is_given_to_the_program_that_thinks_before():
    outcome, asked = grow(
        ("a cube",), program=Program.THINK_BEFORE, schedule=ScheduleConfig(num_regions=3)
    )
    assert [request.role for request in asked] == [Role.DRAW]
    assert [event.role for event in outcome.events] == [Role.THINK, Role.DRAW]


@pytest.mark.parametrize("role", [Role.DRAW, Role.REFLECT])
def test_a_failure_ends_the_rollout_and_leaves_what_it_had(role: Role):
    outcome, _ = grow(THOUGHTS, fails=role)

    assert outcome.error is not None
    assert outcome.error.reason == "scripted"
    assert outcome.events[0].backend == "given"
