"""A gallery read back without a browser: its scripts hold JSON."""

import json
import re
from pathlib import Path
from typing import Any

_SCRIPT = re.compile(r"coppice\.(\w+)\((.*)\);\n", re.DOTALL)


def files_in(out: Path) -> dict[str, bytes]:
    """What there is to open, by its path without the folder that the page names."""
    return {
        re.sub(r"view-[0-9a-f]{16}", "view", str(path.relative_to(out))): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def arguments_of(script: bytes) -> list[Any]:
    """What a script hands to the page."""
    match = _SCRIPT.fullmatch(script.decode("ascii"))
    assert match, script[:80]
    return json.loads(f"[{match[2]}]")


def view_of(out: Path) -> dict[str, Any]:
    """What the page knows before any trace."""
    facts: dict[str, Any] = arguments_of(files_in(out)["view/view.js"])[0]
    return facts


def grid_of(out: Path) -> dict[str, list[Any]]:
    """The columns of the grid."""
    facts, columns = view_of(out), {}
    names = ["run", "rank", "thumb", "rollout", *facts["words"], *facts["flags"]]
    names += [*facts["numbers"], "dropped_as"]
    for chunk in range(facts["grids"]):
        number, lists = arguments_of(files_in(out)[f"view/grid-{chunk:05d}.js"])
        assert number == chunk
        for name, cells in zip(names, lists, strict=True):
            columns.setdefault(name, []).extend(cells)
    return columns


def strips_of(out: Path) -> list[dict[str, Any]]:
    """What the strip shows of each trace."""
    files = files_in(out)
    scripts = sorted(name for name in files if "/traces-" in name)
    return [trace for name in scripts for trace in arguments_of(files[name])[1]]
