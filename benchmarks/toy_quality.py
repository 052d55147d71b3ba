"""Does thinking, drawing and judging help? The toy Janus on held-out prompts, scored exactly.

`python -m benchmarks.toy_quality [--full] [--model NAME]`: the share of attributes right for every
program, with paired intervals; whether the critic tells wrong bands from right ones; what revisions
repair and break. Prints tables for people and, last, one JSON line for machines.
"""

import argparse
import json
import os
import platform
import time

import numpy as np

from benchmarks.estimates import (
    auroc,
    binomial_interval,
    estimate,
    interval_of,
    percent,
    resamples,
    spearman,
    sums_by_prompt,
)
from benchmarks.harness import Rows, commit
from benchmarks.toy_rollouts import VARIANTS, Drawn, Judgement, draw, judge, make_tasks, opened
from schemas.trace import Verdict

_SEED = 20_000  # of what is drawn from the judgements
_FIRST_PASS, _REVISED = "think-while", "think-while + 1 revision"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="toy", help="a bundled name or a folder")
    parser.add_argument("--full", action="store_true", help="300 prompts x 3 seeds")
    parser.add_argument("--prompts", type=int, help="so many prompts instead")
    options = parser.parse_args()
    num_prompts = options.prompts or (300 if options.full else 120)
    num_seeds = 3 if options.full else 2
    result = measure(options.model, num_prompts, num_seeds)
    _show(result)
    print(json.dumps(result))


def measure(model: str, num_prompts: int, num_seeds: int) -> Rows:
    """All that the benchmark reports."""
    started = time.monotonic()
    with opened(model) as pool:
        drawn = draw(pool, VARIANTS, make_tasks(num_prompts, num_seeds))
        judgements = judge(pool, 2 * num_prompts)
    return {
        "model": model,
        "prompts": num_prompts,
        "seeds": num_seeds,
        "accuracy": accuracies(drawn, num_seeds),
        "repair": repair(drawn[_FIRST_PASS], drawn[_REVISED], num_seeds),
        # The first drawing of think-after is the one of plain, and goes wrong far more often.
        "repair_in_think_after": repair(drawn["plain"], drawn["think-after"], num_seeds),
        "revisions": revisions(drawn[_REVISED]),
        "critic": critic(judgements),
        "seconds": round(time.monotonic() - started, 1),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "commit": commit(),
    }


def accuracies(drawn: dict[str, list[Drawn]], num_seeds: int) -> Rows:
    """Share of attributes and of whole pictures right; differences to the first pass are paired."""
    base = np.array([rollout.accuracy for rollout in drawn[_FIRST_PASS]])
    table = {}
    for name, rows in drawn.items():
        values = np.array([rollout.accuracy for rollout in rows])
        table[name] = {
            "attributes": estimate(values, num_seeds),
            "pictures": round(float(np.mean([rollout.is_right for rollout in rows])), 4),
            "minus_think_while": estimate(values - base, num_seeds),
        }
    return table


def repair(first: list[Drawn], revised: list[Drawn], num_seeds: int) -> Rows:
    """What one revision mends, net of what it breaks, as a share of the rollouts with an error.

    The same prompts and seeds without and with revision. Pairs are resampled by prompt; the share
    that is repaired has the exact binomial interval (Clopper and Pearson, 1934) beside it, since
    resampling says nothing where nearly all are.
    """
    wrong = np.array([not rollout.is_right for rollout in first], dtype=float)
    mended = wrong * np.array([rollout.is_right for rollout in revised])
    broken = (1 - wrong) * np.array([not rollout.is_right for rollout in revised])
    net, per = sums_by_prompt(mended - broken, num_seeds), sums_by_prompt(wrong, num_seeds)
    draws = resamples(len(net))
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = net[draws].sum(1) / per[draws].sum(1)
    return {
        "rollouts": len(first),
        "with_error": int(wrong.sum()),
        "repaired": int(mended.sum()),
        "broken": int(broken.sum()),
        "net_share": round(float(net.sum() / max(1.0, per.sum())), 4),
        "interval": interval_of(shares[np.isfinite(shares)]),
        "repaired_interval": binomial_interval(int(mended.sum()), int(wrong.sum())),
    }


def revisions(revised: list[Drawn]) -> Rows:
    """Of all bands: the share drawn again, and what that did to wrong and to right ones."""
    bands = [band for rollout in revised for band in rollout.bands]
    again = [band for band in bands if band.is_revised]
    return {
        "bands": len(bands),
        "wrong_at_first": sum(not band.was_right for band in bands),
        "revised": len(again),
        "revised_share": round(len(again) / max(1, len(bands)), 4),
        "repaired": sum(not band.was_right and band.is_right for band in again),
        "broken": sum(band.was_right and not band.is_right for band in again),
        "unparseable": sum(rollout.num_unparseable for rollout in revised),
    }


def critic(judgements: list[Judgement]) -> Rows:
    """How well scores tell wrong bands from right ones, half and half.

    Wrong bands are half planted and half drawn at CFG 1, as far as those were drawn wrong.
    """
    rng = np.random.default_rng(_SEED)
    usable = [judgement for judgement in judgements if judgement.score is not None]
    groups = {
        (source, wrong): [
            judgement
            for judgement in usable
            if judgement.source == source and (judgement.share_right < 1) == wrong
        ]
        for source in ("planted", "true", "drawn at CFG 1")
        for wrong in (True, False)
    }
    by_chance = groups["drawn at CFG 1", True]
    right = _sampled(rng, groups["true", False] + groups["drawn at CFG 1", False], len(usable))
    half = min(len(right), len(by_chance) + len(groups["planted", True])) // 2
    wrong_drawn = by_chance[:half]
    wrong = wrong_drawn + groups["planted", True][: 2 * half - len(wrong_drawn)]
    chosen = wrong + right[: len(wrong)]
    scores = np.array([judgement.score for judgement in chosen], dtype=float)
    truth = np.array([judgement.share_right for judgement in chosen])
    is_wrong = truth < 1
    draws = np.random.default_rng(_SEED).integers(len(chosen), size=(500, len(chosen)))
    resampled = [auroc(-scores[draw], is_wrong[draw]) for draw in draws]
    return {
        "bands": len(chosen),
        "wrong": int(is_wrong.sum()),
        "wrong_drawn_at_cfg_1": len(wrong_drawn),
        "auroc": round(auroc(-scores, is_wrong), 4),
        "auroc_interval": interval_of(np.array(resampled)),
        "spearman": round(spearman(scores, truth), 4),
        "wrong_accepted": round(
            float(np.mean([judgement.verdict is Verdict.ACCEPT for judgement in wrong])), 4
        ),
        "right_revised": round(
            float(
                np.mean([judgement.verdict is Verdict.REVISE for judgement in right[: len(wrong)]])
            ),
            4,
        ),
        "drawn_wrong_at_cfg_1": round(
            len(by_chance) / max(1, len(by_chance) + len(groups["drawn at CFG 1", False])), 4
        ),
        "without_score": len(judgements) - len(usable),
    }


def _sampled(rng: np.random.Generator, items: list[Judgement], most: int) -> list[Judgement]:
    return [items[index] for index in rng.permutation(len(items))[:most]]


def _show(result: Rows) -> None:
    print(
        f"{result['prompts']} held-out prompts x {result['seeds']} seeds, {result['seconds']} s\n"
    )
    print(f"{'program':<26} {'attributes right':<26} {'pictures':<9} minus think-while")
    for name, row in result["accuracy"].items():
        attributes, difference = percent(row["attributes"]), percent(row["minus_think_while"])
        print(f"{name:<26} {attributes:<26} {row['pictures']:<9.1%} {difference}")
    for part in ("repair", "repair_in_think_after", "revisions", "critic"):
        print(f"\n{part}")
        for name, value in result[part].items():
            print(f"  {name:<24} {value}")
    print()


if __name__ == "__main__":
    main()
