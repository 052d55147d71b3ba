"""`coppice curate`: what it prints, and how it ends."""

import json
from pathlib import Path
from typing import Any

from pipeline.store.open import open_store
from schemas.config import Pictures
from tests.jobs.conftest import Coppice
from tests.support import fake_config, fake_method, plan_run, replace_object, run_all


def test_a_set_is_made_by_one_command_and_a_dry_run_writes_nothing(
    coppice: Coppice, tmp_path: Path
):
    store = open_store(str(tmp_path / "run"))
    config = fake_config(fake_method(pictures=Pictures.ALL))
    run_all(store, plan_run(store, 4, config, rollouts_per_shard=2))
    (tmp_path / "mine.toml").write_text('name = "mine"\n[mix]\nweights = { think = 1, draw = 1 }')
    dry = coppice("curate", "run", "set", "--recipe", "mine.toml", "--dry-run")
    assert not (tmp_path / "set").exists()
    written = coppice("curate", "run", "set", "--recipe", "mine.toml", "--export", "trl")
    refused = coppice("curate", "run", "other", "--recipe", "twig-50k-toy")

    assert dry.returncode == written.returncode == 0, dry.stderr + written.stderr
    assert "4 traces of 4 prompts came in" in dry.stdout
    assert "Kept 24 rows" in written.stdout
    version = json.loads((tmp_path / "set" / "manifest.json").read_text())["version"]
    assert f"Set {version}: set" in written.stdout
    assert refused.returncode == 2
    assert "make them with: coppice score" in refused.stderr
    names = ("toy", "thoughts", "critiques", "tokens", "phash", "prompt_filter")
    assert refused.stderr.endswith(f" {' '.join(f'--scorer {name}' for name in names)}\n")
    assert not (tmp_path / "other").exists()


def test_traces_with_broken_numbers_are_named_with_their_places(coppice: Coppice, tmp_path: Path):
    store = open_store(str(tmp_path / "run"))
    run_all(store, plan_run(store, 8, rollouts_per_shard=8))

    def spoil(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for row in rows[:5]:
            row["events"][1]["logp_cond"][2] = float("nan")
        return rows

    replace_object(store, 0, rows=spoil)
    (tmp_path / "mine.toml").write_text('name = "mine"\npictures = "tokens"')
    answer = coppice("curate", "run", "set", "--recipe", "mine.toml")

    assert answer.returncode == 0, answer.stderr
    told = [line for line in answer.stdout.splitlines() if line.startswith("Not finite: ")]
    assert len(told) == 4
    assert "traces/shard-00000.parquet: trace " in told[0]
    assert told[0].endswith("column events.logp_cond")
    assert "5 traces in all" in told[3]
    assert "coppice verify run --deep" in told[3]
    assert "not_finite" in answer.stdout


def test_advice_about_an_evaluation_file_names_an_option_of_this_command(
    coppice: Coppice, tmp_path: Path
):
    store = open_store(str(tmp_path / "run"))
    config = fake_config(fake_method(pictures=Pictures.ALL))
    run_all(store, plan_run(store, ["a boat", "stones"], config))
    (tmp_path / "mine.toml").write_text('name = "mine"')
    (tmp_path / "val.jsonl").write_text('{"caption": "A boat!"}\n')
    arguments = ("curate", "run", "set", "--recipe", "mine.toml", "--evaluation", "val.jsonl")
    refused = coppice(*arguments)
    advice = refused.stderr.rpartition(" with ")[2].replace("'", "").split()
    answer = coppice(*arguments, *advice)
    idle = coppice("curate", "run", "other", "--recipe", "mine.toml", *advice)

    assert refused.returncode == idle.returncode == 2
    assert advice == ["--evaluation-column", "caption"]
    assert "name some, --evaluation" in idle.stderr
    assert answer.returncode == 0, answer.stderr
    assert "leak_L0" in answer.stdout
    told = json.loads((tmp_path / "set" / "recipe.json").read_text())["decontamination"]
    assert told["column"] == "caption"
