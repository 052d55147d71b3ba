"""docs/python.md, from the docstrings of `coppice`: `python -m tests.coppice.reference`."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import coppice

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
_HEAD = """# `import coppice`

What stands here keeps its name and its meaning from one minor version to the next; all other
modules may change. Written from the docstrings by `python -m tests.coppice.reference`.
[gallery.md](gallery.md) has an example, and the conditions and columns by which traces are chosen.
"""
_FIRST = ("open", "Run", "TrainingSet", "Traces", "Trace", "Critique", "paint")


def page() -> str:
    """The text of the page."""
    names = [*_FIRST, *(name for name in coppice.__all__ if name not in _FIRST)]
    parts = [_part(name) for name in names if not name.startswith("__")]
    return "\n".join([_HEAD, *parts])


def _part(name: str) -> str:
    value = getattr(coppice, name)
    called = name if inspect.isclass(value) else _call(name, value)
    lines = [f"## `coppice.{called}`", "", inspect.getdoc(value) or "", ""]
    if inspect.isclass(value):
        lines += _members(value)
    return "\n".join(lines)


def _members(kind: type) -> Iterator[str]:
    for name, member in vars(kind).items():
        if name.startswith("_") or not (told := inspect.getdoc(member)):
            continue
        if inspect.isfunction(member):
            yield f"- **`.{_call(name, member, skip=1)}`** {_flowing(told)}"
        elif isinstance(member, property) or type(member).__name__ == "cached_property":
            yield f"- **`.{name}`** {_flowing(told)}"
    yield ""


def _call(name: str, function: object, *, skip: int = 0) -> str:
    """`traces(where, *, sort, number)`: names alone; types stand in the source."""
    parameters = list(inspect.signature(function).parameters.values())[skip:]
    words, is_named = [], False
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not is_named:
            words, is_named = [*words, "*"], True
        is_given = parameter.default is inspect.Parameter.empty
        words.append(parameter.name if is_given else f"{parameter.name}={parameter.default!r}")
    return f"{name}({', '.join(words)})"


def _flowing(docstring: str) -> str:
    """A docstring as one paragraph, indented as an item of a list goes on."""
    return docstring.replace("\n\n", "\n").replace("\n", "\n  ")


if __name__ == "__main__":
    PAGE.write_text(page())
