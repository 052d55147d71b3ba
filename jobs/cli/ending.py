"""How a command ends: stopped, or with what went wrong as one message and an exit code."""

import errno
import sys
from collections.abc import Sequence

from jobs.cli.app import app
from jobs.commands.stopping import Stop
from jobs.commands.terminal import Terminal, settled
from schemas.errors import CoppiceError, ExitCode, InputError, Stopped, StoreUnavailable

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
