"""A cut of the fault suite: some of each kind. `make chaos` runs all of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.__main__ import in_process, on_a_cluster, on_storage
from tests.chaos.damage import flip_bits, follow_advice
from tests.chaos.garbage import garbage
from tests.chaos.ledger import Ledger
from tests.chaos.waits import full_disk


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    """A ledger that must be clean in the end."""
    ledger = Ledger()
    yield ledger
    assert (ledger.lost, ledger.twice, ledger.wrong) == ([], [], [])


@pytest.mark.slow
def test_killed_on_lines_and_failed_at_calls(ledger: Ledger, tmp_path: Path):
    in_process(ledger, tmp_path, step=100)

    assert len(ledger.faults) == 11
    assert min(ledger.faults.values()) >= 1


@pytest.mark.slow
def test_damage_and_flipped_bits(ledger: Ledger, tmp_path: Path):
    follow_advice(ledger, tmp_path / "damage", step=8)
    flip_bits(ledger, tmp_path / "bits", 100, seed=1)

    assert len(ledger.faults) == 7
    assert ledger.flips.total() == 100


@pytest.mark.slow
def test_garbage_and_a_full_disk(ledger: Ledger, tmp_path: Path):
    garbage(ledger, tmp_path, step=5)
    full_disk(ledger, tmp_path, 1)

    assert len(ledger.faults) >= 16


@pytest.mark.slow
def test_faults_on_the_wire(ledger: Ledger, tmp_path: Path, aws_settings: pytest.MonkeyPatch):
    del aws_settings
    on_storage(ledger, tmp_path, is_real=False)

    assert len(ledger.faults) == 10


@pytest.mark.slow
@pytest.mark.ray
def test_killed_and_frozen_processes(ledger: Ledger, tmp_path: Path):
    on_a_cluster(ledger, tmp_path, seed=1, is_cut=True)

    assert len(ledger.faults) == 8


def test_a_ledger_notices_what_is_lost_and_what_is_wrong(tmp_path: Path):
    """The suite bites: a run that lacks a key, and one with another token."""
    from pipeline.store.open import open_store
    from tests.chaos.ledger import tokens_in
    from tests.support import plan_run, run_all

    store = open_store(str(tmp_path / "run"))
    run_all(store, plan_run(store, 3))
    whole = tokens_in(store)
    key = next(iter(whole))

    lost = Ledger()
    lost.check(store, whole | {("a-record", 0): ([], [])}, "lost")
    assert lost.lost

    wrong = Ledger()
    wrong.check(store, whole | {key: ([1], [])}, "wrong")
    assert wrong.wrong
