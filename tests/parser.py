"""How much of what a reader finds in prompts the parser finds: `python -m tests.parser FILE`.

A labelled file has a prompt a line, in four parts with bars between: category, prompt, objects,
relations. An object is `noun[attribute, attribute]*count`, its brackets and count left out where
there are none, several parted by semicolons; a relation is `subject > relation > object`, with `-`
for no object. Lines that begin with `#` are comments; `## NAME` begins a style.

Printed are precision and recall in percent, a line a kind: of what was found, how much is labelled;
of what is labelled, how much was found. A prompt without a spec finds nothing.
"""

import argparse
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from pipeline.prompts.parser import parse
from schemas.specs import AttributeKind, PromptSpec

Fact: TypeAlias = tuple[str, ...]

LABELLED = Path(__file__).parent / "data" / "labelled_prompts.txt"
EXACT = Path(__file__).parent / "data" / "exact_readings.txt"
STYLES = Path(__file__).parent / "data" / "labelled_styles.txt"
_OBJECT = re.compile(r"([^\[\]*]+)(?:\[(.*)\])?(?:\*(\d+))?")


class Labelled(NamedTuple):
    """What a reader found in a prompt."""

    style: str  # empty before the first heading
    category: str
    prompt: str
    facts: Mapping[str, Sequence[Fact]]  # by their kinds, see `KINDS`


class Quality(NamedTuple):
    """Shares from 0 to 1; NaN of nothing."""

    precision: float
    recall: float

    def __str__(self) -> str:
        return f"{self.precision:.1%} / {self.recall:.1%}".replace("%", "")


def labelled(path: Path = LABELLED) -> list[Labelled]:
    """Every labelled prompt of a file. Raises ValueError with the line for another format."""
    style, cases = "", []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("## "):
            style = line.removeprefix("## ").strip()
        elif line.strip() and not line.startswith("#"):
            try:
                cases.append(_labelled(style, *(part.strip() for part in line.split("|"))))
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"{path}:{number}: expected `category | prompt | objects | relations`: {error}"
                ) from error
    return cases


def _labelled(style: str, category: str, prompt: str, objects: str, relations: str) -> Labelled:
    things = [_object(thing.strip()) for thing in objects.split(";") if thing.strip()]
    links = [
        tuple(word.strip() for word in relation.split(">"))
        for relation in relations.split(";")
        if relation.strip()
    ]
    if any(len(link) != 3 for link in links):
        raise ValueError(f"relations are `subject > relation > object`, found {relations!r}")
    return Labelled(
        style=style,
        category=category,
        prompt=prompt,
        facts={
            "objects": [(noun,) for noun, _, _ in things],
            "attributes": [(noun, value) for noun, values, _ in things for value in values],
            "counts": [(noun, count) for noun, _, count in things if count],
            "relations": links,
        },
    )


def _object(text: str) -> tuple[str, list[str], str]:
    match = _OBJECT.fullmatch(text)
    if match is None:
        raise ValueError(f"objects are `noun[attribute, attribute]*count`, found {text!r}")
    noun, values, count = match.groups(default="")
    return noun.strip(), [value.strip() for value in values.split(",") if value.strip()], count


def objects(spec: PromptSpec) -> list[Fact]:
    return [(thing.noun,) for thing in spec.objects]


def attributes(spec: PromptSpec) -> list[Fact]:
    """Those that a picture shows."""
    return [
        (thing.noun, attribute.value)
        for thing in spec.objects
        for attribute in thing.attributes
        if attribute.kind is not AttributeKind.QUALITY
    ]


def counts(spec: PromptSpec) -> list[Fact]:
    return [(thing.noun, str(thing.count)) for thing in spec.objects if thing.count]


def relations(spec: PromptSpec) -> list[Fact]:
    names = [thing.noun for thing in spec.objects]
    return [
        (names[r.subject], r.relation, "-" if r.object is None else names[r.object])
        for r in spec.relations
    ]


KINDS: Mapping[str, Callable[[PromptSpec], list[Fact]]] = {
    "objects": objects,
    "attributes": attributes,
    "counts": counts,
    "relations": relations,
}


def quality(cases: Iterable[Labelled], kind: str) -> Quality:
    """Of one kind of facts, over all cases."""
    num_both = num_found = num_labelled = 0
    for case in cases:
        found, wanted = found_in(case.prompt, kind), Counter(case.facts[kind])
        num_both += (Counter(found) & wanted).total()
        num_found += len(found)
        num_labelled += wanted.total()
    return Quality(_share(num_both, num_found), _share(num_both, num_labelled))


def found_in(prompt: str, kind: str) -> list[Fact]:
    """What the parser finds of one kind; nothing where it makes no spec."""
    spec = parse(prompt).spec
    return KINDS[kind](spec) if spec else []


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def by_style(cases: Iterable[Labelled]) -> dict[str, list[Labelled]]:
    """In the order of the file."""
    styles: dict[str, list[Labelled]] = {}
    for case in cases:
        styles.setdefault(case.style, []).append(case)
    return styles


def _styles_table(cases: Iterable[Labelled]) -> Iterator[str]:
    yield "| style | prompts | no spec | " + " | ".join(KINDS) + " |"
    yield "|---" * (3 + len(KINDS)) + "|"
    for style, own in by_style(cases).items():
        num_unread = sum(parse(case.prompt).spec is None for case in own)
        cells = [f"{quality(own, kind)}" for kind in KINDS]
        yield f"| {style} | {len(own)} | {num_unread} | " + " | ".join(cells) + " |"


def _misses(cases: Iterable[Labelled]) -> Iterator[str]:
    for case in cases:
        lines = []
        for kind in KINDS:
            found, wanted = Counter(found_in(case.prompt, kind)), Counter(case.facts[kind])
            lines += [f"  + {' > '.join(fact)}" for fact in found - wanted]
            lines += [f"  - {' > '.join(fact)}" for fact in wanted - found]
        if lines:
            yield "\n".join((case.prompt, *lines))


def main() -> None:
    """Print the quality of every kind; more if asked for."""
    options = argparse.ArgumentParser(description="Precision / recall of the parser, in percent.")
    options.add_argument("file", type=Path, help="labelled prompts")
    options.add_argument("--styles", action="store_true", help="a table by style, too")
    options.add_argument("--misses", action="store_true", help="what was found amiss (+, -), too")
    asked = options.parse_args()
    cases = labelled(asked.file)
    lines = [f"{kind} {quality(cases, kind)}" for kind in KINDS]
    lines += ["", *_styles_table(cases)] if asked.styles else []
    lines += ["", *_misses(cases)] if asked.misses else []
    print("\n".join(lines))


if __name__ == "__main__":
    main()
