"""Reruns: which dead rollouts are tried again. The choice is frozen, so that a rerun can resume."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import Field

from pipeline.store import layout
from pipeline.store.objects import Store, keys_in
from pipeline.store.status import OnDamage, committed_shards, read_logs
from pipeline.store.supplements import DeadKey, ShardLog, read_dead_keys
from schemas.config import Frozen
from schemas.errors import DamagedObject, InputError, ObjectMissing
from schemas.runs import Key, RunManifest
from schemas.small_files import UnreadableFile, read_small

_MAX_BYTES = 2**28  # of a rerun, which names its keys: some three million


class RerunSelection(Frozen):
    """Which dead rollouts are asked for. Empty: all."""

    reasons: tuple[str, ...] = ()
    shards: tuple[int, ...] = ()
    records: tuple[str, ...] = ()  # ids, or unique starts of ids

    def wants(self, key: Key, dead: DeadKey) -> bool:
        """Whether a dead rollout is among them."""
        is_reason = not self.reasons or dead.reason in self.reasons
        return is_reason and (
            not self.records or any(key[0].startswith(start) for start in self.records)
        )


class Rerun(Frozen):
    """`_reruns/<id>.json`: what was asked for, and the keys that this meant."""

    rerun_id: str
    run_id: str
    selection: RerunSelection = Field(alias="wish")  # as version 0.1 wrote it
    keys: dict[int, tuple[Key, ...]]  # by shard
    created_at: str  # UTC, ISO 8601; for people

    @property
    def num_keys(self) -> int:
        return sum(len(keys) for keys in self.keys.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenRerun:
    """A rerun and what is left of it."""

    rerun: Rerun
    left: dict[int, tuple[Key, ...]]  # by shard
    is_resumed: bool


def choose(
    store: Store,
    manifest: RunManifest,
    selection: RerunSelection,
    on_damage: OnDamage | None = None,
) -> dict[int, tuple[Key, ...]]:
    """The dead rollouts that a selection names now, by shard; see `read_logs` for damaged ones.

    Raises InputError for shards that are not planned.
    """
    unplanned = [shard for shard in selection.shards if shard >= manifest.num_shards]
    if unplanned:
        raise InputError(
            f"there is no shard {unplanned[0]}: the run has shards 0 to {manifest.num_shards - 1}"
        )
    shards = committed_shards(store, manifest)
    if selection.shards:
        shards &= set(selection.shards)
    chosen = {}
    for log in read_logs(store, manifest, shards, on_damage=on_damage):
        dead = _dead_keys(store, log, on_damage)
        keys = tuple(key for key, how in dead.items() if selection.wants(key, how))
        if keys:
            chosen[log.base.shard] = keys
    return chosen


def open_rerun(
    store: Store,
    manifest: RunManifest,
    selection: RerunSelection,
    on_damage: OnDamage | None = None,
) -> OpenRerun | None:
    """The unfinished rerun of the same selection, or a new one. None if nothing dead is meant, or
    only what is damaged.

    A list may lag, and then a new rerun begins where an old one could have gone on: keys that died
    again in the old one are then tried once more, and nothing else.
    """
    for rerun in _read_reruns(store, manifest):
        if rerun.selection == selection and (left := _left_of(store, manifest, rerun, on_damage)):
            return OpenRerun(rerun=rerun, left=left, is_resumed=True)
    keys = choose(store, manifest, selection, on_damage)
    if not keys:
        return None
    rerun = Rerun(
        rerun_id=uuid.uuid4().hex[:12],
        run_id=manifest.run_id,
        wish=selection,
        keys=keys,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    store.put(layout.rerun_key(rerun.rerun_id), rerun.model_dump_json(by_alias=True).encode())
    return OpenRerun(rerun=rerun, left=keys, is_resumed=False)


def _read_reruns(store: Store, manifest: RunManifest) -> Iterator[Rerun]:
    for entry in keys_in(store, layout.RERUNS):
        try:
            rerun = read_small(store, entry.key, Rerun, max_bytes=_MAX_BYTES)
        except (ObjectMissing, UnreadableFile):
            continue  # gone, damaged, or another version's; its keys can be chosen anew
        if rerun.run_id == manifest.run_id:
            yield rerun


def _left_of(
    store: Store, manifest: RunManifest, rerun: Rerun, on_damage: OnDamage | None
) -> dict[int, tuple[Key, ...]]:
    """The keys of a rerun that neither came back nor were tried by it in vain."""
    left = {}
    shards = committed_shards(store, manifest) & rerun.keys.keys()
    for log in read_logs(store, manifest, shards, on_damage=on_damage):
        if not _has_part_of(log, rerun):
            dead = _dead_keys(store, log, on_damage)
            keys = tuple(key for key in rerun.keys[log.base.shard] if key in dead)
            if keys:
                left[log.base.shard] = keys
    return left


def _dead_keys(store: Store, log: ShardLog, on_damage: OnDamage | None) -> dict[Key, DeadKey]:
    try:
        return read_dead_keys(store, log)
    except DamagedObject as error:
        if on_damage is None:
            raise
        on_damage(log.base.shard, error)
        return {}


def _has_part_of(log: ShardLog, rerun: Rerun) -> bool:
    """Whether the rerun has had its say on a shard."""
    return any(footer.rerun_id == rerun.rerun_id for footer in log.supplements)
