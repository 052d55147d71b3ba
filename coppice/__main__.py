"""`python -m coppice` is `coppice`, the console script."""

from jobs.cli import end_process_with, main


def run() -> None:
    """Be the command line to the end of this process."""
    end_process_with(main)


if __name__ == "__main__":
    run()
