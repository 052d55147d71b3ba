"""What `coppice gc` does, and what it prints."""

from rich.table import Column

from jobs.commands.terminal import Terminal, counted, size
from pipeline.store.leftovers import find_leftovers, remove
from pipeline.store.open import open_store
from pipeline.store.plans import read_manifest


def collect_garbage(url: str, terminal: Terminal, *, is_dry: bool, settle_seconds: float) -> None:
    """Remove what nobody needs, or, if dry, only list it."""
    store = open_store(url)
    manifest = read_manifest(store)
    patience = manifest.config.execution.store_patience_seconds
    leftovers = find_leftovers(
        store, manifest, settle_seconds=settle_seconds, patience_seconds=patience
    )
    if not is_dry:
        for leftover in leftovers:
            remove(store, leftover, patience_seconds=patience)
    if leftovers:
        terminal.say_table(
            (Column("object", overflow="fold"), "bytes", "left over from"),
            [(each.key, f"{each.size_bytes:,}", each.source) for each in leftovers],
        )
    total = size(sum(leftover.size_bytes for leftover in leftovers))
    done = "would be removed" if is_dry else "removed"
    terminal.say(f"{counted(len(leftovers), 'object')}, {total}, {done}.")
