"""What a command takes. `main` is the console script."""

from jobs.cli.app import main

__all__ = ["main"]
