"""Plans on storage: shard files first, then `run.json`, whose creation commits them."""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from pipeline.file_names import quoted
from pipeline.store import layout
from pipeline.store.evidence.digests import exists
from pipeline.store.evidence.footers import footer_problems
from pipeline.store.objects import Store
from pipeline.store.traces import UNREADABLE
from schemas.errors import DamagedObject, DamagedPlan, InputError, ObjectMissing
from schemas.ids import record_id
from schemas.json_values import JsonObject, canonical_json, read_json_object
from schemas.rows import PlanTableRow
from schemas.runs import (
    FOOTER_KEY,
    PLAN_DIGEST_CHARS,
    RUN_FORMAT,
    Extension,
    Key,
    PlanNote,
    PlanPart,
    RunManifest,
)
from schemas.small_files import UnreadableFile, parse_small, read_bounded, read_small
from schemas.tables import PLAN

MAX_PLANS_READ = 4096
"""Plan files that are read before a run is called complete: 4 seconds of a store that takes 30 ms.
"""

_READERS = 32


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


def write_plan_shard(store: Store, folder: str, shard: int, rows: Iterable[PlanRow]) -> str:
    """Put the rollouts of one shard. Equal rows make equal bytes, so planners may race.

    Returns the digest that the part's commit is to name, so that no other file passes for this one.
    """
    rows = list(rows)
    store.put(layout.plan_key(folder, shard), plan_file(folder, shard, rows))
    return plan_digest(rows)


def plan_file(folder: str, shard: int, rows: Sequence[PlanRow]) -> bytes:
    """The plan file of these rows, for this shard of the part in this folder."""
    note = PlanNote(folder=folder, shard=shard, digest=plan_digest(rows))
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
    schema = PLAN.with_metadata({FOOTER_KEY: note.model_dump_json().encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.Table.from_pylist(table_rows, schema=schema),
        sink,
        compression="zstd",
        write_page_checksum=True,
    )
    body: bytes = sink.getvalue().to_pybytes()
    return body


def plan_digest(rows: Iterable[PlanRow]) -> str:
    """Of what a plan file says, in whatever order: its rows can be had back from its traces."""
    lines = sorted(
        canonical_json(
            [row.record_id, row.prompt, row.metadata, row.rollout_start, row.rollout_stop]
        ).encode()
        for row in rows
    )
    return hashlib.sha256(b"\n".join(lines)).hexdigest()[:PLAN_DIGEST_CHARS]


def read_plan_shard(store: Store, manifest: RunManifest, shard: int) -> list[PlanRow]:
    """The rollouts of one shard, as they were planned.

    Raises DamagedPlan for a file that is gone, cannot be read, or is not the one that was planned.
    """
    plan = look_at_plan(store, manifest, shard)
    if plan.problem:
        raise DamagedPlan(
            f"{store.url}/{plan.key}: found {plan.problem}, expected "
            f"{describe_rollouts(manifest.num_rollouts_of(shard))}; {plan_advice(store)}",
            reason="damaged_plan",
        )
    return plan.rows


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanFile:
    """What stands where a plan file belongs."""

    shard: int
    key: str
    rows: list[PlanRow]  # empty if there is a problem
    problem: str  # what was found instead of the plan; empty if it is the one that was planned


def look_at_plan(
    store: Store, manifest: RunManifest, shard: int, *, is_deep: bool = False
) -> PlanFile:
    """Read a plan file, and hold what it says against the commit of its part. What an older version
    planned has no digest: of that, records and counts are held against each other.

    Deep: what other readers go by is looked at, too, though our own do not need it.
    """
    part = manifest.part_of(shard)
    key = layout.plan_key(part.folder, shard)
    try:
        body = store.read(key)
        rows, note = _parse_plan(body)
        problem = _plan_problem(manifest, shard, rows, note)
        if is_deep and not problem:
            problem = _bytes_problem(body, plan_file(part.folder, shard, rows))
    except ObjectMissing:
        rows, problem = [], "nothing"
    except UNREADABLE as error:
        rows, problem = [], f"a file that cannot be read: {error}"
    return PlanFile(shard=shard, key=key, rows=[] if problem else rows, problem=problem)


def damaged_plans(store: Store, manifest: RunManifest) -> dict[int, str]:
    """The shards whose plan file is not what was planned, and what was found instead.

    Of a run with more shards than `MAX_PLANS_READ`, only files that are not listed are read: they
    may be gone. `verify` reads them all.
    """
    shards = [shard for part in manifest.parts for shard in _shards_to_read(store, manifest, part)]
    return {
        plan.shard: f"{plan.key}: found {plan.problem}, expected "
        f"{describe_rollouts(manifest.num_rollouts_of(plan.shard))}"
        for plan in look_at_plans(store, manifest, shards)
        if plan.problem
    }


def look_at_plans(
    store: Store, manifest: RunManifest, shards: Sequence[int], *, is_deep: bool = False
) -> Iterator[PlanFile]:
    """As `look_at_plan`, in order; a batch of them is read ahead."""

    def look(shard: int) -> PlanFile:
        return look_at_plan(store, manifest, shard, is_deep=is_deep)

    with ThreadPoolExecutor(_READERS) as readers:
        for start in range(0, len(shards), MAX_PLANS_READ):
            batch = shards[start : start + MAX_PLANS_READ]
            yield from readers.map(look, batch)


def _shards_to_read(store: Store, manifest: RunManifest, part: PlanPart) -> Iterable[int]:
    shards = range(part.first_shard, part.stop_shard)
    if manifest.num_shards <= MAX_PLANS_READ:
        return shards
    listed = {entry.key for entry in store.list_folder(part.folder)}
    return [shard for shard in shards if layout.plan_key(part.folder, shard) not in listed]


def plan_advice(store: Store) -> str:
    """What to do about a damaged plan file."""
    return (
        "its shard alone can be neither made nor repaired; if its traces stand, have the plan's "
        f"rows back from them: coppice repair {quoted(store.url)} --plan; else put the file "
        "back from a copy of the run, or, where it is gone, plan the same prompts again"
    )


def describe_rollouts(number: int) -> str:
    """What a plan file of so many rollouts is called in a message."""
    return f"a plan of {number} rollout{'s' if number != 1 else ''}"


def _parse_plan(body: bytes) -> tuple[list[PlanRow], PlanNote | None]:
    # Not on Arrow's threads: one that drops the last reference to a Python buffer while the
    # interpreter is going down aborts the process.
    parquet = pq.ParquetFile(pa.BufferReader(body), page_checksum_verification=True)
    if not parquet.schema_arrow.equals(PLAN):
        raise ValueError("its columns are not those of a plan file")
    table_rows: list[PlanTableRow] = parquet.read(use_threads=False).to_pylist()
    rows = [
        PlanRow(
            record_id=row["record_id"],
            prompt=row["prompt"],
            metadata=read_json_object(row["metadata"]),
            rollout_start=row["rollout_start"],
            rollout_stop=row["rollout_stop"],
        )
        for row in table_rows
    ]
    note = (parquet.metadata.metadata or {}).get(FOOTER_KEY)
    return rows, PlanNote.model_validate_json(note) if note else None


def _bytes_problem(body: bytes, written_now: bytes) -> str:
    """What is wrong with a plan file whose rows are right; empty if nothing is.

    The same pyarrow writes the same bytes. Of another one's, footers are held against the rows.
    """
    if body == written_now:
        return ""
    told, now = (pq.read_metadata(pa.BufferReader(each)) for each in (body, written_now))
    is_same_writer = told.created_by == now.created_by
    if is_same_writer and FOOTER_KEY in (told.metadata or {}):
        return "bytes that no plan of these rows has"
    return next(footer_problems(io.BytesIO(body)), "")


def _plan_problem(
    manifest: RunManifest, shard: int, rows: list[PlanRow], note: PlanNote | None
) -> str:
    """Why these rows are not those that the run planned for this shard; empty if they are."""
    part = manifest.part_of(shard)
    if note and (note.folder, note.shard) != (part.folder, shard):
        return f"the plan file of shard {note.shard} of {note.folder}"
    for row in rows:
        if record_id(row.prompt) != row.record_id:
            return f"record {row.record_id} with a prompt that is another record's"
    num_rollouts = sum(row.rollout_stop - row.rollout_start for row in rows)
    if num_rollouts != manifest.num_rollouts_of(shard):
        return describe_rollouts(num_rollouts)
    expected = {digest for digest in (part.digest_of(shard), note and note.digest) if digest}
    digest = plan_digest(rows) if expected else ""
    if expected - {digest}:
        return f"rows with digest {digest}, not {' and '.join(sorted(expected))}"
    return ""


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
    """As `try_read_manifest`; raises InputError also if the folder holds no run, and DamagedObject
    if it holds traces of one.
    """
    manifest = try_read_manifest(store)
    if manifest is None:
        if last_shard_listed(store) is not None:
            raise DamagedObject(
                f"{store.url} has traces, and no {layout.MANIFEST}: it is lost; see whether it can "
                f"be had back from them: coppice repair {quoted(store.url)} --run",
                reason="damaged_object",
            )
        check_holds_no_set(store)
        raise InputError(
            f"there is no run at {store.url} (no {layout.MANIFEST}); "
            f"plan one first: coppice plan PROMPTS {quoted(store.url)}"
        )
    return manifest


def check_holds_no_set(store: Store) -> None:
    """Raises InputError for the folder of a training set, which is no place for a run."""
    if exists(store, layout.SET_MANIFEST):
        raise InputError(
            f"{store.url} holds a training set ({layout.SET_MANIFEST}), and no run: look at it "
            f"with coppice view {quoted(store.url)}, or give a folder for runs"
        )


def last_shard_listed(store: Store) -> int | None:
    """The highest shard that has a data object in the list of `traces/`; None without any."""
    listed = (layout.try_traces_of(entry.key) for entry in store.list_folder(layout.TRACES))
    return max((traces[0] for traces in listed if traces), default=None)


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
