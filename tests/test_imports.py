"""Who may import whom: schemas <- pipeline <- jobs; torch, transformers, Ray in their places."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
ORDER = ("schemas", "pipeline", "jobs")  # each may import those before it, and itself
HEAVY = {"torch", "transformers", "ray"}
TORCH_FREE = ("schemas", "pipeline.twig", "pipeline.store")  # not even inside a function
MAY_USE = {  # beside the standard library
    "schemas": ("schemas", "pydantic", "pyarrow"),
    "pipeline.twig": ("schemas", "pipeline.twig", "pydantic"),
}


class Import(NamedTuple):
    """One import statement: `module` is what is imported, as a dotted name."""

    by: str
    module: str
    line: int

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]

    def is_by(self, *packages: str) -> bool:
        return f"{self.by}.".startswith(tuple(f"{package}." for package in packages))

    def is_of(self, *packages: str) -> bool:
        return f"{self.module}.".startswith(tuple(f"{package}." for package in packages))


def imports() -> list[Import]:
    """Every import of our three packages, wherever it stands in its module."""
    return [
        found
        for package in ORDER
        for path in sorted((ROOT / package).rglob("*.py"))
        for found in _imports_in(path)
    ]


def _imports_in(path: Path) -> Iterator[Import]:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (Import(module, alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}:{node.lineno} imports relatively"
            yield Import(module, node.module or "", node.lineno)


def test_packages_import_in_one_direction():
    rank = {package: index for index, package in enumerate(ORDER)}
    wrong = [i for i in imports() if rank.get(i.package, 0) > rank[i.by.partition(".")[0]]]

    assert not wrong
    assert not [i for i in imports() if i.is_of("tests", "benchmarks")]


@pytest.mark.parametrize("package", MAY_USE)
def test_the_pure_packages_use_little_but_the_standard_library(package: str):
    may_use = (*MAY_USE[package], *sys.stdlib_module_names)

    assert not [i for i in imports() if i.is_by(package) and not i.is_of(*may_use)]


def test_only_jobs_import_ray():
    users = [i for i in imports() if i.is_of("ray")]

    assert users
    assert all(i.is_by("jobs") for i in users)


def test_the_formats_the_method_and_the_store_do_without_torch():
    assert not [i for i in imports() if i.is_by(*TORCH_FREE) and i.is_of("torch", "transformers")]


def test_what_curates_needs_no_torch():
    rooms = [f"pipeline.{room}" for room in ("prompts", "scoring", "select", "sets", "view")]

    assert not [i for i in imports() if i.is_by(*rooms) and i.is_of("torch")]


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("jobs.cli", HEAVY | {"pyarrow", "boto3", "numpy", "PIL"}),
        ("jobs.commands.runs", HEAVY),
        ("jobs.commands.show", HEAVY),
        ("jobs.commands.prompts", HEAVY),
        ("jobs.commands.score", HEAVY),
        ("jobs.commands.curate", HEAVY),
        ("pipeline.rollout.worker", HEAVY),
    ],
)
def test_importing_it_loads_nothing_heavy(module: str, heavy: set[str]):
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()

    assert not heavy & set(loaded)
