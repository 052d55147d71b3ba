import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.fake import Fake, Script, fake_geometry
from pipeline.plan.packs import load_pack
from pipeline.twig.drive import Backends, Given, Outcome, Rollout, drive
from pipeline.twig.programs import Running, Settings, think_while_generating
from pipeline.twig.requests import (
    Answer,
    Backend,
    Codes,
    Message,
    Request,
    RequestId,
    Text,
    Visual,
)
from schemas.config import ReflectionConfig, SamplingConfig
from schemas.errors import RecordFailure, RolloutError, TaskFailure
from schemas.ids import event_seed
from schemas.trace import Event, Role
from tests.support import SMALL, fake_method

PICTURE: Codes = (7, 7, 7)  # what the small programs below return


# Programs, rollouts and backends to drive


def question(candidate: int = 0, **changes: Any) -> Text:
    """A greedy question."""
    wanted = {"role": Role.THINK, "temperature": 0.0, "max_tokens": 8} | changes
    return Text(messages=(Message(role="user", text="What?"),), candidate=candidate, **wanted)


def drawing(**changes: Any) -> Visual:
    wanted = {"role": Role.DRAW, "temperature": 1.0, "cfg_weight": 5.0, "num_tokens": 4} | changes
    return Visual(text="a red cube", codes=(), **wanted)


def asking(*yielded: Any) -> Running:
    """A program that asks for these, one after the other, whatever the answers."""
    for wanted in yielded:  # noqa: UP028 (answers cannot be sent into a tuple)
        yield wanted
    return PICTURE


def paper_program(prompt: str, **method: Any) -> Running:
    settings = Settings(
        method=fake_method(**method),
        pack=load_pack("default"),
        geometry=fake_geometry(SMALL),
    )
    return think_while_generating(prompt, settings)


def rollout(program: Running, record_id: str = "record", **changes: Any) -> Rollout:
    key = {"rollout_index": 0, "run_seed": 0} | changes
    return Rollout(record_id=record_id, program=program, **key)


def everywhere(backend: Backend) -> Backends:
    """One backend for all roles."""
    return Backends({"fake": backend}, dict.fromkeys(Role, "fake"))


def run(
    rollouts: Iterable[Rollout], backend: Backend | Backends, max_live: int = 3
) -> dict[str, Outcome]:
    """What became of each rollout, by its record, with all clocks stopped."""
    backends = backend if isinstance(backend, Backends) else everywhere(backend)
    outcomes = list(drive(Given(rollouts), backends, max_live=max_live, clock=lambda: 0.0))
    by_record = {outcome.rollout.record_id: outcome for outcome in outcomes}
    assert len(by_record) == len(outcomes), "a rollout ended twice"
    return by_record


def run_one(program: Running, backend: Backend | Backends | None = None) -> Outcome:
    (outcome,) = run([rollout(program)], backend or Fake(SMALL)).values()
    return outcome


def scripted(script: Script) -> Fake:
    return Fake(SMALL, script=script)


@dataclass
class Shuffling:
    """Answers as another backend would, some at each poll, in an order of its own."""

    backend: Backend
    order: random.Random
    waiting: list[tuple[RequestId, Answer | RolloutError]] = field(default_factory=list)

    def submit(self, request_id: RequestId, request: Request) -> None:
        self.backend.submit(request_id, request)
        self.waiting += self.backend.poll()

    def poll(self) -> Sequence[tuple[RequestId, Answer | RolloutError]]:
        self.order.shuffle(self.waiting)
        num_answered = self.order.randint(min(1, len(self.waiting)), len(self.waiting))
        answered, self.waiting = self.waiting[:num_answered], self.waiting[num_answered:]
        return answered


@dataclass
class Late:
    """Answers all that it was asked, but only at every third poll."""

    backend: Backend
    num_polls: int = 0

    def submit(self, request_id: RequestId, request: Request) -> None:
        self.backend.submit(request_id, request)

    def poll(self) -> Sequence[tuple[RequestId, Answer | RolloutError]]:
        self.num_polls += 1
        return [] if self.num_polls % 3 else self.backend.poll()


ORDERS = st.randoms(use_true_random=False)


# Many at once


def grow_prompts(max_live: int, order: random.Random | None = None) -> dict[str, Any]:
    """The paper's method over five prompts of which one dies, as comparable values."""

    def script(request: Request) -> RolloutError | None:
        is_doomed = isinstance(request, Text) and "prompt 3" in request.messages[-1].text
        if is_doomed and request.region == 1:
            return RecordFailure("no prompt 3", reason="scripted")
        return None

    backend: Backend = scripted(script)
    rollouts = [rollout(paper_program(f"prompt {index}"), f"record-{index}") for index in range(5)]
    outcomes = run(rollouts, Shuffling(backend, order) if order else backend, max_live)
    return {
        record_id: (outcome.codes, outcome.schedule, outcome.events, str(outcome.error))
        for record_id, outcome in outcomes.items()
    }


@cache
def grow_one_by_one() -> dict[str, Any]:
    return grow_prompts(max_live=1)


@pytest.mark.parametrize("max_live", [3, 50])
def test_what_a_rollout_makes_does_not_depend_on_how_many_are_live(max_live: int):
    together = grow_prompts(max_live)

    assert together == grow_one_by_one()
    assert [record for record, made in together.items() if not made[0]] == ["record-3"]


@settings(deadline=None, max_examples=50)  # each grows five pictures
@given(order=ORDERS, max_live=st.sampled_from([1, 3, 50]))
def test_what_a_rollout_makes_does_not_depend_on_the_order_of_answers(
    order: random.Random, max_live: int
):
    assert grow_prompts(max_live, order) == grow_one_by_one()


@given(order=ORDERS)
def test_answers_and_events_of_a_list_are_in_the_order_asked(order: random.Random):
    told: list[str] = []

    def program() -> Running:
        answers = yield [question(candidate) for candidate in range(6)]
        told.extend(answer.text for answer in answers)
        yield question(6)
        return PICTURE

    backend = scripted(lambda request: f"answer {request.candidate}")
    outcome = run_one(program(), Shuffling(backend, order))

    assert told == [f"answer {candidate}" for candidate in range(6)]
    assert [event.text for event in outcome.events] == [*told, "answer 6"]
    assert [event.index for event in outcome.events] == list(range(7))


def test_a_list_of_one_is_answered_with_a_list_of_one():
    def program() -> Running:
        first = yield [question()]
        second = yield question(1)
        assert [answer.text for answer in first] == [second.text] == ["Yes."]
        return PICTURE

    assert run_one(program(), scripted(lambda request: "Yes.")).codes == PICTURE


def test_no_rollouts_have_no_outcomes():
    assert run([], Fake(SMALL)) == {}


def test_a_program_that_asks_for_nothing_ends_at_once():
    outcome = run_one(asking())

    assert (outcome.codes, outcome.events, outcome.error) == (PICTURE, (), None)


def test_backends_that_answer_late_are_waited_for():
    rollouts = [rollout(asking(question(), drawing()), f"record-{index}") for index in range(3)]

    outcomes = run(rollouts, Late(Fake(SMALL)), max_live=2)

    assert [len(outcome.events) for outcome in outcomes.values()] == [2, 2, 2]


def test_the_callers_tag_comes_back_with_the_outcome():
    (outcome,) = run([rollout(asking(), tag="mine")], Fake(SMALL)).values()

    assert outcome.rollout.tag == "mine"


# Sources


class Trickle:
    """A source that has nothing at hand while anything is live."""

    def __init__(self, rollouts: Iterable[Rollout]) -> None:
        self._given = Given(rollouts)

    def take(self, *, wait: bool) -> Rollout | None:
        return self._given.take(wait=True) if wait else None


def test_a_source_with_nothing_at_hand_stops_no_live_rollout():
    rollouts = [rollout(asking(question(), drawing()), f"record-{index}") for index in range(3)]

    outcomes = list(drive(Trickle(rollouts), everywhere(Fake(SMALL)), max_live=3))

    assert [outcome.rollout for outcome in outcomes] == rollouts
    assert all(outcome.codes == PICTURE for outcome in outcomes)


@given(order=ORDERS, max_live=st.integers(1, 5))
def test_no_more_than_max_live_are_taken_before_one_has_ended(order: random.Random, max_live: int):
    taken: list[Rollout] = []

    def rollouts() -> Iterable[Rollout]:
        for index in range(8):
            taken.append(rollout(asking(*[question()] * (1 + index % 3)), f"record-{index}"))
            yield taken[-1]

    backends = everywhere(Shuffling(Fake(SMALL), order))
    num_ended = 0
    for _ in drive(Given(rollouts()), backends, max_live=max_live):
        assert len(taken) - num_ended <= max_live
        num_ended += 1
    assert num_ended == len(taken) == 8


# Failures


def fails_at(candidate: int, failure: RolloutError) -> Script:
    return lambda request: failure if request.candidate == candidate else "Yes."


@pytest.mark.parametrize("kind", [RecordFailure, TaskFailure])
def test_a_dead_rollout_keeps_its_events_so_far_and_the_others_go_on(kind: type[RolloutError]):
    failure = kind("out of words", reason="scripted")
    rollouts = [
        rollout(asking(question(), drawing(), question(1), question(2)), "dead"),
        rollout(asking(question(), drawing(), question(2)), "alive"),
    ]

    outcomes = run(rollouts, scripted(fails_at(1, failure)))

    assert outcomes["dead"].error is failure
    assert outcomes["dead"].codes == ()
    assert [event.role for event in outcomes["dead"].events] == [Role.THINK, Role.DRAW]
    assert outcomes["alive"].error is None
    assert outcomes["alive"].codes == PICTURE
    assert len(outcomes["alive"].events) == 3


def test_a_rollout_that_dies_redrawing_leaves_its_first_drawing_unreplaced():
    failure = TaskFailure("no more", reason="scripted")
    program = paper_program("a red cube", fake=SMALL)

    def script(request: Request) -> str | RolloutError | None:
        if request.role is Role.REFLECT:
            return "SCORE: 1\nIMPROVED_DESCRIPTION: a better one"
        return failure if request.revision else None

    outcome = run_one(program, scripted(script))

    assert outcome.error is failure
    assert [event.role for event in outcome.events] == [Role.THINK, Role.DRAW, Role.REFLECT]
    assert outcome.events[1].superseded_by is None
    assert outcome.events[2].reflection is not None
    assert outcome.schedule is not None


def test_a_program_may_catch_the_error_of_its_request_and_go_on():
    failure = RecordFailure("out of words", reason="scripted")

    caught: list[RolloutError] = []

    def program() -> Running:
        try:
            yield question(1)
        except RecordFailure as error:
            caught.append(error)
        yield question(2)
        return PICTURE

    outcome = run_one(program(), scripted(fails_at(1, failure)))

    assert caught == [failure]
    assert (outcome.error, outcome.codes) == (None, PICTURE)
    assert [event.candidate for event in outcome.events] == [2]


@given(order=ORDERS)
def test_of_a_list_the_first_error_asked_for_is_raised_and_the_answers_are_kept(
    order: random.Random,
):
    failures = {n: TaskFailure(f"no candidate {n}", reason="scripted") for n in (1, 3)}
    backend = scripted(lambda request: failures.get(request.candidate, "Yes."))

    outcome = run_one(asking([question(n) for n in range(5)]), Shuffling(backend, order))

    assert outcome.error is failures[1]
    assert [event.candidate for event in outcome.events] == [0, 2, 4]


def test_an_error_that_a_program_raises_itself_ends_it_alone():
    def program() -> Running:
        yield question()
        raise RecordFailure("not for me", reason="picky")

    outcomes = run([rollout(program(), "picky"), rollout(asking(question()), "other")], Fake(SMALL))

    assert str(outcomes["picky"].error) == "not for me"
    assert len(outcomes["picky"].events) == 1
    assert outcomes["other"].error is None


def test_any_other_error_in_a_program_ends_the_drive():
    def program() -> Running:
        yield question()
        raise ZeroDivisionError("a bug of ours")

    with pytest.raises(ZeroDivisionError, match="a bug of ours"):
        run_one(program())


# Events


def test_each_role_is_answered_by_its_backend_and_the_event_names_it():
    by_name = {name: scripted(lambda request, name=name: f"from {name}") for name in ("a", "b")}
    name_of = {Role.THINK: "a", Role.REFLECT: "b", Role.DRAW: "b", Role.SCHEDULE: "a"}
    program = asking(question(), drawing(), question(role=Role.REFLECT), question(role="schedule"))

    outcome = run_one(program, Backends(by_name, name_of))

    assert [event.backend for event in outcome.events] == ["a", "b", "b", "a"]
    assert [event.raw_text for event in outcome.events] == ["from a", None, "from b", "from a"]


def test_an_event_tells_what_was_asked_and_answered():
    text, picture = run_one(
        asking(
            question(2, region=1, revision=3, role=Role.REFLECT), drawing(region=1, with_logp=True)
        ),
        scripted(lambda request: " two\n lines " if isinstance(request, Text) else None),
    ).events

    assert (text.role, text.region, text.revision, text.candidate) == (Role.REFLECT, 1, 3, 2)
    assert (text.raw_text, text.text) == (" two\n lines ", "two lines")
    assert bytes(text.token_ids) == b" two\n lines "
    assert text.codes == ()
    assert (picture.role, picture.region, picture.raw_text) == (Role.DRAW, 1, None)
    assert picture.text == "a red cube"
    assert bytes(picture.prefix_ids) == b"a red cube"
    assert picture.token_ids == ()
    assert picture.logp_sample is not None
    assert len(picture.codes) == len(picture.logp_sample) == 4


def test_a_replaced_drawing_names_the_one_that_replaced_it():
    outcome = run_one(
        asking(
            drawing(),
            drawing(revision=1),
            question(),
            drawing(region=1),
            drawing(revision=2),
            drawing(region=1, revision=1),
            drawing(region=2),
        )
    )

    assert [event.superseded_by for event in outcome.events] == [1, 4, None, 5, None, None, None]


def test_events_last_as_long_as_the_given_clock_says():
    now = 100.0
    fake = Fake(SMALL)

    class Slow:
        """Takes 2 seconds for words and 10 for a drawing."""

        def submit(self, request_id: RequestId, request: Request) -> None:
            nonlocal now
            now += 10 if request.role is Role.DRAW else 2
            fake.submit(request_id, request)

        def poll(self) -> Sequence[tuple[RequestId, Answer | RolloutError]]:
            return fake.poll()

    backends = everywhere(Slow())
    rollouts = [rollout(asking(question(), drawing()))]
    (outcome,) = drive(Given(rollouts), backends, max_live=1, clock=lambda: now)

    assert [event.duration_seconds for event in outcome.events] == [2, 10]
    assert outcome.duration_seconds == 12


# Seeds


def seeds(events: Iterable[Event]) -> list[int | None]:
    return [event.seed for event in events]


def test_what_is_left_to_chance_is_seeded_by_what_it_is():
    program = asking(
        drawing(region=2, revision=1),
        question(3, temperature=0.5, region=1),
    )
    key = {"run_seed": 11, "record_id": "some-record", "rollout_index": 4}

    (outcome,) = run([rollout(program, **key)], Fake(SMALL)).values()

    assert seeds(outcome.events) == [
        event_seed(**key, role="draw", region=2, revision=1, candidate=0),
        event_seed(**key, role="think", region=1, revision=0, candidate=3),
    ]


def test_what_is_greedy_has_no_seed():
    outcome = run_one(asking(question(), drawing(temperature=0.0)))

    assert seeds(outcome.events) == [None, None]


def test_the_backend_is_given_the_seed_that_the_event_names():
    given_seeds: list[int | None] = []

    def script(request: Request) -> None:
        given_seeds.append(request.seed)

    outcome = run_one(asking(question(), drawing(), drawing(revision=1)), scripted(script))

    assert seeds(outcome.events) == given_seeds


def sampled_events(critique: Callable[[Request], str], **method: Any) -> tuple[Event, ...]:
    """The events of a rollout in which nothing is greedy."""

    def script(request: Request) -> str | None:
        return critique(request) if request.role is Role.REFLECT else None

    sampling = SamplingConfig(text_temperature=0.7)
    program = paper_program("a red cube", sampling=sampling, **method)
    return run_one(program, scripted(script)).events


def test_a_revision_never_meets_the_seed_of_what_it_replaces():
    events = sampled_events(
        lambda request: "SCORE: 1\nIMPROVED_DESCRIPTION: the same one",
        reflection=ReflectionConfig(max_revisions=2),
    )

    assert max(event.revision for event in events) == 2
    assert len(set(seeds(events))) == len(events)


def test_a_critique_asked_for_again_has_a_seed_of_its_own():
    events = sampled_events(
        lambda request: "Hard to say.", reflection=ReflectionConfig(on_unparseable="ask_again")
    )

    assert max(event.candidate for event in events) == 1
    assert len(set(seeds(events))) == len(events)


def test_another_rollout_or_run_of_the_same_record_has_other_seeds():
    rollouts = [
        rollout(asking(drawing()), rollout_index=index, run_seed=run_seed)
        for index, run_seed in [(0, 0), (1, 0), (0, 1)]
    ]

    outcomes = list(drive(Given(rollouts), everywhere(Fake(SMALL)), max_live=3))

    assert len({outcome.events[0].seed for outcome in outcomes}) == 3


@dataclass
class Slow:
    """Answers only after three polls, which compute for a while or do not."""

    backend: Backend
    seconds: float
    num_polls: int = 3

    def submit(self, request_id: RequestId, request: Request) -> None:
        self.backend.submit(request_id, request)

    def poll(self) -> Sequence[tuple[RequestId, Answer | RolloutError]]:
        if not self.num_polls:
            return self.backend.poll()
        self.num_polls -= 1
        stop = time.monotonic() + self.seconds
        while time.monotonic() < stop:
            pass
        return ()


@pytest.mark.parametrize(("seconds", "num_naps"), [(0.0, 3), (0.01, 0)])
def test_drive_naps_only_after_polls_that_did_not_compute(
    monkeypatch: pytest.MonkeyPatch, seconds: float, num_naps: int
):
    naps: list[float] = []
    monkeypatch.setattr(time, "sleep", naps.append)

    outcome = run_one(asking(drawing()), Slow(Fake(SMALL), seconds))

    assert outcome.error is None
    assert len(naps) == num_naps
