"""What `coppice gc` does, and what it prints."""

from rich.table import Column

from jobs.commands.terminal import Terminal, counted, size
from pipeline.store.leftovers import find_leftovers
from pipeline.store.open import open_store
from pipeline.store.patient import patient_store
from pipeline.store.plans import read_manifest
from pipeline.store.trouble.scratch import sweep_scratch

_KILLED_HERE = "a process that was killed on this machine"


def collect_garbage(url: str, terminal: Terminal, *, is_dry: bool, settle_seconds: float) -> None:
    """Remove what nobody needs, or, if dry, only list it."""
    store = open_store(url)
    manifest = read_manifest(store)
    patient = patient_store(store, manifest)
    leftovers = find_leftovers(patient, manifest, settle_seconds=settle_seconds)
    if not is_dry:
        for leftover in leftovers:
            patient.delete(leftover.key)
    abandoned = sweep_scratch(is_dry=is_dry)
    if leftovers or abandoned:
        terminal.say_table(
            (Column("object", overflow="fold"), "bytes", "left over from"),
            [
                *((each.key, f"{each.size_bytes:,}", each.source) for each in leftovers),
                *((str(each.path), f"{each.size_bytes:,}", _KILLED_HERE) for each in abandoned),
            ],
        )
    sizes = [each.size_bytes for each in leftovers] + [each.size_bytes for each in abandoned]
    total = size(sum(sizes))
    done = "would be removed" if is_dry else "removed"
    folders = f" and {counted(len(abandoned), 'folder')}" if abandoned else ""
    terminal.say(f"{counted(len(leftovers), 'object')}{folders}, {total}, {done}.")
