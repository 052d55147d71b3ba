"""How a command ends: stopped, or with what went wrong as one message and an exit code."""

import atexit
import errno
import os
import sys
from collections.abc import Callable, Sequence

from jobs.cli.app import app
from jobs.commands.stopping import Stop
from jobs.commands.terminal import Terminal, settled
from schemas.errors import CoppiceError, ExitCode, InputError, Stopped, StoreUnavailable

_OUTPUT_LOST = 120  # Python's own code, where what was printed could not be written
_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, or these arguments of one, and exit."""
    try:
        with Stop(Terminal(sys.stderr)), settled():
            app(arguments)
    except (KeyboardInterrupt, Stopped):  # what there is to say was said
        sys.exit(ExitCode.INCOMPLETE)
    except CoppiceError as error:
        _fail(error)
    except OSError as error:
        ours = of_this_machine(error)
        if ours is None:
            raise
        _fail(ours)


def end_process_with(do: Callable[[], None]) -> None:
    """Do what ends by SystemExit, and end this process with that code and no other.

    What Python takes down itself is taken down. Then the process ends, before the destructors of
    native libraries run: beside a thread of Ray's core or of gRPC that is still busy they aborted
    the process in a try of hundreds, after its last word and with -6 for a run that was complete.
    """
    code = 1  # Python's, for an exception that goes on from here

    def end() -> None:
        is_lost = False
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (AttributeError, OSError, ValueError):  # closed, full, or nobody reads it
                is_lost = True
        os._exit(code or _OUTPUT_LOST * is_lost)

    atexit.register(end)  # the first to be registered is the last to be called
    try:
        do()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        raise


def _fail(error: CoppiceError) -> None:
    Terminal(sys.stderr).fail(error)
    sys.exit(error.exit_code)


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
