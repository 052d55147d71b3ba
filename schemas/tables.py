"""The columns of every Parquet file: explicit, versioned, never inferred.

A column is added by raising `TRACE_VERSION` and never changes its meaning. `None` means "does not
apply"; it never stands for zero, false or an empty answer.
"""

import json

import pyarrow as pa

from schemas.json_values import JsonObject

_IDS = pa.list_(pa.int32())
_CODES = pa.list_(pa.uint16())
_LOGPS = pa.list_(pa.float32())
_NAMED = pa.struct([("name", pa.string()), ("digest", pa.string())])

PLAN = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("metadata", pa.string(), nullable=False),  # JSON object
        pa.field("rollout_start", pa.int32(), nullable=False),
        pa.field("rollout_stop", pa.int32(), nullable=False),
    ]
)

FOOTERS = pa.schema(  # of data objects, as a list and their footers told of them
    [
        pa.field("shard", pa.int64(), nullable=False),
        pa.field("supplement", pa.int64(), nullable=False),  # 0: the base
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("etag", pa.int64(), nullable=False),  # of a digest of it; 0: a list told none
        pa.field("num_ok", pa.int64(), nullable=False),
        pa.field("num_dead", pa.int64(), nullable=False),
    ]
)

EVENT = pa.struct(
    [
        ("index", pa.int16()),
        ("role", pa.string()),
        ("region", pa.int16()),
        ("revision", pa.int16()),
        ("candidate", pa.int16()),
        ("backend", pa.string()),
        ("seed", pa.uint64()),  # null: greedy
        ("text", pa.string()),
        ("raw_text", pa.string()),
        ("score", pa.float32()),
        ("verdict", pa.string()),
        ("better_thought", pa.string()),
        ("problem", pa.string()),
        ("prefix_ids", _IDS),
        ("token_ids", _IDS),
        ("codes", _CODES),
        ("logp_sample", _LOGPS),
        ("logp_cond", _LOGPS),
        ("finish", pa.string()),
        ("superseded_by", pa.int16()),
        ("picture", pa.int16()),
        ("duration_seconds", pa.float32()),
    ]
)

# The storage type of the Image feature of Hugging Face datasets.
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

STACK = pa.struct(
    [
        ("coppice", pa.string()),
        ("python", pa.string()),
        ("torch", pa.string()),
        ("transformers", pa.string()),
        ("device", pa.string()),
        ("arithmetic", pa.string()),  # strict: the same tokens in any batch; fast: on a GPU
    ]
)

_TRACE_FIELDS = [
    pa.field("trace_version", pa.int16(), nullable=False),
    pa.field("trace_id", pa.string(), nullable=False),
    pa.field("run_id", pa.string(), nullable=False),
    pa.field("fingerprint", pa.string(), nullable=False),
    pa.field("record_id", pa.string(), nullable=False),
    pa.field("rollout_index", pa.int32(), nullable=False),
    pa.field("status", pa.string(), nullable=False),
    pa.field("prompt", pa.string(), nullable=False),
    pa.field("metadata", pa.string(), nullable=False),  # JSON object
    pa.field("program", pa.string(), nullable=False),
    pa.field("model", _NAMED, nullable=False),
    pa.field("pack", _NAMED, nullable=False),
    pa.field("run_seed", pa.int64(), nullable=False),
    pa.field("schedule_source", pa.string()),
    pa.field("region_stops", pa.list_(pa.int32())),  # token index after each region
    pa.field("events", pa.list_(EVENT), nullable=False),
    pa.field("codes", _CODES, nullable=False),
    pa.field("final_picture", pa.int16()),  # index into images
    # Nullable, and never null: `datasets` takes the features of nullable columns alone.
    pa.field("images", pa.list_(IMAGE)),
    pa.field("dead_reason", pa.string()),
    pa.field("dead_message", pa.string()),
    pa.field("attempts", pa.int16(), nullable=False),
    pa.field("attempt_id", pa.string(), nullable=False),
    pa.field("worker", pa.string(), nullable=False),
    pa.field("stack", STACK, nullable=False),
    pa.field("started_at", pa.timestamp("us", tz="UTC"), nullable=False),
    pa.field("duration_seconds", pa.float32(), nullable=False),
]


def _feature(kind: pa.DataType) -> JsonObject:
    """A type as a feature of Hugging Face `datasets`, in the JSON that it keeps in schemas."""
    if kind == IMAGE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    name = {"float": "float32", "double": "float64"}.get(str(kind), str(kind))
    return {"dtype": name, "_type": "Value"}


def with_features(fields: list[pa.Field]) -> pa.Schema:
    """A schema that `datasets` and the Hub's viewer read pictures from, as pictures."""
    features = {field.name: _feature(field.type) for field in fields}
    note = json.dumps({"info": {"features": features}})
    return pa.schema(fields, metadata={"huggingface": note})


TRACES = with_features(_TRACE_FIELDS)
