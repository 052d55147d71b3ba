"""Units of a set: some trace objects whose rows one worker makes and puts, a file a stream.

Which objects make a unit follows from the decisions alone, by estimates of what their rows weigh.
So the files of a set are the same wherever it is written, and a unit that is done need not be done
again.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from pipeline.select.columns import MAX_REGIONS, REFLECT, THINK, Floats
from pipeline.select.selection import Curation
from pipeline.select.shard_candidates import is_of_role
from pipeline.sets.picks import ObjectPicks, expanded, picks_of
from pipeline.sets.router import Streams, make_tables
from pipeline.sets.rows import ObjectWork
from pipeline.sets.whole import NotedStore
from pipeline.store.layout import traces_object_key
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.trouble.scratch import scratch_folder
from pipeline.twig.programs import Settings
from schemas.config import Pictures
from schemas.recipes import Recipe, SetKind
from schemas.sets import UnitFiles

UNITS = "_units"
"""Below an unfinished set: a note for each unit that is done."""

_NUM_UNITS = 16  # of a set that is neither small nor large
_UNIT_BYTES = (64 * 2**20, 512 * 2**20)  # the least and the most that a unit is cut to
_EVENT_BYTES, _TRACE_BYTES = 6_000, 60_000  # of a row, without pictures
_PIXEL_BYTES = 1.6  # lossless WebP of a busy picture


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectSlice:
    """The rows to be made of one object, or of a part of one that is very large. Is pickled."""

    run: int  # index into the runs
    url: str  # of the run
    name: str  # of the object, below `traces/`
    picks: ObjectPicks


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitWork:
    """What a worker makes the files of one unit from. Is pickled."""

    number: int
    slices: tuple[ObjectSlice, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitTask:
    """What is the same for all units of a set. Is pickled."""

    out: Store
    settings: tuple[Settings, ...]  # of each run
    recipe: Recipe
    recipe_digest: str
    has_notes: bool  # whether a unit that is done is noted, for a job that comes after a killed one


class Unit(NamedTuple):
    """Which picks a unit is made of."""

    number: int
    slices: tuple[tuple[int, int, int], ...]  # index of the object, its first pick, last one + 1

    def work(self, curation: Curation) -> UnitWork:
        """All that a worker needs."""
        slices = []
        for object_index, start, stop in self.slices:
            run, name = curation.objects[object_index]
            picks = picks_of(curation, object_index).part(start, stop)
            url = curation.runs[run].store.url
            slices.append(ObjectSlice(run=run, url=url, name=name, picks=picks))
        return UnitWork(number=self.number, slices=tuple(slices))


def unit_key(number: int) -> str:
    """The note that a unit is done."""
    return f"{UNITS}/{number:05d}.json"


def units_of(curation: Curation, settings: Sequence[Settings]) -> list[Unit]:
    """The units of a set, in the order of objects. Objects without rows are in none."""
    least, most = _UNIT_BYTES
    parts = [
        part
        for object_index in range(len(curation.objects))
        for part in _parts(curation, settings, object_index, most)
    ]
    limit = min(most, max(least, sum(part.weight for part in parts) / _NUM_UNITS))
    units: list[list[_Part]] = []
    room = 0.0
    for part in parts:
        if part.weight > room:
            units.append([])
            room = limit
        units[-1].append(part)
        room -= part.weight
    return [
        Unit(number, tuple((part.object_index, part.start, part.stop) for part in unit))
        for number, unit in enumerate(units)
    ]


def write_unit(task: UnitTask, work: UnitWork) -> UnitFiles:
    """Make the rows of one unit and put its files, in a worker."""
    left_out: dict[str, Counter[str]] = defaultdict(Counter)
    with scratch_folder() as scratch:
        out = NotedStore(task.out)
        streams = Streams(out, scratch, work.number)
        for part in work.slices:
            store = open_store(part.url)
            object_work = ObjectWork(
                url=part.url,
                key=traces_object_key(part.name),
                picks=expanded(part.picks, store, part.name, task.recipe),
                settings=task.settings[part.run],
                recipe=task.recipe,
                recipe_digest=task.recipe_digest,
            )
            for tables, of_tables in make_tables(store, object_work):
                streams.add(tables)
                for name, counts in of_tables.items():
                    left_out[name] += counts
        unit_files = UnitFiles(
            files=out.with_digests(streams.close()),
            left_out={name: dict(counts) for name, counts in left_out.items() if counts},
        )
    if task.has_notes:
        task.out.put(unit_key(work.number), unit_files.model_dump_json().encode())
    return unit_files


class _Part(NamedTuple):
    """Some picks of an object: from one to another, with about what their rows weigh in bytes."""

    object_index: int
    start: int
    stop: int
    weight: float


def _parts(
    curation: Curation, settings: Sequence[Settings], object_index: int, most: float
) -> list[_Part]:
    """All picks of an object, in as many parts as make each of them weigh no more than that, but
    for the rows of one trace, which stay together.
    """
    picks = picks_of(curation, object_index)
    if not len(picks):
        return []
    total = np.cumsum(_weights(curation, settings, object_index, picks))
    num_parts = int(np.ceil(total[-1] / most))
    cuts = np.searchsorted(total, total[-1] * np.arange(1, num_parts) / num_parts)
    cuts = np.searchsorted(picks.position, picks.position[cuts])
    bounds = np.unique(np.concatenate([[0], cuts, [len(picks)]])).tolist()
    before = np.concatenate([[0.0], total])
    return [
        _Part(object_index, start, stop, float(before[stop] - before[start]))
        for start, stop in pairwise(bounds)
    ]


def _weights(
    curation: Curation, settings: Sequence[Settings], object_index: int, picks: ObjectPicks
) -> Floats:
    """About how many bytes each of the picks of an object makes [picks]. Errs on the heavy side."""
    run, _ = curation.objects[object_index]
    task = picks.task.astype(np.int64)
    kind, method = curation.recipe.kind, settings[run].method
    weights = np.full(len(task), _TRACE_BYTES if kind == SetKind.GRPO else _EVENT_BYTES, np.float64)
    picture = _PIXEL_BYTES * settings[run].geometry.image_size ** 2
    if kind != SetKind.SFT:
        num_pictures = 2 if kind == SetKind.PREFERENCE else 1
        return weights + num_pictures * picture * (method.pictures is not Pictures.NONE)
    if method.pictures is Pictures.ALL:
        sees = is_of_role(task, REFLECT) | (is_of_role(task, THINK) & (task % MAX_REGIONS > 0))
        weights[sees] += picture
    return weights
