"""The role of the judge: who fills it, what the judges say together, and which scores are meant."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.scoring.find import find_scorer
from pipeline.scoring.sidecars import score_object
from pipeline.select.columns import SidecarColumns
from pipeline.select.judge import judged, with_judge
from pipeline.select.recipes import check_recipe, load_recipe, read_recipe, shipped_recipes
from pipeline.select.selection import open_curation
from pipeline.sets.write import write_set
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.runs import open_run
from schemas.errors import InputError
from schemas.recipes import ENSEMBLE, HELD_OUT, Judge, Recipe
from tests.pipeline.conftest import score

OWN = "tests.pipeline.select.test_judge:Own"
JUDGED = '[[filters]]\ncolumn = "judge.value"\n'


class Own:
    """A scorer with a setting."""

    name, version = "own", "2.1"
    subjects = frozenset({"trace"})
    needs_pictures = False
    columns: Mapping[str, str] = {"value": "float32", "words": "string"}

    def __init__(self, *, least: int = 0) -> None:
        self.least = least

    def score(self, batch):  # type: ignore[no-untyped-def]
        from pipeline.scoring.scorers import Score

        return [Score(value=len(sample.prompt), parts={"words": sample.prompt}) for sample in batch]


def recipe_of(text: str) -> Recipe:
    return read_recipe(f'name = "r"\nsplit = {{ validation = 0 }}\n{text}', origin="r")


def refuse(recipe: Recipe, *runs: Store) -> str:
    with pytest.raises(InputError) as caught:
        check_recipe(recipe, Path(), [open_run(run.url) for run in runs])
    return str(caught.value)


def sidecar(scores: dict[int, float | None], name: str = "value") -> SidecarColumns:
    values = pa.array(list(scores.values()), pa.float32())
    return SidecarColumns(keys=np.array(list(scores), np.int64), table=pa.table({name: values}))


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [
        ("mean", {1: 0.5, 2: 0.25, 3: 0.5, 4: None}),
        ("sum", {1: 1.0, 2: 0.25, 3: 0.5, 4: None}),
        ("min", {1: 0.25, 2: 0.25, 3: 0.5, 4: None}),
    ],
)
def test_judges_say_together_what_applies_and_null_is_left_out(
    aggregate: str, expected: dict[int, float | None]
):
    judge = Judge(scorers=("a", "b.sky"), aggregate=aggregate, held_out=())  # type: ignore[arg-type]
    scores = {
        "a": sidecar({4: None, 1: 0.75, 2: None}),
        "b": sidecar({3: 0.5, 1: 0.25, 2: 0.25}, "sky"),
    }
    together = judged(scores, judge)

    assert (
        dict(zip(together.keys.tolist(), together.table["value"].to_pylist(), strict=True))
        == expected
    )


def test_a_recipe_that_goes_by_a_judge_and_names_none_goes_by_the_ensemble():
    recipe = with_judge(recipe_of(JUDGED), ())

    assert recipe.judge == Judge(scorers=ENSEMBLE, aggregate="mean", held_out=HELD_OUT)
    assert with_judge(recipe_of(""), ()).judge is None


@pytest.mark.parametrize(
    "name", [name for name in shipped_recipes() if name not in ("twig-50k-toy", "twig-50k-self")]
)
def test_shipped_recipes_name_the_role_and_another_judge_may_fill_it(name: str):
    recipe, _ = load_recipe(name)

    assert recipe.is_judged
    assert recipe.judge == Judge()
    assert not any(scorer.startswith("toy@") for scorer in recipe.scorers)
    filled = with_judge(recipe, ["toy.value"])
    assert filled.judge == Judge(scorers=("toy.value",), held_out=())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[judge]\nscorers = ["a b"]', "'a b' judges nothing"),
        ('[judge]\nscorers = ["hps."]', "'hps.' judges nothing"),
        ('[judge]\nscorers = ["HPS@1"]', "is not a scorer with its version"),
        ("[judge]\nscorers = []", "at least 1 item"),
        ('[judge]\nscorers = ["a"]\nheld_out = ["a.sky"]', "a is held out, and cannot judge"),
        ('[judge]\naggregate = "median"', "'group_zscore_mean' or 'category_quantile_mean'"),
        ('scorers = ["judge@1"]', "the role that"),
    ],
)
def test_a_judge_that_cannot_be_is_refused(text: str, complaint: str):
    with pytest.raises(InputError, match=complaint):
        recipe_of(text)


def test_what_the_judges_choose_is_what_their_scores_say(toy_run: Store, tmp_path: Path):
    text = 'scorers = ["tokens@1"]\npictures = "tokens"\n[per_prompt]\nkeep = 1\nby = "{}"\n'
    run = open_run(toy_run.url)

    def kept(recipe: Recipe) -> list[int]:
        curation = open_curation([run], recipe, Path())
        return sorted(curation.candidates.trace[curation.candidates.is_kept].tolist())

    by_name = kept(recipe_of(text.format("tokens.entropy")))
    for judge in ("tokens.entropy", "toy.value"):
        recipe = with_judge(recipe_of(text.format("judge.value")), [judge])
        assert (kept(recipe) == by_name) == (judge == "tokens.entropy")
    pairs = 'kind = "preference"\n[pairs]\nby = "judge.value"\n'
    recipe = with_judge(recipe_of(pairs), ["toy", "tokens.entropy"], ["tokens.top_share"][:0])
    write_set(open_curation([run], recipe, Path()), open_store(str(tmp_path / "set")))
    assert '"toy@1"' in (tmp_path / "set/recipe.json").read_text()
    card = (tmp_path / "set/README.md").read_text()
    assert "`judge.value` is the mean of `toy`, `tokens.entropy`. Held out: nobody." in card


def test_a_version_with_several_settings_is_ambiguous_until_one_is_named(fake_run: Store):
    score(fake_run, OWN)
    by_version = recipe_of(f'scorers = ["own@2.1"]\n{JUDGED.replace("judge", "own")}')
    run = open_run(fake_run.url)
    checked = check_recipe(by_version, Path(), [run])
    (first,) = checked.criteria.recipe.scorers
    assert first.startswith("own@2.1-")

    score(fake_run, f"{OWN}[least=2]")
    complaint = refuse(by_version, fake_run)
    assert "own@2.1 is ambiguous, since the runs have scores of" in complaint
    assert first in complaint
    assert "[least=2]" in complaint
    named = recipe_of(f'scorers = ["{first}"]\n{JUDGED.replace("judge", "own")}')
    assert check_recipe(named, Path(), [run]).digest == checked.digest
    assert "own is ambiguous" in refuse(with_judge(recipe_of(JUDGED), ["own.value"]), fake_run)
    check_recipe(with_judge(recipe_of(JUDGED), [first]), Path(), [run])


def test_all_that_is_missing_is_told_in_one_command(fake_run: Store):
    score(fake_run, "tokens")
    source = open_run(fake_run.url).objects[0]
    score_object(fake_run, source, find_scorer(f"{OWN}[least=2]"))
    recipe = recipe_of(f'scorers = ["tokens@1", "phash@1", "own@2.1"]\n{JUDGED}')
    complaint = refuse(with_judge(recipe, ["own.value", "thoughts"], ["toy"]), fake_run)

    assert "of phash@1 for 4 of 4 shards, of own@2.1-" in complaint
    assert " for 3 of 4 shards, of thoughts for 4 of 4 shards, of toy for 4 of 4" in complaint
    assert complaint.endswith(
        f"coppice score {fake_run.url} --scorer phash --scorer 'MODULE:CLASS[least=2]' "
        "--scorer thoughts --scorer toy"
    )


@pytest.mark.parametrize(
    ("text", "judges", "complaint"),
    [
        (JUDGED, ["tokenz.value"], "did you mean 'tokens'"),
        (JUDGED, ["tokens.entropie"], "did you mean 'entropy'"),
        (
            JUDGED,
            ["own.words"],
            "a judge needs numbers (float32), and own.words holds text; give one of: own.value",
        ),
        (JUDGED, ["tokens@7"], "tokens is at 1 here, and the recipe pins tokens@7"),
        (JUDGED.replace("value", "worth"), [], "judge.value for whoever judges"),
        ('scorers = ["tokens@1"]\n' + JUDGED, ["tokens@2"], "pin one version"),
    ],
)
def test_judges_that_the_runs_cannot_have_are_refused(
    fake_run: Store, text: str, judges: list[str], complaint: str
):
    score(fake_run, "tokens", OWN)

    assert complaint in refuse(with_judge(recipe_of(text), judges), fake_run)


def test_what_is_held_out_cannot_be_gone_by(fake_run: Store):
    text = f'scorers = ["tokens@1"]\n{JUDGED.replace("judge", "tokens")}{JUDGED}'
    complaint = refuse(with_judge(recipe_of(text), ["own"], ["tokens"]), fake_run)

    assert "goes by tokens.value, and holds tokens out" in complaint
    with pytest.raises(InputError, match=r"goes by no judge.value, so there is no role"):
        with_judge(recipe_of(""), ["own"])
