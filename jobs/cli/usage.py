"""What every command's words go through.

Usage errors quote what was typed, and a glob types names of files, which anyone may have given.
They are typer's to print, so they are made harmless on their way there.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeAlias, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from jobs.commands.terminal import printable, settle
from schemas.errors import Stopped

HELP_NAMES = ["-h", "--help"]

Given = ParamSpec("Given")
Command = TypeVar("Command")
Resolved: TypeAlias = tuple[str | None, Command | None, list[str]]


@contextmanager
def _printable_message() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # typer has no public name for its own
        settle()
        if hasattr(error, "format_message") and hasattr(error, "message"):
            error.message = "\n".join(map(printable, str(error.message).split("\n")))
        raise
    except KeyboardInterrupt as error:  # typer would end with 130
        raise Stopped("stopped from outside") from error


def _given_once(resolve: Callable[Given, Resolved[Command]]) -> Callable[Given, Resolved[Command]]:
    """Refuses an option that takes one value and is there twice: the first would be dropped."""

    def checked(*args: Given.args, **kwargs: Given.kwargs) -> Resolved[Command]:
        name, command, words = resolve(*args, **kwargs)
        if isinstance(command, TyperCommand):
            _check_once(command, words)
        return name, command, words

    return checked


def _check_once(command: TyperCommand, words: list[str]) -> None:
    # A command keeps the names of its help that it is asked for first.
    context = typer.Context(command, resilient_parsing=True, help_option_names=HELP_NAMES)
    try:
        *_, order = command.make_parser(context).parse_args(args=[*words])
    except Exception as error:
        if hasattr(error, "format_message"):
            return  # it is told, with the usage, when the command itself reads them
        raise
    for option, number in Counter(order).items():
        is_single = isinstance(option, TyperOption) and not (option.is_flag or option.multiple)
        if is_single and number > 1:
            raise typer.BadParameter(
                f"{option.opts[0]} is there {number} times, and only one would count: give it once"
            )


class PrintableUsage(TyperGroup):
    """All commands; their usage errors cannot move the cursor."""

    resolve_command = _given_once(TyperGroup.resolve_command)

    make_context = _printable_message()(TyperGroup.make_context)
    invoke = _printable_message()(TyperGroup.invoke)
