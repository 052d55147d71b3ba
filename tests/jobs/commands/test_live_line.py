"""The line that shows how far work is: on a terminal of so many columns, and in a log."""

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.cluster.snapshot import Snapshot
from jobs.commands.live.line import (
    WINDOW_SECONDS,
    Fact,
    Pace,
    Progress,
    about,
    brief,
    fitted_line,
    whole_line,
)
from jobs.commands.live.runs import progress_of
from jobs.commands.terminal import Terminal, settle
from schemas.runs import Ends, Wait

BAR, REST = "\u2501", "\u254c"


def snapshot(**changes: Any) -> Snapshot:
    """Half done, on two actors."""
    defaults: dict[str, Any] = {
        "num_shards": 9,
        "num_committed": 4,
        "num_planned": 2270,
        "num_finished": 1203,
        "num_ok": 1000,
        "num_dead": 3,
        "num_actors": 2,
        "num_new": 1203,
        "num_bytes": 1234,
        "growing_seconds": 9.0,
        "ends": Ends(num_accepted=1150, num_revised=40, dead={"crash": 1, "timeout": 12}),
    }
    return Snapshot(**(defaults | changes))


def a_pace(per_second: float = 5.1, *, count: int = 1203) -> Pace:
    pace = Pace()
    pace.note(0.0, count - int(100 * per_second))
    pace.note(100.0, count)
    return pace


def fitted(width: int, progress: Progress | None = None, pace: Pace | None = None) -> str:
    return fitted_line(progress or progress_of(snapshot()), pace or a_pace(), width).plain


# Fitting


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (40, f"{3 * BAR}{3 * REST} 52% 1,203/2,270 5.1/s 3 min left"),
        (  # of 80 columns: a spinner is before it, and the last one stays free
            77,
            f"{4 * BAR}{4 * REST} 52% 1,203/2,270 5.1/s 3 min left "
            "13 dead, 40 revised, 1,150 accepted",
        ),
        (
            117,
            f"{5 * BAR}{6 * REST} 52% 1,203/2,270 5.1/s 3 min left "
            "13 dead (12 timeout, 1 crash), 40 revised, 1,150 accepted, 4 of 9 shards",
        ),
    ],
)
def test_a_line_has_all_that_fits_its_terminal(width: int, expected: str):
    assert fitted(width) == expected


@given(
    st.integers(20, 200),
    st.integers(1, 10**9),
    st.floats(0.001, 1e6),
    st.dictionaries(st.sampled_from(["timeout", "crash", "too_long"]), st.integers(1, 10**6)),
)
def test_no_line_is_longer_than_its_terminal(
    width: int, num_planned: int, rate: float, dead: dict[str, int]
):
    ends = Ends(num_accepted=num_planned // 2, dead=dead)
    progress = progress_of(
        snapshot(num_planned=num_planned, num_finished=num_planned // 2, ends=ends)
    )
    sink = io.StringIO()
    sink.isatty = lambda: True  # type: ignore[method-assign]
    line = Terminal(sink, width=width).progress("starting")
    line._progress, line._pace = progress, a_pace(rate, count=num_planned // 2)

    assert len(line._line(width)) <= width


@pytest.mark.parametrize("width", [77, 117])
def test_what_is_waited_for_comes_first(width: int):
    progress = progress_of(snapshot(waiting="waiting for 2 CPUs", store_wait=Wait(since=0.0)))

    assert "waiting" in fitted(width, progress)


def test_work_whose_size_nobody_knows_has_a_count_and_a_rate():
    progress = Progress(noun="units written", num_done=30, num_all=0)

    assert fitted(77, progress, a_pace(0.1, count=30)).endswith("30 units written 0.1/s")
    assert whole_line(progress, a_pace(0.1, count=30)) == "30 units written, 0.1/s"


# Honest counts


def test_a_count_never_runs_backwards_and_what_was_lost_is_told():
    pace = a_pace()
    pace.note(101.0, 1100)

    assert fitted(77, progress_of(snapshot(num_finished=1100)), pace).startswith(
        f"{6 * BAR}{7 * REST} 52% 1,203/2,270 5.0/s 3 min left 103 again, 13 dead, 40 revised"
    )


def test_what_others_grew_is_told_apart():
    resumed = progress_of(snapshot(num_finished=2203))

    assert Fact(text="1,000 before") in resumed.facts


def test_a_rate_is_of_the_last_minutes():
    pace = Pace()
    for second in range(1000):
        pace.note(float(second), 10 * second)
    for second in range(1000, 1000 + int(WINDOW_SECONDS) + 2):
        pace.note(float(second), 10_000)

    assert pace.per_second == 0.0


def test_a_line_promises_nothing_before_there_is_a_rate():
    pace = Pace()
    pace.note(3.0, 0)
    pace.note(3.5, 0)

    assert "left" not in fitted(117, progress_of(snapshot(num_finished=0)), pace)


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.9, "0 s"), (59, "59 s"), (200, "3 min"), (18_720, "5.2 h")]
)
def test_what_is_left_is_told_no_closer_than_it_is_known(seconds: float, expected: str):
    assert about(seconds) == expected


@pytest.mark.parametrize(
    ("number", "expected"), [(12_345, "12,345"), (123_456, "123k"), (1_234_567, "1.23M")]
)
def test_large_numbers_are_short(number: int, expected: str):
    assert brief(number) == expected


# In a log


def printed(*times: float, **changes: Any) -> list[str]:
    """The lines that a log gets of a line that is shown at these times."""
    sink, now = io.StringIO(), [0.0]
    with Terminal(sink, width=40).progress("starting Ray", clock=lambda: now[0]) as line:
        for number, now[0] in enumerate(times):
            line.show(progress_of(snapshot(num_finished=number, **changes)))
    return sink.getvalue().splitlines()


def test_a_log_gets_a_line_now_and_then():
    lines = printed(0, 10, 11, 19, 20, 21, 25)

    assert [line.split()[0] for line in lines] == ["starting", "0", "1", "4"]


def test_a_line_in_a_log_is_not_wrapped_and_says_all():
    line = printed(0, 10)[-1]

    assert line == (
        "1 of 2,270 rollouts, 0.1/s, 6.3 h left, 13 dead (12 timeout, 1 crash), 40 revised, "
        "1,150 accepted, 4 of 9 shards, 2 actors"
    )


# On a terminal


class Tty(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def tty(monkeypatch: pytest.MonkeyPatch) -> Tty:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    return Tty()


def test_the_first_words_are_there_at_once_and_gone_at_the_end(tty: Tty):
    terminal = Terminal(tty, width=80)
    terminal.doing("reading prompts")
    shown = tty.getvalue()
    terminal.say("Planned: 3 records.")
    settle()

    assert "reading prompts" in shown
    assert tty.getvalue().rpartition("\n")[2].endswith("\x1b[2K")  # the line is cleared
    assert "Planned: 3 records.\n" in tty.getvalue()


def test_a_line_takes_the_place_of_the_first_words(tty: Tty):
    terminal = Terminal(tty, width=80)
    terminal.doing("reading prompts")
    with terminal.progress("starting Ray") as line:
        line.show(progress_of(snapshot()))
    settle()

    assert tty.getvalue().count("\x1b[?25l") == tty.getvalue().count("\x1b[?25h") == 2


def test_without_colour_there_is_none(tty: Tty, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", "1")
    with Terminal(tty, width=80).progress("starting Ray") as line:
        line.show(progress_of(snapshot()))

    assert not [code for code in ("\x1b[31m", "\x1b[32m", "\x1b[33m") if code in tty.getvalue()]


def test_elsewhere_first_words_are_a_line_unless_a_script_reads():
    sink = io.StringIO()
    Terminal(sink).doing("reading prompts")
    Terminal(sink).doing("reading the run", is_logged=False)

    assert sink.getvalue() == "reading prompts\n"
