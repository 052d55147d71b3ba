"""What JSON can hold, as types: metadata of records, configs as they are read, notes on storage."""

import json
from collections.abc import Mapping
from typing import TypeAlias

from pydantic import JsonValue as JsonValue

JsonObject: TypeAlias = dict[str, JsonValue]
"""A JSON object."""

JsonMapping: TypeAlias = Mapping[str, JsonValue]
"""A JSON object that is only read."""


def canonical_json(value: JsonValue) -> str:
    """One text for one value: sorted keys, no white space, NaN refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def read_json_object(text: str | bytes, *, is_typed: bool = False) -> JsonObject:
    """The object that a text holds. Raises ValueError for no JSON, and for JSON of another kind;
    and for a key that is there twice, if it `is_typed` by people.
    """
    try:
        value: JsonValue = json.loads(text, object_pairs_hook=unique_keys if is_typed else None)
    except RecursionError as error:
        raise ValueError("its brackets are nested too deep") from error
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, found {type(value).__name__}")
    return value


def unique_keys(pairs: list[tuple[str, JsonValue]]) -> JsonObject:
    """The `object_pairs_hook` of JSON that people write: a key given twice is a ValueError."""
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r:.100} is there twice; keep one of them")
    return value
