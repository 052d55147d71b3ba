"""Type every command of README and docs, in order, in a clean clone: `python -m tests.docs [PAGE]`.

Prints what was run, replaced and left out, and ends with 1 if a command failed, or did not print a
line that its page shows.
"""

import re
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from schemas.errors import ExitCode
from tests.docs.pages import PAGES, ROOT, Command, commands_of, not_printed
from tests.docs.places import BEFORE, NotRun, Rule, not_run, replaced
from tests.docs.provided import IN_BUCKET, provided
from tests.docs.shell import Shell, opened_shell
from tests.s3.emulator import BUCKET, emulator

_PORT = re.compile(r"(?:--port[= ]|127\.0\.0\.1:)(\d+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of a command."""

    command: Command
    is_right: bool
    rules: Sequence[Rule] = ()  # by which it was replaced
    left_out: NotRun | None = None  # why it was not typed


def main(pages: Sequence[str]) -> int:
    """Try these pages, or all, and say what came of it. How many commands failed."""
    began = time.monotonic()
    outcomes = []
    for page in pages or PAGES:
        commands = commands_of(page, (ROOT / page).read_text())
        if commands:
            outcomes += try_page(page, commands)
    left_out = [outcome for outcome in outcomes if outcome.left_out]
    failed = [outcome for outcome in outcomes if not outcome.is_right]
    num_replaced = sum(bool(outcome.rules) for outcome in outcomes)
    say(
        f"{len(outcomes)} commands in {time.monotonic() - began:.0f} s: "
        f"{len(outcomes) - len(left_out) - len(failed)} ok ({num_replaced} with something "
        f"replaced), {len(left_out)} not run, {len(failed)} failed."
    )
    for outcome in left_out:
        _say_left_out(outcome)
    for outcome in failed:
        say(f"  FAILED    {outcome.command.page}: {outcome.command.typed}")
    return len(failed)


def try_page(page: str, commands: Sequence[Command]) -> Iterator[Outcome]:
    """Type the commands of a page, each with what it takes for granted before it."""
    say(page)
    before = [rule for rule in BEFORE if rule.page == page]
    taken_for_granted = [typed for rule in before for typed in rule.commands]
    if port := _try_taken_port([*taken_for_granted, *(command.typed for command in commands)]):
        say(f"  FAILED    its commands name port {port}, which is taken on this machine")
        yield from (Outcome(command=command, is_right=False) for command in commands)
        return
    with opened_page(page) as shell:
        for command in commands:
            fitting = [rule for rule in before if re.search(rule.typed, command.typed)]
            for rule in fitting if not_run(command.typed) is None else ():
                before.remove(rule)
                outcomes = [
                    try_command(shell, Command(page=page, typed=typed)) for typed in rule.commands
                ]
                yield from (outcome for outcome in outcomes if not outcome.is_right)
            yield try_command(shell, command)


@contextmanager
def opened_page(page: str) -> Iterator[Shell]:
    """A shell in a clean clone, beside an S3 over the wire, with what a page takes for granted."""
    with emulator() as client:
        for name, text in IN_BUCKET.items():
            client.put_object(Bucket=BUCKET, Key=name, Body=text.encode())
        aws = {"AWS_ENDPOINT_URL": client.meta.endpoint_url, "AWS_DEFAULT_REGION": "us-east-1"}
        with (
            opened_shell(aws) as (shell, folder),
            provided(page, folder / "coppice", folder / "home") as told,
        ):
            for name, rules in told.items():
                say(f"  provided  {name}")
                _say_rules(rules)
            yield shell


def try_command(shell: Shell, command: Command) -> Outcome:
    """Type a command, and print what came of it."""
    if rule := not_run(command.typed):
        outcome = Outcome(command=command, is_right=True, left_out=rule)
        _say_left_out(outcome)
        return outcome
    typed, rules = replaced(command.typed)
    began = time.monotonic()
    printed, code = shell.type(typed)
    if code == ExitCode.INCOMPLETE:  # on a busy machine a Ray may not come up in time
        say(f"  again     {typed}", *printed.splitlines()[-1:], between="\n            ")
        printed, code = shell.type(typed)
    missing = not_printed(command.shown, printed)
    is_right = code == 0 and not missing
    say(f"  {'ok' if is_right else 'FAILED':<9} {typed} ({time.monotonic() - began:.0f} s)")
    _say_rules(rules)
    if not is_right:
        say(
            f"            ended with {code}",
            *missing,
            *printed.splitlines()[-25:],
            between="\n    | ",
        )
    return Outcome(command=command, is_right=is_right, rules=rules)


def _say_rules(rules: Sequence[Rule]) -> None:
    for rule in rules:
        instead = rule.instead.replace("\n", "; ") or "nothing"
        say(f"            {rule.typed} -> {instead}: {rule.reason}")


def _say_left_out(outcome: Outcome) -> None:
    assert outcome.left_out
    say(f"  not run   {outcome.command.page}: {outcome.command.typed}")
    say(f"            {outcome.left_out.reason}")


def _try_taken_port(typed: Sequence[str]) -> str | None:
    """A port that these commands name, and that is somebody else's."""
    for port in _PORT.findall(" ".join(typed)):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", int(port))) == 0:
                return port
    return None


def say(*lines: str, between: str = "\n") -> None:
    print(*lines, sep=between, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started is ended, too
    sys.exit(1 if main(sys.argv[1:]) else 0)
