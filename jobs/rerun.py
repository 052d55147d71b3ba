"""The rerun job, for `ray job submit --working-dir . -- python -m jobs.rerun RUN`.

It is `coppice rerun` on the cluster that the job runs in; see `jobs.rollout` for its exit code.
"""

from jobs.rollout import as_job

if __name__ == "__main__":
    as_job("rerun")
