"""Single bits flipped in every kind of file: each is found, or no reader answers differently.

`python -m tests.flips 10000` prints one JSON line. Files of version 0.1, of which nobody took a
digest, are flipped as well, and counted apart: what is found of them is found by their footers.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.sets.whole import SetCheck
from pipeline.store import layout
from pipeline.store.evidence.digests import Digests, DigestState, digest_of
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.plans import look_at_plan, read_manifest
from pipeline.store.shard_check import check_shard
from pipeline.store.verify import Verification
from schemas.errors import DamagedObject
from tests.damage import RUN, SET, Site, make_site

OLDER = Path(__file__).parent / "data" / "v0.1"

_MAX_ROWS = 4  # of each answer, that are compared


@dataclass(slots=True)
class Flips:
    """What became of flips, by kind of file."""

    found: Counter[str] = field(default_factory=Counter)
    harmless: Counter[str] = field(default_factory=Counter)  # not found, and nobody is deceived
    deceived: list[str] = field(default_factory=list)  # not found, and some reader is

    def summary(self) -> dict[str, Any]:
        return {
            "num_flips": self.found.total() + self.harmless.total() + len(self.deceived),
            "found": dict(sorted(self.found.items())),
            "harmless": dict(sorted(self.harmless.items())),
            "readers_deceived": len(self.deceived),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A file, and what is asked whether it is as it was written."""

    kind: str
    path: Path
    is_found: Callable[[], bool]


def flip(targets: Sequence[Target], number: int, seed: int) -> Flips:
    """Flip so many bits, one at a time, in each of these files in turn."""
    chance, flips = random.Random(seed), Flips()
    answers = {target.path: _answers(target.path) for target in targets}
    for index in range(number):
        target = targets[index % len(targets)]
        body = target.path.read_bytes()
        at, bit = chance.randrange(len(body)), chance.randrange(8)
        target.path.write_bytes(body[:at] + bytes([body[at] ^ (1 << bit)]) + body[at + 1 :])
        if target.is_found():
            flips.found[target.kind] += 1
        elif (differ := _differing(answers[target.path], _answers(target.path))) is None:
            flips.harmless[target.kind] += 1
        else:
            flips.deceived.append(f"{target.kind}: bit {bit} of byte {at}: {differ}")
        target.path.write_bytes(body)
    return flips


# What is flipped, and how it is found


def targets_of(site: Site) -> Iterator[Target]:
    """A file of each kind that this version writes."""
    run = open_store(str(site.folder / RUN))
    manifest = read_manifest(run)

    def of_shard(shard: int) -> Callable[[], bool]:
        return lambda: bool(check_shard(run, manifest, shard, is_deep=True).findings)

    def of_plan(shard: int) -> Callable[[], bool]:
        return lambda: bool(look_at_plan(run, manifest, shard, is_deep=True).problem)

    for key, kind in ((layout.traces_key(0), "a base"), (layout.traces_key(0, 1), "a supplement")):
        yield Target(kind=kind, path=site.path(key), is_found=of_shard(0))
    plan = layout.plan_key(manifest.plan.folder, 1)
    yield Target(kind="a plan file", path=site.path(plan), is_found=of_plan(1))
    sidecar = site.path("scores/*/shard-00001.parquet")
    key = str(sidecar.relative_to(site.folder / RUN))
    yield Target(
        kind="a sidecar",
        path=sidecar,
        is_found=lambda: Digests(run).state(key, digest_of(run, key)) is not DigestState.WHOLE,
    )
    of_set = open_store(str(site.folder / SET))
    for name in ("sft/think_1/*.parquet", "decisions.parquet", "manifest.json"):
        path = site.path(f"../{SET}/{name}")
        yield Target(kind="a file of a set", path=path, is_found=lambda: _is_set_damaged(of_set))


def older_targets(folder: Path) -> Iterator[Target]:
    """Files of version 0.1, which have no digest."""
    run, of_set = open_store(str(folder / "run")), open_store(str(folder / "sets" / "grpo"))
    manifest = read_manifest(run)

    def is_shard_damaged() -> bool:
        return bool(check_shard(run, manifest, 1, is_deep=True).findings)

    def is_sidecar_damaged() -> bool:
        verification = Verification(run, manifest, is_deep=True)
        return any(finding.key.startswith("scores/") for finding in verification.findings())

    plan = layout.plan_key(manifest.plan.folder, 1)
    sidecar = "scores/thoughts@1/shard-00001.parquet"
    for kind, key, is_found in (
        ("a base", layout.traces_key(1), is_shard_damaged),
        ("a supplement", layout.traces_key(1, 1), is_shard_damaged),
        ("a plan file", plan, is_shard_damaged),
        ("a sidecar", sidecar, is_sidecar_damaged),
    ):
        yield Target(kind=f"{kind} of 0.1", path=folder / "run" / key, is_found=is_found)
    for name in ("grpo/train-00000.parquet", "decisions.parquet"):
        path = folder / "sets" / "grpo" / name
        yield Target(
            kind="a file of a set of 0.1", path=path, is_found=lambda: _is_set_damaged(of_set)
        )


def _is_set_damaged(store: Store) -> bool:
    try:
        return any(True for _ in SetCheck(store).findings())
    except DamagedObject:
        return True


# What readers say


def _answers(path: Path) -> dict[str, Any]:
    """What readers answer to a list of questions; of a reader that fails, that it does."""
    return {name: _asked(ask, path) for name, ask in _QUESTIONS.items()}


def _asked(ask: Callable[[Path], Any], path: Path) -> Any:
    try:
        return ask(path)
    except BaseException as error:  # whatever a reader says to damage, some of them panic
        return f"failed: {type(error).__name__}"


def _differing(before: dict[str, Any], after: dict[str, Any]) -> str | None:
    """The first question that is answered otherwise now, or fails: the file was called whole."""
    return next((name for name in before if before[name] != after[name]), None)


def _pyarrow(path: Path) -> Any:
    return pq.read_table(path, use_threads=False).to_pylist()


def _pyarrow_filtered(path: Path) -> Any:
    """Rows that statistics let a reader skip."""
    schema = pq.read_schema(path)
    column = next(field.name for field in schema if pa.types.is_string(field.type))
    values = pq.read_table(path, columns=[column], use_threads=False)[column].unique().to_pylist()
    return [
        pq.read_table(path, filters=pc.field(column) == value, use_threads=False).num_rows
        for value in values[:_MAX_ROWS]
    ]


def _duckdb(path: Path) -> Any:
    return duckdb.execute("select * from read_parquet(?)", [str(path)]).fetchall()


def _duckdb_filtered(path: Path) -> Any:
    answers = []
    for column, kind in duckdb.execute(
        "select column_name, column_type from (describe select * from read_parquet(?))", [str(path)]
    ).fetchall():
        if kind in ("VARCHAR", "INTEGER", "SMALLINT", "FLOAT", "BIGINT"):
            query = (
                f'select min("{column}"), max("{column}"), count("{column}") from read_parquet(?)'
            )
            low, high, _ = row = duckdb.execute(query, [str(path)]).fetchone() or (None, None, 0)
            answers.append(row)
            for bound in (low, high):
                equal = f'select count(*) from read_parquet(?) where "{column}" = ?'
                answers.append(duckdb.execute(equal, [str(path), bound]).fetchall())
            null = f'select count(*) from read_parquet(?) where "{column}" is null'
            answers.append(duckdb.execute(null, [str(path)]).fetchall())
    return answers


def _pandas(path: Path) -> Any:
    return pd.read_parquet(path).astype(str).to_numpy().tolist()


def _datasets(path: Path) -> Any:
    """As `load_dataset` reads a file, features and all, without its cache."""
    features = datasets.Features.from_arrow_schema(pq.read_schema(path))
    table = pq.read_table(path, use_threads=False)
    return repr(features), datasets.Dataset(table).with_format("arrow")[:].num_rows


_QUESTIONS: dict[str, Callable[[Path], Any]] = {
    "pyarrow": _pyarrow,
    "pyarrow with a filter": _pyarrow_filtered,
    "DuckDB": _duckdb,
    "DuckDB with filters": _duckdb_filtered,
    "pandas": _pandas,
    "datasets": _datasets,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Flip bits, and count what is found of them.")
    parser.add_argument("number", type=int, nargs="?", default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--older", action="store_true", help="in files of version 0.1")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flips-") as name:
        folder = Path(name) / "site"
        if options.older:
            targets = list(older_targets(Path(shutil.copytree(OLDER, folder))))
        else:
            targets = list(targets_of(make_site(folder)))
        flips = flip(targets, options.number, options.seed)
    for line in flips.deceived[:20]:
        sys.stderr.write(f"deceived: {line}\n")
    sys.stdout.write(json.dumps(flips.summary()) + "\n")
    sys.exit(1 if flips.deceived else 0)


if __name__ == "__main__":
    main()
