"""What `coppice gc` does, and what it prints."""

from rich.table import Column

from jobs.commands.terminal import Terminal, counted, size
from pipeline.store.leftovers import find_leftovers
from pipeline.store.open import open_store
from pipeline.store.patient import patient_store
from pipeline.store.plans import read_manifest


def collect_garbage(url: str, terminal: Terminal, *, is_dry: bool, settle_seconds: float) -> None:
    """Remove what nobody needs, or, if dry, only list it."""
    store = open_store(url)
    manifest = read_manifest(store)
    patient = patient_store(store, manifest)
    leftovers = find_leftovers(patient, manifest, settle_seconds=settle_seconds)
    if not is_dry:
        for leftover in leftovers:
            patient.delete(leftover.key)
    if leftovers:
        terminal.say_table(
            (Column("object", overflow="fold"), "bytes", "left over from"),
            [(each.key, f"{each.size_bytes:,}", each.source) for each in leftovers],
        )
    total = size(sum(leftover.size_bytes for leftover in leftovers))
    done = "would be removed" if is_dry else "removed"
    terminal.say(f"{counted(len(leftovers), 'object')}, {total}, {done}.")
