"""What was injected, and whether a run is as an undisturbed one would have been."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pipeline.store.objects import Store
from pipeline.store.plans import read_manifest
from pipeline.store.supplements import read_log
from pipeline.store.traces import read_rows
from pipeline.store.verify import Verification
from schemas.runs import Key

Tokens = dict[Key, Any]

_COLUMNS = ["record_id", "rollout_index", "status", "codes", "events"]


@dataclass(slots=True)
class Ledger:
    """Counts over a whole suite. Every fault is one injected event."""

    faults: Counter[str] = field(default_factory=Counter)  # by kind
    flips: Counter[str] = field(default_factory=Counter)  # of bits, by kind of file
    seconds: Counter[str] = field(default_factory=Counter)  # from a fault's run, by kind
    real: Counter[str] = field(default_factory=Counter)  # those under a real Ray or server
    is_real: bool = False  # what is injected now
    deaths: int = 0  # of workers, and
    shards_again: int = 0  # what they cost
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @contextmanager
    def injecting(self, kind: str, number: int = 1) -> Iterator[None]:
        """So many faults of a kind happen in here, and what they lead to."""
        started = time.monotonic()
        yield
        self.count(kind, number)
        self.seconds[kind] += time.monotonic() - started

    def count(self, kind: str, number: int) -> None:
        """So many faults of a kind happened."""
        self.faults[kind] += number
        if self.is_real:
            self.real[kind] += number

    def check(self, store: Store, expected: Tokens, kind: str, *, num_dead: int = 0) -> None:
        """Hold a finished run against an undisturbed one, as `verify` and by every token."""
        manifest = read_manifest(store)
        verification = Verification(store, manifest, is_deep=True)
        for finding in verification.findings():
            self.wrong.append(f"{kind}: {finding}")
        rows, seen = {}, Counter[Key]()
        for key, tokens in _ok_rows(store):
            seen[key] += 1
            rows[key] = tokens
        self.twice += [f"{kind}: {key}" for key, times in seen.items() if times > 1]
        missing = expected.keys() - rows.keys()
        if len(missing) != num_dead or verification.num_dead != num_dead:
            self.lost += [f"{kind}: {key}" for key in missing] or [f"{kind}: dead too many"]
        self.lost += [f"{kind}: {key} was never planned" for key in rows.keys() - expected.keys()]
        differ = [key for key in rows.keys() & expected.keys() if rows[key] != expected[key]]
        self.wrong += [f"{kind}: {key}" for key in differ]

    def summary(self) -> dict[str, Any]:
        """For machines, on one line."""
        return {
            "num_faults": self.faults.total(),
            "num_kinds": len(self.faults),
            "num_real": self.real.total(),
            "num_garbage": sum(
                self.faults[kind] for kind in self.faults if kind.startswith(("garbage", "advice"))
            ),
            "fewest_of_a_kind": min(self.faults.values(), default=0),
            "faults": dict(sorted(self.faults.items())),
            "flips": dict(sorted(self.flips.items())),
            "lost": len(self.lost),
            "twice": len(self.twice),
            "wrong": len(self.wrong),
            "shards_again_per_death": round(self.shards_again / max(1, self.deaths), 2),
            "seconds": {kind: round(spent, 1) for kind, spent in sorted(self.seconds.items())},
        }


def tokens_in(store: Store) -> Tokens:
    """The tokens of an undisturbed run."""
    return dict(_ok_rows(store))


def _ok_rows(store: Store) -> Iterator[tuple[Key, Any]]:
    """The keys that are ok, wherever they stand, and all that strict mode promises of them."""
    for shard in range(read_manifest(store).num_shards):
        for number in range(len(read_log(store, shard).supplements) + 1):
            for row in read_rows(store, shard, number, columns=_COLUMNS):
                if row["status"] == "ok":
                    tokens = [(event["token_ids"], event["codes"]) for event in row["events"]]
                    yield (row["record_id"], row["rollout_index"]), (row["codes"], tokens)
