"""Plans on storage: shard files first, then `run.json`, whose creation commits them."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from pipeline.store import layout
from pipeline.store.objects import Store
from schemas.errors import InputError, ObjectMissing
from schemas.runs import RUN_FORMAT, PlanPart, RunManifest
from schemas.tables import PLAN


class _Format(BaseModel):
    """What the manifests of all formats have in common."""

    run_format: int = RUN_FORMAT


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanRow:
    """Some rollouts of one record, within one shard."""

    record_id: str
    prompt: str
    metadata: dict[str, Any]
    rollout_start: int
    rollout_stop: int

    def rollout_keys(self) -> Iterator[tuple[str, int]]:
        """The (record, rollout) keys that this row stands for."""
        return ((self.record_id, index) for index in range(self.rollout_start, self.rollout_stop))


def write_plan_shard(store: Store, folder: str, shard: int, rows: Iterable[PlanRow]) -> None:
    """Write the rollouts of one shard. Equal rows make equal bytes, so planners may race."""
    table = pa.Table.from_pylist(
        [
            {
                "record_id": row.record_id,
                "prompt": row.prompt,
                "metadata": json.dumps(row.metadata, ensure_ascii=False, sort_keys=True),
                "rollout_start": row.rollout_start,
                "rollout_stop": row.rollout_stop,
            }
            for row in rows
        ],
        schema=PLAN,
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    store.put(layout.plan_key(folder, shard), sink.getvalue().to_pybytes())


def read_plan_shard(store: Store, plan: PlanPart, shard: int) -> list[PlanRow]:
    """The rollouts of one shard. Raises ObjectMissing if the plan lost it."""
    body = store.read(layout.plan_key(plan.folder, shard))
    # Not on Arrow's threads: one that drops the last reference to a Python buffer while the
    # interpreter is going down aborts the process.
    rows = pq.ParquetFile(pa.BufferReader(body)).read(use_threads=False).to_pylist()
    return [PlanRow(**{**row, "metadata": json.loads(row["metadata"])}) for row in rows]


def try_read_manifest(store: Store) -> RunManifest | None:
    """run.json, or None if there is none. Raises InputError for one that is not ours to read."""
    try:
        body = store.read(layout.MANIFEST)
    except ObjectMissing:
        return None
    try:
        run_format = _Format.model_validate_json(body).run_format
        if run_format > RUN_FORMAT:  # asked first: a newer manifest has fields unknown here
            raise InputError(
                f"{store.url} has run format {run_format}; this version reads up to "
                f"{RUN_FORMAT}: install a newer coppice"
            )
        return RunManifest.model_validate_json(body)
    except ValueError as error:
        raise InputError(
            f"{store.url}/{layout.MANIFEST} is not a manifest that this version reads: {error}"
        ) from error


def read_manifest(store: Store) -> RunManifest:
    """run.json. Raises InputError if the folder holds no run."""
    manifest = try_read_manifest(store)
    if manifest is None:
        raise InputError(
            f"there is no run at {store.url} (no {layout.MANIFEST}); "
            f"plan one first: coppice plan PROMPTS {store.url}"
        )
    return manifest


def commit_manifest(store: Store, manifest: RunManifest) -> RunManifest:
    """Commit the plan. Returns the manifest that stands: ours, or the one that came first."""
    body = manifest.model_dump_json(indent=1).encode()
    if store.put_if_absent(layout.MANIFEST, body):
        return manifest
    return read_manifest(store)
