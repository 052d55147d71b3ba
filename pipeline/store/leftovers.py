"""What nobody needs any more: found, told, and removed, also beside a live run.

Only what cannot come to be needed is a leftover:

- A plan folder of number N can be named by nothing but the object that commits part N, which is put
  once. When that stands and names another folder, no one can name this one; a planner that still
  writes to it will find its number taken. Folders above the last part may be about to be named.
- Temporary files of the local store, and objects of a preflight, belong to a call that is under
  way, or to one that was killed. What stands unchanged for a while is taken for the second. If it
  was the first after all, no harm is done: a put that cannot find its temporary file says that the
  store is unavailable, as one does whose folder went away, and is repeated from its source.
- Drivers before the newest two are history: the number of the next one follows from the highest.
- What has a name that is no key is left alone: no verb takes it, and nothing of ours made it.
- A log of footers is put whole and never changed: one that is damaged, or of another run, is no use
  to anyone, and each of them only saves reading.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.store import layout
from pipeline.store.footers import useless_logs
from pipeline.store.objects import Entry, Store, keys_in
from schemas.runs import RunManifest

_PASSING = {
    layout.TEMPORARY: "a put that was killed",
    layout.PREFLIGHT: "a preflight that was killed",
}
_DRIVERS_KEPT = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Leftover:
    """An object that may go, and what it is left over from."""

    key: str
    size_bytes: int
    source: str


def find_leftovers(
    store: Store,
    manifest: RunManifest,
    *,
    settle_seconds: float,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Leftover]:
    """All leftovers of a run; removes none. Waits `settle_seconds` if any might still be in use.

    Raises StoreUnavailable and StoreRefused.
    """
    settled = list(_of_killed_calls(store))
    if settled:
        sleep(settle_seconds)
        still_there = set(_of_killed_calls(store))
        settled = [leftover for leftover in settled if leftover in still_there]
    logs = (_leftover(entry, "a log of footers") for entry in useless_logs(store, manifest))
    return [*_of_plans(store, manifest), *settled, *_of_drivers(store), *logs]


def _of_plans(store: Store, manifest: RunManifest) -> Iterator[Leftover]:
    named = {part.folder for part in manifest.parts}
    for folder in store.list_subfolders(layout.PLAN):
        number = layout.try_number_of(folder)
        if number is not None and number <= len(manifest.parts) and folder not in named:
            for entry in keys_in(store, folder):
                yield _leftover(entry, f"a plan that was not committed as part {number}")


def _of_killed_calls(store: Store) -> Iterator[Leftover]:
    for folder, source in _PASSING.items():
        for entry in keys_in(store, folder):
            yield _leftover(entry, source)


def _of_drivers(store: Store) -> Iterator[Leftover]:
    entries = list(store.list_folder(layout.DRIVERS))
    numbered = [(number, entry) for entry in entries if (number := layout.try_driver_of(entry.key))]
    kept = sorted({number for number, _ in numbered})[-_DRIVERS_KEPT:]
    for number, entry in numbered:
        if number not in kept:
            yield _leftover(entry, "a driver before the newest two")


def _leftover(entry: Entry, source: str) -> Leftover:
    return Leftover(key=entry.key, size_bytes=entry.size_bytes, source=source)
