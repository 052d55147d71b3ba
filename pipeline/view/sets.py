"""A training set as it is looked at: what became of its runs' traces, and where those runs lie.

A set names its runs by their ids and says nothing of folders, so that equal inputs make equal
bytes. They are looked for beside it, or said.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice

from pipeline.sets.decisions import DECISIONS_KEY
from pipeline.sets.whole import MANIFEST, open_set_file, try_set_manifest
from pipeline.store import layout
from pipeline.store.evidence.digests import exists
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.plans import read_manifest
from pipeline.view.runs import ViewedRun, view_run
from schemas.errors import CoppiceError, InputError
from schemas.sets import SetManifest

_SEARCHED = 500  # folders near a set


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewedSet:
    """A finished set, with its runs."""

    store: Store
    manifest: SetManifest
    runs: tuple[ViewedRun, ...]  # in the order of their ids


def view(
    url: str, runs: Sequence[str] = (), *, is_around_damage: bool = False
) -> ViewedRun | ViewedSet:
    """The run or the set at a URL, see `view_run`. `runs` say where a set's runs lie.

    Raises InputError for a place that holds neither, for a set whose runs are not where they are
    looked for, and for `runs` of what is a run itself; DamagedObject.
    """
    store = open_store(url)
    manifest = try_set_manifest(store)
    if manifest is None:
        if runs:
            raise InputError(f"{store.url} is no training set, so it has no runs to be told of")
        if not exists(store, layout.MANIFEST):
            raise InputError(
                f"there is neither a run nor a finished training set at {store.url} "
                f"(no {layout.MANIFEST}, no {MANIFEST})"
            )
        return view_run(url, is_around_damage=is_around_damage)
    run_urls = _places_of(store, [run.run_id for run in manifest.inputs.runs], runs)
    with open_set_file(store, DECISIONS_KEY) as parquet:
        decisions = parquet.read(use_threads=False)
    return ViewedSet(
        store=store,
        manifest=manifest,
        runs=tuple(
            view_run(run_url, decisions=decisions, is_around_damage=is_around_damage)
            for run_url in run_urls
        ),
    )


def _places_of(store: Store, run_ids: Sequence[str], told: Sequence[str]) -> list[str]:
    """The URLs of a set's runs, in the order of their ids."""
    url_of: dict[str, str] = {}
    for url in told:
        run_id = read_manifest(open_store(url)).run_id
        if run_id not in run_ids:
            raise InputError(
                f"{url} is run {run_id}, and the set at {store.url} was made of "
                f"{', '.join(run_ids)}"
            )
        url_of[run_id] = url
    for url in _near(store.url):
        if len(url_of) == len(run_ids):
            break
        with suppress(CoppiceError):  # whatever lies there, it is no run of the set
            run_id = read_manifest(open_store(url)).run_id
            if run_id in run_ids:
                url_of.setdefault(run_id, url)
    if lost := [run_id for run_id in run_ids if run_id not in url_of]:
        raise InputError(
            f"the set at {store.url} was made of {', '.join(lost)}, and no such run lies near it; "
            "say where with: --run RUN"
        )
    return [url_of[run_id] for run_id in run_ids]


def _near(url: str) -> Iterator[str]:
    """Runs beside the set, beside the folder that it is in, and in the folders there."""
    parent, _, _ = url.rstrip("/").rpartition("/")
    above, _, _ = parent.rpartition("/")
    folders = [parent] if not above or above.endswith("/") else [parent, above, *_below(above)]
    for near in islice(chain.from_iterable(map(_below, folders)), _SEARCHED):
        with suppress(CoppiceError):
            if exists(open_store(near), layout.MANIFEST):
                yield near


def _below(url: str) -> Iterator[str]:
    with suppress(CoppiceError):
        yield from (f"{url}/{folder}" for folder in open_store(url).list_subfolders(""))
