"""Recipes: what cannot be had is refused before any work starts, with what to do."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.select.recipes import (
    check_recipe,
    load_recipe,
    read_recipe,
    recipe_digest,
    shipped_recipes,
)
from pipeline.select.selection import open_curation
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.runs import open_run
from schemas.config import Pictures, ReflectionConfig
from schemas.errors import InputError
from schemas.recipes import Recipe
from tests.pipeline.conftest import score
from tests.support import fake_config, fake_method, plan_run, run_all

OLD_TWIG_50K = (Path(__file__).parent / "twig_50k_0_1.toml").read_text()


def refuse(text: str, run: Store) -> str:
    """The complaint about a recipe."""
    recipe = read_recipe(f'name = "some"\n{text}', origin="some.toml")
    with pytest.raises(InputError) as caught:
        check_recipe(recipe, Path(), [open_run(run.url)])
    return str(caught.value)


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_can_be_read(name: str):
    recipe, _ = load_recipe(name)

    assert recipe.name == name
    assert recipe.about


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("filter = []", "did you mean 'filters'"),
        ('scorers = ["toy"]', "such as toy@1"),
        ('scorers = ["toy@1", "toy@2"]', "pinned at one version"),
        ('tasks = ["thinking"]', "'thinking' is no task"),
        ("[mix]\nweights = { draw = 0 }", "above 0"),
        ("[mix]\nweights = { draw = 1, draw_1 = 2 }", "draw_1 is also a part of draw"),
        ("[mix]\nweights = { draw = 1 }\ncounts = { draw = 1 }", "either weights or counts"),
        ('tasks = ["think"]\n[mix]\nweights = { draw = 1 }', "not among the tasks"),
        ('kind = "grpo"', r"needs \[groups\]"),
        ("[[filters]]\ncolumn = 'toy.value'\nnull = 'keep'", "drops nothing"),
        ("name = 3", "not valid TOML"),
        ("tasks = []", "an empty list for tasks, so"),
        (
            'kind = "preference"\npairs = { by = "toy.value", sources = [] }',
            r"for \[pairs\] sources",
        ),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(text: str, complaint: str):
    with pytest.raises(InputError, match=complaint):
        read_recipe(f'name = "some"\n{text}', origin="some.toml")


def test_an_unknown_recipe_is_named_with_a_suggestion():
    with pytest.raises(InputError, match="did you mean 'twig-50k'"):
        load_recipe("twig-50")


def test_a_recipe_of_before_there_were_judges_has_the_digest_that_it_had():
    recipe = read_recipe(OLD_TWIG_50K, origin="old")

    assert recipe_digest(recipe) == "21181d44443f735d"  # as the sets that were made with it say
    assert "judge" not in recipe.model_dump()
    today = load_recipe("twig-50k-toy")[0]
    assert today == recipe.model_copy(update={"name": today.name, "about": today.about})


@pytest.mark.parametrize("said", [{"tasks": ()}, {"decontamination": {"levels": ()}}])
def test_a_manifest_of_before_may_have_a_recipe_that_is_refused_now(said: dict[str, object]):
    assert Recipe.model_validate({"name": "old", **said}).name == "old"


def test_missing_scores_are_refused_with_the_command_that_makes_them(fake_run: Store):
    complaint = refuse('scorers = ["tokens@1"]', fake_run)

    assert "lacks scores of tokens@1 for 4 of 4 shards" in complaint
    assert f"coppice score {fake_run.url} --scorer tokens" in complaint


def test_scores_of_other_traces_are_refused(fake_run: Store, toy_run: Store):
    score(fake_run, "tokens")
    stranger = toy_run.read("scores/tokens@1/shard-00000.parquet")
    fake_run.put("scores/tokens@1/shard-00000.parquet", stranger)

    assert "is of other traces" in refuse('scorers = ["tokens@1"]', fake_run)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('scorers = ["tokenz@1"]', "did you mean 'tokens'"),
        ('[[filters]]\ncolumn = "tokens.value"\nmin = 1', "pins no scorer 'tokens'"),
        ('[[filters]]\ncolumn = "value"\nmin = 1', "is no column"),
        ('[[filters]]\ncolumn = "trace.num_revision"\nmin = 1', "did you mean 'num_revisions'"),
        ('[[filters]]\ncolumn = "event.verdict"\nmin = 1', "holds words"),
        ('[[filters]]\ncolumn = "event.score"\nequals = "x"', "holds numbers"),
        (
            'scorers = ["tokens@1"]\n[[filters]]\ncolumn = "tokens.entropie"\nmin = 1',
            "no column 'entropie' (did you mean 'entropy'?)",
        ),
        ("[mix]\nweights = { draw_4 = 1 }", "asks for draw_4, which none of the runs can have"),
        (
            'tasks = ["draw_4", "think_9"]',
            "asks for draw_4, think_9, and the runs have only draw_1",
        ),
    ],
)
def test_what_the_runs_do_not_have_is_refused(fake_run: Store, text: str, complaint: str):
    score(fake_run, "tokens")

    assert complaint in refuse(text, fake_run)


def run_with(folder: Path, **changes: Any) -> Store:
    store = open_store(str(folder / "run"))
    run_all(store, plan_run(store, 2, fake_config(fake_method(**changes))))
    return store


def test_rows_that_look_at_canvases_need_a_run_that_kept_them(tmp_path: Path):
    run = run_with(tmp_path, pictures=Pictures.FINAL)

    assert "--pictures all" in refuse("", run)
    for recipe in ('tasks = ["draw", "think_1"]', 'pictures = "tokens"'):
        check_recipe(read_recipe(f'name = "r"\n{recipe}', origin="r"), Path(), [open_run(run.url)])


def test_a_mix_with_critiques_needs_a_run_that_reflects(tmp_path: Path):
    run = run_with(tmp_path, pictures=Pictures.ALL, reflection=ReflectionConfig(max_revisions=0))

    assert "asks for reflect" in refuse("[mix]\nweights = { reflect = 1, draw = 1 }", run)
    pairs = 'kind = "preference"\nscorers = ["tokens@1"]\n[pairs]\nby = "tokens.value"\n'
    assert "no run revises" in refuse(f'{pairs}sources = ["revision"]', run)


EVALUATION = ("two dogs", "a dog left of a cat")
LEAKS = {
    "L0": ("Two dogs!",),
    "L1": ("a photo of two dogs",),
    "L2": ("a cat left of a dog",),
    "L3": ("a cat right of a dog",),
}


@pytest.mark.parametrize("column", [None, "caption"])
@pytest.mark.parametrize("levels", [["L3"], ["L2"], ["L1"], ["L0"], ["L2", "L0"], ["L0", "L3"]])
def test_a_level_of_leaks_includes_those_below_it(
    tmp_path: Path, levels: list[str], column: str | None
):
    store = open_store(str(tmp_path / "run"))
    prompts = [prompt for of_level in LEAKS.values() for prompt in of_level]
    config = fake_config(fake_method(pictures=Pictures.ALL))
    run_all(store, plan_run(store, [*prompts, "a red car"], config))
    rows = ({column or "prompt": prompt} for prompt in EVALUATION)
    (tmp_path / "val.jsonl").write_text("\n".join(map(json.dumps, rows)))
    text = f"""name = "r"
        [decontamination]
        files = ["val.jsonl"]
        levels = {json.dumps(levels)}
        {f'column = "{column}"' if column else ""}"""
    curation = open_curation([open_run(store.url)], read_recipe(text, origin="r"), tmp_path)

    expected = [f"leak_{level}" for level in LEAKS if level <= max(levels)]
    assert list(curation.funnel.removed) == expected
    assert curation.funnel.num_prompts_kept == 5 - len(expected)


def test_no_level_beside_evaluation_files_is_refused(fake_run: Store, tmp_path: Path):
    (tmp_path / "val.txt").write_text("two dogs\n")
    recipe = read_recipe('name = "r"\ndecontamination = { levels = [] }', origin="r")
    check_recipe(recipe, Path(), [open_run(fake_run.url)])

    with pytest.raises(InputError, match=r"levels = \[\] under \[decontamination\]"):
        check_recipe(recipe, Path(), [open_run(fake_run.url)], [str(tmp_path / "val.txt")])
    named = read_recipe(
        'name = "r"\ndecontamination = { levels = [], files = ["val.txt"] }', origin="r"
    )
    with pytest.raises(InputError, match="no prompt of the evaluation files would be left out"):
        check_recipe(named, tmp_path, [open_run(fake_run.url)])


@pytest.mark.parametrize(
    ("text", "complaint", "num_removed"),
    [
        ("filters = [{ column = 'trace.num_events', max = 0 }]", "leaves no rows", 72),
        (
            "filters = [{ column = 'trace.category', equals = 'x', tasks = ['draw'] }]\n"
            "mix = { weights = { think = 1, draw = 1 } }",
            "a pool of it has no rows left: think 24, draw 0",
            24,
        ),
        (
            "filters = [{ column = 'event.region', max = 1 }]\n"
            "mix = { counts = { think = 17, draw = 1 } }",
            "these are left: think 16, draw 16",
            24,
        ),
        (
            "filters = [{ column = 'trace.rollout_index', max = 0 }]\n"
            'mix = { weights = { think = 1, draw = 1 }, max_rows = 2, regions = "equal" }',
            "the share of think is less than",
            36,
        ),
        (
            'kind = "preference"\nfilters = [{ column = "trace.num_events", max = 0 }]\n'
            'pairs = { by = "tokens.value", sources = ["group"] }',
            "leaves no rows",
            8,
        ),
    ],
)
def test_a_set_or_a_pool_of_nothing_is_refused_and_the_funnel_says_why(
    tmp_path: Path, text: str, complaint: str, num_removed: int
):
    store = open_store(str(tmp_path / "run"))
    config = fake_config(fake_method(pictures=Pictures.ALL))
    run_all(store, plan_run(store, 4, config, rollouts_per_record=2))
    score(store, "tokens")
    recipe = read_recipe(f'name = "r"\nscorers = ["tokens@1"]\n{text}', origin="r")
    with pytest.raises(InputError) as caught:
        open_curation([open_run(store.url)], recipe, Path())

    sentence, came_in, reason, *_ = str(caught.value).splitlines()
    assert complaint in sentence
    assert sentence.endswith(":")
    assert "--dry-run" not in sentence
    assert came_in.startswith("8 traces of 4 prompts came in")
    assert reason.split()[0] == recipe.filters[0].column
    assert reason.split()[1] == f"-{num_removed}"
