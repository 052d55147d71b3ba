"""The one moment that counts: a shard's data object is put, once, by whoever comes first.

Nothing is locked and no clock is compared. Two workers may grow the same shard; the store lets one
of them create the object, and the other finds out here, whatever was lost on the way.
"""

from enum import StrEnum
from pathlib import Path

from pipeline.store import layout
from pipeline.store.evidence.digests import note_digest
from pipeline.store.objects import Store
from pipeline.store.patient import PatientStore
from pipeline.store.traces import try_read_footer
from schemas.errors import ForeignObject, StoreUnavailable
from schemas.runs import FailedAttempt, ShardFooter


class Commit(StrEnum):
    """What became of an attempt to commit."""

    WON = "won"
    LOST = "lost"  # another attempt of the same run had committed the shard


def commit_shard(store: PatientStore, path: Path, footer: ShardFooter) -> Commit:
    """Put a closed shard file, unless the shard is committed. Repeats while the store is in doubt.

    The file stays the caller's, and must not change meanwhile.

    An unanswered put may have landed, or may land yet, so the same bytes go to the same key until
    the store answers. When the object turns out to exist, its footer decides: our own attempt id
    means that we won, without having been told. Raises ForeignObject if the object belongs to
    another run, DamagedObject if it is no shard file, StoreUnavailable or CredentialsRefused when
    patience ends, StoreRefused at once.

    The file's digest is put first: an object that is there has one.
    """
    key = layout.traces_key(footer.shard)
    note_digest(store, key, path)
    return store.patiently(lambda inner: _commit_once(inner, path, footer), f"put {key}")


def _commit_once(store: Store, path: Path, footer: ShardFooter) -> Commit:
    if store.put_if_absent(layout.traces_key(footer.shard), path):
        return Commit.WON
    winner = try_read_footer(store, footer.shard)
    if winner is None:
        raise StoreUnavailable(
            f"{store.url}/{layout.traces_key(footer.shard)} stood in the way and is gone; put again"
        )
    if winner.attempt_id == footer.attempt_id:
        return Commit.WON
    check_run(store, winner, run_id=footer.run_id, fingerprint=footer.fingerprint)
    return Commit.LOST


def check_run(store: Store, footer: ShardFooter, *, run_id: str, fingerprint: str) -> None:
    """Raises ForeignObject if a shard's object belongs to another run, or to another method."""
    if (footer.run_id, footer.fingerprint) != (run_id, fingerprint):
        key = layout.traces_key(footer.shard, footer.supplement)
        raise ForeignObject(
            f"{store.url}/{key} belongs to run {footer.run_id} "
            f"(fingerprint {footer.fingerprint}), not to {run_id} ({fingerprint}): "
            "two runs share a folder; move one of them away",
            reason="foreign_object",
        )


def record_failed_attempt(store: Store, failed: FailedAttempt) -> None:
    """Leave a note of how an attempt ended. For people: nothing depends on it.

    Raises what `Store.put` does; whoever has other work to do may suppress it.
    """
    key = layout.attempt_key(failed.shard, failed.attempt_id)
    store.put(key, failed.model_dump_json(indent=1).encode())
