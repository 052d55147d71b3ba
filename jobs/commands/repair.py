"""What `coppice repair` does, and what it prints."""

from jobs.cluster.heartbeat import DriverHeartbeat
from jobs.commands.shard_lists import parse_shards
from jobs.commands.terminal import Terminal, as_typed, counted, size
from jobs.commands.verify import describe_finding
from pipeline.store.layout import QUARANTINE
from pipeline.store.open import open_store
from pipeline.store.patient import patient_store
from pipeline.store.plans import read_manifest
from pipeline.store.repair import find_damage, move_aside


def repair_run(url: str, shards: str, terminal: Terminal) -> None:
    """Move damaged shards to quarantine. Raises InputError, and moves none, if one is whole, and
    DriverAlive while a run is at work.
    """
    store = open_store(url)
    manifest = read_manifest(store)
    patient = patient_store(store, manifest)
    with DriverHeartbeat(patient, beat_seconds=manifest.config.execution.beat_seconds):
        damages = find_damage(patient, manifest, parse_shards(shards, manifest.num_shards))
        num_moved = 0
        for damage in damages:
            terminal.say(f"shard {damage.shard}: {counted(len(damage.findings), 'finding')}")
            for finding in damage.findings:
                terminal.say(*describe_finding(finding))
            for moved in move_aside(patient, damage):
                num_moved += 1
                terminal.say(f"moved {moved.key} to {moved.to}, {size(moved.size_bytes)}")
    terminal.say(
        f"{counted(num_moved, 'object')} moved to {as_typed(store.url)}/{QUARANTINE}/. "
        f"{counted(len(damages), 'shard')} will be made again.",
        f"Next: coppice run {as_typed(url)}",
    )
