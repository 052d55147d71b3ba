"""Thoughts that prompt files bring along, in a column: what they must be to be drawn from."""

from collections.abc import Callable

from pipeline.plan.models import ModelFacts
from pipeline.twig.reflections import single_line
from schemas.config import MethodConfig, Program
from schemas.json_values import JsonObject, JsonValue

THOUGHTS_COLUMN = "thoughts"
"""In prompt files, and so in the metadata of records, which a plan keeps and a trace repeats."""


def thoughts_check(
    method: MethodConfig, facts: ModelFacts
) -> Callable[[JsonObject], str | None] | None:
    """Says why a prompt's own thoughts cannot be drawn from; None: the method asks for none.

    There is to be one for each region, no longer together than the model's own might be.
    """
    if method.thoughts == "own":
        return None
    num_regions = method.schedule.num_regions if method.program is Program.THINK_WHILE else 1
    room = num_regions * method.sampling.max_text_tokens

    def fault(metadata: JsonObject) -> str | None:
        texts = [text for text in _listed(metadata.get(THOUGHTS_COLUMN)) if isinstance(text, str)]
        if reason := _misfit(metadata, texts, num_regions):
            return reason
        length = sum(facts.count_tokens(text) for text in texts)
        return f"thoughts of {length} tokens, where {room} fit the model" if length > room else None

    return fault


def _listed(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []


def _misfit(metadata: JsonObject, texts: list[str], num_regions: int) -> str:
    """Why these are not one text for each region; empty: they are."""
    wanted = f"expected a list of {num_regions} texts, one a region"
    if THOUGHTS_COLUMN not in metadata:
        return f"no `{THOUGHTS_COLUMN}`; {wanted}, as coppice caption writes them"
    value = metadata[THOUGHTS_COLUMN]
    if not isinstance(value, list) or len(texts) < len(value):
        return f"`{THOUGHTS_COLUMN}` is no list of texts; {wanted}"
    if len(texts) != num_regions:
        return f"{len(texts)} thoughts for {num_regions} regions (method.schedule.num_regions)"
    empty = [number for number, text in enumerate(texts, start=1) if not single_line(text)]
    return f"thought {empty[0]} is empty" if empty else ""


def thoughts_of(metadata: JsonObject) -> tuple[str, ...]:
    """The thoughts of a record that was planned with some."""
    return tuple(text for text in _listed(metadata[THOUGHTS_COLUMN]) if isinstance(text, str))
