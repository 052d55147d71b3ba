"""Run every worked case of a file through the formulae; the last line says how many are equal."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tests.judges.cases import differences


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m tests.judges FILE.jsonl\n")
        return 2
    lines = Path(arguments[0]).read_text(encoding="utf-8").splitlines()
    cases = [line for line in lines if line.strip()]
    num_equal = 0
    for line in cases:
        difference = differences(line)
        num_equal += difference is None
        if difference is not None:
            sys.stdout.write(f"{difference}\n")
    sys.stdout.write(f"{num_equal} of {len(cases)} cases equal\n")
    return 0 if num_equal == len(cases) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
