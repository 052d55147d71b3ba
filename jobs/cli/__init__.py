"""What a command takes. `main` is the console script."""

from jobs.cli.ending import main

__all__ = ["main"]
