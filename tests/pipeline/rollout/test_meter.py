"""What a worker tells of its work: rollouts by their ends, tokens by role, seconds by phase."""

from pathlib import Path

import pytest

from pipeline.rollout.meter import Meter, Phase
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from schemas.config import FakeConfig
from schemas.runs import Ends, ShardEnd, Work
from tests.support import SMALL, at_work, attempt_at, fake_config, fake_method, plan_run


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "run"))


def test_ends_add_up():
    first = Ends(num_accepted=1, dead={"crash": 1})
    second = Ends(num_revised=2, dead={"timeout": 3, "crash": 1})

    assert first + second == Ends(num_accepted=1, num_revised=2, dead={"crash": 2, "timeout": 3})
    assert (first + second).total == 8


def test_seconds_count_by_phase_and_device():
    now = iter([0.0, 2.0, 5.0, 6.0, 10.0, 14.0])
    meter = Meter("gpu", clock=lambda: next(now))
    for phase in (Phase.GENERATE, Phase.GENERATE, Phase.ENCODE):
        with meter.timing(phase):
            pass

    assert meter.read().seconds == {("generate", "gpu"): 3.0, ("encode", "cpu"): 4.0}


def test_a_report_tells_how_its_rollouts_ended_and_what_that_took(store: Store):
    fake = FakeConfig(**SMALL.model_dump() | {"revise_share": 0.2, "dead_share": 0.2})
    manifest = plan_run(store, 24, fake_config(fake_method(fake)))
    with at_work(store, manifest) as worker:
        report = worker.run_shard(attempt_at(0, 2))
        status = worker.status()

    ends = report.ends
    assert report.end is ShardEnd.COMMITTED
    assert (ends.num_accepted + ends.num_revised, ends.num_dead) == (report.num_ok, report.num_dead)
    assert min(ends.num_accepted, ends.num_revised, ends.dead["scripted"]) > 0
    assert report.work.ends == ends
    assert report.work.tokens["draw"] >= 16 * report.num_ok
    assert {phase for phase, _ in report.work.seconds} >= {"generate", "paint", "encode"}
    assert report.work.store_seconds > 0
    assert status.num_rows_busy == 0
    assert status.ends == {}


def test_a_failed_attempt_tells_its_work_too(store: Store):
    fake = FakeConfig(**SMALL.model_dump() | {"dead_share": 1.0})
    manifest = plan_run(store, 4, fake_config(fake_method(fake)))
    with at_work(store, manifest) as worker:
        report = worker.run_shard(attempt_at(0))  # all dead: a first attempt is not believed

    assert report.end is ShardEnd.FAILED
    assert report.work != Work()
    assert report.work.ends.num_dead == 4
