"""What became of every row that could have been: the table of decisions, and the leaks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.select.columns import WHOLE
from pipeline.select.decide import Candidates
from pipeline.select.selection import Curation
from pipeline.select.shard_candidates import LATE_REASONS, task_name
from pipeline.sets.picks import SPLITS
from pipeline.store.objects import Store
from schemas.sets import Leak
from schemas.training import DECISIONS

DECISIONS_KEY = "decisions.parquet"


def write_decisions(curation: Curation, out: Store, scratch: Path) -> None:
    """Write what became of every row, one object after the other."""
    path = scratch / DECISIONS_KEY
    with pq.ParquetWriter(path, DECISIONS, compression="zstd") as writer:
        for object_index in range(len(curation.shards)):
            if (table := decisions_of(curation, object_index)).num_rows:
                writer.write_table(table)
    out.put(DECISIONS_KEY, path)
    path.unlink()


def decisions_of(curation: Curation, object_index: int) -> pa.Table:
    """The decisions about the rows of one object, as columns of `DECISIONS`."""
    candidates, shard = curation.candidates, curation.shards[object_index]
    run_id = curation.runs[curation.objects[object_index][0]].run_id
    first, stop = candidates.first_row[object_index : object_index + 2].tolist()
    traces, events = candidates.trace[first:stop], candidates.event[first:stop]
    reasons, values = candidates.reason[first:stop], candidates.value[first:stop]
    tasks, task_indices = np.unique(candidates.task[first:stop], return_inverse=True)
    trace_ids = pa.array(
        (
            f"{run_id}-{record:016x}-{rollout}"
            for record, rollout in zip(shard.record.tolist(), shard.rollout.tolist(), strict=True)
        ),
        pa.string(),
    )
    columns = {
        "run_id": _words(np.zeros(len(traces), np.int32), [run_id]),
        "trace_id": trace_ids.take(pa.array(traces - int(candidates.first_trace[object_index]))),
        "event": pa.array(events, mask=events == WHOLE),
        "task": _words(task_indices, [task_name(task) for task in tasks.tolist()]),
        "is_kept": pa.array(reasons == 0),
        "reason": _words(reasons.astype(np.int32) - 1, _words_of_reasons(candidates)),
        "value": pa.array(values, mask=np.isnan(values)),
        "split": _words(curation.is_validation[traces], SPLITS),
    }
    return pa.table(columns, schema=DECISIONS)


def _words_of_reasons(candidates: Candidates) -> tuple[str, ...]:
    """What the numbers of reasons mean. Late ones are told as far as they occur: sets without them
    are the same to the byte as before there were any.
    """
    last = int(candidates.reason.max(initial=0))
    early = [number for number, word in enumerate(candidates.reasons) if word not in LATE_REASONS]
    return candidates.reasons[1 : max(last, *early) + 1]


def leaks_of(curation: Curation) -> list[Leak]:
    """The prompts that are left out since an evaluation set holds them, by their ids."""
    candidates = curation.candidates
    levels: dict[str, str] = {}
    for level in curation.checked.criteria.evaluation.levels:
        is_leak = candidates.reason == candidates.reasons.index(f"leak_{level}")
        for record in np.unique(candidates.record[candidates.trace[is_leak]]).tolist():
            levels[f"{record:016x}"] = level
    return [Leak(record_id=record, level=levels[record]) for record in sorted(levels)]


def _words(indices: npt.ArrayLike, words: Sequence[str]) -> pa.DictionaryArray:
    """A word for each index; null where the index is below 0."""
    numbers = np.asarray(indices, np.int32)
    return pa.DictionaryArray.from_arrays(
        pa.array(numbers, mask=numbers < 0), pa.array(words, pa.string())
    )
