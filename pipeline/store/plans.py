"""Plans on storage: shard files first, then `run.json`, whose creation commits them."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from pipeline.store import layout
from pipeline.store.objects import Store
from schemas.errors import InputError, ObjectMissing
from schemas.json_values import JsonObject, read_json_object
from schemas.rows import PlanTableRow
from schemas.runs import RUN_FORMAT, Extension, Key, PlanPart, RunManifest
from schemas.small_files import UnreadableFile, parse_small, read_bounded, read_small
from schemas.tables import PLAN


class _Format(BaseModel):
    """What the manifests of all formats have in common."""

    run_format: int = RUN_FORMAT


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanRow:
    """Some rollouts of one record, within one shard."""

    record_id: str
    prompt: str
    metadata: JsonObject
    rollout_start: int
    rollout_stop: int

    def rollout_keys(self) -> Iterator[Key]:
        """The keys that this row stands for, in order."""
        return ((self.record_id, index) for index in range(self.rollout_start, self.rollout_stop))


def write_plan_shard(store: Store, folder: str, shard: int, rows: Iterable[PlanRow]) -> None:
    """Put the rollouts of one shard. Equal rows make equal bytes, so planners may race."""
    table_rows: list[PlanTableRow] = [
        {
            "record_id": row.record_id,
            "prompt": row.prompt,
            "metadata": json.dumps(row.metadata, ensure_ascii=False, sort_keys=True),
            "rollout_start": row.rollout_start,
            "rollout_stop": row.rollout_stop,
        }
        for row in rows
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(table_rows, schema=PLAN), sink, compression="zstd")
    store.put(layout.plan_key(folder, shard), sink.getvalue().to_pybytes())


def read_plan_shard(store: Store, manifest: RunManifest, shard: int) -> list[PlanRow]:
    """The rollouts of one shard, as they were planned.

    Raises ObjectMissing if the plan lost it, and one of `traces.UNREADABLE` for what is no plan.
    """
    body = store.read(layout.plan_key(manifest.part_of(shard).folder, shard))
    # Not on Arrow's threads: one that drops the last reference to a Python buffer while the
    # interpreter is going down aborts the process.
    table = pq.ParquetFile(pa.BufferReader(body)).read(use_threads=False)
    table_rows: list[PlanTableRow] = table.to_pylist()
    return [
        PlanRow(
            record_id=row["record_id"],
            prompt=row["prompt"],
            metadata=read_json_object(row["metadata"]),
            rollout_start=row["rollout_start"],
            rollout_stop=row["rollout_stop"],
        )
        for row in table_rows
    ]


def try_read_manifest(store: Store) -> RunManifest | None:
    """The manifest with all parts of its plan, or None if there is no run.json.

    Raises InputError for one that is not ours to read.
    """
    try:
        manifest = _read_first_part(store)
    except ObjectMissing:
        return None
    return manifest.model_copy(update={"extensions": tuple(_read_extensions(store, manifest))})


def _read_first_part(store: Store) -> RunManifest:
    try:
        body = read_bounded(store, layout.MANIFEST)
        run_format = parse_small(_Format, body).run_format
        if run_format > RUN_FORMAT:  # asked first: a newer manifest has fields unknown here
            raise InputError(
                f"{store.url} has run format {run_format}; this version reads up to "
                f"{RUN_FORMAT}: install a newer coppice"
            )
        return parse_small(RunManifest, body)
    except UnreadableFile as error:
        raise InputError(
            f"{store.url}/{layout.MANIFEST} is not a manifest that this version reads: {error}"
        ) from error


def _read_extensions(store: Store, manifest: RunManifest) -> Iterator[PlanPart]:
    """The parts after the first, each asked for by its name: a list might lag."""
    for number in count(2):
        key = layout.extension_key(number)
        try:
            extension = read_small(store, key, Extension)
        except ObjectMissing:
            return
        except UnreadableFile as error:
            raise InputError(
                f"{store.url}/{key} is not a part of a plan that this version reads: {error}"
            ) from error
        if extension.run_id != manifest.run_id:
            raise InputError(
                f"{store.url}/{key} belongs to run {extension.run_id}, not to {manifest.run_id}: "
                "two runs share a folder; move one of them away"
            )
        yield extension.part


def read_manifest(store: Store) -> RunManifest:
    """As `try_read_manifest`; raises InputError also if the folder holds no run."""
    manifest = try_read_manifest(store)
    if manifest is None:
        raise InputError(
            f"there is no run at {store.url} (no {layout.MANIFEST}); "
            f"plan one first: coppice plan PROMPTS {store.url}"
        )
    return manifest


def commit_manifest(store: Store, manifest: RunManifest) -> RunManifest:
    """Commit the plan. Returns the manifest that stands: ours, or the one that came first.

    Raises InputError if what came first is no manifest that this version reads.
    """
    body = manifest.model_dump_json(indent=1).encode()
    if store.put_if_absent(layout.MANIFEST, body):
        return manifest
    return read_manifest(store)


def try_commit_extension(store: Store, manifest: RunManifest, part: PlanPart) -> bool:
    """Commit one more part. False if another part has its number: read the manifest anew.

    True also if an equal part stands there, by an earlier call whose answer was lost, or by
    another planner who added the very same.
    """
    body = Extension(run_id=manifest.run_id, part=part).model_dump_json(indent=1).encode()
    key = layout.extension_key(part.number)
    return store.put_if_absent(key, body) or store.read(key) == body
