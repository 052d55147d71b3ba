"""What `coppice repair` does, and what it prints."""

from jobs.cluster.heartbeat import DriverHeartbeat
from jobs.commands.shard_lists import parse_shards
from jobs.commands.terminal import Terminal, as_typed, counted, size
from jobs.commands.verify import describe_finding
from pipeline.store.evidence.rebuild import LostPlan, lost_plans, lost_run, put_plan, put_run
from pipeline.store.layout import MANIFEST, QUARANTINE, extension_key
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.patient import patient_store
from pipeline.store.plans import read_manifest
from pipeline.store.repair import find_damage, move_aside, move_object
from schemas.errors import ExitCode
from schemas.runs import RunManifest


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


def repair_plan(url: str, terminal: Terminal, *, is_dry: bool) -> ExitCode:
    """Have damaged plan files back from the traces of their shards. Returns DAMAGED while there is
    one that is not had back.
    """
    store = open_store(url)
    manifest = read_manifest(store)
    patient = patient_store(store, manifest)
    lost = lost_plans(patient, manifest)
    for plan in lost:
        terminal.say(f"{plan.key}: found {plan.problem}", f"  {_describe_way_back(plan)}")
    possible = [plan for plan in lost if plan.rows]
    if not lost:
        terminal.say("No plan file is damaged.")
    elif possible and is_dry:
        terminal.say(
            f"{counted(len(possible), 'plan file')} of {len(lost)} can be had back. "
            f"Next: coppice repair {as_typed(url)} --plan --apply"
        )
    elif possible:
        with DriverHeartbeat(patient, beat_seconds=manifest.config.execution.beat_seconds):
            num_put = sum(_have_back(patient, manifest, plan, terminal) for plan in possible)
        terminal.say(
            f"{counted(num_put, 'plan file')} of {len(lost)} had back. "
            f"Next: coppice verify {as_typed(url)}"
        )
        return ExitCode.COMPLETE if num_put == len(lost) else ExitCode.DAMAGED
    return ExitCode.DAMAGED if lost else ExitCode.COMPLETE


def _describe_way_back(plan: LostPlan) -> str:
    if plan.rows:
        return f"its {counted(len(plan.rows), 'row')} can be had back from the traces of its shard"
    away = "move it away, and then " if plan.is_there else ""
    return (
        f"cannot be had back: {plan.why_not}; {away}put it back from a copy of the run, or plan "
        "the same prompts again, which writes what is gone"
    )


def _have_back(store: Store, manifest: RunManifest, plan: LostPlan, terminal: Terminal) -> bool:
    if plan.is_there:
        moved = move_object(store, plan.key)
        terminal.say(f"moved {moved.key} to {moved.to}, {size(moved.size_bytes)}")
    is_put = put_plan(store, manifest, plan)
    terminal.say(f"put {plan.key}" if is_put else f"{plan.key} was put by someone else")
    return is_put


def repair_lost_run(url: str, terminal: Terminal, *, is_dry: bool) -> None:
    """Have a lost run.json, and lost commits of later parts, back from traces. Raises InputError if
    they do not say enough.
    """
    store = open_store(url)
    lost = lost_run(store)
    keys = [extension_key(part.number) for part in lost.parts]
    keys += [MANIFEST] if lost.is_manifest_gone else []
    if not keys:
        terminal.say("Nothing is lost: each part of the plan that traces tell of is committed.")
        return
    manifest = lost.manifest
    terminal.say(
        f"Lost: {', '.join(keys)}. Traces of run {manifest.run_id} say what was in "
        f"{'it' if len(keys) == 1 else 'them'}; the execution settings are those of the run that "
        "made these traces."
    )
    if is_dry:
        terminal.say(f"Next: coppice repair {as_typed(url)} --run --apply")
        return
    for key in put_run(store, lost):
        terminal.say(f"put {key}")
    terminal.say(f"Next: coppice verify {as_typed(url)}")
