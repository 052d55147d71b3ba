"""Prompts that evaluation sets hold too, by how alike they are.

Near-duplicate hashes are useless here: a fifth of the training prompts are near others on purpose
("a red cup and a blue book"). So there are four levels of being equal, each a plain key.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from pipeline.prompts.lexicon import lexicon
from pipeline.prompts.normal_form import same_meaning, same_words
from pipeline.prompts.parser import parse
from schemas.errors import InputError
from schemas.specs import PromptSpec, Relation


class LeakLevel(IntEnum):
    """How a prompt equals one of an evaluation set; the lower, the more certain the leak."""

    L0 = 0  # equal but for case, punctuation, white space and what nobody sees
    L1 = 1  # and for articles, plurals, accents, "a photo of" and ", 4k"
    L2 = 2  # and for the order of words: mostly two roles swapped
    L3 = 3  # in other words, but the parser reads the same spec


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationPrompt:
    """One prompt of an evaluation set, and where it stands."""

    text: str
    file: str
    line: int  # from 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Leak:
    """An evaluation prompt that a prompt equals, at the lowest level that does."""

    level: LeakLevel
    evaluation: EvaluationPrompt


class LeakIndex:
    """Evaluation prompts, to be looked up by any level."""

    def __init__(self, evaluation: Iterable[EvaluationPrompt]) -> None:
        self._by_key: dict[tuple[LeakLevel, str], list[EvaluationPrompt]] = defaultdict(list)
        self.num_prompts = 0
        for prompt in evaluation:
            self.num_prompts += 1
            for key in _keys(prompt.text):
                self._by_key[key].append(prompt)

    def leaks(self, prompt: str) -> list[Leak]:
        """Every evaluation prompt that this one equals, each once; the lowest level first."""
        leaks: dict[EvaluationPrompt, Leak] = {}
        if self._by_key:
            for key in _keys(prompt):
                for evaluation in self._by_key.get(key, ()):
                    leaks.setdefault(evaluation, Leak(level=key[0], evaluation=evaluation))
        return list(leaks.values())


def parse_levels(text: str) -> frozenset[LeakLevel]:
    """`L1,L2` as levels; `none` is no level. Raises InputError for anything else."""
    names = {level.name: level for level in LeakLevel}
    asked = [] if text.strip().lower() == "none" else text.upper().replace(" ", "").split(",")
    if unknown := [name for name in asked if name not in names]:
        raise InputError(
            f"expected leak levels such as L2,L3, or none; found {unknown[0]!r} in {text!r}. "
            "There are L0, L1, L2 and L3"
        )
    return frozenset(names[name] for name in asked)


def spec_key(spec: PromptSpec) -> str:
    """The same for two specs if they ask for the same picture, in whatever order or direction."""
    names = [
        json.dumps([shown.noun, sorted(a.value for a in shown.attributes), shown.count])
        for shown in spec.objects
    ]
    relations = sorted(_direction(relation, names) for relation in spec.relations)
    return json.dumps([sorted(names), relations])


def _keys(prompt: str) -> Iterator[tuple[LeakLevel, str]]:
    """One key a level, those without content left out."""
    if exact := " ".join(same_words(prompt)):
        yield LeakLevel.L0, exact
    if words := same_meaning(prompt):
        yield LeakLevel.L1, " ".join(words)
        yield LeakLevel.L2, " ".join(sorted(words))
    if spec := parse(prompt).spec:
        yield LeakLevel.L3, spec_key(spec)


def _direction(relation: Relation, names: list[str]) -> list[str]:
    """One of the two ways to say it: "a left of b" is "b right of a"."""
    subject = names[relation.subject]
    if relation.object is None:
        return [relation.relation, subject, ""]
    forward = [relation.relation, subject, names[relation.object]]
    inverse = lexicon().inverses.get(relation.relation)
    if inverse is None:
        return forward
    return min(forward, [inverse, names[relation.object], subject])


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationSet:
    """The prompts that must not be trained on."""

    levels: tuple[str, ...] = ()  # that count as leaks
    index: LeakIndex = field(default_factory=lambda: LeakIndex(()))
    digests: Mapping[str, str] = field(default_factory=dict)  # of the files, by their names

    def leak_of(self, prompt: str) -> str | None:
        """The lowest level at which a prompt is one of these; None: at none that counts."""
        names = (leak.level.name for leak in self.index.leaks(prompt))
        return next((name for name in names if name in self.levels), None)
