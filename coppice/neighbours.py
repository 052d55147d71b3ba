"""Whether `schemas`, `pipeline` and `jobs` are ours: other projects call packages so, too.

Knows nothing but the standard library, since it is asked before anything of ours is imported.
"""

import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("schemas", "pipeline", "jobs")
_USAGE = 2  # the exit code of input that cannot be used


def check_neighbours() -> None:
    """Raises ImportError for a package of another's that Python finds in the place of ours.

    Where the command line is started, this is one sentence and exit code 2.
    """
    home = Path(__file__).resolve().parents[1]
    for name in PACKAGES:
        origin = _origin(name)
        if origin is not None and origin.parents[1] == home:
            continue
        if origin is None and PathFinder.find_spec(name, [str(home)]) is not None:
            continue  # an import that was never by path, such as from an archive
        problem = (
            f"another package named {name!r} is in the way: Python finds {origin}, and coppice "
            f"needs its own at {home / name}; start from another folder, or take that one from "
            "PYTHONPATH or the environment"
            if origin is not None
            else f"the package {name!r} of coppice is not at {home}; install coppice again"
        )
        if _is_command_line():
            sys.stderr.write(f"coppice: {problem.encode('unicode_escape').decode()}\n")
            raise SystemExit(_USAGE)
        raise ImportError(problem, name=name)


def _origin(name: str) -> Path | None:
    """The file of a package, loaded or not."""
    loaded = sys.modules.get(name)
    file = loaded.__file__ if loaded is not None else getattr(find_spec(name), "origin", None)
    return None if file is None else Path(file).resolve()


def _is_command_line() -> bool:
    program = Path(sys.argv[0] if sys.argv else "").name
    return program == "coppice" or (program == "-m" and "coppice" in sys.orig_argv)
