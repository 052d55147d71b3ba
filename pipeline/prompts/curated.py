"""From rows of prompt files to prompts with specs, decontaminated: what `coppice prompts` does.

Pure: files are read before and written after. Every row that came in is accounted for.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.prompts.annotations import known_category, read_annotation
from pipeline.prompts.leaks import Leak, LeakIndex, LeakLevel
from pipeline.prompts.normal_form import same_words
from pipeline.prompts.parser import Unread, parse
from schemas.errors import InputError
from schemas.json_values import JsonObject
from schemas.prompts import Prompt, Reject
from schemas.specs import (
    CATEGORY_KEY,
    LEAKS_KEY,
    ORIGIN_KEY,
    SPEC_KEY,
    Category,
    PromptOrigin,
    PromptSpec,
    SpecSource,
)

UNKNOWN = "unknown"
"""The category of a prompt that could not be read and whose file does not say."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CuratedPrompt:
    """A prompt with all that was found out about it."""

    prompt: Prompt  # the first of its duplicates, their metadata merged
    category: Category | None
    spec: PromptSpec | None
    unread: Unread | None  # why there is no spec
    annotation_fault: str | None  # why an annotation was set aside
    leaks: list[Leak]  # the lowest level first
    model_fault: str | None = None  # why a model's reading was set aside

    @property
    def level(self) -> LeakLevel | None:
        """The lowest level at which an evaluation set holds it."""
        return min((leak.level for leak in self.leaks), default=None)

    def to_row(self, *, has_evaluation: bool, origin: PromptOrigin | None = None) -> JsonObject:
        """A line of a prompt file: `prompt`, and the rest is metadata.

        `origin` is of rows that do not tell their own.
        """
        row: JsonObject = {"prompt": self.prompt.text, **self.prompt.metadata}
        if self.category:
            row.setdefault(CATEGORY_KEY, self.category.value)
        told = origin.model_dump(exclude_none=True) if origin else {}
        if told and row.get(ORIGIN_KEY) is None:
            row[ORIGIN_KEY] = told
        row[SPEC_KEY] = self.spec.to_json() if self.spec else None
        if has_evaluation:
            row[LEAKS_KEY] = [leak_row(leak) for leak in self.leaks]
        return row


@dataclass(frozen=True, kw_only=True, slots=True)
class CuratedSet:
    """What became of every row: kept, dropped as a leak, a duplicate, or bad."""

    kept: list[CuratedPrompt]
    dropped: list[CuratedPrompt]
    num_rows: int
    num_evaluation: int
    rejects: list[Reject]

    @property
    def prompts(self) -> list[CuratedPrompt]:
        """All distinct ones, the dropped last."""
        return [*self.kept, *self.dropped]

    @property
    def num_duplicates(self) -> int:
        return self.num_rows - len(self.kept) - len(self.dropped)


def curate_prompts(
    rows: Sequence[Prompt],
    evaluation: LeakIndex,
    *,
    drop: Collection[LeakLevel],
    rejects: Sequence[Reject] = (),
) -> CuratedSet:
    """Give each distinct prompt its spec and its leaks, and set aside those that leak too much."""
    kept: list[CuratedPrompt] = []
    dropped: list[CuratedPrompt] = []
    for prompt, category in _distinct(rows):
        curated = _curate(prompt, category, evaluation)
        (dropped if curated.level in drop else kept).append(curated)
    return CuratedSet(
        kept=kept,
        dropped=dropped,
        num_rows=len(rows),
        num_evaluation=evaluation.num_prompts,
        rejects=list(rejects),
    )


def leak_row(leak: Leak) -> JsonObject:
    """A leak as JSON."""
    return {
        "level": leak.level.name,
        "evaluation_file": leak.evaluation.file,
        "evaluation_line": leak.evaluation.line,
        "evaluation_prompt": leak.evaluation.text,
    }


def hit_rows(curated: CuratedSet) -> Iterator[JsonObject]:
    """The hit list: a row for each pair of a prompt and an evaluation prompt."""
    for fate, prompts in (("dropped", curated.dropped), ("tagged", curated.kept)):
        for curated_prompt in prompts:
            prompt = curated_prompt.prompt
            for leak in curated_prompt.leaks:
                row: JsonObject = {"prompt": prompt.text, **leak_row(leak)}
                yield row | {"file": prompt.source, "line": prompt.line, "fate": fate}


def report(curated: CuratedSet) -> JsonObject:
    """All counts, and every prompt that has no spec or whose annotation was set aside."""
    prompts = curated.prompts
    return {
        "num_rows": curated.num_rows,
        "num_bad_rows": len(curated.rejects),
        "num_duplicates": curated.num_duplicates,
        "num_prompts": len(prompts),
        "num_dropped": len(curated.dropped),
        "num_written": len(curated.kept),
        "num_evaluation_prompts": curated.num_evaluation,
        "leaks": {**leak_counts(curated)},
        "specs": {category: {**counts} for category, counts in spec_counts(prompts).items()},
        "without_spec": [_case(unread, unread.unread) for unread in prompts if unread.unread],
        "annotations_set_aside": [
            _case(faulty, faulty.annotation_fault) for faulty in prompts if faulty.annotation_fault
        ],
        "readings_set_aside": [
            _case(unsure, unsure.model_fault) for unsure in prompts if unsure.model_fault
        ],
        "bad_rows": [
            {"file": bad.source, "line": bad.line, "reason": bad.reason, "text": bad.text}
            for bad in curated.rejects
        ],
    }


def leak_counts(curated: CuratedSet) -> dict[str, int]:
    """How many prompts leak, each counted at its lowest level."""
    levels = Counter(prompt.level for prompt in curated.prompts)
    return {level.name: levels[level] for level in LeakLevel}


def spec_counts(prompts: Iterable[CuratedPrompt]) -> dict[str, dict[str, int]]:
    """By category: how many specs come from annotations, from the parser, and how many are none."""
    counts: dict[str, Counter[str]] = {}
    for prompt in prompts:
        source = prompt.spec.source.value if prompt.spec else "none"
        counts.setdefault(prompt.category or UNKNOWN, Counter())[source] += 1
    columns = (*(source.value for source in SpecSource), "none")
    return {
        str(category): {column: counts[category][column] for column in columns}
        for category in sorted(counts)
    }


def _case(curated: CuratedPrompt, reason: str | None) -> JsonObject:
    prompt = curated.prompt
    return {
        "prompt": prompt.text,
        "file": prompt.source,
        "line": prompt.line,
        "category": curated.category or UNKNOWN,
        "reason": str(reason),
    }


def _distinct(rows: Iterable[Prompt]) -> Iterator[tuple[Prompt, Category | None]]:
    """Each prompt once, where it first stands; those that are equal at L0 are one. Later duplicates
    only add columns that it lacks: a bare list may come before the file with the annotations."""
    first: dict[str, Prompt] = {}
    metadata: dict[str, JsonObject] = {}
    categories: dict[str, Category | None] = {}
    for row in rows:
        key = " ".join(same_words(row.text)) or row.text
        first.setdefault(key, row)
        merged = metadata.setdefault(key, {})
        metadata[key] = row.metadata | merged
        category = known_category(row.source, row.metadata)
        categories[key] = categories.get(key) or category
    for key, row in first.items():
        yield replace(row, metadata=metadata[key]), categories[key]


def _curate(prompt: Prompt, category: Category | None, evaluation: LeakIndex) -> CuratedPrompt:
    unread, fault = None, None
    spec = _stored_spec(prompt)
    if spec is None:
        annotated = read_annotation(prompt.text, prompt.metadata, category)
        spec, fault = annotated.spec, annotated.fault
    if spec is None:
        parsed = parse(prompt.text, category)
        spec, unread = parsed.spec, parsed.unread
    return CuratedPrompt(
        prompt=prompt,
        category=category or (spec.category if spec else None),
        spec=spec,
        unread=unread,
        annotation_fault=fault,
        leaks=evaluation.leaks(prompt.text),
    )


def _stored_spec(prompt: Prompt) -> PromptSpec | None:
    """The spec that an earlier pass wrote, so that corrections by hand stay."""
    stored = prompt.metadata.get(SPEC_KEY)
    if stored is None:
        return None
    if not isinstance(stored, dict):
        raise InputError(
            f"{prompt.source}:{prompt.line}: expected a spec or null in `{SPEC_KEY}`, found "
            f"{type(stored).__name__}; rename that column"
        )
    try:
        return PromptSpec.from_json(stored)
    except InputError as error:
        raise InputError(f"{prompt.source}:{prompt.line}: {error}") from error
