"""What `coppice gc` does, and what it prints."""

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from jobs.commands.terminal import counted, printable, say, size
from pipeline.store.leftovers import find_leftovers
from pipeline.store.open import open_store
from pipeline.store.patient import patient_store
from pipeline.store.plans import read_manifest


def collect_garbage(url: str, console: Console, *, is_dry: bool, settle_seconds: float) -> None:
    """Remove what nobody needs, or, if dry, only list it."""
    store = open_store(url)
    manifest = read_manifest(store)
    patient = patient_store(store, manifest)
    leftovers = find_leftovers(patient, manifest, settle_seconds=settle_seconds)
    table = Table(Column("object", overflow="fold"), "bytes", "left over from", box=None)
    for leftover in leftovers:
        if not is_dry:
            patient.delete(leftover.key)
        cells = (leftover.key, f"{leftover.size_bytes:,}", leftover.source)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    if leftovers:
        console.print(table)
    total = size(sum(leftover.size_bytes for leftover in leftovers))
    done = "would be removed" if is_dry else "removed"
    say(console, f"{counted(len(leftovers), 'object')}, {total}, {done}.")
