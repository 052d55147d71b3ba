"""What goes wrong before or beside a command: words that were typed, files of this machine.

Usage errors quote what was typed, and a glob types names of files, which anyone may have given.
They are typer's to print, so they are made harmless on their way there.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from typer.core import TyperGroup

from jobs.commands.terminal import printable
from schemas.errors import CoppiceError, InputError, Stopped, StoreUnavailable

_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def of_this_machine(error: OSError) -> CoppiceError | None:
    """What the system said of a file that is no store's: one to be written, or a scratch one.

    None for what a library calls so, and no system did.
    """
    if error.errno is None or error.strerror is None:
        return None
    where = f" {error.filename!r:.200}" if error.filename is not None else ""
    if error.errno in _PASSING:
        return StoreUnavailable(
            f"cannot go on with the file{where}: {error.strerror}; make room, also in TMPDIR "
            "(/tmp), and give the same command again"
        )
    return InputError(
        f"cannot use the file{where}: {error.strerror}; check its path, or give another"
    )


@contextmanager
def _printable_message() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # typer has no public name for its own
        if hasattr(error, "format_message") and hasattr(error, "message"):
            error.message = "\n".join(map(printable, str(error.message).split("\n")))
        raise
    except KeyboardInterrupt as error:  # typer would end with 130
        raise Stopped("stopped from outside") from error


class PrintableUsage(TyperGroup):
    """All commands; their usage errors cannot move the cursor."""

    make_context = _printable_message()(TyperGroup.make_context)
    invoke = _printable_message()(TyperGroup.invoke)
