"""Usage errors quote what was typed, and a glob types names of files, which anyone may have given.
They are typer's to print, so they are made harmless on their way there.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from typer.core import TyperGroup

from jobs.commands.terminal import printable, settle
from schemas.errors import Stopped


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


class PrintableUsage(TyperGroup):
    """All commands; their usage errors cannot move the cursor."""

    make_context = _printable_message()(TyperGroup.make_context)
    invoke = _printable_message()(TyperGroup.invoke)
