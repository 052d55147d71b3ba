"""An export of a set that stands: its own rows in one more form. Nothing is decided anew.

Most exports follow from the rows. Those that show more (pictures that rows lack, how a rollout was
sampled) look it up in the traces, so they want the runs that the set was made of, as they were. The
files are numbered as those of the rows; the manifest is put last, so a job that was killed is
started again.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.file_names import quoted
from pipeline.plan.packs import settings_of
from pipeline.sets.card import with_exports
from pipeline.sets.export_notes import export_counts, export_notes
from pipeline.sets.exports import EXPORTS, check_exports
from pipeline.sets.exports.form import Source, TraceFacts, is_group, is_pair
from pipeline.sets.facts import NO_GROUP, GroupRewards, Opening, facts_of
from pipeline.sets.replay import requests_of
from pipeline.sets.router import EXPORTS_FOLDER, Streams, export_tables, joined, notes_of
from pipeline.sets.rows import EVERY_COLUMN, read_positions
from pipeline.sets.whole import (
    CARD,
    FUNNEL,
    MANIFEST,
    NotedStore,
    open_set_file,
    read_card,
    read_note,
    sealed,
    try_set_manifest,
)
from pipeline.sets.write import put_json
from pipeline.store.objects import Store
from pipeline.store.runs import RunSource
from pipeline.store.traces import open_parquet
from pipeline.store.trouble.scratch import scratch_folder
from pipeline.twig.programs import Settings
from schemas.errors import InputError
from schemas.recipes import SetKind
from schemas.rows import TraceRow, TrainingRow
from schemas.sets import SetManifest, UnitFiles
from schemas.trace import Status

_ROWS_AT_ONCE = 32


def read_set(out: Store, names: Sequence[str]) -> SetManifest:
    """The manifest of a set that these exports fit. Raises InputError, DamagedObject."""
    manifest = try_set_manifest(out)
    if manifest is None:
        raise InputError(
            f"{out.url} holds no whole set; make it first: coppice curate RUN "
            f"{quoted(out.url)} --recipe NAME --export NAME"
        )
    check_exports(names, manifest.inputs.recipe.kind)
    for name in names:
        note = manifest.exports.get(name)
        is_there = any(key.startswith(f"{EXPORTS_FOLDER}/{name}/") for key in manifest.files)
        if (is_there and note is None) or (note and note.version != EXPORTS[name].version):
            known = 1 if note is None else note.version
            raise InputError(
                f"{out.url} has the export {name} in version {known}, and this is version "
                f"{EXPORTS[name].version}; leave it to who reads it, and make the set anew in "
                "another place for the new form"
            )
    return manifest


def add_exports(
    out: Store, names: Sequence[str], runs: Sequence[RunSource], packs: Sequence[str]
) -> SetManifest:
    """Write these exports of a set, those that are there already left as they are; the manifest.

    Raises InputError, before any work, for what is no set, for exports of other sets, and for runs
    that are missing or are not what they were; DamagedObject.
    """
    manifest = read_set(out, names)
    wanted = [name for name in dict.fromkeys(names) if name not in manifest.exports]
    if not wanted:
        return manifest
    funnel, card = read_note(out, FUNNEL), read_card(out)
    traces = _traces_of(out, manifest, wanted, runs, packs)
    noted = NotedStore(out)
    units = [
        _write_unit(noted, number, files, wanted, traces)
        for number, files in sorted(_files_by_unit(manifest).items())
    ]
    manifest = manifest.model_copy(
        update={
            "files": joined([manifest.files, *(unit.files for unit in units)]),
            "exports": manifest.exports | export_notes(wanted, units),
        }
    )
    for key, note in notes_of(manifest.inputs.recipe.name, wanted, manifest.files).items():
        put_json(noted, key, note)
    put_json(noted, FUNNEL, funnel | {"exports": export_counts(manifest)})
    noted.put(CARD, with_exports(card, manifest).encode())
    if manifest.digests:  # a set of version 0.1 has none
        digests = dict(sorted((manifest.digests | noted.digests).items()))
        manifest = sealed(manifest.model_copy(update={"digests": digests}))
    put_json(out, MANIFEST, manifest.model_dump(mode="json"))
    return manifest


def _files_by_unit(manifest: SetManifest) -> dict[int, list[tuple[str, str]]]:
    """The files of canonical rows, each with its split, by the number in their names."""
    by_unit: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for key, stream in manifest.files.items():
        if not key.startswith(f"{EXPORTS_FOLDER}/"):
            for file in stream.files:
                number = int(file.rpartition("-")[2].removesuffix(".parquet"))
                by_unit[number].append((key.rpartition("/")[2], file))
    return by_unit


def _write_unit(
    out: Store,
    number: int,
    files: Sequence[tuple[str, str]],
    names: Sequence[str],
    traces: "_Traces | None",
) -> UnitFiles:
    """The exports of one unit's rows, task after task."""
    left_out: dict[str, Counter[str]] = defaultdict(Counter)
    with scratch_folder() as scratch:
        streams = Streams(out, scratch, number)
        for split, file in files:
            for rows in _rows_in(out, file):
                facts = [None] * len(rows) if traces is None else traces.facts_of(rows)
                sources = [Source(row=row, facts=of) for row, of in zip(rows, facts, strict=True)]
                tables, counts_by_name = export_tables({split: sources}, names)
                streams.add(tables)
                for name, counts in counts_by_name.items():
                    left_out[name] += counts
        counts_left = {name: dict(counts) for name, counts in left_out.items() if counts}
        return UnitFiles(files=streams.close(), left_out=counts_left)


def _rows_in(out: Store, file: str) -> Iterator[list[TrainingRow]]:
    with open_set_file(out, file) as parquet:
        for batch in parquet.iter_batches(_ROWS_AT_ONCE, use_threads=False):
            yield batch.to_pylist()


class _Position(NamedTuple):
    """Where a trace stands: the index of its run, the key of its object, its row there."""

    run: int
    key: str
    row: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Traces:
    """The traces of a set's runs, to look up what its rows do not say."""

    runs: Sequence[RunSource]
    settings: Sequence[Settings]  # of each run
    positions: Mapping[str, _Position]  # by the id of the trace
    rewards: Mapping[str, GroupRewards]  # by the id of the group

    def facts_of(self, rows: Sequence[TrainingRow]) -> list[TraceFacts]:
        """What the traces of these rows say beyond them."""
        wanted = {row["trace_id"] for row in rows}
        wanted |= {row["rejected"]["trace_id"] for row in rows if is_pair(row)}
        traces = self._read(wanted)
        return [self._facts(row, traces) for row in rows]

    def _facts(self, row: TrainingRow, traces: Mapping[str, TraceRow]) -> TraceFacts:
        trace_row = traces[row["trace_id"]]
        settings = self.settings[self.positions[row["trace_id"]].run]
        is_of_two = is_pair(row) and row["event"] is None
        return facts_of(
            trace_row,
            requests_of(trace_row, settings),
            settings,
            rejected=row["event"] if is_pair(row) else None,
            worse=Opening.of(traces[row["rejected"]["trace_id"]])
            if is_pair(row) and is_of_two
            else None,
            rewards=self.rewards[row["group_id"]] if is_group(row) else NO_GROUP,
        )

    def _read(self, names: Iterable[str]) -> dict[str, TraceRow]:
        """The traces of these ids. Each object is opened once."""
        by_object: dict[tuple[int, str], list[int]] = defaultdict(list)
        for name in names:
            run, key, position = self.positions[name]
            by_object[run, key].append(position)
        return {
            trace_row["trace_id"]: trace_row
            for (run, key), positions in by_object.items()
            for _, trace_row in read_positions(
                self.runs[run].store, key, sorted(positions), EVERY_COLUMN
            )
        }


def _traces_of(
    out: Store,
    manifest: SetManifest,
    names: Sequence[str],
    runs: Sequence[RunSource],
    packs: Sequence[str],
) -> _Traces | None:
    """What exports of these names look up; None where they follow from the rows."""
    kind = manifest.inputs.recipe.kind
    showing = [name for name in names if kind in EXPORTS[name].shows_traces]
    if not showing:
        return None
    by_id = {run.run_id: run for run in runs}
    for known in manifest.inputs.runs:
        if known.run_id not in by_id:
            raise InputError(
                f"the export {showing[0]} shows what the rows of a set do not hold (pictures, how "
                f"a rollout was sampled), so run {known.run_id} is needed; give it with --run"
            )
        objects = {source.name: source.footer.digest for source in by_id[known.run_id].objects}
        if any(objects.get(name) != digest for name, digest in known.objects.items()):
            raise InputError(
                f"run {known.run_id} at {by_id[known.run_id].store.url} no longer has the traces "
                f"that {out.url} was made of; make the set anew in another place"
            )
    ordered = [by_id[known.run_id] for known in manifest.inputs.runs]
    return _Traces(
        runs=ordered,
        settings=[settings_of(run.manifest, packs) for run in ordered],
        positions=dict(_positions(ordered)),
        rewards=dict(_rewards(out, manifest)),
    )


def _positions(runs: Sequence[RunSource]) -> Iterator[tuple[str, _Position]]:
    for index, run in enumerate(runs):
        for source in run.objects:
            with open_parquet(run.store, source.key) as parquet:
                names = parquet.read(["trace_id", "status"], use_threads=False).to_pylist()
            for row, name in enumerate(names):
                if name["status"] == Status.OK:
                    yield name["trace_id"], _Position(index, source.key, row)


def _rewards(out: Store, manifest: SetManifest) -> Iterator[tuple[str, GroupRewards]]:
    """How each group of a set fared."""
    rewards: dict[str, list[float]] = defaultdict(list)
    for key, stream in manifest.files.items():
        if key.startswith(f"{SetKind.GRPO}/"):
            for file in stream.files:
                with open_set_file(out, file) as parquet:
                    columns = parquet.read(["group_id", "reward"], use_threads=False)
                for row in columns.to_pylist():
                    rewards[row["group_id"]] += [] if row["reward"] is None else [row["reward"]]
    for group, known in rewards.items():
        if known:
            deviation = 0.0 if min(known) == max(known) else float(np.std(known))
            yield group, GroupRewards(float(np.mean(known)), deviation, len(known))
        else:
            yield group, NO_GROUP
