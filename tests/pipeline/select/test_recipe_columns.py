"""Columns of recipes: each setting says what it needs, and is refused what holds something else."""

from pathlib import Path

import pytest

from pipeline.select.judge import with_judge
from pipeline.select.recipe_columns import FIELDS
from pipeline.select.recipes import check_recipe, read_recipe
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.runs import open_run
from schemas.config import Pictures
from schemas.errors import InputError
from tests.pipeline.conftest import score
from tests.support import fake_config, fake_method, plan_run, run_all

OWN = "tests.pipeline.select.test_judge:Own"
PINNED = 'scorers = ["tokens@1", "phash@1", "own@2.1"]\n'
GROUPS = 'kind = "grpo"\n[groups]\npicture_only = true\n'
SETTINGS = {
    "[per_prompt] by": "[per_prompt]\nkeep = 1\nby = {}",
    "[per_prompt] hash": "[per_prompt]\nmin_distance = 6\nhash = {}",
    "[agreement] by": "[agreement]\naccept_min = 1\nrevise_max = 0\nby = {}",
    "[pairs] by": 'kind = "preference"\n[pairs]\nby = {}',
    "[groups] rewards": GROUPS + 'rewards = ["tokens.value", {}]',
}
VARIANTS = {
    **SETTINGS,
    "[agreement] by, with gain_min": SETTINGS["[agreement] by"] + "\ngain_min = 0",
    "[pairs] by, of revisions": SETTINGS["[pairs] by"] + '\nsources = ["revision"]',
    "[groups] rewards, compared": SETTINGS["[groups] rewards"]
    + '\naggregate = "group_zscore_mean"',
}
ALL_FIELDS = [f"{source}.{name}" for source, names in FIELDS.items() for name in names]


def complaint_about(setting: str, column: str, run: Store) -> str:
    text = VARIANTS[setting].format(f'"{column}"')
    recipe = read_recipe(f'name = "r"\n{PINNED}{text}', origin="r.toml")
    with pytest.raises(InputError) as caught:
        check_recipe(recipe, Path(), [open_run(run.url)])
    return str(caught.value)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """2 records of 2 rollouts, scored."""
    store = open_store(str(tmp_path_factory.mktemp("scored") / "run"))
    run_all(
        store,
        plan_run(store, 2, fake_config(fake_method(pictures=Pictures.ALL)), rollouts_per_record=2),
    )
    score(store, "tokens", "phash", OWN)
    return store


@pytest.mark.parametrize("setting", VARIANTS)
def test_fields_stand_in_filters_alone(run: Store, setting: str):
    for column in ALL_FIELDS:
        complaint = complaint_about(setting, column, run)

        assert complaint.startswith(f"{setting.partition(',')[0]} is {column!r}, a field of the ")
        assert "fields may only stand in [[filters]]; give a column of a scorer here" in complaint


@pytest.mark.parametrize("setting", SETTINGS)
def test_what_is_ranked_by_holds_numbers_and_what_is_compared_holds_hashes(
    run: Store, setting: str
):
    wants_hash = setting.endswith("hash")
    noun, fit = (
        ("hashes (uint64)", "phash.hash") if wants_hash else ("numbers (float32)", "own.value")
    )
    for column, held in (
        ("own.words", "text"),
        ("own.value", "numbers (float32)") if wants_hash else ("phash.hash", "hashes (uint64)"),
    ):
        complaint = complaint_about(setting, column, run)

        assert complaint.startswith(f"{setting} needs {noun}, and {column} holds {held}; give ")
        is_of_the_scorer = fit.partition(".")[0] == column.partition(".")[0]
        assert complaint.endswith(fit if is_of_the_scorer else "give a column of another scorer")


def test_a_hash_is_no_judge_and_the_judge_no_hash(run: Store):
    text = f'name = "r"\n{PINNED}[[filters]]\ncolumn = "judge.value"\n'
    for judges, out, who in (
        (["phash.hash"], [], "a judge"),
        (["own"], ["phash.hash"], "a judge that is held out"),
    ):
        recipe = with_judge(read_recipe(text, origin="r.toml"), judges, out)
        with pytest.raises(InputError, match=f"^{who} needs numbers .float32., and phash.hash"):
            check_recipe(recipe, Path(), [open_run(run.url)])
    judged = complaint_about("[per_prompt] hash", "judge.value", run)
    assert judged.startswith("[per_prompt] hash needs hashes (uint64), and judge.value holds num")


def test_a_hash_is_bounded_by_no_number_and_may_be_asked_for_being_there(run: Store):
    text = f'name = "r"\n{PINNED}[[filters]]\ncolumn = "phash.hash"\n'
    check_recipe(read_recipe(text, origin="r"), Path(), [open_run(run.url)])

    with pytest.raises(InputError, match=r"\[\[filters\]\] column needs numbers"):
        check_recipe(read_recipe(f"{text}min = 3", origin="r"), Path(), [open_run(run.url)])
