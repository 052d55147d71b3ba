"""A driver over actors on a real Ray, with the fake backend."""

import os
import platform
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from jobs.cluster.driver import Driver
from jobs.cluster.snapshot import Snapshot, Summary
from pipeline.plan.configs import resolve
from pipeline.plan.planning import commit_plan, make_plan
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.plans import read_manifest
from pipeline.store.status import committed_shards
from pipeline.store.traces import read_footer, read_rows
from schemas.config import FakeConfig
from schemas.errors import InputError
from schemas.runs import RunManifest
from tests.support import SMALL, fake_config, fake_method, plan_run, prompt_set

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

SLOW = SMALL.model_copy(update={"delay_seconds": 0.02})


def _grow(
    store: Store,
    manifest: RunManifest,
    *,
    show: Callable[[Snapshot], None] = lambda snapshot: None,
    is_stopping: Callable[[], bool] = lambda: False,
) -> Summary:
    return Driver(store, manifest, show=show, is_stopping=is_stopping).run()


def _keys(store: Store, manifest: RunManifest) -> list[tuple[str, int]]:
    return [
        (row["record_id"], row["rollout_index"])
        for shard in range(manifest.num_shards)
        for row in read_rows(store, shard, columns=["record_id", "rollout_index"])
    ]


def test_every_planned_rollout_is_committed_once(tmp_path: Path):
    store = open_store(str(tmp_path))
    manifest = plan_run(store, 50, rollouts_per_record=2, rollouts_per_shard=7)
    summary = _grow(store, manifest)

    assert summary.snapshot.num_committed == manifest.num_shards
    keys = _keys(store, manifest)
    assert len(keys) == len(set(keys)) == 100
    assert summary.snapshot.num_new == summary.snapshot.num_finished == 100


@pytest.mark.parametrize(("share", "number"), [({"gpus_per_actor": 0.5}, 4), ({}, 2)])
def test_actors_share_gpus_by_fractions_and_take_one_each_by_default(
    tmp_path: Path, share: dict[str, float], number: int
):
    store = open_store(str(tmp_path))
    config = fake_config(fake_method(SLOW), cpus_per_actor=0.25, **share)
    manifest = plan_run(store, 400, config, rollouts_per_shard=4)
    seen = {0}
    _grow(
        store,
        manifest,
        show=lambda snapshot: seen.add(snapshot.num_actors),
        is_stopping=lambda: max(seen) >= number,
    )

    assert max(seen) == number


def test_dead_rollouts_are_rows_and_are_counted(tmp_path: Path):
    store = open_store(str(tmp_path))
    fake = SMALL.model_copy(update={"dead_share": 1.0})
    manifest = plan_run(store, 6, fake_config(fake_method(fake)), rollouts_per_shard=3)
    summary = _grow(store, manifest)

    assert (summary.snapshot.num_ok, summary.snapshot.num_dead) == (0, 6)
    assert {row["status"] for row in read_rows(store, 0)} == {"dead"}


def test_a_killed_actor_costs_its_open_shards_and_they_are_made_again(tmp_path: Path):
    store = open_store(str(tmp_path))
    manifest = plan_run(
        store,
        60,
        fake_config(fake_method(SLOW), live_rollouts_per_actor=4, node_check_seconds=0.2),
        rollouts_per_shard=6,
    )
    killed: list[int] = []

    def kill_one(snapshot: Snapshot) -> None:
        if snapshot.num_committed and not killed:
            worker = str(next(iter(read_rows(store, _first_committed(store, manifest))))["worker"])
            killed.append(int(worker.rpartition("/")[2]))
            os.kill(killed[0], signal.SIGKILL)

    summary = _grow(store, manifest, show=kill_one)

    assert killed
    assert summary.snapshot.num_committed == 10
    keys = _keys(store, manifest)
    assert len(keys) == len(set(keys)) == 60


def test_a_stop_commits_what_is_open_and_takes_nothing_new(tmp_path: Path):
    store = open_store(str(tmp_path))
    manifest = plan_run(store, 80, fake_config(fake_method(SLOW)), rollouts_per_shard=4)
    seen: list[Snapshot] = []
    summary = _grow(
        store,
        manifest,
        show=seen.append,
        is_stopping=lambda: any(snapshot.num_finished for snapshot in seen),
    )

    assert summary.was_stopped
    assert 0 < summary.snapshot.num_committed < manifest.num_shards
    assert summary.snapshot.num_finished == summary.snapshot.num_ok


def test_a_stop_ends_when_the_grace_is_over(tmp_path: Path):
    store = open_store(str(tmp_path))
    endless = FakeConfig(image_size=32, patch_size=8, delay_seconds=600)  # no test takes so long
    config = fake_config(fake_method(endless), grace_seconds=0.5)
    manifest = plan_run(store, 2, config)
    seen: list[Snapshot] = []
    summary = _grow(
        store,
        manifest,
        show=seen.append,
        is_stopping=lambda: any(snapshot.num_actors for snapshot in seen),
    )

    assert summary.was_stopped
    assert summary.snapshot.num_committed == 0


def test_a_node_that_sees_another_run_in_its_folder_is_refused_before_any_work(tmp_path: Path):
    store = open_store(str(tmp_path))
    manifest = plan_run(store, 3)
    stranger = manifest.model_copy(update={"run_id": "000000000000"})

    with pytest.raises(InputError, match="a path that all nodes share"):
        _grow(store, stranger)


def _plan_janus(store: Store, device: str) -> RunManifest:
    """A run of the tiny Janus, in which nothing is thought or judged."""
    method = {"model": "tiny", "program": "plain"}
    execution = {"device": device, "cache_gigabytes": 0.01, "num_actors": 1}
    resolved = resolve({"method": method, "execution": execution})
    prompts = prompt_set(1)
    plan = make_plan(prompts, resolved.config, resolved.facts, sources=["prompts.txt"])
    return commit_plan(store, plan, prompts, resolved.config, resolved.facts)


@pytest.mark.parametrize("device", ["gpu", pytest.param("auto", marks=pytest.mark.slow)])
def test_actors_that_were_given_a_gpu_use_it_or_end_the_run(tmp_path: Path, device: str):
    if torch.cuda.is_available():
        pytest.skip("torch sees a GPU here")
    store = open_store(str(tmp_path))
    manifest = _plan_janus(store, device)

    with pytest.raises(InputError, match=rf"execution.device={device}.* found none"):
        _grow(store, manifest)
    assert not committed_shards(store, manifest)


@pytest.mark.slow
def test_actors_that_were_given_none_say_so_in_every_trace(tmp_path: Path):
    store = open_store(str(tmp_path))
    manifest = _plan_janus(store, "cpu")

    summary = _grow(store, manifest)

    assert summary.snapshot.num_ok == 1
    assert {row["stack"]["device"] for row in read_rows(store, 0)} == {platform.machine()}


def test_committed_shards_are_left_alone_on_the_next_start(tmp_path: Path):
    store = open_store(str(tmp_path))
    manifest = plan_run(store, 9, rollouts_per_shard=3)
    _grow(store, manifest)
    before = [read_footer(store, shard).attempt_id for shard in range(3)]
    (tmp_path / "traces" / "shard-00001.parquet").unlink()
    _grow(store, read_manifest(store))
    after = [read_footer(store, shard).attempt_id for shard in range(3)]

    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, True]


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param("exit", marks=pytest.mark.slow),
        pytest.param("hang", marks=pytest.mark.slow),
        pytest.param("hoard", marks=pytest.mark.slow),
    ],
)
def test_a_record_that_ends_every_process_is_dead_and_costs_no_other(tmp_path: Path, harm: str):
    store = open_store(str(tmp_path))
    config = fake_config(
        node_check_seconds=0, no_progress_seconds=1, fake_harms={"prompt number 5": harm}
    )
    manifest = plan_run(store, 8, config, rollouts_per_shard=4)
    summary = _grow(store, manifest)

    assert (summary.snapshot.num_ok, summary.snapshot.num_dead) == (7, 1)
    (dead,) = (row for row in read_rows(store, 1) if row["status"] == "dead")
    assert (dead["prompt"], dead["dead_reason"]) == ("prompt number 5", "crash")
    assert len(_keys(store, manifest)) == 8


@pytest.mark.slow
def test_a_frozen_worker_is_ended_and_its_work_is_done_by_others(tmp_path: Path):
    store = open_store(str(tmp_path))
    config = fake_config(
        fake_method(SLOW),
        num_actors=2,
        live_rollouts_per_actor=4,
        no_progress_seconds=2,
        node_check_seconds=0,
    )
    manifest = plan_run(store, 40, config, rollouts_per_shard=4)
    frozen: list[int] = []

    def freeze_one(snapshot: Snapshot) -> None:
        if snapshot.num_committed and not frozen:
            worker = str(next(iter(read_rows(store, _first_committed(store, manifest))))["worker"])
            frozen.append(int(worker.rpartition("/")[2]))
            os.kill(frozen[0], signal.SIGSTOP)

    summary = _grow(store, manifest, show=freeze_one)

    assert frozen
    assert summary.snapshot.num_committed == 10
    assert len(set(_keys(store, manifest))) == 40


def _first_committed(store: Store, manifest: RunManifest) -> int:
    return min(committed_shards(store, manifest))
