"""`python -m jobs.rollout PROMPTS... RUN` is `python -m jobs run PROMPTS... RUN`."""

import sys

from jobs.__main__ import run_job

if __name__ == "__main__":
    run_job(["run", *sys.argv[1:]])
