"""Sets hold what follows from their runs, as `tests.recompute` has it, which is other code."""

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.engine.fake import Fake
from pipeline.plan.planning import extend_plan
from pipeline.plan.prompt_files import PromptSet
from pipeline.plan.reruns import RerunSelection, open_rerun
from pipeline.select.recipes import read_recipe
from pipeline.select.selection import open_curation
from pipeline.sets import units
from pipeline.sets.write import write_set
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.runs import open_run
from schemas.config import FakeConfig, Pictures
from tests.pipeline.conftest import score
from tests.recompute.__main__ import not_computed_again, problems
from tests.support import (
    at_work,
    attempt_at,
    fake_config,
    fake_method,
    plan_run,
    rerun_of,
    run_all,
)

V01 = Path(__file__).parents[2] / "data" / "v0.1"
FAKE = FakeConfig(
    image_size=32,
    patch_size=8,
    num_codes=16,
    num_text_tokens=8,
    unparseable_share=0.3,
    dead_share=0.4,
)

SFT = """
name = "sft"
scorers = ["tokens@1", "thoughts@1", "critiques@1", "phash@1"]
split = { validation = 0.4 }
filters = [
    { column = "tokens.entropy", of = "drawing", min = 1.5, tasks = ["draw"], reason = "flat" },
    { column = "thoughts.value", of = "event", min = 0, tasks = ["think"] },
    { column = "event.num_revisions", max = 1 },
]
agreement = { by = "tokens.entropy", accept_min = 0.0, revise_max = 4 }
per_prompt = { keep = 3, by = "tokens.entropy", min_distance = 1 }
"""
EXPORTS = 'exports = ["trl", "llama-factory", "ms-swift", "verl", "webdataset", "nemo-curator"]\n'
MIX = SFT + "mix = { weights = { think = 9, reflect = 2, draw = 9 }, max_rows = 40 }"
REGIONS = SFT + 'mix = { weights = { think = 1, draw = 1 }, regions = "equal" }'
GAIN = SFT.replace("revise_max = 4", "revise_max = 4, gain_min = 0, balance = false")
GROUPS = """
name = "groups"
kind = "grpo"
exports = ["verl-grpo"]
scorers = ["tokens@1", "thoughts@1"]
split = { validation = 0.4 }
[groups]
rewards = ["tokens.entropy", "thoughts.nouns_covered"]
picture_only = true
"""
PAIRS = """
name = "pairs"
kind = "preference"
scorers = ["tokens@1"]
split = { validation = 0.4 }
pairs = { by = "tokens.entropy", min_margin = 0.01 }
"""


def wrong_with(out: Path, recipe: str, *runs: Store, evaluation: Sequence[Path] = ()) -> list[str]:
    """What a set by a recipe has that does not follow from these runs."""
    read = read_recipe(recipe, origin="test")
    sources = [open_run(run.url) for run in runs]
    curation = open_curation(sources, read, Path(), evaluation=[str(path) for path in evaluation])
    write_set(curation, open_store(str(out)))
    assert pq.read_metadata(out / "decisions.parquet").num_rows
    return list(problems(out, [Path(run.url) for run in runs], list(evaluation)))


GROUPS_1 = f"{GROUPS}max_dead = 1"
LENIENT = f"{GROUPS}max_dead = 2\ndrop_zero_variance = false"


BEST = 'per_prompt = { keep = 2, by = "judge.value" }'
BEST_PAIRS = 'kind = "preference"\npairs = { by = "judge.value", sources = ["group"] }'
Z, Q = "group_zscore_mean", "category_quantile_mean"


def judged(judges: str, rules: str) -> str:
    """A recipe by judges whose scores become one in this way."""
    who = '["tokens", "tokens.entropy", "thoughts.nouns_covered"], held_out = []'
    return f"""
name = "judged"
scorers = ["tokens@1", "thoughts@1"]
split = {{ validation = 0.4 }}
judge = {{ scorers = {who}, aggregate = "{judges}" }}
filters = [{{ column = "judge.value" }}]
{rules}
"""


def rewarded(how: str, rewards: str = '"tokens.entropy", "thoughts.nouns_covered"') -> str:
    more = "picture_only = true, max_dead = 2"
    return f'kind = "grpo"\ngroups = {{ rewards = [{rewards}], aggregate = "{how}", {more} }}'


def grow_on(folder: Path, *, is_finished: bool) -> Store:
    """A run of 8 records that lost some rollouts for good, got others back, and was extended from 2
    to 4 rollouts a record; unfinished, its last shard is not grown.
    """
    store = open_store(str(folder))
    config = fake_config(fake_method(FAKE, pictures=Pictures.ALL))
    manifest = plan_run(store, 8, config, rollouts_per_record=2, rollouts_per_shard=5)
    run_all(store, manifest, attempt=2)
    opened = open_rerun(store, manifest, RerunSelection())
    assert opened is not None, "nothing died"
    living = Fake(FAKE.model_copy(update={"dead_share": 0.0}))
    with at_work(store, manifest, backend=living) as worker:
        worker.run_shard(rerun_of(next(iter(opened.left)), opened))
    nothing = PromptSet(prompts=[], num_duplicates=0, rejects=[])
    manifest = extend_plan(store, nothing, sources=[], rollouts_per_record=4)
    with at_work(store, manifest) as worker:
        for shard in range(4, manifest.num_shards - (not is_finished)):
            worker.run_shard(attempt_at(shard, 2))
    score(store, "tokens", "thoughts", "critiques", "phash")
    return store


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return grow_on(tmp_path_factory.mktemp("grown") / "run", is_finished=True)


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return grow_on(tmp_path_factory.mktemp("unfinished") / "run", is_finished=False)


@pytest.mark.parametrize(
    "recipe",
    [
        *(MIX, GROUPS_1, PAIRS),
        *(pytest.param(recipe, marks=pytest.mark.slow) for recipe in (SFT, REGIONS, GAIN, LENIENT)),
    ],
)
def test_a_run_with_dead_rollouts_supplements_and_extensions(
    grown: Store, unfinished: Store, tmp_path: Path, recipe: str
):
    assert wrong_with(tmp_path / "grown", recipe, grown) == []
    assert wrong_with(tmp_path / "unfinished", recipe, unfinished) == []
    assert wrong_with(tmp_path / "both", recipe, unfinished, grown) == []


@pytest.mark.parametrize(
    ("judges", "rules"),
    [
        *((how, BEST) for how in ("mean", "min", "sum", Z, Q)),
        *((how, BEST_PAIRS) for how in ("mean", Q)),
        *((how, rewarded(other, '"judge.value"')) for how, other in ((Z, "mean"), ("mean", Z))),
        *((how, rewarded(other)) for how, other in (("sum", Q), (Z, Q), (Q, "sum"))),
    ],
)
def test_judges_and_rewards_that_compare_are_computed_again(
    grown: Store, tmp_path: Path, judges: str, rules: str
):
    assert wrong_with(tmp_path / "out", judged(judges, rules), grown) == []


def test_what_is_not_computed_again_is_said_and_is_no_problem(grown: Store, tmp_path: Path):
    others = 'exports = ["unirl", "imagefolder", "veomni", "trl"]\n'
    pairs = 'exports = ["trl-dpo", "janus-dpo"]\n'
    groups = GROUPS_1.replace('"verl-grpo"', '"grpo", "unirl", "verl-grpo"')
    for name, recipe, believed in (
        ("sft", others + SFT, ["imagefolder", "unirl", "veomni"]),
        ("pairs", pairs + PAIRS, ["janus-dpo", "trl-dpo"]),
        ("groups", groups, ["grpo", "unirl"]),
    ):
        assert wrong_with(tmp_path / name, recipe, grown) == []
        assert list(not_computed_again(tmp_path / name)) == [
            f"not computed again: the export {export}" for export in believed
        ]


@pytest.mark.parametrize("levels", [["L1"], ["L2"], ["L3"]])
def test_levels_of_leaks_and_a_named_column_are_followed(tmp_path: Path, levels: list[str]):
    store = open_store(str(tmp_path / "run"))
    prompts = ["two dogs", "a photo of two dogs", "a cat left of a dog", "a red car", "a blue car"]
    config = fake_config(fake_method(pictures=Pictures.ALL))
    run_all(store, plan_run(store, prompts, config))
    val = tmp_path / "val.jsonl"
    val.write_text('{"caption": "Two dogs!"}\n{"caption": "a dog left of a cat"}\n')
    rule = f'[decontamination]\ncolumn = "caption"\nlevels = {json.dumps(levels)}'

    assert wrong_with(tmp_path / "out", f'name = "r"\n{rule}', store, evaluation=[val]) == []
    is_believed = levels != ["L1"]
    said = ["not computed again: leaks at L2 and L3"] * is_believed
    assert list(not_computed_again(tmp_path / "out")) == said


FORMS = (
    *("a red car", "A red car.", "red cars", "a photo of a red car", "A red\u00adcar, 4K"),
    *("two dogs", "2 dogs", "a caf\u00e9 with three cats", "The cafe with three cats"),
    *("a blue cup", "the blue cups!", "generate a picture of a tree", "trees", "a tree photo"),
    *("a green bus", "a bench by a lake", "four men", "a church", "churches", "a yellow bus"),
)


def test_forms_of_a_prompt_are_one_and_evaluation_prompts_are_left_out(tmp_path: Path):
    store = open_store(str(tmp_path / "run"))
    fake = FAKE.model_copy(update={"dead_share": 0.0})
    config = fake_config(fake_method(fake, pictures=Pictures.ALL))
    run_all(store, plan_run(store, FORMS, config, rollouts_per_record=2, rollouts_per_shard=10))
    score(store, "tokens", "thoughts", "critiques", "phash")
    own = tmp_path / "own.txt"
    own.write_text("A BLUE cup\n\nthe benches by the lake\n")
    geneval = tmp_path / "geneval.jsonl"
    lines = [{"tag": "x", "prompt": prompt} for prompt in ("a photo of a green bus", "a chair")]
    geneval.write_text("\n".join(map(json.dumps, lines)))

    assert wrong_with(tmp_path / "all", SFT, store) == []
    assert wrong_with(tmp_path / "groups", GROUPS, store) == []
    left = wrong_with(tmp_path / "left", EXPORTS + SFT, store, evaluation=[own, geneval])
    assert left == []
    table = pq.read_table(tmp_path / "left" / "decisions.parquet").to_pylist()
    assert {row["reason"] for row in table} >= {"leak_L0", "leak_L1"}
    told = list(problems(tmp_path / "left", [Path(store.url)], [geneval]))
    assert told, "of other files other decisions follow"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sft", "grpo", "dpo"])
def test_runs_of_the_toy_alone_and_together(toy_run: Store, tmp_path: Path, kind: str):
    first = open_store(str(V01 / "run"))
    dpo = 'name = "d"\nkind = "preference"\nscorers = ["toy@1"]\npairs = { by = "toy.value" }'
    recipe = dpo if kind == "dpo" else (V01 / f"{kind}.toml").read_text()
    runs = [toy_run, first]

    assert wrong_with(tmp_path / "first", recipe, first) == []
    assert wrong_with(tmp_path / "both", recipe, *runs) == []


@pytest.mark.parametrize(
    "recipe", [MIX, f"{GROUPS}max_dead = 4\ndrop_zero_variance = false", PAIRS]
)
def test_a_set_of_many_units_holds_the_same_rows(
    grown: Store, tmp_path: Path, recipe: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(units, "_UNIT_BYTES", (1.0, 20_000.0))

    assert wrong_with(tmp_path / "out", f"{recipe}\n", grown) == []
    numbers = {path.stem for path in (tmp_path / "out").rglob("*-0*.parquet")}
    assert len(numbers) > 1
    assert not list((tmp_path / "out").glob("_units/*"))


def test_groups_are_of_all_that_was_planned_and_none_is_left_out_for_being_extended(
    grown: Store, unfinished: Store, tmp_path: Path
):
    recipe = f"{GROUPS}max_dead = 4\ndrop_zero_variance = false"
    funnels = {}
    for name, run in (("grown", grown), ("unfinished", unfinished)):
        assert wrong_with(tmp_path / name, recipe, run) == []
        funnels[name] = json.loads((tmp_path / name / "funnel.json").read_text())

    assert funnels["grown"]["removed"] == {}
    assert funnels["unfinished"]["removed"].keys() == {"incomplete_group"}


def test_what_was_tampered_with_is_seen(grown: Store, tmp_path: Path):
    assert wrong_with(tmp_path / "out", EXPORTS + MIX, grown) == []
    for file, column, other in (
        ("decisions.parquet", "value", 7.5),
        ("sft/draw_*/train-*.parquet", "text", "other words"),  # which there are is by lot
        ("exports/ms-swift/train/part-00000.parquet", "images", []),
    ):
        path = min((tmp_path / "out").glob(file))
        body, table = path.read_bytes(), pq.read_table(path)
        rows = table.to_pylist()
        row = next((row for row in rows if row[column]), rows[0])
        row[column] = other
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
        told = list(problems(tmp_path / "out", [Path(grown.url)]))
        path.write_bytes(body)

        assert len(told) == 1
        assert column in told[0]
