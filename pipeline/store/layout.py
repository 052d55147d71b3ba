"""The names of everything in a run. No other module spells a key."""

import re

MANIFEST = "run.json"
TRACES = "traces"

_SHARD = re.compile(r"traces/shard-(\d{5,})\.parquet")


def shard_name(shard: int) -> str:
    """`shard-00042`: at least five digits, more where a run has more shards."""
    return f"shard-{shard:05d}"


def plan_folder(number: int, digest: str) -> str:
    return f"plan/{number:04d}-{digest}"


def plan_key(folder: str, shard: int) -> str:
    return f"{folder}/{shard_name(shard)}.parquet"


def rejects_key(folder: str) -> str:
    return f"{folder}/rejects.jsonl"


def traces_key(shard: int) -> str:
    """The data object of a shard. Its existence is the commit."""
    return f"{TRACES}/{shard_name(shard)}.parquet"


def attempt_key(shard: int, attempt_id: str) -> str:
    return f"_attempts/{shard_name(shard)}/{attempt_id}.json"


def try_shard_of(key: str) -> int | None:
    """The shard whose data object `key` is; None for any other object, a supplement say."""
    match = _SHARD.fullmatch(key)
    return int(match[1]) if match else None
