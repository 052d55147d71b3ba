"""Signals: the first one asks, the second one ends, and the command to go on is printed."""

import os
import signal
import subprocess
import sys
from io import StringIO

import pytest

from jobs.cli import main
from jobs.commands.stopping import Stop, hangups_held
from jobs.commands.terminal import Terminal
from tests.jobs.conftest import hangups

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
NEXT = "coppice run runs/first"

pytestmark = [pytest.mark.usefixtures("hears_hangups")]


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_asks_and_the_second_one_ends_at_once(number: signal.Signals):
    said = StringIO()
    with Stop(Terminal(said, width=200), NEXT) as stop, stop.committing():
        os.kill(os.getpid(), number)
        assert stop.is_asked()
        assert "Stopping" in said.getvalue()
        assert NEXT not in said.getvalue()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert f"Next: {NEXT}" in said.getvalue()


@pytest.mark.parametrize("number", SIGNALS)
def test_there_is_nothing_to_wait_for_before_anything_was_grown(number: signal.Signals):
    said = StringIO()
    with Stop(Terminal(said, width=200), NEXT), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
    assert f"Next: {NEXT}" in said.getvalue()


def test_a_handler_that_another_put_in_its_place_meanwhile_does_not_stay():
    before = signal.getsignal(signal.SIGTERM)
    with Stop(Terminal(StringIO()), NEXT) as stop:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        with stop.committing():
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.is_asked()
    assert signal.getsignal(signal.SIGTERM) is before


def test_nohup_is_respected():
    with hangups(signal.SIG_IGN), Stop(Terminal(StringIO()), NEXT) as stop, stop.committing():
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop.is_asked()


def test_a_process_started_while_hangups_are_held_never_hears_of_them():
    with hangups_held():
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    child.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.5)
    child.communicate(b"\n", timeout=20)
    assert child.returncode == 0


# A call that hears no signal, as some of Ray's: signals reach another thread, and Python tells the
# main one of several of them once, when the call is over.
DEAF = """
import ctypes, signal, sys
from jobs.commands.stopping import Stop
from jobs.commands.terminal import Terminal
deaf_call = ctypes.CDLL(None).usleep
try:
    with Stop(Terminal(), "coppice run runs/first", clean_up_seconds=0.2) as x, x.committing():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        print("begun", flush=True)
        deaf_call(60_000_000)
except KeyboardInterrupt:  # the signals were faster than the call
    sys.exit(3)
"""


def test_two_signals_at_once_are_two_also_while_a_call_does_not_come_back():
    process = subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline().startswith("Stopping: ")
    process.send_signal(signal.SIGINT)

    assert process.stdout.read() == f"Stopped; what is committed stays. Next: {NEXT}\n"
    assert process.wait(20) == 3


def test_a_handler_of_anothers_that_ends_the_process_is_a_stop_like_others():
    """Ray's, while it starts."""

    def stopped() -> None:
        with Stop(Terminal(StringIO()), NEXT):
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        stopped()


@pytest.mark.parametrize("number", SIGNALS)
def test_any_command_that_is_stopped_ends_with_3(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def interrupted(*_: object, **__: object) -> None:
        os.kill(os.getpid(), number)

    monkeypatch.setattr("jobs.commands.status.show_status", interrupted)
    with pytest.raises(SystemExit) as end:
        main(["status", "runs/first"])

    assert end.value.code == 3
    assert capsys.readouterr().err == "Stopped; the same command goes on.\n"
