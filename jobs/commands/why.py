"""A record's whole story: where it is planned, what came of each rollout, what went wrong on the
way, and what to do next.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from jobs.commands.records import PlannedRecord, find_record
from jobs.commands.terminal import Terminal, as_typed, counted
from pipeline.store import layout
from pipeline.store.objects import Store, keys_in
from pipeline.store.open import open_store
from pipeline.store.plans import read_manifest
from pipeline.store.traces import UNREADABLE, read_rows, try_read_footer
from schemas.errors import FatalFailure, ObjectMissing
from schemas.rows import TraceRow
from schemas.runs import FailedAttempt, RunManifest, ShardFooter
from schemas.small_files import UnreadableFile, read_small
from schemas.trace import Status

_COLUMNS = [
    *("record_id", "rollout_index", "status", "dead_reason", "dead_message"),
    *("attempts", "attempt_id", "worker", "started_at", "duration_seconds"),
]
_NOTES_SHOWN = 20  # of the failed attempts at a shard, the last ones


@dataclass(frozen=True, kw_only=True, slots=True)
class _RecordRows:
    """What one data object of a shard has of a record."""

    key: str
    footer: ShardFooter | None  # None: it cannot be read
    rows: dict[int, TraceRow]  # by rollout; `_COLUMNS` alone


def tell_why(url: str, start: str, rollout: int | None, terminal: Terminal) -> None:
    """Print the story of the record whose id starts so, or of one of its rollouts.

    Raises InputError if it is not planned.
    """
    store = open_store(url)
    manifest = read_manifest(store)
    record = find_record(store, manifest, start)
    shards = [shard for shard, _ in record.plan_rows]
    if rollout is not None:
        shards = [record.shard_of(rollout)]
    objects = {shard: list(_read_objects(store, shard, record.record_id)) for shard in shards}
    terminal.say(*_describe_plan(manifest, record))
    states = []
    for shard, row in record.plan_rows:
        for index in range(row.rollout_start, row.rollout_stop):
            if rollout in (None, index):
                states.append(_state(objects[shard], index))
                terminal.say(f"rollout {index}: {states[-1]}")
                terminal.say(*_describe_rollout(objects[shard], shard, record.record_id, index))
    for shard in objects:
        terminal.say(*_describe_attempts(store, shard))
    terminal.say(f"Next: {_next_command(as_typed(url), record, rollout, states, objects)}")


def _describe_plan(manifest: RunManifest, record: PlannedRecord) -> Iterator[str]:
    yield f"record {record.record_id}: {record.plan_rows[0][1].prompt}"
    for shard, row in record.plan_rows:
        part = manifest.part_of(shard)
        yield (
            f"planned in part {part.number}, shard {shard}, rollouts {row.rollout_start} to "
            f"{row.rollout_stop - 1}: {layout.plan_key(part.folder, shard)}"
        )


def _read_objects(store: Store, shard: int, record_id: str) -> Iterator[_RecordRows]:
    """The base of a shard and its supplements, each asked for by its name."""
    for number in count():
        key = layout.traces_key(shard, number)
        try:
            footer = try_read_footer(store, shard, number)
            if footer is None:
                return
            rows = {
                row["rollout_index"]: row
                for row in read_rows(store, shard, number, columns=_COLUMNS)
                if row["record_id"] == record_id
            }
        except (FatalFailure, *UNREADABLE):  # verify says more
            yield _RecordRows(key=key, footer=None, rows={})
        else:
            yield _RecordRows(key=key, footer=footer, rows=rows)


def _state(objects: list[_RecordRows], rollout: int) -> str:
    statuses = [each.rows[rollout]["status"] for each in objects if rollout in each.rows]
    if Status.OK in statuses:
        return "ok"
    return "dead" if statuses else "missing"


def _describe_rollout(
    objects: list[_RecordRows], shard: int, record_id: str, rollout: int
) -> Iterator[str]:
    if not objects:
        yield f"  {layout.traces_key(shard)} is not there: the shard is not committed"
    for each in objects:
        if each.footer is None:
            yield f"  {each.key} cannot be read"
        elif rollout in each.rows:
            yield from _describe_row(each.key, each.footer, each.rows[rollout])
        elif (record_id, rollout) in each.footer.in_vain:
            yield f"  {each.key}: tried in vain by rerun {each.footer.rerun_id}"


def _describe_row(key: str, footer: ShardFooter, row: TraceRow) -> Iterator[str]:
    of_rerun = f", rerun {footer.rerun_id}" if footer.rerun_id else ""
    yield f"  {key}: {row['status']}, {counted(row['attempts'], 'attempt')}{of_rerun}"
    yield (
        f"    by {row['worker']}, attempt {row['attempt_id']}, started "
        f"{row['started_at'].isoformat(timespec='seconds')}, took {row['duration_seconds']:.1f} s"
    )
    if row["dead_reason"]:
        yield f"    {row['dead_reason']}: {row['dead_message'] or ''}"


def _describe_attempts(store: Store, shard: int) -> Iterator[str]:
    notes = sorted(_read_notes(store, shard), key=lambda note: note.ended_at)
    yield f"failed attempts at shard {shard}: {len(notes) or 'none noted'}"
    for note in notes[-_NOTES_SHOWN:]:
        yield (
            f"  {note.ended_at}, attempt {note.attempt} ({note.attempt_id}) on "
            f"{note.worker}: {note.kind}, {note.reason}: {note.message}"
        )


def _read_notes(store: Store, shard: int) -> Iterator[FailedAttempt]:
    """Notes are for people: one that is gone or unreadable is passed over."""
    for entry in keys_in(store, layout.attempts_folder(shard)):
        try:
            yield read_small(store, entry.key, FailedAttempt)
        except (ObjectMissing, UnreadableFile):
            continue


def _next_command(
    url: str,
    record: PlannedRecord,
    rollout: int | None,
    states: list[str],
    objects: dict[int, list[_RecordRows]],
) -> str:
    if any(each.footer is None for of_shard in objects.values() for each in of_shard):
        return f"coppice verify {url} --deep"
    if "missing" in states:
        return f"coppice run {url}"
    if "dead" in states:
        return f"coppice rerun {url} --record {record.record_id}"
    which = f" --rollout {rollout}" if rollout else ""
    return f"coppice show {url} {record.record_id}{which}"
