"""What curating starts from: the trace objects of runs, and the sidecars of their scores.

Everything that could make them unfit is found here, before any work starts.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.file_names import quoted
from pipeline.store import layout
from pipeline.store.commits import check_run
from pipeline.store.objects import Store, open_object
from pipeline.store.open import open_store
from pipeline.store.plans import read_manifest
from pipeline.store.traces import open_parquet, reading_shard_file
from schemas.errors import DamagedObject, InputError
from schemas.runs import FOOTER_KEY, RunManifest, ShardFooter
from schemas.scores import SCORES_KEY, ScorerId, ScoresFooter
from schemas.tables import TRACES

_READERS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class TraceObject:
    """One object with traces: a shard's, or a supplement that a rerun brought."""

    shard: int
    supplement: int  # 0: the shard itself
    footer: ShardFooter

    @property
    def name(self) -> str:
        """What it is called in `traces/`, as its sidecars are in their folders."""
        return layout.traces_object_name(self.shard, self.supplement)

    @property
    def key(self) -> str:
        return layout.traces_key(self.shard, self.supplement)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSource:
    """A run with at least one trace object, in order of shards and supplements."""

    store: Store
    manifest: RunManifest
    objects: tuple[TraceObject, ...]

    @property
    def run_id(self) -> str:
        return self.manifest.run_id


def open_run(url: str, *, damage: dict[int, str] | None = None) -> RunSource:
    """The run at a URL, its data objects as listed now: a list may lag. Reads each one's footer.

    With `damage`, shards that cannot be read are left out, and it is written there why. Raises
    InputError for a run without traces and for another schema, ForeignObject, DamagedObject.
    """
    store = open_store(url)
    manifest = read_manifest(store)
    listed = (layout.try_traces_of(entry.key) for entry in store.list_folder(layout.TRACES))
    ordered = sorted(filter(None, listed))
    if not ordered:
        raise InputError(
            f"{store.url} has no traces yet; grow them with: coppice run {quoted(store.url)}"
        )
    with ThreadPoolExecutor(_READERS) as readers:
        opened = readers.map(lambda traces: _open_unless(damage, store, manifest, *traces), ordered)
        objects = tuple(
            source for source in opened if source and source.shard not in (damage or {})
        )
        return RunSource(store=store, manifest=manifest, objects=objects)


def stack_of(run: RunSource) -> dict[str, str]:
    """The versions and the device that made the first trace of a run, as its row says."""
    with open_parquet(run.store, run.objects[0].key) as parquet:
        for batch in parquet.iter_batches(1, columns=["stack"], use_threads=False):
            stack: dict[str, str] = batch.to_pylist()[0]["stack"]
            return stack
    return {}


def unscored(run: RunSource, scorer: ScorerId) -> list[TraceObject]:
    """The trace objects that have no sidecar of this scorer in the list. A list may lag, and then
    one is scored again: its put changes nothing.
    """
    listed = run.store.list_folder(layout.scores_folder(scorer))
    scored = {layout.object_name(entry.key) for entry in listed}
    return [source for source in run.objects if source.name not in scored]


def read_sidecar_notes(
    run: RunSource, scorer: ScorerId
) -> tuple[list[ScoresFooter], dict[str, str]]:
    """The footers of a run's sidecars in the order of its objects, and their columns with types.

    Raises InputError for sidecars that are missing, or that are of other traces than those here.
    """
    again = f"coppice score {quoted(run.store.url)} --scorer {scorer.name}"
    if missing := unscored(run, scorer):
        raise InputError(
            f"run {run.run_id} lacks scores of {scorer} for {len(missing)} of "
            f"{len(run.objects)} shards; make them with: {again}"
        )
    with ThreadPoolExecutor(_READERS) as readers:
        notes = list(
            readers.map(lambda source: _sidecar_note(run.store, source, scorer), run.objects)
        )
    columns = notes[0][1]
    for source, (footer, own_columns) in zip(run.objects, notes, strict=True):
        if footer.source_digest != source.footer.digest or own_columns != columns:
            raise InputError(
                f"{run.store.url}/{layout.sidecar_key(source.name, scorer)} is of other traces "
                f"than {source.key}; move {layout.scores_folder(scorer)} away and score again: "
                f"{again}"
            )
    return [footer for footer, _ in notes], columns


def common_columns(columns_of_runs: Iterable[dict[str, str]], scorer: ScorerId) -> dict[str, str]:
    """The columns of a scorer, the same in every run. Raises InputError if they differ."""
    first, *others = columns_of_runs
    if any(other != first for other in others):
        raise InputError(f"the runs have scores of {scorer} with different columns; score again")
    return first


def _sidecar_note(
    store: Store, source: TraceObject, scorer: ScorerId
) -> tuple[ScoresFooter, dict[str, str]]:
    with open_parquet(store, layout.sidecar_key(source.name, scorer)) as parquet:
        note = (parquet.metadata.metadata or {})[SCORES_KEY]
        columns = {field.name: str(field.type) for field in parquet.schema_arrow}
        return ScoresFooter.model_validate_json(note), columns


def _open_unless(
    damage: dict[int, str] | None, store: Store, manifest: RunManifest, shard: int, supplement: int
) -> TraceObject | None:
    """As `_open_object`; of one that is damaged None, where there is a place to say so."""
    try:
        return _open_object(store, manifest, shard, supplement)
    except DamagedObject as error:
        if damage is None:
            raise
        damage[shard] = str(error)
        return None


def _open_object(store: Store, manifest: RunManifest, shard: int, supplement: int) -> TraceObject:
    key = layout.traces_key(shard, supplement)
    with reading_shard_file(store, shard, key), open_object(store, key) as file:
        parquet = pq.ParquetFile(file, page_checksum_verification=True)
        footer = ShardFooter.model_validate_json((parquet.metadata.metadata or {})[FOOTER_KEY])
        if (footer.shard, footer.supplement) != (shard, supplement):
            raise ValueError(f"it is {layout.traces_key(footer.shard, footer.supplement)}")
        _check_columns(f"{store.url}/{key}", parquet.schema_arrow)
    check_run(store, footer, run_id=manifest.run_id, fingerprint=manifest.fingerprint)
    return TraceObject(shard=shard, supplement=supplement, footer=footer)


def _check_columns(name: str, schema: pa.Schema) -> None:
    """A run of another version has columns that we would misread, or lacks some."""
    ours = {field.name: field.type for field in TRACES}
    theirs = {field.name: field.type for field in schema}
    wrong = [column for column in ours if ours[column] != theirs.get(column)]
    if wrong:
        raise InputError(
            f"{name} has another schema than this version of coppice reads (columns "
            f"{', '.join(wrong)}); curate it with the version that grew it, or grow it again"
        )
