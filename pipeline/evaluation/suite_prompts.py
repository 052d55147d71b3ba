"""The prompts of a suite: bundled, or from the files that its project publishes."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from pipeline.evaluation.suites import (
    CLASS_KEY,
    COMPBENCH,
    COMPLEX_LISTS,
    GENEVAL,
    LISTS_KEY,
    SUITE_KEY,
    Suite,
)
from pipeline.plan.prompt_files import Limit, PromptSet, read_rows
from pipeline.plan.prompt_rows import ReadOptions
from pipeline.toy.prompts import held_out_prompts
from schemas.errors import InputError
from schemas.ids import normalise
from schemas.json_values import JsonObject
from schemas.prompts import Prompt
from schemas.specs import CATEGORY_KEY

_AS_PUBLISHED = ReadOptions(prompt_column="prompt", option="")
_NUM_TOY_PROMPTS, _TOY_SEED = 64, 1_000_003  # which no example and no benchmark has
BUNDLED = "bundled"
"""The source of prompts that come from no file."""


def suite_files(suite: Suite, folder: str | None) -> list[str]:
    """The files of a suite in a folder; of a bundled one none. Raises InputError that says what is
    missing, and who publishes it.
    """
    if not suite.files:
        if folder is not None:
            raise InputError(f"the suite {suite.name} is bundled; leave --prompts out")
        return [BUNDLED]
    names = list(suite.files.values())
    wanted = f"{', '.join(names)}, published by {suite.published_by}"
    if folder is None:
        raise InputError(f"the suite {suite.name} needs --prompts DIR, with {wanted}")
    missing = [name for name in names if not os.path.isfile(os.path.join(folder, name))]
    if missing:
        raise InputError(
            f"{folder} lacks {', '.join(missing)}; the suite {suite.name} needs {wanted}"
        )
    return [os.path.join(folder, name) for name in names]


def read_suite(
    suite: Suite, folder: str | None, *, limit: Limit | None = None, first: int | None = None
) -> PromptSet:
    """The prompts, each once, with what the tables need as metadata. `first`: so many, in turn from
    each class. Raises InputError.
    """
    paths = suite_files(suite, folder)
    if suite is COMPBENCH:
        classes = _compbench(suite, paths, limit)
    elif suite is GENEVAL:
        classes = _by_tag(paths[0], limit)
    else:
        classes = {"": list(_toy(limit))}
    kept: dict[str, Prompt] = {}
    num_read = 0
    for prompt in _in_turn(list(classes.values())):
        num_read += 1
        metadata = {**prompt.metadata, SUITE_KEY: suite.name}
        kept.setdefault(prompt.text, replace(prompt, metadata=metadata))
    return PromptSet(
        prompts=list(kept.values())[:first],
        num_duplicates=num_read - len(kept),
        rejects=[],
        num_distinct=None if first is None else len(kept),
    )


def _in_turn(classes: Sequence[Sequence[Prompt]]) -> Iterator[Prompt]:
    """The first of each, the second of each, and so on."""
    for index in range(max(map(len, classes))):
        yield from (prompts[index] for prompts in classes if index < len(prompts))


def _toy(limit: Limit | None) -> Iterator[Prompt]:
    for line, row in enumerate(held_out_prompts(_NUM_TOY_PROMPTS, seed=_TOY_SEED), start=1):
        text = normalise(str(row["prompt"]))
        if limit and (reason := limit(text)):
            raise InputError(
                f"the toy's suite cannot be drawn by this model: {reason}; evaluate the toy, or "
                "choose another suite"
            )
        metadata = {name: value for name, value in row.items() if name != "prompt"}
        yield Prompt(text=text, metadata=metadata, source=BUNDLED, line=line)


def _compbench(suite: Suite, paths: Sequence[str], limit: Limit | None) -> dict[str, list[Prompt]]:
    """By the class, which is also the category by which judges choose what to look for."""
    lists = _complex_lists(os.path.dirname(paths[0]))
    classes: dict[str, list[Prompt]] = {}
    for name, path in zip(suite.files, paths, strict=True):
        rows, _ = read_rows([path], limit=limit, options=_AS_PUBLISHED)
        metadata: JsonObject = {CLASS_KEY: name, CATEGORY_KEY: name}
        classes[name] = [replace(row, metadata=dict(metadata)) for row in rows]
        if name == "complex":
            classes[name] = [_listed(prompt, lists) for prompt in classes[name]]
    return classes


def _complex_lists(folder: str) -> dict[str, set[str]]:
    """The complex prompts about relations and about actions, where the folder tells them."""
    paths = {name: os.path.join(folder, file) for name, file in COMPLEX_LISTS.items()}
    return {
        name: {_plain(row.text) for row in read_rows([path], options=_AS_PUBLISHED)[0]}
        for name, path in paths.items()
        if os.path.isfile(path)
    }


def _listed(prompt: Prompt, lists: Mapping[str, set[str]]) -> Prompt:
    named = [name for name, texts in lists.items() if _plain(prompt.text) in texts]
    return replace(prompt, metadata={**prompt.metadata, LISTS_KEY: [*named]})


def _plain(prompt: str) -> str:
    """As T2I-CompBench compares prompts: to their first full stop."""
    return prompt.lower().partition(".")[0]


def _by_tag(path: str, limit: Limit | None) -> dict[str, list[Prompt]]:
    rows, _ = read_rows([path], limit=limit, options=_AS_PUBLISHED)
    classes: dict[str, list[Prompt]] = {}
    for row in rows:
        tag = row.metadata.get("tag")
        if not isinstance(tag, str) or not isinstance(row.metadata.get("include"), list):
            raise InputError(
                f"{row.source}:{row.line} has no tag and include, which every line of GenEval's "
                "metadata has; give the file as it is published"
            )
        prompt = replace(row, metadata={**row.metadata, CLASS_KEY: tag})
        classes.setdefault(tag, []).append(prompt)
    return classes
