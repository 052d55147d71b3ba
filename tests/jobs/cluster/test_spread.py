"""Work on a cluster comes back in order, once, and what goes wrong is told as itself."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from jobs.cluster.spread import on_cluster
from pipeline.select.parallel import in_processes
from pipeline.select.recipes import read_recipe
from pipeline.select.selection import open_curation
from pipeline.sets import units
from pipeline.sets.write import write_set
from pipeline.store.open import open_store
from pipeline.store.runs import open_run
from schemas.errors import FatalFailure, InputError
from tests.support import plan_run, run_all

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


def scaled(factor: int, number: int) -> int:
    return factor * number


def refused(number: int) -> int:
    raise InputError(f"{number} cannot be used")


def hopeless(number: int) -> int:
    raise FatalFailure(f"{number} is hopeless", reason="some_reason")


def killed_once(folder: Path, number: int) -> int:
    """The first process that is given a number dies of it."""
    mark = folder / str(number)
    if not mark.exists():
        mark.touch()
        os._exit(1)
    return number


def test_results_come_in_order_and_work_is_asked_for_as_it_can_be_done():
    asked: list[int] = []

    def work() -> Iterator[int]:
        for number in range(20):
            asked.append(number)
            yield number

    results = on_cluster(2)(partial(scaled, 3), work())

    assert next(results) == 0
    assert len(asked) <= 2 * 2 + 1
    assert list(results) == [3 * number for number in range(1, 20)]
    assert list(on_cluster(4)(partial(scaled, 3), [])) == []


@pytest.mark.parametrize("function", [refused, hopeless])
def test_what_a_task_raises_is_raised_as_it_is(function: "partial[int]"):
    with pytest.raises((InputError, FatalFailure), match=r"^7 ") as raised:
        list(on_cluster(1)(function, [7]))
    assert type(raised.value) in (InputError, FatalFailure)
    assert getattr(raised.value, "reason", "some_reason") == "some_reason"


def test_a_set_made_on_a_cluster_has_the_bytes_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(units, "_UNIT_BYTES", (1.0, 20_000.0))
    store = open_store(str(tmp_path / "run"))
    run_all(store, plan_run(store, 6, rollouts_per_shard=2))
    recipe = read_recipe('name = "all"\npictures = "tokens"\nexports = ["trl"]', origin="test")
    sets = []
    for name, spread in (("here", in_processes(1)), ("there", on_cluster(2))):
        curation = open_curation([open_run(store.url)], recipe, tmp_path, spread=spread)
        write_set(curation, open_store(str(tmp_path / name)), spread=spread)
        files = (path for path in (tmp_path / name).rglob("*") if path.is_file())
        sets.append({str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files})

    assert sets[0] == sets[1]
    assert len([name for name in sets[0] if name.startswith("sft/draw_1/train")]) > 1


def test_a_task_whose_process_dies_is_done_again(tmp_path: Path):
    assert list(on_cluster(2)(partial(killed_once, tmp_path), [1, 2])) == [1, 2]
