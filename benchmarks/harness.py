"""What benchmarks share: the description of the machine, and how results are shown."""

import json
import platform
import subprocess
import sys
from typing import Any

Rows = dict[str, Any]

_NAME_WIDTH = 46


def environment() -> Rows:
    """Hardware, versions and commit."""
    import torch
    import transformers

    on_gpu = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if on_gpu else platform.processor() or "CPU",
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "commit": commit(),
    }


def commit() -> str:
    """The commit of the code that is measured."""
    answer = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], check=False, capture_output=True, text=True
    )
    return answer.stdout.strip() or "unknown"


def show(rows: Rows) -> None:
    """A table for people and, last, one JSON line for machines."""
    show_lines(rows)
    sys.stdout.write(json.dumps(rows) + "\n")


def show_lines(rows: Rows) -> None:
    """A part of such a table, at once."""
    for name, value in rows.items():
        sys.stdout.write(f"{name:<{_NAME_WIDTH}}{value}\n")
    sys.stdout.flush()
