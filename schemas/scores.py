"""What scorers leave beside the traces: one Parquet sidecar a scorer and trace object.

A sidecar is keyed by trace and event (null: the whole trace) and says which tokens were looked at.
Every column of the scorer's own may be null, which means "does not apply" and never zero.
"""

import re
from collections.abc import Mapping
from typing import Literal, get_args

import pyarrow as pa

from schemas.config import Frozen
from schemas.errors import InputError
from schemas.json_values import JsonObject

SCORE_FORMAT = 1
"""Raised when the key columns of a sidecar change."""

SCORES_KEY = b"coppice_scores"
"""The Parquet key-value entry that holds a `ScoresFooter` as JSON."""

ColumnType = Literal["float32", "uint64", "string", "boxes"]
"""What a scorer's own column holds: numbers, 64 bits, text, or what was seen where."""

COLUMN_TYPES: tuple[str, ...] = get_args(ColumnType)
KEY_COLUMNS = ("trace_id", "event", "tokens")

_SCORER = re.compile(r"(?P<name>[a-z][a-z0-9_]*)@(?P<version>[A-Za-z0-9][A-Za-z0-9._-]*)")
_SETTINGS = re.compile(r"-[0-9a-f]{8}")  # the end of a version: the digest of settings

BOX = pa.struct(
    [
        pa.field("label", pa.string(), nullable=False),
        pa.field("score", pa.float32()),
        *(pa.field(edge, pa.float32(), nullable=False) for edge in ("x0", "y0", "x1", "y1")),
    ]
)
"""Something seen in a picture; edges are in pixels from its upper left corner."""

_TYPES: Mapping[str, pa.DataType] = {
    "float32": pa.float32(),
    "uint64": pa.uint64(),
    "string": pa.string(),
    "boxes": pa.list_(BOX),
}


class ScorerId(Frozen):
    """A scorer as its folder is called: `toy@1`, or with settings `hps@1-9f86d081`."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"

    def covers(self, other: "ScorerId") -> bool:
        """Whether a pin names another scorer: the same, or this version of it with settings."""
        rest = other.version.removeprefix(self.version)
        is_version = other.version.startswith(self.version) and other.name == self.name
        return is_version and (not rest or _SETTINGS.fullmatch(rest) is not None)


class ScoresFooter(Frozen):
    """What a sidecar is of."""

    score_format: int = SCORE_FORMAT
    scorer: ScorerId
    source: str  # the object that was scored: shard-00042.parquet
    source_digest: str  # as the shard's footer has it: of keys, states and tokens
    num_rows: int
    digest: str  # of the rows
    settings: JsonObject | None = None  # that differ from the scorer's defaults; None: it has none

    def as_json(self) -> bytes:
        """As it stands in a file: of a scorer without settings as it ever was."""
        left_out = {"settings"} if self.settings is None else None
        return self.model_dump_json(exclude=left_out).encode()


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
