"""Supplements: the rows that reruns brought back for a shard's dead keys, as a log.

A base is never touched. Supplement N is put only by one who has read the base and every supplement
before it, and holds ok rows only, of keys that are dead in all of them. So with any number of
reruns at once, each key has at most one ok row.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.store import layout
from pipeline.store.commits import check_run
from pipeline.store.evidence.digests import note_digest
from pipeline.store.objects import Store
from pipeline.store.patient import PatientStore
from pipeline.store.traces import ShardOrigin, TraceWriter, read_footer, read_rows, try_read_footer
from schemas import __version__
from schemas.runs import Key, ShardFooter
from schemas.trace import Status

_KEY = ["record_id", "rollout_index"]
_VERDICT = [*_KEY, "status", "dead_reason", "attempts"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadKey:
    """A key that no supplement has brought back."""

    reason: str  # empty only in a damaged base
    num_attempts: int  # so far, supplements in vain included


@dataclass(frozen=True, slots=True)
class ShardLog:
    """What is committed of a shard: its base, and its supplements in their order."""

    base: ShardFooter
    supplements: tuple[ShardFooter, ...]

    @property
    def num_ok(self) -> int:
        return self.base.num_ok + sum(footer.num_ok for footer in self.supplements)

    @property
    def num_dead(self) -> int:
        return self.base.num_dead - sum(footer.num_ok for footer in self.supplements)


def read_log(store: Store, shard: int) -> ShardLog:
    """A committed shard's footers. Each supplement is asked for by its name: a list might lag.

    Only a base with dead rows can have supplements. Raises ObjectMissing without a base.
    """
    base = read_footer(store, shard)
    supplements = _read_supplements(store, shard) if base.num_dead else ()
    return ShardLog(base, tuple(supplements))


def _read_supplements(store: Store, shard: int) -> Iterator[ShardFooter]:
    for number in count(1):
        footer = try_read_footer(store, shard, number)
        if footer is None:
            return
        yield footer


def read_dead_keys(store: Store, log: ShardLog) -> dict[Key, DeadKey]:
    """The keys of a shard that are dead still, in the order of its base.

    Reads the verdict columns of the base and the keys of each supplement. Raises ObjectMissing if
    one of them is gone.
    """
    shard = log.base.shard
    if not log.num_dead:
        return {}
    dead = {
        (row["record_id"], row["rollout_index"]): DeadKey(
            reason=row["dead_reason"] or "", num_attempts=row["attempts"]
        )
        for row in read_rows(store, shard, columns=_VERDICT)
        if row["status"] == Status.DEAD
    }
    for footer in log.supplements:
        for key in read_keys(store, footer):
            dead.pop(key, None)
        for key in filter(dead.__contains__, footer.in_vain):
            dead[key] = replace(dead[key], num_attempts=dead[key].num_attempts + 1)
    return dead


def read_keys(store: Store, footer: ShardFooter) -> set[Key]:
    """The keys that a data object has rows for. Raises ObjectMissing."""
    rows = read_rows(store, footer.shard, footer.supplement, columns=_KEY)
    return {(row["record_id"], row["rollout_index"]) for row in rows}


def commit_supplement(
    store: PatientStore, path: Path, footer: ShardFooter, origin: ShardOrigin
) -> ShardFooter | None:
    """Put a closed supplement under its number, or under the next one that is free.

    Whoever comes first with a number wins it; what the winner brought back is taken out of ours,
    and the file is written anew. Returns the footer that was committed, or None if nothing was left
    to say. Raises as `commit_shard` does. The file at `path` is replaced.
    """
    while True:
        winner = _put_or_read(store, path, footer)
        if winner is None or winner.attempt_id == footer.attempt_id:
            return footer
        check_run(store, winner, run_id=footer.run_id, fingerprint=footer.fingerprint)
        brought_back = read_keys(store, winner)
        origin = replace(origin, supplement=winner.supplement + 1)
        footer = _without(path, footer, origin, brought_back)
        if not footer.num_ok and not footer.in_vain:
            return None


def _put_or_read(store: Store, path: Path, footer: ShardFooter) -> ShardFooter | None:
    """None if this call made the object; else the footer of the one that stands there."""
    key = layout.traces_key(footer.shard, footer.supplement)
    note_digest(store, key, path)
    if store.put_if_absent(key, path):
        return None
    return read_footer(store, footer.shard, footer.supplement)


def _without(path: Path, footer: ShardFooter, origin: ShardOrigin, keys: set[Key]) -> ShardFooter:
    """Write the file anew, without some keys and under the origin's number."""
    draft = path.with_suffix(".draft")
    writer = TraceWriter(draft, origin)
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for batch in file.iter_batches(batch_size=16, use_threads=False):
            for row in batch.to_pylist():
                if (row["record_id"], row["rollout_index"]) not in keys:
                    writer.add_row(row)
    left = writer.close(__version__, in_vain=(key for key in footer.in_vain if key not in keys))
    draft.replace(path)
    return left
