"""Whether a store keeps the promises that a run stands on, asked before any GPU is taken.

That a put-if-absent answers right in turn says little: some servers look first and write then, and
let several of those win who come at once. So the question is put as a race. What the objects hold
decides, not the answers alone: an unanswered put may have landed.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from threading import Barrier
from typing import TypeVar
from uuid import uuid4

from pipeline.store import layout
from pipeline.store.objects import Store, join_key, repeat
from pipeline.store.open import limit_silence
from schemas.errors import ObjectMissing, StoreError, StoreRefused, StoreUnavailable

NUM_WRITERS = 16
NUM_ROUNDS = 16
PATIENCE_SECONDS = 20.0  # for a store that throttles, and for a list that lags

_BODY = b"0123456789"

T = TypeVar("T")


def preflight(store: Store) -> None:
    """Try every verb that a run stands on below `_preflight/`, and leave no object there.

    Raises StoreRefused, naming each promise that is not kept and why, or StoreUnavailable for a
    store that does not answer. It does not wait for credentials: no one has seen them work.
    """
    limit_silence(store, PATIENCE_SECONDS / 2)
    prefix = join_key(layout.PREFLIGHT, uuid4().hex)  # no folder: on a disk it would stay, empty
    _ask(lambda: store.put(f"{prefix}-object", _BODY))  # without it, there is nothing to ask
    try:
        broken = _broken_promises(store, prefix)
    finally:
        _clean_up(store, prefix)
    if broken:
        raise StoreRefused("\n- ".join([f"{store.url} cannot hold a run:", *broken]))


def _broken_promises(store: Store, prefix: str) -> list[str]:
    broken: list[str] = []
    for check in (
        _check_put_if_absent,
        _check_read,
        _check_ranged_read,
        _check_list,
        _check_delete,
    ):
        try:
            check(store, prefix)
        except (ObjectMissing, StoreRefused) as reason:
            broken.append(str(reason))
        except StoreUnavailable as reason:
            if not broken:
                raise
            return [*broken, str(reason)]
    return broken


def _check_read(store: Store, prefix: str) -> None:
    """An object comes back; one that is absent is said to be missing, and not to be forbidden."""
    if (body := _ask(lambda: store.read(f"{prefix}-object"))) != _BODY:
        raise StoreRefused(f"read: an object came back as {body!r}, not as it was put")
    with suppress(ObjectMissing):
        _ask(lambda: store.read(f"{prefix}-absent"))
        raise StoreRefused("read: an object that was never put was found")


def _check_ranged_read(store: Store, prefix: str) -> None:
    body = _ask(lambda: store.read_range(f"{prefix}-object", 3, 4))
    if body != _BODY[3:7]:
        raise StoreRefused(f"ranged read: asked for {_BODY[3:7]!r}, got {body!r}")


def _check_list(store: Store, prefix: str) -> None:
    def look() -> None:
        if key not in {entry.key for entry in store.list_folder(layout.PREFLIGHT)}:
            raise StoreUnavailable("list: an object that stands is not listed")

    key = f"{prefix}-object"
    _ask(look)


def _check_put_if_absent(store: Store, prefix: str) -> None:
    """In turn: what stands is told from what is absent, and never replaced."""
    key = f"{prefix}-turns"
    _ask(lambda: store.put_if_absent(key, b"first"))
    is_created = _ask(lambda: store.put_if_absent(key, b"second"))
    if is_created or _ask(lambda: store.read(key)) != b"first":
        raise StoreRefused(
            "put-if-absent: an object that stood there was replaced; use a server that honours "
            "If-None-Match on PutObject"
        )
    _check_race(store, prefix)


def _check_race(store: Store, prefix: str) -> None:
    """At once: of many writers one wins, and its body stands."""
    with ThreadPoolExecutor(NUM_WRITERS) as writers:
        for number in range(NUM_ROUNDS):
            key = f"{prefix}-race-{number}"
            winners = _race(store, key, writers)
            stands = _ask(partial(store.read, key))
            if winners not in ([], [stands]):  # a put that landed unanswered is told "no"
                raise StoreRefused(
                    f"put-if-absent: {len(winners)} of {NUM_WRITERS} writers at once were told "
                    f"that they made one object (round {number + 1}); such a server answers right "
                    "in turn and loses shards under load: use another one"
                )


def _race(store: Store, key: str, writers: ThreadPoolExecutor) -> list[bytes]:
    """The bodies of those who were told that they made the object."""
    start = Barrier(NUM_WRITERS)

    def write(body: bytes) -> bool:
        start.wait()
        return _ask(lambda: store.put_if_absent(key, body))

    bodies = [f"writer {number}".encode() for number in range(NUM_WRITERS)]
    has_won = writers.map(write, bodies)
    return [body for body, won in zip(bodies, has_won, strict=True) if won]


def _check_delete(store: Store, prefix: str) -> None:
    key = f"{prefix}-object"
    _ask(lambda: store.delete(key))
    with suppress(ObjectMissing):
        _ask(lambda: store.read(key))
        raise StoreRefused("delete: an object is still there after its deletion")


def _ask(call: Callable[[], T]) -> T:
    return repeat(call, patience_seconds=PATIENCE_SECONDS, waits_for=(StoreUnavailable,))


def _clean_up(store: Store, prefix: str) -> None:
    """What stays behind, because a store cannot list or delete, is in no one's way."""
    with suppress(StoreError), ThreadPoolExecutor(NUM_WRITERS) as deleters:
        names = ("object", "turns", *(f"race-{number}" for number in range(NUM_ROUNDS)))
        list(deleters.map(lambda name: store.delete(f"{prefix}-{name}"), names))
