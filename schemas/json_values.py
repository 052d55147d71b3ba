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


def read_json_object(text: str | bytes) -> JsonObject:
    """The object that a text holds. Raises ValueError for no JSON, and for JSON of another kind."""
    value: JsonValue = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, found {type(value).__name__}")
    return value
