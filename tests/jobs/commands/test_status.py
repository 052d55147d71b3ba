"""What `coppice status` says of a run, from its storage and from what its driver told there."""

import io
import json
from pathlib import Path

import pytest

from jobs.cluster.heartbeat import DriverHeartbeat, DriverProgress, read_newest_progress
from jobs.cluster.snapshot import Snapshot
from jobs.commands.live.work import as_kept, describe_work
from jobs.commands.status import say_status, show_status, watch_status
from jobs.commands.terminal import Terminal
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.patient import patient_store
from schemas.config import ExecutionConfig, FakeConfig
from schemas.errors import ExitCode
from schemas.runs import Ends, RunManifest, Work
from tests.support import SMALL, fake_config, fake_method, plan_run, run_all

HALF_DEAD = FakeConfig(**SMALL.model_dump() | {"dead_share": 0.5})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "run"))


def grown(store: Store, fake: FakeConfig = SMALL) -> RunManifest:
    """A run of twelve rollouts in three shards, all of them grown."""
    manifest = plan_run(store, 12, fake_config(fake_method(fake)), rollouts_per_shard=4)
    run_all(store, manifest, attempt=2)
    return manifest


def said(
    store: Store, manifest: RunManifest, **options: bool | float
) -> tuple[list[str], ExitCode]:
    sink = io.StringIO()
    code = say_status(store, manifest, Terminal(sink), **options)  # type: ignore[arg-type]
    return sink.getvalue().splitlines(), code


def test_a_run_with_dead_rollouts_ends_with_reasons_and_the_command_to_try_them_again(store: Store):
    lines, code = said(store, grown(store, HALF_DEAD))

    (why,) = (line for line in lines if line.startswith("Why: "))
    assert why.endswith(" dead (scripted).")
    assert lines[-1].startswith("Next: coppice rerun ")
    assert code is ExitCode.COMPLETE_WITH_DEAD


def test_a_step_of_other_work_does_not_say_what_to_do_next(store: Store):
    manifest = grown(store)

    assert any(line.startswith("Next: coppice show ") for line in said(store, manifest)[0])
    assert not any("Next" in line for line in said(store, manifest, is_step=True)[0])


def kept(**changes: float) -> DriverProgress:
    """What a driver tells after an hour and a half on two GPUs, of which one actor has a half."""
    snapshot = Snapshot(
        num_shards=3,
        num_committed=1,
        num_planned=12,
        num_finished=8,
        num_ok=4,
        num_dead=0,
        num_actors=2,
        num_new=8,
        num_bytes=0,
        growing_seconds=9.0,
        ends=Ends(num_accepted=5, num_revised=2, dead={"timeout": 1}),
        work=Work(seconds={("generate", "gpu"): 5000.0, ("load", "gpu"): 400.0}),
    )
    execution = ExecutionConfig(gpus_per_actor=0.5)
    before = changes.get("before")
    return as_kept(snapshot, execution, per_second=1.5, before=kept() if before else None)


def test_json_has_reasons_rate_driver_and_bytes(store: Store, tmp_path: Path):
    manifest = grown(store, HALF_DEAD)
    with DriverHeartbeat(patient_store(store, manifest), beat_seconds=0.02) as heartbeat:
        heartbeat.tell(kept())
        while read_newest_progress(store) is None:
            pass
        sink = io.StringIO()
        show_status(store.url, Terminal(sink), as_json=True)

    told = json.loads(sink.getvalue())
    assert sum(told["dead_reasons"].values()) == told["num_dead"] > 0
    assert told["rollouts_per_second"] == 1.5
    assert told["progress"]["dead"] == {"timeout": 1}
    assert told["driver"]["pid"]
    assert told["num_bytes"] > 0


def test_watching_ends_when_nothing_is_missing_or_nobody_drives(store: Store):
    manifest = plan_run(store, 4)
    sink = io.StringIO()

    assert watch_status(store.url, Terminal(sink)) is ExitCode.INCOMPLETE
    run_all(store, manifest)
    assert watch_status(store.url, Terminal(sink)) is ExitCode.COMPLETE
    assert "0 of 4 rollouts" in sink.getvalue()
    assert "4 of 4 rollouts" in sink.getvalue()


# What work took


def test_device_seconds_are_told_by_phase_and_a_price_where_one_is_given():
    assert list(describe_work(kept(), None)) == [
        "Device seconds: 5,400 on gpu (5,000 generate, 400 load)."
    ]
    assert list(describe_work(kept(), 2.0))[1] == (
        "Price: 0.75 GPU hours at 2 are 1.50; a thousand ok traces: 214.29."
    )


def test_work_of_drivers_before_is_added():
    both = kept(before=True)

    assert both.seconds == {"generate gpu": 10_000.0, "load gpu": 800.0}
    assert both.num_ok_grown == 14
    assert both.num_accepted == 5  # of this driver


def test_without_a_gpu_there_is_no_price():
    on_cpu = kept().model_copy(update={"seconds": {"generate cpu": 10.0}})

    assert list(describe_work(on_cpu, 2.0))[1] == "Price: no GPU was used."
