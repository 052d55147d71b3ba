"""What the work of a run took, as its driver keeps it on the store and as people are told."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from jobs.cluster.heartbeat import DriverProgress
from schemas.config import ExecutionConfig
from schemas.runs import added

if TYPE_CHECKING:
    from jobs.cluster.snapshot import Snapshot

_HOUR = 3600.0
_TOLD_SECONDS = 0.5  # which rounds to one


def as_kept(
    snapshot: "Snapshot",
    execution: ExecutionConfig,
    *,
    per_second: float,
    before: DriverProgress | None,
) -> DriverProgress:
    """What a driver tells of itself; `before`: what the one before it had told last."""
    ends, work = snapshot.ends, snapshot.work
    seconds = {f"{phase} {device}": spent for (phase, device), spent in work.seconds.items()}
    return DriverProgress(
        told_at=datetime.now(UTC).isoformat(timespec="seconds"),
        num_finished=snapshot.num_finished,
        num_planned=snapshot.num_planned,
        num_accepted=ends.num_accepted,
        num_revised=ends.num_revised,
        dead=dict(ends.dead),
        rollouts_per_second=per_second,
        num_actors=snapshot.num_actors,
        seconds=added(before.seconds if before else {}, seconds),
        tokens=added(before.tokens if before else {}, work.tokens),
        gpu_share=execution.gpus_per_actor,
        num_ok_grown=ends.num_accepted + ends.num_revised + (before.num_ok_grown if before else 0),
    )


def describe_work(progress: DriverProgress, gpu_hour_price: float | None) -> Iterator[str]:
    """`Device seconds: 412 on gpu (380 generate, 32 load), 30 on cpu (30 encode).` and a price."""
    devices: dict[str, dict[str, float]] = {}
    for name, spent in progress.seconds.items():
        phase, _, device = name.rpartition(" ")
        devices.setdefault(device, {})[phase] = spent
    if not devices:
        return
    parts = [
        f"{sum(phases.values()):,.0f} on {device} ({_by_size(phases)})"
        for device, phases in sorted(devices.items(), reverse=True)
    ]
    yield f"Device seconds: {', '.join(parts)}."
    gpu_seconds = sum(devices.get("gpu", {}).values()) * progress.gpu_share
    if gpu_hour_price is None or not progress.num_ok_grown:
        return
    if not gpu_seconds:
        yield "Price: no GPU was used."
        return
    price = gpu_seconds / _HOUR * gpu_hour_price
    yield (
        f"Price: {gpu_seconds / _HOUR:,.2f} GPU hours at {gpu_hour_price:g} are {price:,.2f}; a "
        f"thousand ok traces: {1000 * price / progress.num_ok_grown:,.2f}."
    )


def _by_size(phases: Mapping[str, float]) -> str:
    told = {phase: spent for phase, spent in phases.items() if spent >= _TOLD_SECONDS}
    largest_first = sorted((told or phases).items(), key=lambda phase: -phase[1])
    return ", ".join(f"{spent:,.0f} {phase}" for phase, spent in largest_first)
