"""The notebook in examples/, cell by cell in this process: a kernel would add nothing but time."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.store.open import open_store
from tests.pipeline.conftest import grow_toy, score

NOTEBOOK = Path(__file__).parents[2] / "examples" / "first_look.ipynb"


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """What a cell shows: the value of its last line, if that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(NOTEBOOK), "exec"), names)
    if not isinstance(last, ast.Expr):
        return None
    return eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names)


@pytest.mark.slow
def test_every_cell_of_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "runs").mkdir()
    url = grow_toy(tmp_path, num_records=2, num_rollouts=2, pictures="none")
    Path(url).rename(tmp_path / "runs" / "first")
    score(open_store(str(tmp_path / "runs" / "first")), "toy", "critiques")
    monkeypatch.chdir(tmp_path)
    notebook = json.loads(NOTEBOOK.read_text())
    names: dict[str, Any] = {}

    shown = {
        cell["id"]: run_cell("".join(cell["source"]), names)
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    }

    assert shown["open"].num_ok == 4
    assert shown["strips"]._repr_html_().count("<img ") >= 12
    assert shown["picture"].size == shown["paint"].size == (48, 48)
    assert set(shown["table"].columns) == {"prompt", "score", "verdict", "revised", "toy.value"}
    assert all(cell.get("outputs", []) == [] for cell in notebook["cells"])
