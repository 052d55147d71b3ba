"""A trace in the terminal: what was thought, drawn, judged and drawn again, and the picture."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from jobs.commands.records import current_rows, find_record
from jobs.commands.status import say_damage
from jobs.commands.terminal import Terminal, as_typed, counted, printable
from pipeline.pictures import Pixels, decode_picture
from pipeline.scoring.painting import RunPainter
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.plans import read_manifest
from pipeline.store.status import committed_shards
from pipeline.store.traces import try_read_footer
from pipeline.view.contact_sheet import contact_sheet
from pipeline.view.runs import choose, view_run
from pipeline.view.verdicts import KeptPictures, counts_of, judged, of_each_fate
from pipeline.view.where import Choice, Facts, Value
from schemas.errors import DamagedObject, ExitCode, InputError
from schemas.rows import EventRow, TraceRow
from schemas.runs import RunManifest

_LISTED = 20
_LIST_COLUMNS = ["record_id", "rollout_index", "status", "prompt", "dead_reason"]
_HEADINGS = ("record", "rollout", "status", "prompt")
_SHEET_ROWS = 6
_JUDGED_ROWS, _SMALL_PICTURE = 256, 64  # small ones are painted, judged and chosen from
_STYLES = {"draw": "dim", "reflect": "italic"}


def list_records(url: str, terminal: Terminal, choice: Choice) -> ExitCode:
    """List some traces of a run, dead ones included, with the columns that they were chosen by.

    Of all, it is said which shards cannot be read.
    """
    damage: dict[int, str] = {}
    if choice.is_of_all:
        store = open_store(url)
        manifest = read_manifest(store)
        rows = islice(_all_rows(store, manifest, damage, columns=_LIST_COLUMNS), _LISTED)
        terminal.say_table(_HEADINGS, map(_cells, rows))
    else:
        run = view_run(url, is_around_damage=True)
        where, sort = choice.read(run.columns)
        asked_for = {key.column for key in sort} | where.columns
        more = sorted(asked_for - {*_LIST_COLUMNS, "dead"})
        chosen = choose([run], where=where, sort=sort)
        facts = [trace.facts for _, trace in chosen[:_LISTED]]
        terminal.say_table(
            (*_HEADINGS[:-1], *more, _HEADINGS[-1]), (_cells_of(fact, more) for fact in facts)
        )
        terminal.say(f"{counted(len(chosen), 'trace')} in all.")
        damage |= run.damage or {}
    say_damage(damage, terminal)
    terminal.say(f"Show one with: coppice show {as_typed(url)} RECORD")
    return ExitCode.DAMAGED if damage else ExitCode.COMPLETE


def show_trace(url: str, record: str, rollout: int, terminal: Terminal, png: Path | None) -> None:
    """Show one trace; with `png`, write its pictures into that folder."""
    store = open_store(url)
    manifest = read_manifest(store)
    row = _find_trace(store, manifest, record, rollout)
    for line, style in _lines(row):
        terminal.say(line, style=style, can_wrap=True)
    pictures = {image["path"]: decode_picture(image["bytes"]) for image in row["images"]}
    if row["final_picture"] is not None:
        terminal.show_picture(pictures[row["images"][row["final_picture"]]["path"]])
    if png is not None:
        _write_pngs(pictures, png, terminal)


def write_sheet(url: str, path: Path, terminal: Terminal, choice: Choice) -> ExitCode:
    """Write a contact sheet: of a run's telling traces, or of those chosen, in their order.

    Raises InputError if there is none yet.
    """
    damage: dict[int, str] = {}
    manifest = read_manifest(open_store(url))
    if choice.is_of_all:
        number = _JUDGED_ROWS if manifest.geometry.image_size <= _SMALL_PICTURE else _SHEET_ROWS
        store = open_store(url)
        rows = list(islice(_all_rows(store, manifest, damage, columns=None), number))
    else:
        run = view_run(url, is_around_damage=True)
        where, sort = choice.read(run.columns)
        chosen = choose([run], where=where, sort=sort)[:_SHEET_ROWS]
        if not (chosen or run.damage):
            raise InputError("no trace holds what was asked for, so there is nothing to show")
        rows = [row for _, row in run.read_rows([trace for _, trace in chosen])]
        damage |= run.damage or {}
    say_damage(damage, terminal)
    if damage and not rows:
        return ExitCode.DAMAGED
    try:
        traces = judged(rows, RunPainter(manifest))
    except InputError as error:  # the model is not here
        terminal.say(f"Only pictures that the run kept are shown: {error}")
        traces = judged(rows, KeptPictures(manifest))
    told = f"{counts_of(traces)}."
    shown = of_each_fate(traces, _SHEET_ROWS) if choice.is_of_all else traces
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(contact_sheet(shown, title=told))
    terminal.say(told, f"Contact sheet: {as_typed(str(path))}")
    return ExitCode.DAMAGED if damage else ExitCode.COMPLETE


def _cells(row: TraceRow) -> tuple[str, ...]:
    status = row["status"] if row["dead_reason"] is None else f"dead: {row['dead_reason']}"
    return row["record_id"], str(row["rollout_index"]), status, row["prompt"]


def _cells_of(facts: Facts, more: Sequence[str]) -> list[str]:
    """As `_cells`, with the values of more columns."""
    reason = facts["dead_reason"]
    return [
        str(facts["record_id"]),
        str(facts["rollout_index"]),
        str(facts["status"]) if reason is None else f"dead: {reason}",
        *(_told(facts.get(column)) for column in more),
        str(facts["prompt"]),
    ]


def _told(value: Value) -> str:
    """A value for people: five digits of a number, a dash where there is none."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}"
    return "-" if value is None else str(value)


def _lines(row: TraceRow) -> Iterator[tuple[str, str]]:
    """The trace as lines and their styles: its key, its prompt, its events."""
    yield f"{row['record_id']} rollout {row['rollout_index']}: {row['status']}", "bold"
    yield f"prompt    {row['prompt']}", ""
    yield f"made by   {row['program']}, {row['model']['name']}, run {row['run_id']}", ""
    for event in row["events"]:
        yield _describe_event(event), _STYLES.get(event["role"], "")
    if row["dead_reason"] is not None:
        yield f"dead      {row['dead_reason']}: {row['dead_message']}", ""


def _describe_event(event: EventRow) -> str:
    head = f"{event['role']:<9} region {event['region']}"
    if event["revision"]:
        head += f", revision {event['revision']}"
    if event["role"] == "draw":
        note = "" if event["superseded_by"] is None else ", replaced later"
        return f"{head}: {counted(len(event['codes']), 'token')}{note}"
    if event["role"] != "reflect":
        return f"{head}: {event['text']}"
    if event["verdict"] == "unparseable":
        return f"{head}: unparseable, {event['problem']}: {event['text']}"
    return f"{head}: {event['score']:g}, {event['verdict']}; better: {event['better_thought']}"


def _find_trace(store: Store, manifest: RunManifest, start: str, rollout: int) -> TraceRow:
    """The row of a key. Raises InputError if the record is unknown or not grown yet."""
    record = find_record(store, manifest, start)
    shard = record.shard_of(rollout)
    if try_read_footer(store, shard) is not None:
        for row in current_rows(store, shard):
            if (row["record_id"], row["rollout_index"]) == (record.record_id, rollout):
                return row
    raise InputError(
        f"rollout {rollout} of record {printable(record.record_id)} is planned (shard {shard}) but "
        f"not grown yet; go on with: coppice run {as_typed(store.url)}"
    )


def _all_rows(
    store: Store, manifest: RunManifest, damage: dict[int, str], *, columns: list[str] | None
) -> Iterator[TraceRow]:
    """All rows of all shards that can be read; of the others `damage` says why not."""
    for shard in sorted(committed_shards(store, manifest)):
        try:
            yield from current_rows(store, shard, columns=columns)
        except DamagedObject as error:
            damage[shard] = str(error)


def _write_pngs(pictures: dict[str, Pixels], folder: Path, terminal: Terminal) -> None:
    """Write pictures as PNG. Their names are derived from ids: no prompt reaches a file name."""
    from PIL import Image

    if not pictures:
        raise InputError("this trace keeps no pictures; plan a run with --pictures final or all")
    folder.mkdir(parents=True, exist_ok=True)
    for name, pixels in pictures.items():
        path = folder / f"{Path(name).stem}.png"
        Image.fromarray(pixels).save(path)
        terminal.say(f"wrote {path}")
