"""`make test-consumers`: every consumer, in an environment of its own, on our exports.

`python -m tests.consumers [NAME...]` makes what is missing of the environments, writes small sets,
starts a program a consumer in its environment, and prints what was run, what was only held against
a schema, losses beside our own, seconds, and disk. Ends with 1 if anything is not as it should be.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.consumers.environments import ENVIRONMENTS, num_bytes, python_of
from tests.consumers.report import Report
from tests.consumers.sets import write_sets

ROOT = Path(__file__).parents[2]
PROGRAMS = {  # by consumer; TRL is in the project's own environment
    "trl": "trl",
    "llama-factory": "llama_factory",
    "ms-swift": "ms_swift",
    "verl": "verl",
    "unirl": "unirl",
    "nemo-curator": "nemo_curator",
    "datasets-2.21": "datasets_2_21",
    "mlcroissant": "mlcroissant",
    "peft": "lora",
}
LOSS_TOLERANCE = 1e-3  # some trainers print four digits


def main(names: list[str]) -> int:
    bad = 0
    with tempfile.TemporaryDirectory(prefix="coppice-consumers-") as scratch:
        write_sets(Path(scratch))
        for name in names or PROGRAMS:
            begun = time.monotonic()
            python = python_of(name) if name in ENVIRONMENTS else Path(sys.executable)
            made = time.monotonic()
            report = run(name, python, Path(scratch))
            size = f"{num_bytes(name) / 1e6:,.0f} MB" if name in ENVIRONMENTS else "the project's"
            say(
                f"{name} {report.get('version', '?')}: environment {made - begun:.0f} s, {size}; "
                f"test {time.monotonic() - made:.0f} s"
            )
            for what in ("ran", "schema", "problems"):
                for line in report.get(what, []):  # type: ignore[attr-defined]
                    say(f"  {'schema only' if what == 'schema' else what}: {line}")
            if "loss" in report:
                say(
                    f"  first loss {report['loss']:.6f}, ours {report.get('own', float('nan')):.6f}"
                )
            bad += bool(report.get("problems"))
    return bool(bad)


def run(name: str, python: Path, sets: Path) -> Report:
    """Start the program of a consumer; what it handed back."""
    command = [str(python), "-m", f"tests.consumers.{PROGRAMS[name]}", str(sets)]
    environ = os.environ | {
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "USE_HF": "1",
        "HF_DATASETS_CACHE": str(sets / "cache"),
    }
    done = subprocess.run(command, cwd=sets, env=environ, capture_output=True, text=True)
    try:
        report: Report = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        last = "\n".join((done.stdout + done.stderr).splitlines()[-12:])
        return Report(problems=[f"ended with {done.returncode}: {last}"])
    if "own" in report and abs(report["loss"] - report["own"]) > LOSS_TOLERANCE:
        report["problems"].append(f"the loss is {report['loss']}, and ours {report['own']}")
    return report


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
