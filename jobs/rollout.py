"""The main job, for `ray job submit --working-dir . -- python -m jobs.rollout PROMPTS... RUN`.

It is `coppice run` on the cluster that the job runs in. Ray knows only success and failure, so a
run that is complete with dead rollouts ends as success; `coppice status RUN` tells the two apart.
"""

import sys

from jobs.cli import main
from schemas.errors import ExitCode


def as_job(command: str) -> None:
    """A command of `coppice` with this process's arguments."""
    sys.argv[1:1] = [command]
    try:
        main()
    except SystemExit as end:
        sys.exit(ExitCode.COMPLETE if end.code == ExitCode.COMPLETE_WITH_DEAD else end.code)


if __name__ == "__main__":
    as_job("run")
