"""Does the report beside the funnel tell a good judge from one that is only pleased?"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline.scoring.formulae.guards import Gain
from pipeline.scoring.scorers import Score, ScoringInput
from pipeline.scoring.sidecars import score_object
from pipeline.select.decide import decide
from pipeline.select.guard_lines import guard_lines_of
from pipeline.select.guards import GuardsReport, Opinion, report_of
from pipeline.select.judge import with_judge
from pipeline.select.opinions import critic_of, opinion_names
from pipeline.select.recipes import check_recipe
from pipeline.select.selection import Curation, open_curation
from pipeline.sets.write import write_set
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.runs import open_run
from pipeline.toy.scenes import render, sample_scene, spec_of
from pipeline.toy.scorer import ToyScorer
from pipeline.toy.teacher import mistaken
from schemas.errors import InputError
from schemas.recipes import Recipe
from tests.pipeline.conftest import grow_toy, score
from tests.pipeline.select.support import (
    Rollout,
    columns_of,
    event,
    gathered,
    recipe_of,
)

BEST = """
kind = "sft"
pictures = "tokens"
split = { validation = 0 }
[judge]
scorers = ["taste"]
held_out = ["toy"]
[per_prompt]
keep = 1
by = "judge.value"
"""


class Taste:
    """A user's judge: so much of what is right in the toy's world, and the rest a matter of taste,
    which no one else shares.
    """

    version = "1"
    subjects = frozenset({"trace"})
    needs_pictures = True
    columns: Mapping[str, str] = {"value": "float32"}

    def __init__(self, *, share_right: float, seed: int, name: str = "taste") -> None:
        self.name, self._share_right, self._seed = name, share_right, seed

    def score(self, batch: Sequence[ScoringInput]) -> list[Score]:
        right = [told.value or 0.0 for told in ToyScorer().score(batch)]
        tastes = [self._taste(seen) for seen in batch]
        share = self._share_right
        return [
            Score(value=share * fact + (1 - share) * taste)
            for fact, taste in zip(right, tastes, strict=True)
        ]

    def _taste(self, seen: ScoringInput) -> float:
        assert seen.pixels is not None
        digest = hashlib.sha256(f"{self._seed}|".encode() + seen.pixels.tobytes()).digest()
        return digest[0] / 255


def told_of(report: GuardsReport | None, name: str) -> Opinion:
    assert report is not None
    (opinion,) = (opinion for opinion in report.opinions if opinion.name == name)
    return opinion


def drawings(seed: int) -> tuple[list[ScoringInput], list[int]]:
    """Of 40 scenes of the toy's world 4 pictures each, with none to three mistakes; and the number
    of the scene of each.
    """
    generator = np.random.default_rng(seed)
    drawn: list[ScoringInput] = []
    prompts: list[int] = []
    for prompt in range(40):
        scene = sample_scene(generator)
        metadata = {"spec": spec_of(scene).to_json()}
        for _ in range(4):
            shown = scene
            for _ in range(int(generator.integers(4))):
                shown = mistaken(generator, shown, range(3))
            drawn.append(ScoringInput(prompt="a scene", pixels=render(shown), metadata=metadata))
            prompts.append(prompt)
    return drawn, prompts


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_in_the_toys_world_the_held_out_gain_tells_a_good_judge_from_a_bad_one(seed: int):
    drawn, prompts = drawings(seed)
    exact = [told.value for told in ToyScorer().score(drawn)]
    recipe = recipe_of(BEST)
    gains: dict[str, Gain | None] = {}
    said: dict[str, str] = {}
    for name, share_right in (("good", 0.8), ("bad", 0.0)):
        judged = [told.value for told in Taste(share_right=share_right, seed=seed).score(drawn)]
        rollouts = [
            Rollout(record=2**32 * (prompt + 1), rollout=index, rank=rank or 0.0)
            for index, (prompt, rank) in enumerate(zip(prompts, judged, strict=True))
        ]
        candidates = gathered(rollouts, recipe)
        decide(candidates, recipe, np.zeros(len(rollouts), np.bool_))
        opinions = np.array([judged, exact, [None] * len(drawn)], np.float64)
        report = report_of(candidates, opinions, recipe)
        assert report is not None
        pleased = told_of(report, "judge.value").gain
        assert pleased is not None
        assert pleased.gain.low > 0, "every judge is pleased by what it chose"
        gains[name] = told_of(report, "toy.value").gain
        said[name] = next(line for line in guard_lines_of(report) if "Held out, toy" in line)

    good, bad = gains["good"], gains["bad"]
    assert good is not None
    assert bad is not None
    assert good.gain.low > 0
    assert bad.gain.low <= 0
    assert said["good"] == "Held out, toy.value: selection gained on it."
    assert "please" in said["bad"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_of_a_grown_run_the_held_out_gain_tells_a_good_judge_from_a_bad_one(
    tmp_path: Path, seed: int
):
    url = grow_toy(
        tmp_path,
        num_records=24,
        num_rollouts=3,
        pictures="none",
        rollouts_per_shard=36,
        program="plain",
        seed=seed,
    )
    run = open_store(url)
    score(run, "toy")
    told: dict[str, GuardsReport | None] = {}
    for name, share_right in (("good", 0.8), ("bad", 0.0)):
        for source in open_run(url).objects:
            score_object(run, source, Taste(share_right=share_right, seed=seed, name=name))
        told[name] = curated(run, BEST, f"{name}.value", held_out=["toy"]).guards

    gains = {name: told_of(report, "toy.value").gain for name, report in told.items()}
    for name, report in told.items():
        pleased = told_of(report, "judge.value").gain
        assert pleased is not None
        assert pleased.gain.low > 0, f"{name} is pleased by what it chose"
    good, bad = gains["good"], gains["bad"]
    assert good is not None
    assert bad is not None
    assert good.gain.low > 0
    assert bad.gain.low <= 0


# By hand

JUDGED = BEST.replace('["taste"]', '["a", "b.sky"]').replace('["toy"]', '["c"]')


def by_hand(
    recipe: Recipe, *, num_prompts: int = 30, num_rollouts: int = 4, seed: int = 0
) -> GuardsReport | None:
    """The report of a world in which `c` is true, `a` half of it, `b.sky` nothing of it."""
    generator = np.random.default_rng(seed)
    num = num_prompts * num_rollouts
    truth = generator.normal(size=num)
    half = truth + generator.normal(size=num)
    opinions = np.stack([half, generator.normal(size=num), truth, np.full(num, np.nan)])
    keys = [prompt * 2**32 for prompt in range(1, num_prompts + 1)]
    rollouts = [
        Rollout(record=keys[index // num_rollouts], rollout=index, rank=half[index])
        for index in range(num)
    ]
    candidates = gathered(rollouts, recipe)
    best = [
        start + int(np.argmax(half[start : start + num_rollouts]))
        for start in range(0, num, num_rollouts)
    ]
    candidates.drop(~np.isin(np.arange(num), best), "not_best")
    assert opinion_names(recipe) == ("a.value", "b.sky", "c.value", "critic")
    return report_of(candidates, opinions, recipe)


def test_the_report_has_gains_agreements_and_curves_of_all_who_were_asked():
    report = by_hand(recipe_of(JUDGED))

    assert report is not None
    parts = [(opinion.name, opinion.part) for opinion in report.opinions]
    assert parts == [
        ("judge.value", "together"),
        ("a.value", "judge"),
        ("b.sky", "judge"),
        ("c.value", "held_out"),
        ("critic", "critic"),
    ]
    true, untrue = (told_of(report, name).gain for name in ("c.value", "b.sky"))
    assert true is not None
    assert untrue is not None
    assert true.gain.low > 0
    assert untrue.gain.low < 0 < untrue.gain.high
    assert told_of(report, "critic").gain is None
    pairs = {(pair.judge, pair.other): pair.agreement for pair in report.agreements}
    assert set(pairs) == {("a.value", "b.sky"), ("a.value", "c.value"), ("b.sky", "c.value")}
    agreed = pairs["a.value", "c.value"]
    assert agreed.correlation is not None
    assert agreed.correlation.low > 0.4
    assert len(agreed.bands) == 5
    assert all(band.mean is not None and band.mean.num_rows == 24 for band in agreed.bands)
    curves = {curve.told_by: curve.points for curve in report.best_of}
    assert [point.n for point in curves["judge.value"]] == [1, 2, 4]
    values = [point.value.value for point in curves["c.value"]]
    assert values == sorted(values)


def test_of_very_many_prompts_some_are_looked_at_with_all_their_rollouts():
    report = by_hand(recipe_of(JUDGED), num_prompts=1200, num_rollouts=2)

    assert report is not None
    assert (report.num_prompts, report.num_prompts_looked_at) == (1200, 1000)
    assert report.num_traces_looked_at == 2000
    assert "2,000 traces of 1,000 prompts by lot, of 1,200" in guard_lines_of(report)[0]


def test_few_prompts_and_nobody_held_out_are_said():
    few = by_hand(recipe_of(JUDGED), num_prompts=5)
    assert few is not None
    assert guard_lines_of(few)[-2:] == [
        "Held out, c.value: of too few prompts to tell.",
        "Of fewer than 20 prompts intervals are too narrow.",
    ]

    alone = recipe_of(JUDGED.replace('held_out = ["c"]', "held_out = []"))
    candidates = gathered([Rollout(record=1), Rollout(record=1, rollout=1)], alone)
    report = report_of(candidates, np.array([[0.0, 1], [1, 1], [np.nan, np.nan]]), alone)
    assert report is not None
    assert any(line.startswith("Nobody is held out") for line in guard_lines_of(report))


def test_without_a_judge_there_is_no_report():
    recipe = recipe_of("")
    assert report_of(gathered([Rollout()], recipe), np.zeros((0, 1)), recipe) is None


def test_the_critic_is_the_mean_of_the_last_critiques_of_what_stands():
    columns = columns_of(
        (
            event("draw", successor=2),
            event("reflect", score=20.0, verdict="revise"),
            event("draw", 0, 1),
            event("reflect", 0, 1, score=80.0, verdict="accept"),
            event("draw", 1),
            event("reflect", 1, score=40.0, verdict="accept"),
        ),
        (event("draw"), event("reflect", score=90.0, verdict="unparseable")),
    )

    np.testing.assert_allclose(critic_of(columns), [0.6, np.nan])


def curated(
    run: Store, text: str, *judges: str, held_out: Sequence[str] = ("toy", "artefacts.flat")
) -> Curation:
    recipe = with_judge(recipe_of(text), judges, list(held_out))
    return open_curation([open_run(run.url)], recipe, Path())


def test_a_set_has_the_report_in_a_file_and_in_its_card(toy_run: Store, tmp_path: Path):
    score(toy_run, "artefacts")
    text = 'scorers = ["artefacts@1"]' + BEST
    curation = curated(toy_run, text, "tokens.entropy")
    write_set(curation, open_store(str(tmp_path)))

    told = json.loads((tmp_path / "guards.json").read_text())
    assert GuardsReport.model_validate(told) == curation.guards
    assert {opinion["name"] for opinion in told["opinions"] if opinion["part"] == "check"} == {
        *("artefacts.flat", "artefacts.saturated", "artefacts.repeated")
    }
    assert "## What the judges say" in (tmp_path / "README.md").read_text()
    assert told_of(curation.guards, "critic").gain is not None


def test_a_column_that_is_held_out_has_to_be_there(toy_run: Store):
    recipe = with_judge(recipe_of(BEST), ["tokens.entropy"], ["toy.skye"])

    with pytest.raises(InputError, match=r"no column 'skye' \(did you mean 'sky'\?\)"):
        check_recipe(recipe, Path(), [open_run(toy_run.url)])
