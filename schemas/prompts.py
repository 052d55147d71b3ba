"""A prompt as it was read, and a row that could not be."""

from dataclasses import dataclass

from schemas.json_values import JsonObject


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """One prompt to plan. `text` is normalised, and that is the text that gets drawn."""

    text: str
    metadata: JsonObject  # every other column of its row
    source: str  # the file, as a path or an s3:// URL
    line: int  # from 1; the row in Parquet, the item in a JSON array


@dataclass(frozen=True, kw_only=True, slots=True)
class Reject:
    """One row that cannot be planned, and why."""

    source: str
    line: int
    reason: str
    text: str  # the whole row, or the prompt in Parquet; a byte that is not UTF-8 shows as \xff
