"""Runs to curate: one of the fake backend, cheap, and one of the toy Janus, true."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.engine.backends import open_backends
from pipeline.plan.configs import resolve
from pipeline.plan.planning import commit_plan, make_plan
from pipeline.plan.prompt_files import read_prompts
from pipeline.rollout.worker import Worker
from pipeline.scoring.find import find_scorer
from pipeline.scoring.sidecars import score_object
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.runs import open_run
from pipeline.toy.prompts import held_out_prompts
from schemas.config import Pictures
from tests.support import attempt_at, fake_config, fake_method, plan_run, run_all

SCORERS = ("toy", "thoughts", "critiques", "tokens", "phash", "prompt_filter")


def score(store: Store, *names: str) -> None:
    """Score all of a run."""
    run = open_run(store.url)
    for name in names:
        for source in run.objects:
            score_object(store, source, find_scorer(name))


def origin(row: dict[str, Any]) -> dict[str, Any]:
    """Of prompts with a triangle, where they come from: told by someone of little trust."""
    if "triangle" not in row["prompt"]:
        return {"prompt_origin": None}
    name = "a `set`\n| of <b>rules</b>"
    return {"prompt_origin": {"name": name, "revision": "v7", "licence": "MIT"}}


def grow_toy(
    folder: Path,
    *,
    num_records: int,
    num_rollouts: int,
    text_temperature: float = 0.0,
    # Without guidance and warmer than it was taught, the toy draws some bands wrong.
    cfg_weight: float = 1.0,
    image_temperature: float = 2.0,
    pictures: str = "all",
    rollouts_per_shard: int = 5,
    **method: str | int,
) -> str:
    """Grow a run of the toy Janus; its place. `method` are further settings of it."""
    prompts, url = folder / "prompts.jsonl", str(folder / "run")
    rows = held_out_prompts(num_records, seed=5)
    told = (row | {"category": "toy"} | origin(row) for row in rows)
    prompts.write_text("\n".join(map(json.dumps, told)))
    sampling = {
        "text_temperature": text_temperature,
        "cfg_weight": cfg_weight,
        "image_temperature": image_temperature,
    }
    method |= {"model": "toy", "pictures": pictures}
    resolved = resolve({"method": {**method, "sampling": sampling}})
    given = read_prompts([str(prompts)], limit=lambda text: None, skip_bad=False)
    plan = make_plan(
        given,
        resolved.config,
        resolved.facts,
        sources=[str(prompts)],
        rollouts_per_record=num_rollouts,
        rollouts_per_shard=rollouts_per_shard,
    )
    store = open_store(url)
    manifest = commit_plan(store, plan, given, resolved.config, resolved.facts)
    worker = Worker(store, manifest, open_backends(manifest.config), name="some-worker")
    try:
        for shard in range(manifest.plan.num_shards):
            worker.run_shard(attempt_at(shard))
    finally:
        worker.close()
    return url


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """6 records of 3 rollouts in 4 shards, text sampled, scored by all that ships."""
    url = grow_toy(
        tmp_path_factory.mktemp("toy"), num_records=6, num_rollouts=3, text_temperature=0.8
    )
    store = open_store(url)
    score(store, *SCORERS)
    return store


@pytest.fixture
def fake_run(tmp_path: Path) -> Store:
    """8 records of 2 rollouts in 4 shards, greedy text, not scored."""
    store = open_store(str(tmp_path / "fake"))
    config = fake_config(fake_method(pictures=Pictures.ALL))
    run_all(store, plan_run(store, 8, config, rollouts_per_record=2, rollouts_per_shard=4))
    return store
