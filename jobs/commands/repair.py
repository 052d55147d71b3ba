"""What `coppice repair` does, and what it prints."""

from jobs.cluster.heartbeat import DriverHeartbeat
from jobs.commands.shard_lists import parse_shards
from jobs.commands.terminal import Terminal, as_typed, counted, size
from jobs.commands.verify import describe_finding
from pipeline.store.layout import QUARANTINE
from pipeline.store.open import open_store
from pipeline.store.plans import read_manifest
from pipeline.store.repair import find_damage, move_aside


def repair_run(url: str, shards: str, terminal: Terminal) -> None:
    """Move damaged shards to quarantine. Raises InputError, and moves none, if one is whole, and
    DriverAlive while a run is at work.
    """
    store = open_store(url)
    manifest = read_manifest(store)
    execution = manifest.config.execution
    patience = execution.store_patience_seconds
    with DriverHeartbeat(store, beat_seconds=execution.beat_seconds, patience_seconds=patience):
        damages = find_damage(store, manifest, parse_shards(shards), patience_seconds=patience)
        num_moved = 0
        for damage in damages:
            terminal.say(f"shard {damage.shard}: {counted(len(damage.findings), 'finding')}")
            for finding in damage.findings:
                terminal.say(*describe_finding(finding))
            for moved in move_aside(store, damage, patience_seconds=patience):
                num_moved += 1
                terminal.say(f"moved {moved.key} to {moved.to}, {size(moved.size_bytes)}")
    terminal.say(
        f"{counted(num_moved, 'object')} moved to {as_typed(store.url)}/{QUARANTINE}/. "
        f"{counted(len(damages), 'shard')} will be made again.",
        f"Next: coppice run {as_typed(url)}",
    )
