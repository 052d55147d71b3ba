"""What a plan says of weight, against what runs weigh; and of time, what was measured."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.plan.estimates import expected_bytes, expected_seconds
from pipeline.plan.models import fake_facts
from pipeline.store.open import open_store
from schemas.config import FakeConfig
from tests.support import fake_config, fake_method, plan_run, run_all

JANUS = FakeConfig()  # pictures, tokens and entropy of Janus-Pro's
NUM_ROLLOUTS, SHARD_ROLLOUTS = 4, 3


@pytest.mark.parametrize("pictures", ["none", "final", "all"])
def test_bytes_are_told_within_a_factor_of_two(tmp_path: Path, pictures: str):
    config = fake_config(fake_method(JANUS, pictures=pictures))
    store = open_store(str(tmp_path / "run"))
    manifest = plan_run(store, NUM_ROLLOUTS, config, rollouts_per_shard=SHARD_ROLLOUTS)
    run_all(store, manifest)
    weighed = sum(entry.size_bytes for entry in store.list_folder("traces"))

    told = expected_bytes(
        config,
        manifest.geometry,
        num_rollouts=NUM_ROLLOUTS,
        num_shards=manifest.num_shards,
    )

    assert 0.5 < told / weighed < 2, (told, weighed)


def test_time_is_told_where_a_rate_was_measured_and_nowhere_else():
    config, facts = fake_config(fake_method(backend="engine")), fake_facts(JANUS)

    assert expected_seconds(config, replace(facts, num_layers=30), num_rollouts=230) == (
        pytest.approx(100.0),
        "H200",
    )
    assert expected_seconds(config, replace(facts, num_layers=24), num_rollouts=230) is None
    plain = fake_config(fake_method(backend="reference"))
    assert expected_seconds(plain, replace(facts, num_layers=30), num_rollouts=230) is None
