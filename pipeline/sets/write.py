"""From runs to a set, in three passes: judge rows, decide, write. The order of everything follows
from the runs, never from the workers.

Rows are written unit by unit, in any order: a unit is some objects, the files of which one worker
puts. The manifest is written last: a set without one is unfinished. Curating again into the same
place writes the same bytes under the same names, so that a killed job leaves no duplicate and no
hole; units that are done are not made again.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial

import pyarrow as pa
from pydantic import BaseModel

from pipeline.file_names import quoted
from pipeline.plan.packs import settings_of
from pipeline.select.parallel import Spread, ordered_map
from pipeline.select.selection import Curation
from pipeline.sets.card import card_of
from pipeline.sets.croissant import croissant_of
from pipeline.sets.decisions import leaks_of, write_decisions
from pipeline.sets.export_notes import export_counts, export_notes
from pipeline.sets.router import joined, notes_of
from pipeline.sets.units import UNITS, UnitTask, unit_key, units_of, write_unit
from pipeline.sets.whole import CARD, FUNNEL, MANIFEST, NotedStore, sealed
from pipeline.store.objects import Store, keys_in
from pipeline.store.trouble.scratch import scratch_folder, sweep_scratch
from pipeline.twig.programs import Settings
from schemas import __version__
from schemas.errors import InputError, ObjectMissing
from schemas.json_values import JsonObject, JsonValue, canonical_json
from schemas.sets import SetInputs, SetManifest, SetRun, StreamFiles, UnitFiles
from schemas.small_files import UnreadableFile, parse_small, read_bounded, read_small
from schemas.training import TRAINING_FORMAT

STARTED = "started.json"
_MAX_BYTES = 2**28  # of a note that names files and their rows


class _Version(BaseModel):
    """What the notes of all versions have in common."""

    version: str


def write_set(
    curation: Curation,
    out: Store,
    *,
    packs: Sequence[str] = (),
    spread: Spread = ordered_map,
    say: Callable[[str], None] = lambda line: None,
) -> SetManifest:
    """Write the set, or find that it is there already.

    `packs` are files to look for the runs' template packs in; `spread` says where rows are made.
    Raises InputError for a store that holds anything else, and for a pack that is in none of the
    files.
    """
    settings = [settings_of(run.manifest, packs) for run in curation.runs]
    inputs = inputs_of(curation)
    version = version_of(inputs)
    if (finished := _begin(out, version)) is not None:
        _tidy(out)  # in case an earlier job ended just before it did
        url = quoted(out.url)
        say(f"This very set is there already. Whether it is whole: coppice verify {url}")
        return finished
    sweep_scratch()
    noted = NotedStore(out)
    with scratch_folder() as scratch:
        write_decisions(curation, noted, scratch)
    units = _write_units(curation, out, settings, spread)
    files = joined([unit.files for unit in units])
    manifest = SetManifest(
        training_format=TRAINING_FORMAT,
        version=version,
        inputs=inputs,
        files={key: stream.model_copy(update={"digests": ()}) for key, stream in files.items()},
        exports=export_notes(curation.recipe.exports, units),
    )
    put_json(noted, FUNNEL, _funnel_of(curation, manifest))
    if curation.guards is not None:
        put_json(noted, "guards.json", curation.guards.model_dump(mode="json"))
    put_json(noted, "leaks.json", [leak.model_dump() for leak in leaks_of(curation)])
    put_json(noted, "recipe.json", curation.recipe.model_dump(mode="json"))
    for key, note in notes_of(curation.recipe.name, curation.recipe.exports, files).items():
        put_json(noted, key, note)
    noted.put(CARD, card_of(curation, manifest).encode())
    put_json(noted, "croissant.json", croissant_of(curation, manifest))
    digests = dict(sorted((noted.digests | digests_of(files)).items()))
    manifest = sealed(manifest.model_copy(update={"digests": digests}))
    put_json(out, MANIFEST, manifest.model_dump(mode="json"))
    _tidy(out)
    return manifest


def digests_of(streams: Mapping[str, StreamFiles]) -> dict[str, str]:
    """Of the files of streams; none of a stream that an older version began."""
    return {
        key: digest
        for stream in streams.values()
        if len(stream.digests) == len(stream.files)
        for key, digest in zip(stream.files, stream.digests, strict=True)
    }


def _write_units(
    curation: Curation, out: Store, settings: Sequence[Settings], spread: Spread
) -> list[UnitFiles]:
    """Write all rows, but for those of units that an earlier job came to the end of."""
    units = units_of(curation, settings)
    noted = {entry.key for entry in out.list_folder(UNITS)}
    done = {}
    for unit in units:
        if unit_key(unit.number) in noted:
            with suppress(ObjectMissing, UnreadableFile):  # then the unit is made again
                done[unit.number] = read_small(
                    out, unit_key(unit.number), UnitFiles, max_bytes=_MAX_BYTES
                )
    left = [unit for unit in units if unit.number not in done]
    task = UnitTask(
        out=out,
        settings=tuple(settings),
        recipe=curation.recipe,
        recipe_digest=curation.checked.digest,
        has_notes=len(units) > 1,
    )
    work = (unit.work(curation) for unit in left)
    for unit, files in zip(left, spread(partial(write_unit, task), work), strict=True):
        done[unit.number] = files
    return [done[unit.number] for unit in units]


def _funnel_of(curation: Curation, manifest: SetManifest) -> JsonObject:
    """The funnel, and how many of the rows kept each export has and left out."""
    counts: JsonObject = curation.funnel.model_dump()
    return counts | {"exports": export_counts(manifest)} if manifest.exports else counts


def _tidy(out: Store) -> None:
    """Delete what only an unfinished set needs."""
    for entry in list(keys_in(out, UNITS)):
        out.delete(entry.key)
    out.delete(STARTED)


def inputs_of(curation: Curation) -> SetInputs:
    """All that a set follows from."""
    return SetInputs(
        recipe=curation.recipe,
        recipe_digest=curation.checked.digest,
        evaluation=dict(sorted(curation.checked.criteria.evaluation.digests.items())),
        runs=tuple(
            SetRun(
                run_id=run.run_id,
                fingerprint=run.manifest.fingerprint,
                objects={source.name: source.footer.digest for source in run.objects},
                extensions=tuple(part.folder for part in run.manifest.extensions),
            )
            for run in curation.runs
        ),
        sidecars={
            scorer: hashlib.sha256(
                "".join(footer.digest for footer in footers).encode()
            ).hexdigest()
            for scorer, footers in curation.checked.sidecars.items()
        },
        coppice=__version__,
        pyarrow=pa.__version__,
    )


def version_of(inputs: SetInputs) -> str:
    """Equal inputs make equal sets: 16 hex digits."""
    told = inputs.model_dump(mode="json")
    if inputs.evaluation:  # the files count, and not what they are called
        told["evaluation"] = sorted(inputs.evaluation.values())
        told["recipe"]["decontamination"]["files"] = []
    text = canonical_json(told)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _begin(out: Store, version: str) -> SetManifest | None:
    """Claim the store for this set. The manifest if the set is finished; InputError if the store
    holds something else.

    Two jobs at once with one version do no harm: both write the same bytes.
    """
    for key, holds in ((MANIFEST, "another set"), (STARTED, "an unfinished set of other inputs")):
        try:
            body = read_bounded(out, key, max_bytes=_MAX_BYTES)
            written = parse_small(_Version, body).version
        except ObjectMissing:
            continue
        except UnreadableFile as error:
            raise InputError(
                f"{out.url}/{key} is of no set that this version reads ({error}); give an empty "
                "place, or delete it"
            ) from error
        if written != version:
            raise InputError(
                f"{out.url} holds {holds} (version {written}, not {version}); give an empty place. "
                f"More forms of a set that stands are added with: coppice export {quoted(out.url)} "
                "--export NAME"
            )
        return _parse_manifest(out, body) if key == MANIFEST else None
    if any(True for _ in out.list_folder("")):
        raise InputError(f"{out.url} is not empty and holds no set; give an empty place")
    put_json(out, STARTED, {"version": version})
    return None


def _parse_manifest(out: Store, body: bytes) -> SetManifest:
    try:
        return parse_small(SetManifest, body)
    except UnreadableFile as error:
        raise InputError(
            f"{out.url}/{MANIFEST} is no manifest of this version ({error}); give an empty place, "
            "or delete it"
        ) from error


def put_json(out: Store, key: str, value: JsonValue) -> None:
    """Put a small file for people and machines."""
    out.put(key, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())
