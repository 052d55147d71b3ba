"""Small files of a run that hold anything: a sentence is said, and nothing that counts changes."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from pipeline.store.open import open_store
from schemas.errors import ExitCode
from tests.chaos.ledger import Ledger, tokens_in
from tests.jobs.commands.test_small_files import FILES, KINDS, RECORD, make_run, said

_COMMANDS = [
    ("status", "run"),
    ("gc", "run", "--settle-seconds", "0"),
    ("rerun", "run"),
    ("why", "run", RECORD),
    ("verify", "run", "--deep"),
]
_OF_RUN = [key for key in FILES.values() if not key.startswith("..")]


def garbage(ledger: Ledger, folder: Path, *, step: int) -> None:
    """Every kind in every `step`-th file; what was there is put back, and then all is as before."""
    template = make_run(folder / "garbage")
    expected = tokens_in(open_store(str(template / "run")))
    before = Path.cwd()
    try:
        for kind, spoil in KINDS.items():
            for key in _OF_RUN[::step]:
                copy = folder / "spoilt"
                shutil.rmtree(copy, ignore_errors=True)
                shutil.copytree(template, copy)
                os.chdir(copy)
                _spoil(ledger, kind, spoil, copy / "run" / key)
                ledger.check(open_store(str(copy / "run")), expected, f"{kind} in {key}")
    finally:
        os.chdir(before)


def _spoil(ledger: Ledger, kind: str, spoil: Callable[[Path], None], place: Path) -> None:
    (path,) = place.parent.glob(place.name)
    kept = path.read_bytes()
    spoil(path)
    with ledger.injecting(f"garbage: {kind}"):
        for words in _COMMANDS:
            code, output = said(words)
            if code not in set(ExitCode) - {ExitCode.BUG} or "Traceback" in output:
                ledger.wrong.append(f"{kind} in {place}: {words} ended with {code}: {output}")
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(kept)
