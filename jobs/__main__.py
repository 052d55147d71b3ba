"""The jobs, for `ray job submit --working-dir . -- python -m jobs run PROMPTS... RUN`.

`python -m jobs WORD ...` is `coppice WORD ...` on the cluster that the job runs in. Ray knows only
success and failure, so a run that is complete with dead rollouts ends as success; `coppice status
RUN` tells the two apart.
"""

import sys
from collections.abc import Sequence

from jobs.cli import end_process_with, main
from jobs.commands.terminal import Terminal
from schemas.errors import ExitCode, InputError

JOBS = ("run", "rerun", "score", "curate", "prompts")


def run_job(arguments: Sequence[str]) -> None:
    """Do the job that the first argument names, and end this process as Ray understands it."""
    if not arguments or arguments[0] not in JOBS:
        asked = repr(arguments[0]) if arguments else "none"
        Terminal(sys.stderr).fail(
            InputError(
                f"expected a job ({', '.join(JOBS)}), found {asked}; for example: "
                "python -m jobs run PROMPTS... RUN"
            )
        )
        sys.exit(ExitCode.USAGE)
    try:
        main(arguments)
    except SystemExit as end:
        sys.exit(ExitCode.COMPLETE if end.code == ExitCode.COMPLETE_WITH_DEAD else end.code)


if __name__ == "__main__":
    end_process_with(lambda: run_job(sys.argv[1:]))
