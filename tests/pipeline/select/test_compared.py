"""Rewards that compare rollouts with each other, wherever those stand."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.scoring.formulae.aggregates import Aggregate, aggregate
from pipeline.select.opinions import compared, opinion_names
from pipeline.select.selection import open_curation
from pipeline.store.objects import Store
from pipeline.store.runs import open_run
from schemas.errors import InputError
from tests.pipeline.select.support import Rollout, gathered, recipe_of

RANKED = """
[judge]
scorers = ["a", "b"]
aggregate = "{}"
held_out = []
[per_prompt]
keep = 1
by = "judge.value"
"""
GROUPS = """
kind = "grpo"
scorers = ["a@1", "b@1"]
[groups]
rewards = ["a.value", "b.value"]
aggregate = "{}"
"""
NAN = np.nan
SCORES = np.array([[1.0, 3.0, NAN, 10.0, 30.0], [NAN, NAN, NAN, 0.5, 0.0]])


@pytest.mark.parametrize("text", [RANKED, GROUPS])
def test_z_scores_are_within_a_prompts_rollouts_over_all_objects_and_null_is_left_out(text: str):
    recipe = recipe_of(text.format("group_zscore_mean"))
    candidates = gathered(
        [Rollout(record=7), Rollout(record=7), Rollout(record=7), *[Rollout(record=8)] * 2], recipe
    )
    opinions = np.vstack([SCORES, np.full((len(opinion_names(recipe)) - 2, 5), NAN)])

    rewards = compared(candidates, opinions, recipe)

    one = np.sqrt(0.5)
    np.testing.assert_allclose(rewards, [-one, one, NAN, 0, 0], atol=1e-3)


def test_in_sets_for_sft_a_group_is_a_prompt_over_all_runs_and_in_groups_it_is_of_one():
    rollouts = [Rollout(record=7), Rollout(record=7, run=1)]
    opinions = np.array([[1.0, 3.0], [NAN, NAN], [NAN, NAN]])
    ranked = recipe_of(RANKED.format("group_zscore_mean"))
    grouped = recipe_of(GROUPS.format("group_zscore_mean"))

    assert compared(gathered(rollouts, ranked), opinions, ranked)[1] > 0.5
    assert compared(gathered(rollouts, grouped), opinions[:2], grouped).tolist() == [0, 0]


def test_quantiles_are_within_a_category_over_all_prompts():
    recipe = recipe_of(RANKED.format("category_quantile_mean"))
    candidates = gathered(
        [Rollout(record=index, category="xxyyy"[index]) for index in range(5)], recipe
    )
    opinions = np.vstack([SCORES, np.full((1, 5), NAN)])

    rewards = compared(candidates, opinions, recipe)

    np.testing.assert_allclose(rewards, [0.25, 0.75, NAN, (0.25 + 0.75) / 2, (0.75 + 0.25) / 2])


@pytest.mark.parametrize(
    "rule",
    [
        '[[filters]]\ncolumn = "judge.value"\nmin = 0',
        '[[filters]]\ncolumn = "judge.value"\nof = "drawing"',
        '[agreement]\nby = "judge.value"\naccept_min = 1\nrevise_max = 0',
        'kind = "preference"\n[pairs]\nby = "judge.value"',
        'kind = "grpo"\n[groups]\nrewards = ["judge.value", "toy.value"]',
    ],
)
def test_who_compares_rollouts_says_nothing_of_one_by_itself(rule: str):
    judge = '\n[judge]\naggregate = "group_zscore_mean"'

    with pytest.raises(InputError, match="compares whole rollouts with each other"):
        recipe_of(rule + judge)
    recipe_of(rule)


def test_what_is_ranked_by_comparison_is_kept_by_it(toy_run: Store):
    judge = '[judge]\nscorers = ["toy", "tokens.entropy"]\nheld_out = []\naggregate = "{}"\n'
    text = 'pictures = "tokens"\n[[filters]]\ncolumn = "judge.value"\n' + judge
    text += '[per_prompt]\nkeep = 1\nby = "judge.value"'
    run = open_run(toy_run.url)

    curation = open_curation([run], recipe_of(text.format("group_zscore_mean")), Path())

    candidates = curation.candidates
    names = opinion_names(curation.recipe)
    opinions = np.concatenate([shard.opinions for shard in curation.shards], axis=1)
    rows = opinions[[names.index("toy.value"), names.index("tokens.entropy")]].T.tolist()
    prompts = candidates.prompt.tolist()
    rewards = aggregate(Aggregate.GROUP_ZSCORE_MEAN, rows, groups=prompts, categories=prompts)
    np.testing.assert_array_equal(candidates.rank, np.array(rewards, np.float64))
    kept = np.flatnonzero(candidates.has_kept_rows())
    for trace in kept.tolist():
        own = [rewards[other] or 0 for other in np.flatnonzero(candidates.prompt == prompts[trace])]
        assert (rewards[trace] or 0) == max(own)
    assert len(kept) == len(set(prompts))
