"""What a command takes. `main` runs one; `end_process_with` ends a process by what it did."""

from jobs.cli.ending import end_process_with, main

__all__ = ["end_process_with", "main"]
