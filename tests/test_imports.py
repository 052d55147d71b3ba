"""Who may import whom: packages, rooms, torch and Ray in their places, and no circles of files."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
ORDER = ("schemas", "pipeline", "jobs", "coppice")  # each may import those before it, and itself
ROOMS = (  # of `pipeline`; each may import those above its own line, and what its line says
    ("file_names",),
    ("twig", "store", "pictures"),
    ("endpoints",),
    ("engine", "prompts"),
    ("plan", "scoring", "toy"),
    ("rollout", "select", "evaluation"),
    ("sets",),
    ("view",),
)
BESIDE = {  # of rooms on one line, the imports between them that there are
    ("pictures", "twig"),  # what a canvas is
    ("toy", "plan"),  # its template pack
    ("toy", "scoring"),  # its scorer is one of them
}
MAX_MODULES = 20  # of a folder
HEAVY = {"torch", "transformers", "ray"}
TORCH_FREE = (  # not even inside a function
    *("schemas", "pipeline.twig", "pipeline.store", "pipeline.plan", "pipeline.prompts"),
    *("pipeline.select", "pipeline.sets", "pipeline.view", "pipeline.evaluation"),
)
MAY_USE = {  # beside the standard library
    "schemas": ("schemas", "pydantic", "pyarrow"),
    "pipeline.twig": ("schemas", "pipeline.twig", "pydantic"),
}
MAY_USE_RAY = ("jobs.cluster", "jobs.commands.score")


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


def module_paths() -> dict[str, Path]:
    """Every module of our packages by its dotted name."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in ORDER
        for path in sorted((ROOT / package).rglob("*.py"))
    }


@cache
def imports() -> list[Import]:
    """Every import of our packages that ever runs, wherever it stands in its module.

    `from package import module` counts as an import of that module.
    """
    paths = module_paths()
    return [
        statement
        for module, path in paths.items()
        for statement in _imports_in(module, path, frozenset(paths))
    ]


def _imports_in(by: str, path: Path, modules: frozenset[str]) -> Iterator[Import]:
    for node in _running_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (Import(by, alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{by}:{node.lineno} imports relatively"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield Import(by, inner if inner in modules else node.module or "", node.lineno)


def _running_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under TYPE_CHECKING, which never run."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _running_nodes(node)


def room_of(module: str) -> str:
    """`store` of `pipeline.store.s3`; empty for what stands in no room."""
    parts = module.split(".")
    return parts[1] if parts[0] == "pipeline" and len(parts) > 1 else ""


def circle_in(graph: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, in order; empty if there is none."""
    path: list[str] = []
    done: set[str] = set()

    def visit(module: str) -> list[str]:
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return []
        path.append(module)
        for imported in sorted(graph.get(module, ())):
            if circle := visit(imported):
                return circle
        done.add(path.pop())
        return []

    return next((circle for module in sorted(graph) if (circle := visit(module))), [])


def test_packages_import_in_one_direction():
    rank = {package: index for index, package in enumerate(ORDER)}
    wrong = [i for i in imports() if rank.get(i.package, 0) > rank[i.by.partition(".")[0]]]

    assert not wrong
    assert not [i for i in imports() if i.is_of("tests", "benchmarks")]


def test_rooms_import_in_one_direction():
    rank = {room: index for index, line in enumerate(ROOMS) for room in line}
    between = {
        (room_of(i.by), room_of(i.module), i)
        for i in imports()
        if room_of(i.by) and room_of(i.module) and room_of(i.by) != room_of(i.module)
    }

    assert not [i for by, of, i in between if rank[of] >= rank[by] and (by, of) not in BESIDE]
    assert {(by, of) for by, of, _ in between} >= BESIDE, "what is permitted and not there"


def test_no_files_import_each_other_in_a_circle():
    graph: dict[str, set[str]] = {module: set() for module in module_paths()}
    for statement in imports():
        if statement.module in graph and statement.module != statement.by:
            graph[statement.by].add(statement.module)

    assert circle_in(graph) == []
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": set()}) == ["a", "b", "c"]


def test_no_folder_holds_more_modules_than_a_reader_can_keep_in_mind():
    folders = {path.parent for path in module_paths().values()}

    assert {
        str(folder.relative_to(ROOT)): num_modules
        for folder in folders
        if (num_modules := len(list(folder.glob("*.py")))) > MAX_MODULES
    } == {}


@pytest.mark.parametrize("package", MAY_USE)
def test_the_pure_packages_use_little_but_the_standard_library(package: str):
    may_use = (*MAY_USE[package], *sys.stdlib_module_names)

    assert not [i for i in imports() if i.is_by(package) and not i.is_of(*may_use)]


def test_only_the_cluster_and_the_scoring_job_import_ray():
    users = [i for i in imports() if i.is_of("ray")]

    assert users
    assert not [i for i in users if not i.is_by(*MAY_USE_RAY)]


def test_what_plans_stores_selects_and_writes_does_without_torch():
    assert not [i for i in imports() if i.is_by(*TORCH_FREE) and i.is_of("torch", "transformers")]


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("jobs.cli", HEAVY | {"pyarrow", "boto3", "numpy", "PIL"}),
        ("jobs.commands.plan", HEAVY),
        ("jobs.commands.runs", HEAVY),
        ("jobs.commands.show", HEAVY),
        ("jobs.commands.prompts", HEAVY),
        ("jobs.commands.score", HEAVY),
        ("jobs.commands.curate", HEAVY),
        ("jobs.commands.evaluate", HEAVY),
        ("pipeline.rollout.worker", HEAVY),
        ("pipeline.scoring.judges.grounding", HEAVY),
        ("pipeline.scoring.judges.preference", HEAVY),
        ("pipeline.scoring.judges.vision_language", HEAVY),
        ("pipeline.scoring.judges.visual_questions", HEAVY),
        ("pipeline.sets.write", HEAVY),
    ],
)
def test_importing_it_loads_nothing_heavy(module: str, heavy: set[str]):
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()

    assert not heavy & set(loaded)
