"""Moving a damaged shard aside, so that the next run makes it again. Nothing is thrown away.

An object is copied to `_quarantine/`, the copy is read back and compared, and only then is the
object deleted. The last supplement goes first and the base last. So whoever is killed on any line
may start again, and loses nothing:

- Before the delete, the object stands where it stood. The copy's name follows from its bytes, so
  the next start puts the same bytes under the same name, and never others over an older copy.
- Between two objects, what is left is the base with the supplements that follow it without a gap,
  or, if the base was gone, supplements without one. The first is a shard as it once was, damaged or
  whole; the second is found and moved again.

A base deleted before its supplements might be made again beside them, with keys alive that they
bring back: twice. That is why it goes last, and why no rerun should be at work meanwhile.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.store import layout
from pipeline.store.evidence.digests import digest_of, exists, pieces
from pipeline.store.objects import Store
from pipeline.store.shard_check import Finding, check_shard
from pipeline.store.trouble.scratch import scratch_folder
from pipeline.store.verify import list_names
from schemas.errors import InputError, StoreRefused
from schemas.runs import RunManifest


@dataclass(frozen=True, kw_only=True, slots=True)
class Moved:
    """An object that stands in quarantine now."""

    key: str
    to: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """What is wrong with a shard, and all of its data objects, the base first."""

    shard: int
    findings: tuple[Finding, ...]
    keys: tuple[str, ...]


def find_damage(store: Store, manifest: RunManifest, shards: Sequence[int]) -> list[Damage]:
    """Read these shards to the last page, and say what is wrong with each.

    Changes nothing. Raises InputError if one of them is not planned, or whole, or if moving it
    aside would not mend it.
    """
    if beyond := [shard for shard in shards if shard >= manifest.num_shards]:
        raise InputError(
            f"{store.url} has shards 0 to {manifest.num_shards - 1}, and no {beyond[0]}; "
            "nothing was moved"
        )
    names = list_names(store, manifest)
    damages = []
    for shard in shards:
        listed = names.last_supplement.get(shard, 0)
        check = check_shard(
            store,
            manifest,
            shard,
            last_listed=listed,
            is_deep=True,
        )
        _refuse_what_is_not_ours_to_move(store, shard, check.findings)
        last = max(check.num_supplements, listed)
        keys = tuple(layout.traces_key(shard, number) for number in range(last + 1))
        damages.append(Damage(shard=shard, findings=check.findings, keys=keys))
    return damages


def move_aside(store: Store, damage: Damage) -> Iterator[Moved]:
    """Move a damaged shard's objects to quarantine, and tell of each when it is there.

    It works while it is iterated: one object a step. Raises StoreRefused if a copy reads back
    unlike its object, which then stays.
    """
    for key in reversed(damage.keys):
        if exists(store, key):
            yield move_object(store, key)


def _refuse_what_is_not_ours_to_move(
    store: Store, shard: int, findings: tuple[Finding, ...]
) -> None:
    if not findings:
        raise InputError(
            f"shard {shard} of {store.url} has no damage, read to the last page: it stays, and "
            "nothing was moved; leave it out of --shards"
        )
    for finding in findings:
        if not finding.can_repair:
            raise InputError(
                f"shard {shard} of {store.url} cannot be repaired, and nothing was moved: "
                f"{finding.key}: found {finding.found}, expected {finding.expected}; "
                f"{finding.advice}"
            )


def move_object(store: Store, key: str) -> Moved:
    """Move one object to quarantine. Raises as `move_aside` does."""
    with scratch_folder() as folder:
        path = folder / "object"
        digest = _copy(store, key, path)
        to = layout.quarantine_key(digest, key)
        store.put(to, path)
        size_bytes = path.stat().st_size
    if digest_of(store, to) != digest:
        raise StoreRefused(
            f"{store.url}/{to} reads back unlike {key}, which stays where it is; check the store"
        )
    store.delete(key)
    return Moved(key=key, to=to, size_bytes=size_bytes)


def _copy(store: Store, key: str, path: Path) -> str:
    """Bring an object into a file. Returns its digest."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for piece in pieces(store, key):
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()
