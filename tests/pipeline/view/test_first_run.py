"""What `make run` shows of the method, with its own settings and prompts: nothing is chosen."""

from collections import Counter
from pathlib import Path

import pytest

from pipeline.engine.backends import open_backends
from pipeline.plan.configs import read_config_file, resolve, with_settings
from pipeline.plan.planning import commit_plan, make_plan
from pipeline.plan.prompt_files import read_prompts
from pipeline.rollout.worker import Worker
from pipeline.scoring.painting import RunPainter
from pipeline.store.open import open_store
from pipeline.view.verdicts import REJECTED, Fate, judged
from tests.support import all_rows, attempt_at

ROOT = Path(__file__).parents[3]
CONFIG, PROMPTS = "examples/first-run.toml", "examples/toy.jsonl"


def test_make_run_takes_these_settings_and_prompts():
    assert f"coppice run {PROMPTS} $(RUN) --config {CONFIG}" in (ROOT / "Makefile").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_first_run_has_rejections_repairs_and_an_honest_miss(tmp_path: Path, seed: int):
    told = read_config_file(str(ROOT / CONFIG))
    tables = with_settings(told, [f"method.seed={seed}", "method.pictures=final"])
    resolved = resolve(tables)
    prompts = read_prompts([str(ROOT / PROMPTS)])
    plan = make_plan(prompts, resolved.config, resolved.facts, sources=[PROMPTS])
    store = open_store(str(tmp_path / "run"))
    manifest = commit_plan(store, plan, prompts, resolved.config, resolved.facts)
    worker = Worker(store, manifest, open_backends(manifest.config), name="some-worker")
    for shard in range(manifest.num_shards):
        worker.run_shard(attempt_at(shard))
    worker.close()

    weighed = sum(entry.size_bytes for entry in store.list_folder("traces"))
    assert 0.5 < plan.num_bytes / weighed < 2
    rows = all_rows(store, manifest)
    traces = judged(rows, RunPainter(manifest))

    fates = Counter(fate for trace in traces for fate in trace.fates.values())
    assert sum(fates[fate] for fate in REJECTED) >= 6, fates
    assert fates[Fate.REPAIRED] >= 3, fates
    assert fates[Fate.MISSED] >= 1, fates
    assert all(len(row["images"]) == 1 for row in rows)
    assert all(d.canvas is not None for trace in traces for d in trace.drawings), "painted"
