"""Planning: every rollout in exactly one shard, one config for a run, and one run in a folder."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.plan.models import ModelFacts, fake_facts
from pipeline.plan.planning import (
    MAX_ROLLOUTS_PER_SHARD,
    MAX_SHARD_BYTES,
    MAX_SHARD_SECONDS,
    Plan,
    commit_plan,
    make_plan,
)
from pipeline.plan.prompt_files import PromptSet
from pipeline.store import layout
from pipeline.store.objects import Source, Store
from pipeline.store.open import open_store
from pipeline.store.plans import PlanRow, read_manifest, read_plan_shard, try_read_manifest
from schemas.config import (
    FakeConfig,
    Pictures,
    Program,
    ReflectionConfig,
    RunConfig,
    SamplingConfig,
    ScheduleConfig,
)
from schemas.errors import ConfigMismatch, InputError, StoreUnavailable
from schemas.ids import record_id
from schemas.prompts import Reject
from schemas.runs import RunManifest
from tests.support import Unanswered, Wrapped, fake_config, fake_method, plan_run, prompt_set


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "run"))


def planned(num_prompts: int = 10, config: RunConfig | None = None, **changes: Any) -> Plan:
    """A plan that is not written. `num_layers` makes it one of a real model."""
    config = config or fake_config()
    facts = fake_facts(config.method.fake)
    facts = replace(facts, num_layers=changes.pop("num_layers", 0))
    return make_plan(prompt_set(num_prompts), config, facts, sources=["prompts.txt"], **changes)


def shards_of(store: Store, manifest: RunManifest) -> list[list[PlanRow]]:
    return [read_plan_shard(store, manifest, shard) for shard in range(manifest.num_shards)]


def keys_of(rows: list[PlanRow]) -> list[tuple[str, int]]:
    return [key for row in rows for key in row.rollout_keys()]


# Cutting


@settings(max_examples=40, deadline=None)
@given(
    num_prompts=st.integers(1, 9),
    rollouts_per_record=st.integers(1, 7),
    rollouts_per_shard=st.integers(1, 12),
)
def test_every_rollout_is_in_exactly_one_shard(
    num_prompts: int, rollouts_per_record: int, rollouts_per_shard: int
):
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder)
        manifest = plan_run(
            store,
            num_prompts,
            rollouts_per_record=rollouts_per_record,
            rollouts_per_shard=rollouts_per_shard,
        )
        shards = [keys_of(rows) for rows in shards_of(store, manifest)]

    assert [key for shard in shards for key in shard] == [
        (record_id(prompt.text), rollout)
        for prompt in prompt_set(num_prompts).prompts
        for rollout in range(rollouts_per_record)
    ]
    *full, last = [len(shard) for shard in shards]
    assert set(full) <= {rollouts_per_shard}
    assert 1 <= last <= rollouts_per_shard
    assert manifest.plan.num_rollouts == num_prompts * rollouts_per_record
    assert manifest.plan.num_records == num_prompts


def test_a_record_may_span_shards(store: Store):
    manifest = plan_run(store, ["a red cube"], rollouts_per_record=5, rollouts_per_shard=2)

    spans = [(row.rollout_start, row.rollout_stop) for (row,) in shards_of(store, manifest)]
    assert spans == [(0, 2), (2, 4), (4, 5)]


def test_rows_keep_the_prompt_and_its_metadata(store: Store):
    manifest = plan_run(store, ["un caf\u00e9", "a red cube"])

    (rows,) = shards_of(store, manifest)
    assert [(row.prompt, row.metadata) for row in rows] == [
        ("un caf\u00e9", {"line": 1}),
        ("a red cube", {"line": 2}),
    ]


# Sizes


BIG = FakeConfig(image_size=384, patch_size=16)


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"pictures": Pictures.NONE}, {"pictures": Pictures.FINAL}),
        ({"pictures": Pictures.FINAL}, {"pictures": Pictures.ALL}),
        ({"schedule": ScheduleConfig(num_regions=1)}, {"schedule": ScheduleConfig(num_regions=3)}),
        (
            {"reflection": ReflectionConfig(max_revisions=0)},
            {"reflection": ReflectionConfig(max_revisions=2)},
        ),
        ({}, {"fake": BIG}),
    ],
    ids=["final pictures", "all pictures", "regions", "revisions", "image size"],
)
def test_more_to_keep_makes_heavier_rollouts(less: dict[str, Any], more: dict[str, Any]):
    light, heavy = (
        planned(config=fake_config(fake_method(**method))).rollout_bytes for method in (less, more)
    )

    assert 0 < light < heavy


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"schedule": ScheduleConfig(num_regions=1)}, {"schedule": ScheduleConfig(num_regions=3)}),
        (
            {"reflection": ReflectionConfig(max_revisions=0)},
            {"reflection": ReflectionConfig(max_revisions=1)},
        ),
        ({}, {"fake": BIG}),
    ],
    ids=["regions", "reflections", "image tokens"],
)
def test_more_to_do_makes_longer_rollouts(less: dict[str, Any], more: dict[str, Any]):
    short, long = (
        planned(config=fake_config(fake_method(**method)), num_layers=24).rollout_seconds
        for method in (less, more)
    )

    assert 0 < short < long


def test_totals_are_of_all_rollouts():
    plan = planned(7, num_layers=24, rollouts_per_record=3)

    assert 0 < plan.num_bytes < 21 * plan.rollout_bytes


@pytest.mark.parametrize("num_layers", [0, 1, 24, 30])
@pytest.mark.parametrize("pictures", Pictures)
def test_shards_are_as_large_as_the_limits_allow(num_layers: int, pictures: Pictures):
    config = fake_config(fake_method(fake=BIG, pictures=pictures))

    plan = planned(config=config, num_layers=num_layers)

    def fits(size: int) -> bool:
        return (
            size <= MAX_ROLLOUTS_PER_SHARD
            and size * plan.rollout_bytes <= MAX_SHARD_BYTES
            and size * plan.rollout_seconds <= MAX_SHARD_SECONDS
        )

    assert fits(plan.part.rollouts_per_shard)
    assert not fits(plan.part.rollouts_per_shard + 1)


def test_a_rollout_that_is_beyond_the_limits_has_a_shard_of_its_own():
    assert planned(num_layers=10**6).part.rollouts_per_shard == 1


def test_a_shard_is_as_large_as_it_is_asked_to_be():
    assert planned(1000, num_layers=30, rollouts_per_shard=500).part.rollouts_per_shard == 500


def test_a_shard_that_no_single_put_could_commit_is_refused():
    config = fake_config(fake_method(fake=BIG, pictures=Pictures.ALL))

    with pytest.raises(InputError, match="--shard-rollouts"):
        planned(config=config, rollouts_per_shard=50_000)


# One run in a folder


def test_planning_again_adopts_the_run_that_is_there(store: Store):
    first = plan_run(store, 5, rollouts_per_record=2)

    assert plan_run(store, 5, rollouts_per_record=2) == first
    assert read_manifest(store) == first


def test_planning_again_with_another_execution_adopts_the_run(store: Store):
    first = plan_run(store)

    assert plan_run(store, config=fake_config(num_actors=7)) == first


def test_another_method_is_refused_field_by_field(store: Store):
    before = plan_run(store)
    method = fake_method(sampling=SamplingConfig(cfg_weight=4), program=Program.PLAIN, seed=9)

    with pytest.raises(ConfigMismatch) as refused:
        plan_run(store, config=fake_config(method))

    lines = [line.strip() for line in str(refused.value).splitlines()]
    assert "sampling.cfg_weight: 5.0 -> 4.0" in lines
    assert "program: think-while -> plain" in lines
    assert "seed: 0 -> 9" in lines
    assert sum(" -> " in line for line in lines[1:]) == 3
    assert read_manifest(store) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"prompts": 4},
        {"prompts": ["prompt number 0", "prompt number 2", "prompt number 1"]},
        {"rollouts_per_record": 2},
        {"rollouts_per_shard": 2},
    ],
    ids=["records", "order", "rollouts per record", "shard size"],
)
def test_other_records_or_shards_are_refused(store: Store, changes: dict[str, Any]):
    before = plan_run(store)

    with pytest.raises(InputError, match="3 records in 1 shards"):
        plan_run(store, **changes)

    assert read_manifest(store) == before


# Planners that race, and planners that die


class Overtaken(Wrapped):
    """Another planner commits just before this one would."""

    def __init__(self, store: Store, **other: Any) -> None:
        super().__init__(store)
        self.other = other

    def put_if_absent(self, key: str, source: Source) -> bool:
        self.first = plan_run(self.store, **self.other)
        return bool(self.store.put_if_absent(key, source))


def test_of_two_planners_of_the_same_run_both_get_the_one_that_came_first(store: Store):
    overtaken = Overtaken(store)

    manifest = plan_run(overtaken)

    assert manifest == overtaken.first == read_manifest(store)
    assert len(keys_of(*shards_of(store, manifest))) == 3


def test_a_planner_of_another_method_that_comes_second_is_refused(store: Store):
    other = fake_config(fake_method(seed=9))

    with pytest.raises(ConfigMismatch, match="seed: 9 -> 0"):
        plan_run(Overtaken(store, config=other))

    assert read_manifest(store).config == other


def test_a_planner_of_other_records_that_comes_second_leaves_the_first_ones_alone(store: Store):
    overtaken = Overtaken(store, prompts=["a red cube"])

    with pytest.raises(InputError):
        plan_run(overtaken, 50)

    manifest = read_manifest(store)
    assert manifest == overtaken.first
    assert keys_of(*shards_of(store, manifest)) == [(record_id("a red cube"), 0)]


class Dying(Wrapped):
    """Goes away after so many puts."""

    def __init__(self, store: Store, num_puts: int) -> None:
        super().__init__(store)
        self.num_puts = num_puts

    def spend(self) -> None:
        if not self.num_puts:
            raise StoreUnavailable("gone")
        self.num_puts -= 1

    def put(self, key: str, source: Source) -> None:
        self.spend()
        self.store.put(key, source)

    def put_if_absent(self, key: str, source: Source) -> bool:
        self.spend()
        return bool(self.store.put_if_absent(key, source))


@pytest.mark.parametrize("num_puts", range(4))
def test_a_planner_that_dies_before_the_end_leaves_no_run(store: Store, num_puts: int):
    with pytest.raises(StoreUnavailable):
        plan_run(Dying(store, num_puts), 3, rollouts_per_shard=1)

    assert try_read_manifest(store) is None
    other = plan_run(store, ["a red cube", "a blue cube"], rollouts_per_shard=1)
    assert [keys_of(rows) for rows in shards_of(store, other)] == [
        [(record_id("a red cube"), 0)],
        [(record_id("a blue cube"), 0)],
    ]


def test_planning_again_after_a_lost_answer_adopts_what_was_committed(store: Store):
    lossy = Unanswered(store)
    with pytest.raises(StoreUnavailable):
        plan_run(lossy)

    assert plan_run(lossy) == read_manifest(store)


# What could not be planned


def test_prompts_that_were_rejected_are_written_beside_the_plan(store: Store):
    rejects = [
        Reject(source="prompts.txt", line=2, reason="too long", text="caf\u00e9 \n" * 3),
        Reject(source="prompts.txt", line=7, reason="empty", text=""),
    ]
    prompts = PromptSet(prompts=prompt_set(2).prompts, num_duplicates=4, rejects=rejects)
    config = fake_config()
    facts: ModelFacts = fake_facts(config.method.fake)
    plan = make_plan(prompts, config, facts, sources=["prompts.txt", "more.txt"])

    manifest = commit_plan(store, plan, prompts, config, facts)

    lines = store.read(layout.rejects_key(manifest.plan.folder)).decode().splitlines()
    assert [Reject(**json.loads(line)) for line in lines] == rejects
    assert (manifest.plan.num_duplicates, manifest.plan.num_rejects) == (4, 2)
    assert manifest.plan.sources == ("prompts.txt", "more.txt")
