"""A lost run.json, and lost plan files, made again from the data objects that stand.

Every data object says what its run and the part of its plan are, and every row says its prompt.
What is made again is held against all that is known of it: digests, counts, the rest of the plan.
No object is ever replaced: a plan file that is there and is none goes to `_quarantine/` first.
"""

import io
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow.parquet as pq

from pipeline.store import layout
from pipeline.store.contents import read_contents
from pipeline.store.evidence.digests import Digests, DigestState, exists
from pipeline.store.objects import Store, open_object
from pipeline.store.plans import (
    PlanFile,
    PlanRow,
    look_at_plans,
    plan_digest,
    plan_file,
    try_commit_extension,
    try_read_manifest,
)
from pipeline.store.traces import UNREADABLE, read_rows
from schemas.errors import InputError, ObjectMissing
from schemas.ids import record_id
from schemas.json_values import read_json_object
from schemas.runs import FOOTER_KEY, RUN_KEY, Key, PlanNote, PlanPart, RunEvidence, RunManifest


@dataclass(frozen=True, kw_only=True, slots=True)
class LostPlan:
    """A damaged plan file: what was found in its place, and its rows, if they can be had back."""

    shard: int
    key: str
    problem: str
    rows: list[PlanRow]  # empty: they cannot
    why_not: str  # empty: they can
    is_there: bool  # some object stands in its place


def lost_plans(store: Store, manifest: RunManifest) -> list[LostPlan]:
    """The damaged plan files of a run, in order of shards. Changes nothing."""
    plans = look_at_plans(store, manifest, range(manifest.num_shards), is_deep=True)
    return [_look_for(store, manifest, plan) for plan in plans if plan.problem]


def _look_for(store: Store, manifest: RunManifest, plan: PlanFile) -> LostPlan:
    try:
        rows, why_not = _rows_of_traces(store, manifest, plan.shard), ""
    except InputError as error:
        rows, why_not = [], str(error)
    return LostPlan(
        shard=plan.shard,
        key=plan.key,
        problem=plan.problem,
        rows=rows,
        why_not=why_not,
        is_there=exists(store, plan.key),
    )


def put_plan(store: Store, manifest: RunManifest, lost: LostPlan) -> bool:
    """Put a plan file that was had back. False if another one stands there meanwhile."""
    body = plan_file(manifest.part_of(lost.shard).folder, lost.shard, lost.rows)
    return store.put_if_absent(lost.key, body)


def _rows_of_traces(store: Store, manifest: RunManifest, shard: int) -> list[PlanRow]:
    """What a shard's base says was planned for it. Raises InputError, with the reason, if that
    cannot be believed.
    """
    key = layout.traces_key(shard)
    try:
        contents = read_contents(store, key, manifest.geometry, is_deep=True)
    except ObjectMissing:
        raise InputError(f"{key} is not there: the shard was never made") from None
    except UNREADABLE as error:
        raise InputError(f"{key} cannot be read: {error}") from error
    footer, digest = contents.footer, contents.object_digest or ""
    is_other = Digests(store).state(key, digest) is DigestState.OTHER
    ours = (manifest.run_id, manifest.fingerprint, shard, 0)
    theirs = (footer.run_id, footer.fingerprint, footer.shard, footer.supplement)
    if is_other or contents.problems or theirs != ours or contents.digest != footer.digest:
        raise InputError(f"{key} is damaged itself, or of another run")
    rows = _as_planned(store, shard)
    planned = {rollout for row in rows for rollout in row.rollout_keys()}
    is_told = all(record_id(row.prompt) == row.record_id for row in rows)
    if planned != contents.keys or not is_told or len(planned) != manifest.num_rollouts_of(shard):
        raise InputError(f"{key} has {len(contents.keys)} keys that make no shard of this plan")
    expected = manifest.part_of(shard).digest_of(shard)
    if expected and plan_digest(rows) != expected:
        raise InputError(f"the rows of {key} are not those that were planned")
    if not expected:
        _check_disjoint(store, manifest, shard, planned)
    return rows


def _check_disjoint(store: Store, manifest: RunManifest, shard: int, planned: set[Key]) -> None:
    """Raises InputError if some other plan file has one of these keys."""
    others = [other for other in range(manifest.num_shards) if other != shard]
    for plan in look_at_plans(store, manifest, others):
        for row in plan.rows:
            if not planned.isdisjoint(row.rollout_keys()):
                raise InputError(f"record {row.record_id} is planned in {plan.key}, too")


def _as_planned(store: Store, shard: int) -> list[PlanRow]:
    """The rows of a plan that a base was grown from, ordered by record."""
    rollouts: defaultdict[str, list[int]] = defaultdict(list)
    said: dict[str, tuple[str, str]] = {}
    columns = ["record_id", "rollout_index", "prompt", "metadata"]
    for row in read_rows(store, shard, columns=columns):
        rollouts[row["record_id"]].append(row["rollout_index"])
        said[row["record_id"]] = row["prompt"], row["metadata"]
    return [
        PlanRow(
            record_id=record,
            prompt=said[record][0],
            metadata=read_json_object(said[record][1]),
            rollout_start=min(indices),
            rollout_stop=max(indices) + 1,
        )
        for record, indices in sorted(rollouts.items())
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class LostRun:
    """What a folder with traces says of its run."""

    manifest: RunManifest  # run.json, if that is gone; else the one that stands
    is_manifest_gone: bool
    parts: tuple[PlanPart, ...]  # whose commit is gone, in order


def lost_run(store: Store) -> LostRun:
    """What of run.json and the commits of later parts is gone, from the data objects that stand.

    Changes nothing. Raises InputError if that cannot be known: without traces, with traces of two
    runs, or of a version that did not say enough.
    """
    evidence = list(_read_evidence(store))
    runs = {(e.manifest.run_id, e.manifest.fingerprint): e.manifest for e in evidence}
    if len(runs) > 1:
        raise InputError(
            f"{store.url} has traces of {len(runs)} runs ({', '.join(run for run, _ in runs)}): "
            "move those of all but one away"
        )
    if not runs:
        raise InputError(
            f"no data object of {store.url} says what its run was: there is none, or they were "
            "written by version 0.1; put run.json back from a copy of the run"
        )
    (from_traces,) = runs.values()
    standing = try_read_manifest(store)
    if standing and standing.run_id != from_traces.run_id:
        raise InputError(
            f"{store.url} is planned as run {standing.run_id}, and its traces are of run "
            f"{from_traces.run_id}: move run.json away, if its plan is not wanted, and repair again"
        )
    manifest = standing or _with_digests(store, from_traces)
    parts = {e.part.number: e.part for e in evidence}
    gone = [
        _digested(store, part)
        for number, part in sorted(parts.items())
        if number > 1 and not exists(store, layout.extension_key(number))
    ]
    return LostRun(manifest=manifest, is_manifest_gone=standing is None, parts=tuple(gone))


def put_run(store: Store, lost: LostRun) -> list[str]:
    """Put what was lost, if it is still absent; returns the keys that were put, parts first: only
    run.json makes a run of them.
    """
    keys = []
    for part in lost.parts:
        if try_commit_extension(store, lost.manifest, part):
            keys.append(layout.extension_key(part.number))
    body = lost.manifest.model_dump_json(indent=1).encode()
    if lost.is_manifest_gone and store.put_if_absent(layout.MANIFEST, body):
        keys.append(layout.MANIFEST)
    return keys


def _read_evidence(store: Store) -> Iterator[RunEvidence]:
    """What data objects say of their run; those that cannot be read are passed over."""
    for entry in store.list_folder(layout.TRACES):
        if layout.try_traces_of(entry.key) is None:
            continue
        try:
            with open_object(store, entry.key, size_bytes=entry.size_bytes) as file:
                metadata = pq.read_metadata(file).metadata or {}
            yield RunEvidence.model_validate_json(metadata[RUN_KEY])
        except (ObjectMissing, *UNREADABLE):
            continue


def _with_digests(store: Store, manifest: RunManifest) -> RunManifest:
    return manifest.model_copy(update={"plan": _digested(store, manifest.plan)})


def _digested(store: Store, part: PlanPart) -> PlanPart:
    """A part with the digests that its files give themselves; without any, if one is gone."""
    digests = []
    for shard in range(part.first_shard, part.stop_shard):
        try:
            body = store.read(layout.plan_key(part.folder, shard))
            note = PlanNote.model_validate_json(_metadata(body)[FOOTER_KEY])
        except (ObjectMissing, *UNREADABLE):
            return part
        if (note.folder, note.shard) != (part.folder, shard):
            return part
        digests.append(note.digest)
    return part.model_copy(update={"digests": "".join(digests)})


def _metadata(body: bytes) -> dict[bytes, bytes]:
    metadata: dict[bytes, bytes] = pq.read_metadata(io.BytesIO(body)).metadata or {}
    return metadata
