"""How the house is kept: sizes that can be read at a glance, and types that say what is meant."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_imports import module_paths

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_ANY_PER_THOUSAND_LINES = 3.0
MAX_ESCAPES = 14  # ways around the type checker that are not `Any`; the number only falls

PRONOUNS = {"one", "ones", "found", "there", "here", "place", "places", "some", "it", "that"}
PRONOUNS |= {"these", "those", "thing", "things", "stuff", "made"}
FOUND_AND_EXPECTED = {("shard_check.py", "found"), ("verify.py", "found")}  # of a finding

_ESCAPE = re.compile(r"(?<!\.)\bcast\(|# type: ignore|(?<![.\w])object\]|: object\b|-> object\b")


def sources() -> Iterator[tuple[Path, str]]:
    for path in module_paths().values():
        yield path, path.read_text()


def num_any(text: str) -> int:
    """How often the word `Any` stands in the code, its import not counted."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    names = sum(token.type == tokenize.NAME and token.string == "Any" for token in tokens)
    return names - len(re.findall(r"^(?:from typing import|    Any,).*\bAny\b", text, re.M))


def test_no_module_is_longer_than_a_reader_can_hold():
    assert {
        path.name: num_lines
        for path, text in sources()
        if (num_lines := text.count("\n")) > MAX_MODULE_LINES
    } == {}


def test_no_function_is_longer_than_a_screen():
    assert [
        f"{path.name}: {node.name}"
        for path, text in sources()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    ] == []


def test_types_say_what_is_meant():
    num_lines = sum(text.count("\n") for _, text in sources())
    counts = {path: count for path, text in sources() if (count := num_any(text))}

    assert 1000 * sum(counts.values()) / num_lines <= MAX_ANY_PER_THOUSAND_LINES, counts


def test_nothing_else_takes_the_place_of_any():
    assert sum(len(_ESCAPE.findall(text)) for _, text in sources()) <= MAX_ESCAPES


def test_rows_of_parquet_are_read_against_their_checksums():
    """Else a flipped bit is another value, and nobody hears of it."""
    calls = [
        (path.name, ast.unparse(node))
        for path, text in sources()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith(("pq.", "ds."))
    ]
    assert [
        call
        for call in calls
        if call[1].startswith(("pq.ParquetFile(", "pq.read_table(", "ds."))
        and "page_checksum_verification=True" not in call[1]
    ] == []
    assert len(calls) > 20  # by the names that the code imports


def test_variables_are_named_by_what_they_hold():
    assert [
        f"{path.name}:{node.lineno}: {name}"
        for path, text in sources()
        for node in ast.walk(ast.parse(text))
        if (name := _bound_name(node)) in PRONOUNS and (path.name, name) not in FOUND_AND_EXPECTED
    ] == []


def _bound_name(node: ast.AST) -> str | None:
    """The variable or argument that a node makes, if it makes one."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return node.id
    return node.arg if isinstance(node, ast.arg) else None


def test_the_tests_of_a_file_run_in_one_process(request: pytest.FixtureRequest):
    """Otherwise both workers of `make test` make what the tests of a file share."""
    if request.config.getoption("loadgroup", False):  # what xdist calls its `--dist` in a worker
        assert request.node.nodeid.endswith("@tests/test_house.py")
