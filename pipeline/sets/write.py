"""From runs to a set, in three passes: judge rows, decide, write. The order of everything follows
from the runs, never from the workers.

The manifest is written last: a set without one is unfinished. Curating again into the same place
writes the same bytes under the same names, so that a killed job leaves no duplicate and no hole.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.plan.packs import settings_of
from pipeline.select.parallel import ordered_map
from pipeline.select.selection import Curation
from pipeline.sets.card import card_of
from pipeline.sets.decisions import leaks_of, picks_of, write_decisions
from pipeline.sets.router import Made, Streams, make_tables
from pipeline.sets.rows import Pick
from pipeline.store.layout import traces_object_key
from pipeline.store.objects import Store
from pipeline.twig.programs import Settings
from schemas import __version__
from schemas.errors import InputError, ObjectMissing
from schemas.json_values import canonical_json
from schemas.recipes import Recipe
from schemas.training import TRAINING_FORMAT

MANIFEST, STARTED = "manifest.json", "started.json"


def write_set(
    curation: Curation,
    out: Store,
    *,
    packs: Sequence[str] = (),
    num_workers: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Write the set. Returns its manifest."""
    settings = [settings_of(run.manifest, packs) for run in curation.runs]
    inputs = inputs_of(curation)
    version = hashlib.sha256(canonical_json(inputs).encode()).hexdigest()[:16]
    if (finished := _begin(out, version)) is not None:
        say("This very set is there already.")
        return finished
    with tempfile.TemporaryDirectory(prefix="coppice-") as scratch:
        write_decisions(curation, out, Path(scratch))
        streams = Streams(out, Path(scratch))
        for made in _made(curation, settings, num_workers):
            streams.add(made)
        files = streams.close()
    manifest = {
        "training_format": TRAINING_FORMAT,
        "version": version,
        "inputs": inputs,
        "files": files,
    }
    _put(out, "funnel.json", curation.funnel.model_dump())
    _put(out, "leaks.json", leaks_of(curation))
    _put(out, "recipe.json", curation.recipe.model_dump(mode="json"))
    for key, body in streams.notes(curation.recipe).items():
        _put(out, key, body)
    out.put("README.md", card_of(curation, version, files).encode())
    _put(out, MANIFEST, manifest)
    out.delete(STARTED)
    return manifest


def inputs_of(curation: Curation) -> dict[str, Any]:
    """All that a set follows from. Says nothing of places, hosts or times."""
    return {
        "recipe": curation.recipe.model_dump(mode="json"),
        "recipe_digest": curation.checked.digest,
        "evaluation": dict(sorted(curation.checked.criteria.evaluation.digests.items())),
        "runs": [
            {
                "run_id": run.run_id,
                "fingerprint": run.manifest.fingerprint,
                "objects": {one.name: one.footer.digest for one in run.objects},
            }
            for run in curation.runs
        ],
        "sidecars": {
            scorer: hashlib.sha256("".join(one.digest for one in footers).encode()).hexdigest()
            for scorer, footers in curation.checked.sidecars.items()
        },
        "coppice": __version__,
        "pyarrow": pa.__version__,
    }


def _made(curation: Curation, settings: Sequence[Settings], num_workers: int) -> Iterable[Made]:
    """The tables of each object that has rows, in order."""
    work = []
    for place, (run, name) in enumerate(curation.objects):
        if picks := picks_of(curation, place):
            work.append(
                (
                    curation.runs[run].store.url,
                    traces_object_key(name),
                    picks,
                    settings[run],
                    curation.recipe,
                    curation.checked.digest,
                )
            )
    return ordered_map(_tables_of, work, num_workers)


def _tables_of(work: tuple[str, str, dict[int, list[Pick]], Settings, Recipe, str]) -> Made:
    return make_tables(*work)


def _begin(out: Store, version: str) -> dict[str, Any] | None:
    """Claim the place for this set. The manifest if it is finished; InputError if another is there.

    Two jobs at once with one version do no harm: both write the same bytes.
    """
    for key, what in ((MANIFEST, "another set"), (STARTED, "an unfinished set of other inputs")):
        try:
            there = json.loads(out.read(key))
        except ObjectMissing:
            continue
        if there["version"] != version:
            raise InputError(
                f"{out.url} holds {what} (version {there['version']}, not {version}); "
                "give an empty place, or delete it"
            )
        if key == MANIFEST:
            finished: dict[str, Any] = there
            return finished
        return None
    if any(True for _ in out.list_folder("")):
        raise InputError(f"{out.url} is not empty and holds no set; give an empty place")
    _put(out, STARTED, {"version": version})
    return None


def _put(out: Store, key: str, value: Any) -> None:
    out.put(key, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())
