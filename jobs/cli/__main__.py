"""`python -m jobs.cli` is `coppice`."""

from jobs.cli.ending import end_process_with, main

if __name__ == "__main__":
    end_process_with(main)
