"""The columns of training sets and of the decisions behind them.

These are the canonical rows, which `schemas.rows` has as types; what a trainer calls them says its
export in `pipeline.sets.exports`. Every row says where it comes from.
"""

import pyarrow as pa

from schemas.tables import IMAGE, with_features

TRAINING_FORMAT = 1
"""Raised when columns change."""

IGNORED = -100
"""A label that is not learned."""

_IDS = pa.list_(pa.int32())
_CODES = pa.list_(pa.uint16())
_LOGPS = pa.list_(pa.float32())
_NAMED = pa.struct([("name", pa.string()), ("digest", pa.string())])
MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])

_LINEAGE = [
    pa.field("id", pa.string()),
    pa.field("task", pa.string()),
    pa.field("run_id", pa.string()),
    pa.field("trace_id", pa.string()),
    pa.field("event", pa.int16()),  # null: the whole trace
    pa.field("record_id", pa.string()),
    pa.field("recipe", pa.string()),  # its digest
    pa.field("model", _NAMED),
    pa.field("backend", pa.string()),  # that answered the event; null: several
    pa.field("prompt", pa.string()),
    pa.field("category", pa.string()),
    pa.field("score", pa.float32()),  # what the recipe ranks traces by; null: nothing
]

_TOKENS = [
    pa.field("input_ids", _IDS),  # text tokens, then codes where the mask says so
    pa.field("labels", _IDS),  # as long; IGNORED where nothing is learned
    pa.field("modality_mask", pa.list_(pa.uint8())),  # 1: a code of the picture, 0: text
    # Tokens from start to stop become pads in some rows, for classifier-free guidance. Null: none.
    pa.field("droppable_start", pa.int32()),
    pa.field("droppable_stop", pa.int32()),
]

TEXT = with_features(
    [
        *_LINEAGE,
        pa.field("messages", pa.list_(MESSAGE)),  # the last one is the answer
        pa.field("images", pa.list_(IMAGE)),  # the canvas in sight; none before the first drawing
        pa.field("canvas", _CODES),  # the same as tokens; what is not drawn is left out
        *_TOKENS,
    ]
)
"""Rows of the tasks think and reflect."""

DRAW = with_features(
    [
        *_LINEAGE,
        pa.field("text", pa.string()),
        *_TOKENS,
        pa.field("cfg_weight", pa.float32()),  # of the guidance that it was sampled under
        pa.field("temperature", pa.float32()),
    ]
)
"""Rows of the tasks draw."""

_SIDE = pa.struct(
    [
        ("trace_id", pa.string()),
        ("event", pa.int16()),
        ("thoughts", pa.string()),
        ("prefix_ids", _IDS),
        ("context", _CODES),  # the regions above, which stand before the codes
        ("codes", _CODES),
        ("score", pa.float32()),
    ]
)

PREFERENCE = with_features(
    [
        *_LINEAGE,
        pa.field("margin", pa.float32()),
        pa.field("chosen", _SIDE),
        pa.field("rejected", _SIDE),
        pa.field("images", pa.list_(IMAGE)),  # chosen, rejected; empty if not kept
    ]
)
"""Rows are pairs: a drawing and the one that replaced it, or two rollouts of one prompt."""

SEGMENT = pa.struct(
    [
        ("event", pa.int16()),
        ("role", pa.string()),
        ("region", pa.int16()),
        ("revision", pa.int16()),
        ("modality", pa.string()),  # text or image
        ("is_policy", pa.bool_()),  # False: context, not to be learned
        ("is_kept", pa.bool_()),  # False: a drawing that was replaced
        ("prefix_ids", _IDS),
        ("canvas", _CODES),  # the codes before the answer, in sight or in its prefix
        ("tokens", _IDS),  # text tokens, or codes
        ("logp_sample", _LOGPS),
        ("logp_cond", _LOGPS),
    ]
)

GROUP = with_features(
    [
        *_LINEAGE,
        pa.field("group_id", pa.string()),
        pa.field("group_size", pa.int32()),
        pa.field("rollout_index", pa.int32()),
        pa.field("reward", pa.float32()),
        pa.field("advantage", pa.float32()),  # (reward - mean) / (deviation + 1e-4) of its group
        pa.field("reward_names", pa.list_(pa.string())),
        pa.field("rewards", pa.list_(pa.float32())),  # null: does not apply
        pa.field("segments", pa.list_(SEGMENT)),
        pa.field("codes", _CODES),
        pa.field("images", pa.list_(IMAGE)),
    ]
)
"""A row is a rollout; a group is every rollout of a record in one run."""

DECISIONS = pa.schema(
    [
        pa.field("run_id", pa.dictionary(pa.int32(), pa.string())),
        pa.field("trace_id", pa.string()),
        pa.field("event", pa.int16()),  # null: the whole trace
        pa.field("task", pa.dictionary(pa.int32(), pa.string())),
        pa.field("is_kept", pa.bool_()),
        pa.field("reason", pa.dictionary(pa.int32(), pa.string())),  # null: kept
        pa.field("value", pa.float32()),  # what the reason went by, where it is a number
        pa.field("split", pa.dictionary(pa.int32(), pa.string())),
    ]
)
"""What became of every row that could have been. A trace that is dead has none."""
