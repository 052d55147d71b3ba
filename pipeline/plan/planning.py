"""From prompts to a committed plan: which rollouts there are, cut into shards, under one config."""

import hashlib
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from pipeline.file_names import quoted, spelt
from pipeline.plan.estimates import expected_bytes
from pipeline.plan.models import ModelFacts
from pipeline.plan.prompt_files import PromptSet
from pipeline.store import layout
from pipeline.store.objects import Store
from pipeline.store.plans import (
    PlanRow,
    commit_manifest,
    last_shard_listed,
    plan_file,
    read_manifest,
    read_plan_shard,
    try_commit_extension,
    try_read_manifest,
    write_plan_shard,
)
from schemas import __version__
from schemas.config import Pictures, RunConfig, differences, fingerprint, named_as
from schemas.errors import ConfigMismatch, InputError
from schemas.ids import record_id
from schemas.json_values import canonical_json
from schemas.prompts import Prompt
from schemas.runs import PlanPart, RunManifest

MAX_ROLLOUTS_PER_SHARD = 256
MAX_SHARD_BYTES = 256 * 2**20
MAX_SHARD_SECONDS = 120.0  # of one actor: what a worker's death may cost
_SINGLE_PUT_BYTES = 5 * 2**30  # the most that S3 takes in one PutObject
_LAYER_STEP_SECONDS = 0.025 / 30  # batch 1, eager: a step is bound by launches, not by width
_ENGINE_GAIN = 70  # with it, 7B takes the 0.44 s that were measured on an H200; see docs/engine.md
_TOKEN_BYTES = 10  # ids, codes and two log-probabilities, before compression
_PIXEL_BYTES = 1.6  # lossless WebP of a busy picture, per pixel


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A plan that is not written yet."""

    rows: list[PlanRow]  # one a record
    part: PlanPart
    rollout_bytes: int  # of one trace at most, about
    rollout_seconds: float  # about what one takes of a GPU; 0 for the fake
    num_bytes: int  # of all traces, about


def make_plan(
    prompts: PromptSet,
    config: RunConfig,
    facts: ModelFacts,
    *,
    sources: Sequence[str],
    rollouts_per_record: int = 1,
    rollouts_per_shard: int | None = None,
) -> Plan:
    """Cut the rollouts of all prompts into shards. Writes nothing.

    Shards are cut to `MAX_SHARD_BYTES` and `MAX_SHARD_SECONDS` by estimate, and to at most
    `MAX_ROLLOUTS_PER_SHARD`, unless `rollouts_per_shard` says otherwise.
    Raises InputError for shards that no single put could commit.
    """
    rollout_bytes = estimate_rollout_bytes(config, facts)
    rollout_seconds = estimate_rollout_seconds(config, facts)
    size = rollouts_per_shard or _shard_size(rollout_bytes, rollout_seconds)
    if size * rollout_bytes > _SINGLE_PUT_BYTES:
        raise InputError(
            f"a shard of {size} rollouts would be about {size * rollout_bytes / 2**30:.1f} GiB, "
            f"and one put takes at most {_SINGLE_PUT_BYTES / 2**30:.0f} GiB; "
            "lower --shard-rollouts"
        )
    rows = [_row(prompt, rollouts_per_record) for prompt in prompts.prompts]
    part = _part(rows, size, rollouts_per_record, prompts, sources)
    return Plan(
        rows=rows,
        part=part,
        rollout_bytes=rollout_bytes,
        rollout_seconds=rollout_seconds,
        num_bytes=expected_bytes(
            config, facts.geometry, num_rollouts=part.num_rollouts, num_shards=part.num_shards
        ),
    )


def _row(prompt: Prompt, rollouts_per_record: int) -> PlanRow:
    return PlanRow(
        record_id=record_id(prompt.text),
        prompt=prompt.text,
        metadata=prompt.metadata,
        rollout_start=0,
        rollout_stop=rollouts_per_record,
    )


def _part(
    rows: Sequence[PlanRow],
    size: int,
    rollouts_per_record: int,
    prompts: PromptSet,
    sources: Sequence[str],
    *,
    after: RunManifest | None = None,
) -> PlanPart:
    """The part that these rows make, alone or after those that a run has."""
    number = len(after.parts) + 1 if after else 1
    num_rollouts = sum(row.rollout_stop - row.rollout_start for row in rows)
    return PlanPart(
        number=number,
        folder=layout.plan_folder(number, _digest(rows, size)),
        first_shard=after.num_shards if after else 0,
        num_shards=-(-num_rollouts // size),
        num_records=len(rows),
        num_rollouts=num_rollouts,
        rollouts_per_record=rollouts_per_record,
        rollouts_per_shard=size,
        num_duplicates=prompts.num_duplicates,
        num_rejects=len(prompts.rejects),
        sources=tuple(map(spelt, sources)),
    )


def commit_plan(
    store: Store, plan: Plan, prompts: PromptSet, config: RunConfig, facts: ModelFacts
) -> RunManifest:
    """Write the plan and commit it with run.json, or adopt the equal plan that is there already.

    Raises ConfigMismatch if the run has another method, InputError if it has other records or
    traces of a run whose run.json is lost. A planner that dies before run.json leaves only files
    that nothing refers to. Of an equal plan, files that are gone are put back.
    """
    planned = try_read_manifest(store)
    if planned is None and last_shard_listed(store) is not None:
        planned = try_read_manifest(store)  # another planner's run may have begun meanwhile
        if planned is None:
            raise _lost_commit(store, f"has traces of a run, and no {layout.MANIFEST}")
    if planned is None:
        part = _write_part(store, plan.part, plan.rows, prompts)
        manifest = RunManifest(
            run_id=uuid.uuid4().hex[:12],
            fingerprint=fingerprint(config.method),
            config=config,
            geometry=facts.geometry,
            plan=part,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            coppice_version=__version__,
        )
        planned = commit_manifest(store, manifest)
    check_method(planned, config, store.url)
    if planned.plan.folder != plan.part.folder:
        raise InputError(
            f"{store.url} was planned with {planned.plan.num_records} records in "
            f"{planned.plan.num_shards} shards ({planned.plan.folder}), and these prompts make "
            f"{plan.part.num_records} in {plan.part.num_shards} ({plan.part.folder}); "
            f"run it as planned with: coppice run {quoted(store.url)}, "
            f"add to it with: coppice plan --extend PROMPTS {quoted(store.url)}, "
            "or give another folder"
        )
    _write_what_is_gone(store, planned.plan, plan.rows)
    return planned


def extend_plan(
    store: Store,
    prompts: PromptSet,
    *,
    sources: Sequence[str],
    rollouts_per_record: int,
    rollouts_per_shard: int | None = None,
) -> RunManifest:
    """See to it that the plan has so many rollouts of each of these prompts, or of all it has.

    What is missing to that is added as one more part, in shards of its own; the parts that stand
    are not touched. So the same call again adds nothing, and of two callers at once the second one
    adds what the first one did not. Without `prompts` it is about the records of the plan. Returns
    the manifest with that part. Raises InputError if the folder holds no run.
    """
    while True:
        last_shard = last_shard_listed(store)  # before the plan: shards are made after their part
        manifest = read_manifest(store)
        if last_shard is not None and last_shard >= manifest.num_shards:
            raise _lost_commit(store, f"has traces of shard {last_shard}, which no part planned")
        planned = _planned_rows(store, manifest)
        wanted = [_row(prompt, rollouts_per_record) for prompt in prompts.prompts]
        rows = [
            replace(row, rollout_start=start, rollout_stop=rollouts_per_record)
            for row in wanted or planned.values()
            if (start := _num_planned(planned, row)) < rollouts_per_record
        ]
        if not rows:
            return manifest
        size = rollouts_per_shard or manifest.plan.rollouts_per_shard
        part = _part(rows, size, rollouts_per_record, prompts, sources, after=manifest)
        part = _write_part(store, part, rows, prompts)
        if try_commit_extension(store, manifest, part):
            return manifest.model_copy(update={"extensions": (*manifest.extensions, part)})


def _lost_commit(store: Store, trouble: str) -> InputError:
    """A plan over traces of another one would take them for its own, or double their keys."""
    return InputError(
        f"{store.url} {trouble}: their plan is lost, and nothing is planned over them; see whether "
        f"it can be had back: coppice repair {quoted(store.url)} --run; "
        "or give another folder"
    )


def _planned_rows(store: Store, manifest: RunManifest) -> dict[str, PlanRow]:
    """Each record of a plan, with the last of its rollouts."""
    last: dict[str, PlanRow] = {}
    for shard in range(manifest.num_shards):
        for row in read_plan_shard(store, manifest, shard):
            if row.rollout_stop > _num_planned(last, row):
                last[row.record_id] = row
    return last


def _num_planned(planned: dict[str, PlanRow], row: PlanRow) -> int:
    return planned[row.record_id].rollout_stop if row.record_id in planned else 0


def _write_part(
    store: Store, part: PlanPart, rows: Sequence[PlanRow], prompts: PromptSet
) -> PlanPart:
    """Write the files of a part, and return it with their digests. Nothing refers to them until its
    commit.
    """
    shards = enumerate(_cut(rows, part.rollouts_per_shard), start=part.first_shard)
    digests = [
        write_plan_shard(store, part.folder, shard, shard_rows) for shard, shard_rows in shards
    ]
    if prompts.rejects:
        lines = [canonical_json(asdict(reject)) for reject in prompts.rejects]
        store.put(layout.rejects_key(part.folder), "\n".join([*lines, ""]).encode())
    return part.model_copy(update={"digests": "".join(digests)})


def _write_what_is_gone(store: Store, part: PlanPart, rows: Sequence[PlanRow]) -> None:
    """Put back the files of a committed part that a list does not show. None is replaced."""
    listed = {entry.key for entry in store.list_folder(part.folder)}
    for shard, shard_rows in enumerate(_cut(rows, part.rollouts_per_shard), part.first_shard):
        if (key := layout.plan_key(part.folder, shard)) not in listed:
            store.put_if_absent(key, plan_file(part.folder, shard, shard_rows))


def check_method(manifest: RunManifest, config: RunConfig, url: str) -> None:
    """Raises ConfigMismatch, field by field, if this config would not make the same tokens.

    A model may go by another name than when the run was planned: its digest tells which it is.
    """
    method = named_as(config.method, manifest.config.method)
    if fingerprint(method) == manifest.fingerprint:
        return
    changed = differences(manifest.config.method, method) or ["the trace version"]
    raise ConfigMismatch(
        f"{url} was planned with another method (planned -> given):\n  "
        + "\n  ".join(changed)
        + f"\nrun it as planned with: coppice run {quoted(url)}, "
        "or plan a new run in another folder"
    )


def estimate_rollout_bytes(config: RunConfig, facts: ModelFacts) -> int:
    """About what one trace weighs, in bytes, from the config alone. Errs on the heavy side."""
    method, geometry = config.method, facts.geometry
    redraws = 1 + method.reflection.max_revisions
    text = 2 * method.schedule.num_regions * redraws * (geometry.num_tokens + 400)
    tokens = text + geometry.num_tokens * redraws
    num_pictures = {
        Pictures.NONE: 0,
        Pictures.FINAL: 1,
        Pictures.ALL: method.schedule.num_regions * redraws,
    }[method.pictures]
    return int(tokens * _TOKEN_BYTES + num_pictures * geometry.image_size**2 * _PIXEL_BYTES)


def estimate_rollout_seconds(config: RunConfig, facts: ModelFacts) -> float:
    """About what one rollout takes of a GPU, in seconds, half of its regions redrawn.

    Sequential decode steps of the plain loop at 25 ms for 30 layers, and what the engine gains by
    doing many at once. Thoughts of 45 and critiques of 75 tokens are the lengths that the project's
    benchmarks assume.
    """
    method = config.method
    num_regions = method.schedule.num_regions
    judged = method.reflection.max_revisions > 0
    redrawn = 1.5 if judged else 1.0
    steps = num_regions * (45 + 75 * judged) + redrawn * facts.geometry.num_tokens
    gain = _ENGINE_GAIN if method.backend == "engine" else 1
    return steps * facts.num_layers * _LAYER_STEP_SECONDS / gain


def _shard_size(rollout_bytes: int, rollout_seconds: float) -> int:
    size = min(MAX_ROLLOUTS_PER_SHARD, MAX_SHARD_BYTES // rollout_bytes)
    if rollout_seconds:
        size = min(size, int(MAX_SHARD_SECONDS / rollout_seconds))
    return max(1, size)


def _cut(rows: Iterable[PlanRow], size: int) -> Iterator[list[PlanRow]]:
    """Slices of `size` rollouts, in the order of the records; a record may span two shards."""
    shard: list[PlanRow] = []
    room = size
    for row in rows:
        start = row.rollout_start
        while start < row.rollout_stop:
            stop = min(row.rollout_stop, start + room)
            shard.append(replace(row, rollout_start=start, rollout_stop=stop))
            room -= stop - start
            start = stop
            if not room:
                yield shard
                shard, room = [], size
    if shard:
        yield shard


def _digest(rows: Sequence[PlanRow], size: int) -> str:
    """Of everything that the shard files will say."""
    digest = hashlib.sha256(f"{size}\n".encode())
    for row in rows:
        digest.update(canonical_json(asdict(row)).encode() + b"\n")
    return digest.hexdigest()[:12]
