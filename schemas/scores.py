"""What scorers leave beside the traces: one Parquet sidecar a scorer and trace object.

A sidecar is keyed by trace and event (null: the whole trace) and says which tokens were looked at.
Every column of the scorer's own may be null, which means "does not apply" and never zero.
"""

import re
from collections.abc import Mapping
from typing import Literal

import pyarrow as pa

from schemas.config import Frozen
from schemas.errors import InputError

SCORE_FORMAT = 1
"""Raised when the key columns of a sidecar change."""

SCORES_KEY = b"coppice_scores"
"""The Parquet key-value entry that holds a `ScoresFooter` as JSON."""

ColumnType = Literal["float32", "uint64"]
KEY_COLUMNS = ("trace_id", "event", "tokens")

_SCORER = re.compile(r"(?P<name>[a-z][a-z0-9_]*)@(?P<version>[A-Za-z0-9][A-Za-z0-9._-]*)")
_TYPES = {"float32": pa.float32(), "uint64": pa.uint64()}


class ScorerId(Frozen):
    """A scorer as recipes pin it and as its folder is called: `toy@1`."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


class ScoresFooter(Frozen):
    """What a sidecar is of."""

    score_format: int = SCORE_FORMAT
    scorer: ScorerId
    source: str  # the object that was scored: shard-00042.parquet
    source_digest: str  # as the shard's footer has it: of keys, states and tokens
    num_rows: int
    digest: str  # of the rows


def parse_scorer(text: str) -> ScorerId:
    """`name@version`, or an InputError."""
    match = _SCORER.fullmatch(text)
    if match is None:
        raise InputError(
            f"{text!r} is not a scorer with its version; expected a name in small letters, an @ "
            "and a version, such as toy@1"
        )
    return ScorerId(**match.groupdict())


def scores_schema(columns: Mapping[str, ColumnType]) -> pa.Schema:
    """The columns of a sidecar whose scorer has these columns of its own."""
    key = [
        pa.field("trace_id", pa.string(), nullable=False),
        pa.field("event", pa.int16()),  # null: the whole trace
        pa.field("tokens", pa.string(), nullable=False),  # digest of what was looked at
    ]
    return pa.schema(key + [pa.field(name, _TYPES[kind]) for name, kind in columns.items()])
