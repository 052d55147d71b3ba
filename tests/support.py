"""What many tests start from: a small fake method, a planned run, a worker, traces, odd stores."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.engine.backends import LoadedBackends
from pipeline.engine.fake import Fake, Script
from pipeline.plan.models import fake_facts
from pipeline.plan.packs import load_pack
from pipeline.plan.planning import commit_plan, make_plan
from pipeline.plan.prompt_files import PromptSet
from pipeline.plan.reruns import OpenRerun
from pipeline.rollout.worker import Worker
from pipeline.store.layout import digest_key, traces_key
from pipeline.store.objects import Source, Store
from pipeline.store.patient import patient_store
from pipeline.store.plans import read_plan_shard
from pipeline.store.supplements import commit_supplement, read_dead_keys, read_log
from pipeline.store.traces import ShardOrigin, TraceWriter, read_footer, read_rows
from pipeline.twig.drive import Backends
from schemas.config import (
    ExecutionConfig,
    FakeConfig,
    MethodConfig,
    PackConfig,
    RunConfig,
    fingerprint,
)
from schemas.errors import StoreUnavailable
from schemas.ids import record_id
from schemas.prompts import Prompt
from schemas.runs import (
    FOOTER_KEY,
    Attempt,
    BringBack,
    Grow,
    RunManifest,
    ShardEnd,
    ShardFailure,
    ShardFooter,
    ShardReport,
)
from schemas.tables import TRACES
from schemas.trace import Event, Role, Status, Trace

SMALL = FakeConfig(image_size=32, patch_size=8, num_codes=512, num_text_tokens=8)
"""Pictures of 4 x 4 tokens."""


# Methods and runs


def fake_method(fake: FakeConfig = SMALL, **changes: Any) -> MethodConfig:
    pack = PackConfig(name="default", digest=load_pack("default").digest)
    defaults = {"model": fake_facts(fake).model, "pack": pack, "backend": "fake", "fake": fake}
    return MethodConfig(**(defaults | changes))


def fake_config(method: MethodConfig | None = None, **execution: Any) -> RunConfig:
    """A run's config that waits for no store."""
    execution = {"store_patience_seconds": 0} | execution
    return RunConfig(method=method or fake_method(), execution=ExecutionConfig(**execution))


def prompt_set(prompts: int | Iterable[str]) -> PromptSet:
    """These prompts, or so many made-up ones."""
    texts = (f"prompt number {i}" for i in range(prompts)) if isinstance(prompts, int) else prompts
    return PromptSet(
        prompts=[
            Prompt(text=text, metadata={"line": line}, source="prompts.txt", line=line)
            for line, text in enumerate(texts, start=1)
        ],
        num_duplicates=0,
        rejects=[],
    )


def plan_run(
    store: Store,
    prompts: int | Iterable[str] = 3,
    config: RunConfig | None = None,
    *,
    rollouts_per_record: int = 1,
    rollouts_per_shard: int | None = None,
) -> RunManifest:
    """Plan and commit a run of the fake backend."""
    config, prompts = config or fake_config(), prompt_set(prompts)
    facts = fake_facts(config.method.fake)
    plan = make_plan(
        prompts,
        config,
        facts,
        sources=["prompts.txt"],
        rollouts_per_record=rollouts_per_record,
        rollouts_per_shard=rollouts_per_shard,
    )
    return commit_plan(store, plan, prompts, config, facts)


# Workers


def open_fake(backend: Fake) -> LoadedBackends:
    """A fake backend, or one derived from it, in every role."""
    backends = Backends({"fake": backend}, dict.fromkeys(Role, "fake"))
    return LoadedBackends(backends=backends, painter=backend, stack={"device": "none"})


@contextmanager
def at_work(
    store: Store,
    manifest: RunManifest,
    *,
    script: Script | None = None,
    backend: Fake | None = None,
) -> Iterator[Worker]:
    """A worker on the fake backend of its run, or on another one."""
    loaded = open_fake(backend or Fake(manifest.config.method.fake, script=script))
    worker = Worker(store, manifest, loaded, name="some-worker")
    try:
        yield worker
    finally:
        worker.close()


def attempt_at(
    shard: int,
    number: int = 1,
    *,
    crashed: Mapping[int, str] | None = None,
    num_ok: int = 0,
    num_dead: int = 0,
) -> Grow:
    """A first attempt is not believed where all rollouts die; a second one is."""
    attempt = _attempt(shard, number, crashed)
    return Grow(attempt=attempt, num_ok=num_ok, num_dead=num_dead)


def rerun_of(
    shard: int,
    rerun: OpenRerun,
    number: int = 1,
    *,
    crashed: Mapping[int, str] | None = None,
) -> BringBack:
    """An attempt at what is left of a rerun in a shard."""
    return BringBack(
        attempt=_attempt(shard, number, crashed),
        rerun_id=rerun.rerun.rerun_id,
        keys=rerun.left[shard],
    )


def _attempt(shard: int, number: int, crashed: Mapping[int, str] | None) -> Attempt:
    return Attempt(shard=shard, number=number, attempt_id=uuid4().hex, crashed=crashed or {})


def run_all(store: Store, manifest: RunManifest, *, attempt: int = 1) -> None:
    """Grow every shard of a run, one after the other."""
    with at_work(store, manifest) as worker:
        for shard in range(manifest.num_shards):
            worker.run_shard(attempt_at(shard, attempt))


def failure_of(report: ShardReport) -> ShardFailure:
    """How an attempt failed, which it must have."""
    assert report.end is ShardEnd.FAILED, report
    assert report.failure is not None
    return report.failure


def all_rows(store: Store, manifest: RunManifest) -> list[dict[str, Any]]:
    """Every row of a run that is complete."""
    shards = range(manifest.num_shards)
    return [row for shard in shards for row in read_rows(store, shard)]


# Traces


def some_event(index: int, role: Role = Role.THINK, **changes: Any) -> Event:
    """A greedy answer to a question."""
    defaults: dict[str, Any] = {
        "index": index,
        "role": role,
        "region": 0,
        "revision": 0,
        "candidate": 0,
        "backend": "fake",
        "seed": None,
        "text": "a red cube",
        "raw_text": None if role is Role.DRAW else "a red\ncube",
        "prefix_ids": (1, 2, 3),
        "duration_seconds": 0.5,
    }
    return Event(**(defaults | changes))


def some_trace(prompt: str = "a red cube", **changes: Any) -> Trace:
    """A finished rollout without events."""
    defaults: dict[str, Any] = {
        "record_id": record_id(prompt),
        "rollout_index": 0,
        "prompt": prompt,
        "metadata": {},
        "status": Status.OK,
        "schedule": None,
        "events": (),
        "codes": (4, 5, 6),
        "started_at": 1_700_000_000.25,
        "duration_seconds": 2.5,
    }
    return Trace(**(defaults | changes))


def some_origin(**changes: Any) -> ShardOrigin:
    method = fake_method()
    defaults: dict[str, Any] = {
        "run_id": "some-run",
        "fingerprint": fingerprint(method),
        "method": method,
        "shard": 0,
        "attempt": 1,
        "attempt_id": uuid4().hex,
        "worker": "some-worker",
        "stack": {"device": "none"},
    }
    return ShardOrigin(**(defaults | changes))


def write_shard(path: Path, *traces: Trace, origin: ShardOrigin | None = None) -> ShardFooter:
    """A closed shard file of these traces."""
    writer = TraceWriter(path, origin or some_origin())
    for trace in traces:
        writer.add(trace)
    return writer.close("1.2.3")


# Reruns and damage


def bring_back(
    store: Store,
    manifest: RunManifest,
    shard: int,
    folder: Path,
    *,
    num_keys: int | None = None,
    num_in_vain: int = 0,
) -> ShardFooter:
    """Commit the next supplement of a shard: ok rows for its first dead keys, or for all.

    Some of the dead keys after those are noted as tried in vain.
    """
    log = read_log(store, shard)
    dead = list(read_dead_keys(store, log))
    keys, others = dead[:num_keys], dead[num_keys:] if num_keys is not None else []
    prompts = {row.record_id: row.prompt for row in read_plan_shard(store, manifest, shard)}
    origin = some_origin(
        run_id=manifest.run_id,
        fingerprint=manifest.fingerprint,
        shard=shard,
        supplement=len(log.supplements) + 1,
        rerun_id="some-rerun",
    )
    codes = (7,) * (manifest.geometry.rows * manifest.geometry.columns)
    path = folder / f"{uuid4().hex}.parquet"
    writer = TraceWriter(path, origin)
    for record, rollout in keys:
        writer.add(some_trace(prompts[record], rollout_index=rollout, codes=codes))
    footer = writer.close("1.2.3", in_vain=others[:num_in_vain])
    committed = commit_supplement(patient_store(store, manifest), path, footer, origin)
    assert committed, "nobody else reruns in a test"
    return committed


def replace_object(
    store: Store,
    shard: int,
    supplement: int = 0,
    *,
    rows: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = list,
    footer: dict[str, Any] | None = None,
) -> None:
    """Put other rows, or another footer, in the place of a data object, as if a worker had done so:
    its digest is kept, and nothing else is put right.
    """
    other = read_footer(store, shard, supplement).model_copy(update=footer or {})
    changed = rows(list(read_rows(store, shard, supplement)))
    put_object(store, traces_key(shard, supplement), other, changed)


def put_object(store: Store, key: str, footer: ShardFooter, rows: list[dict[str, Any]]) -> None:
    """Put a data object of these rows, and its digest."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, TRACES, write_page_checksum=True) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=TRACES))
        writer.add_key_value_metadata({FOOTER_KEY: footer.model_dump_json().encode()})
    body = sink.getvalue().to_pybytes()
    store.put(digest_key(key, hashlib.sha256(body).hexdigest()), b"")
    store.put(key, body)


# Stores


class Wrapped:
    """Does what another store does, save for the verbs that a test's own class changes."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


class Unanswered(Wrapped):
    """The first put-if-absent goes through, and its answer is lost."""

    is_answering = False

    def put_if_absent(self, key: str, source: Source) -> bool:
        is_created = self.store.put_if_absent(key, source)
        if not self.is_answering:
            self.is_answering = True
            raise StoreUnavailable("the answer was lost")
        return is_created
