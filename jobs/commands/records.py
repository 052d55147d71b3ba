"""Records as people name them, and their rows as they stand: with what supplements brought back."""

from collections.abc import Iterator
from dataclasses import dataclass

from jobs.commands.terminal import as_typed, counted, printable
from pipeline.store.objects import Store
from pipeline.store.plans import PlanRow, read_plan_shard
from pipeline.store.supplements import read_keys, read_log
from pipeline.store.traces import read_rows
from schemas.errors import DamagedPlan, InputError
from schemas.rows import TraceRow
from schemas.runs import RunManifest

_NAMED = 5  # of many records that start alike


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedRecord:
    """A record, and in which shards its rollouts are."""

    record_id: str
    plan_rows: list[tuple[int, PlanRow]]  # by shard; each has some of the rollouts

    @property
    def num_rollouts(self) -> int:
        return max(row.rollout_stop for _, row in self.plan_rows)

    def shard_of(self, rollout: int) -> int:
        """Raises InputError if the record has no such rollout."""
        for shard, row in self.plan_rows:
            if row.rollout_start <= rollout < row.rollout_stop:
                return shard
        raise InputError(
            f"record {printable(self.record_id)} has rollouts 0 to {self.num_rollouts - 1}, "
            f"and no {rollout}"
        )


def find_record(store: Store, manifest: RunManifest, start: str) -> PlannedRecord:
    """The one record whose id starts so. Raises InputError if there is none, or several.

    Plan files that are damaged are passed over; without them a record may be unknown, and then that
    raises DamagedPlan.
    """
    matches: dict[str, list[tuple[int, PlanRow]]] = {}
    damage: DamagedPlan | None = None
    for shard in range(manifest.num_shards):
        try:
            rows = read_plan_shard(store, manifest, shard)
        except DamagedPlan as error:
            damage = damage or error
            continue
        for row in rows:
            if row.record_id.startswith(start):
                matches.setdefault(row.record_id, []).append((shard, row))
    if damage and not matches:
        raise damage
    if len(matches) != 1:
        names = ", ".join(list(matches)[:_NAMED])
        raise InputError(
            f"{counted(len(matches), 'record')} of {store.url} start with {start!r}"
            + (f" ({printable(names)} ...); give more digits" if matches else "")
            + f"; list some with: coppice show {as_typed(store.url)}"
        )
    ((record_id, plan_rows),) = matches.items()
    return PlannedRecord(record_id=record_id, plan_rows=plan_rows)


def current_rows(
    store: Store, shard: int, *, columns: list[str] | None = None
) -> Iterator[TraceRow]:
    """Each key of a committed shard once: the row that brought it back, else that of the base.

    `columns`, if given, hold record_id and rollout_index.
    """
    log = read_log(store, shard)
    brought_back = {key for footer in log.supplements for key in read_keys(store, footer)}
    for row in read_rows(store, shard, columns=columns):
        if (row["record_id"], row["rollout_index"]) not in brought_back:
            yield row
    for footer in log.supplements:
        yield from read_rows(store, shard, footer.supplement, columns=columns)
