"""A trace in the terminal: what was thought, drawn, judged and drawn again, and the picture."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.commands.records import Row, current_rows, find_record
from jobs.commands.terminal import as_typed, counted, printable
from pipeline.pictures import Pixels, decode_picture
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.plans import read_manifest
from pipeline.store.status import committed_shards
from pipeline.store.traces import try_read_footer
from pipeline.view.contact_sheet import contact_sheet
from schemas.errors import InputError
from schemas.runs import RunManifest

_LISTED = 20
_ROW_COLUMNS = ["record_id", "rollout_index", "status", "prompt", "dead_reason"]
_SHEET_ROWS = 8
_PREVIEW_COLUMNS = 48  # characters, each two pixels high


def list_records(url: str, console: Console) -> None:
    """List some traces of a run, dead ones included."""
    store = open_store(url)
    manifest = read_manifest(store)
    table = Table("record", "rollout", "status", "prompt", box=None)
    for row in islice(_all_rows(store, manifest, columns=_ROW_COLUMNS), _LISTED):
        status = row["status"] if row["dead_reason"] is None else f"dead: {row['dead_reason']}"
        cells = (row["record_id"], str(row["rollout_index"]), status, row["prompt"])
        table.add_row(*(Text(printable(cell)) for cell in cells))
    console.print(table)
    console.print(Text(f"Show one with: coppice show {as_typed(url)} RECORD"), soft_wrap=True)


def show_trace(url: str, record: str, rollout: int, console: Console, png: Path | None) -> None:
    """Show one trace; with `png`, write its pictures into that folder."""
    store = open_store(url)
    manifest = read_manifest(store)
    row = _find_trace(store, manifest, record, rollout)
    for line in _lines(row):
        console.print(line)
    pictures = {image["path"]: decode_picture(image["bytes"]) for image in row["images"]}
    if row["final_picture"] is not None and console.is_terminal:
        console.print(preview(pictures[row["images"][row["final_picture"]]["path"]]))
    if png is not None:
        _write_pngs(pictures, png, console)


def write_sheet(url: str, path: Path, console: Console) -> None:
    """Write a contact sheet of a run's first traces. Raises InputError if there is none yet."""
    store = open_store(url)
    rows: list[Any] = list(
        islice(_all_rows(store, read_manifest(store), columns=None), _SHEET_ROWS)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(contact_sheet(rows))
    console.print(Text(f"Contact sheet: {as_typed(str(path))}"), soft_wrap=True)


def preview(pixels: Pixels, columns: int = _PREVIEW_COLUMNS) -> Text:
    """A picture in half blocks: each character shows two pixels, one above the other."""
    from PIL import Image

    rows = columns * pixels.shape[0] // pixels.shape[1] // 2
    small = Image.fromarray(pixels).resize((columns, 2 * rows))
    text = Text()
    for y in range(0, 2 * rows, 2):
        for x in range(columns):
            upper, lower = _hex(small.getpixel((x, y))), _hex(small.getpixel((x, y + 1)))
            text.append("\u2580", style=f"{upper} on {lower}")
        text.append("\n")
    return text


def _lines(row: Row) -> Iterator[Text]:
    """The trace as lines: its key, its prompt, its events."""
    yield Text(f"{row['record_id']} rollout {row['rollout_index']}: {row['status']}", style="bold")
    yield Text(f"prompt    {printable(row['prompt'])}")
    yield Text(
        f"made by   {row['program']}, {printable(row['model']['name'])}, run {row['run_id']}"
    )
    for event in row["events"]:
        yield _event_line(event)
    if row["dead_reason"] is not None:
        yield Text(f"dead      {row['dead_reason']}: {printable(row['dead_message'])}")


def _event_line(event: Row) -> Text:
    head = f"{event['role']:<9} region {event['region']}"
    if event["revision"]:
        head += f", revision {event['revision']}"
    if event["role"] == "draw":
        note = "" if event["superseded_by"] is None else ", replaced later"
        return Text(f"{head}: {counted(len(event['codes']), 'token')}{note}", style="dim")
    if event["role"] != "reflect":
        return Text(f"{head}: {printable(event['text'])}")
    if event["verdict"] == "unparseable":
        said = f"unparseable, {event['problem']}: {event['text']}"
    else:
        said = f"{event['score']:g}, {event['verdict']}; better: {event['better_thought']}"
    return Text(f"{head}: {printable(said)}", style="italic")


def _find_trace(store: Store, manifest: RunManifest, record: str, rollout: int) -> Row:
    """The row of a key. Raises InputError if the record is unknown or not grown yet."""
    found = find_record(store, manifest, record)
    shard = found.shard_of(rollout)
    if try_read_footer(store, shard) is not None:
        for row in current_rows(store, shard):
            if (row["record_id"], row["rollout_index"]) == (found.record_id, rollout):
                return row
    raise InputError(
        f"rollout {rollout} of record {printable(found.record_id)} is planned (shard {shard}) but "
        f"not grown yet; go on with: coppice run {as_typed(store.url)}"
    )


def _all_rows(store: Store, manifest: RunManifest, *, columns: list[str] | None) -> Iterator[Row]:
    for shard in sorted(committed_shards(store, manifest)):
        yield from current_rows(store, shard, columns=columns)


def _write_pngs(pictures: dict[str, Pixels], folder: Path, console: Console) -> None:
    """Write pictures as PNG. Their names are derived from ids: no prompt reaches a file name."""
    from PIL import Image

    if not pictures:
        raise InputError("this trace keeps no pictures; plan a run with --pictures final or all")
    folder.mkdir(parents=True, exist_ok=True)
    for name, pixels in pictures.items():
        path = folder / f"{Path(name).stem}.png"
        Image.fromarray(pixels).save(path)
        console.print(Text(f"wrote {path}"), soft_wrap=True)


def _hex(pixel: Any) -> str:
    return "#{:02x}{:02x}{:02x}".format(*pixel[:3])
