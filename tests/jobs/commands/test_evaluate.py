"""`coppice eval`: what a run lacks is made once, and a table comes of it."""

import json
from pathlib import Path

import pytest

from jobs.commands.evaluate import judges_of
from pipeline.evaluation.suites import COMPBENCH, GENEVAL
from pipeline.store.open import open_store
from schemas.errors import InputError
from tests.jobs.conftest import Coppice
from tests.pipeline.scoring.judges import checkpoints
from tests.support import plan_run, run_all


def files_of(run: Path) -> dict[str, int]:
    """What a run holds beside its drivers, and when it was written."""
    return {
        str(path.relative_to(run)): path.stat().st_mtime_ns
        for folder in ("plan", "traces", "scores")
        for path in (run / folder).rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
@pytest.mark.ray
def test_the_toy_is_evaluated_once_and_compared(coppice_on_ray: Coppice, tmp_path: Path):
    trial = ("--suite", "toy", "--limit", "2", "--images-per-prompt", "1", "--model", "toy")
    first = coppice_on_ray("eval", "run", *trial)
    made = files_of(tmp_path / "run")
    again = coppice_on_ray("eval", "run", "--suite", "toy", "--json", "--against", "run")

    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    assert "2 prompts x 1 image" in first.stdout
    assert "Judge toy@1" in first.stdout
    assert files_of(tmp_path / "run") == made
    table = json.loads(again.stdout)
    assert table == json.loads((tmp_path / "run/eval/toy.json").read_text())
    assert table["images_per_prompt"] == 1
    assert table["seed"] == 0
    assert [judge["id"] for judge in table["judges"]] == ["toy@1"]
    assert table["lines"][0]["num_prompts"] == 2
    assert {line["value"] for line in table["against"]["lines"]} <= {0.0, None}


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_an_evaluation_goes_on_and_grows(coppice_on_ray: Coppice, tmp_path: Path):
    trial = ("--suite", "toy", "--limit", "2", "--images-per-prompt", "1", "--model", "toy")
    first = coppice_on_ray("eval", "run", *trial, "--json")
    made = files_of(tmp_path / "run")
    # What a killed call left: traces without their scores. The next call makes these alone.
    (tmp_path / "run/scores/toy@1/shard-00000.parquet").unlink()
    (tmp_path / "run/eval/toy.json").unlink()
    resumed = coppice_on_ray("eval", "run", "--suite", "toy", "--json")

    assert json.loads(resumed.stdout)["lines"] == json.loads(first.stdout)["lines"]
    assert "Nothing is missing." in resumed.stderr
    more = coppice_on_ray("eval", "run", "--suite", "toy", "--limit", "3", "--json")
    assert json.loads(more.stdout)["num_prompts"] == 3
    assert files_of(tmp_path / "run").items() >= made.items() - {
        item for item in made.items() if "scores/" in item[0]
    }
    assert coppice_on_ray("verify", "run").returncode == 0
    assert coppice_on_ray("gc", "run", "--settle-seconds", "0").returncode == 0
    assert (tmp_path / "run/eval/toy.json").is_file()


@pytest.mark.slow
@pytest.mark.ray
def test_a_model_is_evaluated_on_ten_prompts_of_compbench_by_tiny_judges(
    coppice_on_ray: Coppice, tmp_path: Path
):
    for name in ("blip", "clip", "grounding_dino", "dpt"):
        getattr(checkpoints, name)(tmp_path / name)
    (tmp_path / "judges.toml").write_text(
        '[scorers.layout]\nmodel = "grounding_dino"\ndepth = "dpt"\n'
        '[scorers.clipscore]\nmodel = "clip"\n'
    )
    (tmp_path / "prompts").mkdir()
    for name, file in COMPBENCH.files.items():
        lines = {"numeracy": "two dogs\nthree cups\n", "non_spatial": "a man reads\na dog runs\n"}
        text = lines.get(
            name, f"a red dog {name} on the left of a blue cup\na cup near a dog {name}"
        )
        (tmp_path / "prompts" / file).write_text(text)
    command = ("eval", "run", "--suite", "t2i-compbench", "--prompts", "prompts", "--limit", "10")
    judges = ("--scorer", "blip_vqa[model=blip,image_size=32]", "--config", "judges.toml")
    answer = coppice_on_ray(
        *command, *judges, "--model", "tiny", "--images-per-prompt", "1", "--json"
    )

    assert answer.returncode == 0, answer.stderr
    table = json.loads(answer.stdout)
    assert table["num_prompts"] == 10
    assert [line["class"] for line in table["lines"]] == list(COMPBENCH.files)
    told = {line["class"]: line for line in table["lines"]}
    assert told["color"]["num_pictures"] == 2
    assert told["numeracy"]["is_surrogate"]
    assert not told["color"]["is_surrogate"]
    assert all(judge["settings"]["mode"] == "official" for judge in table["judges"])


def test_a_run_of_other_prompts_is_not_mixed_with_a_suites(coppice: Coppice, tmp_path: Path):
    store = open_store(str(tmp_path / "run"))
    run_all(store, plan_run(store, 2))
    answer = coppice("eval", "run", "--suite", "toy")

    assert answer.returncode == 2
    assert "was planned for no suite, and not for toy" in answer.stderr


def test_prompts_that_are_needed_are_named_before_anything_is_written(
    coppice: Coppice, tmp_path: Path
):
    answer = coppice("eval", "run", "--suite", "geneval", "--scorer", "toy")
    unknown = coppice("eval", "run", "--suite", "toy", "--against", "nowhere")

    assert answer.returncode == unknown.returncode == 2
    assert "is no judge of the suite geneval" in answer.stderr
    assert "--against nowhere" in unknown.stderr
    assert not (tmp_path / "run").exists()


def test_judges_are_told_by_the_suite_then_the_file_then_the_brackets(tmp_path: Path):
    config = tmp_path / "judges.toml"
    config.write_text('[scorers.blip_vqa]\nmodel = "a"\nmode = "fixed"\n[scorers.other]\nx = 1\n')
    judges = judges_of(COMPBENCH, ["blip_vqa[model=b]"], str(config))

    assert judges[0].settings == {"mode": "fixed", "model": "b"}
    assert [judge.name for judge in judges] == ["blip_vqa", "clipscore", "layout"]
    assert judges[1].settings == {"mode": "official"}


def test_a_judge_that_costs_a_large_model_is_at_work_only_if_named():
    assert [judge.name for judge in judges_of(GENEVAL, [], None)] == ["geneval"]
    named = judges_of(GENEVAL, ["soft_geneval[dtype=bfloat16]"], None)
    assert [judge.name for judge in named] == ["geneval", "soft_geneval"]
    with pytest.raises(InputError, match="no judge of the suite"):
        judges_of(GENEVAL, ["hps"], None)
