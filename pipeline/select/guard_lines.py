"""The report of judges for people: after the funnel, and in the data card."""

from collections.abc import Iterator

from pipeline.scoring.formulae.guards import FEW_PROMPTS, Estimate
from pipeline.select.guards import GuardsReport, Opinion, Part
from pipeline.select.opinions import CRITIC

_WORDS: dict[Part, str] = {
    "together": "goes by",
    "judge": "judges",
    "held_out": "held out",
    "check": "artefacts",
    "critic": "the model's own",
}


def guard_lines_of(report: GuardsReport) -> list[str]:
    """The report as a table and a few sentences."""
    return [*_gains(report), *_agreements(report), *_curves(report), *_verdicts(report)]


def _gains(report: GuardsReport) -> Iterator[str]:
    by_lot = report.num_prompts_looked_at < report.num_prompts
    yield (
        f"What is said of {report.num_traces_looked_at:,} traces of "
        f"{report.num_prompts_looked_at:,} prompts"
        f"{f' by lot, of {report.num_prompts:,}' if by_lot else ''} "
        "(in brackets 95 % over redrawn prompts):"
    )
    yield f"  {'':<24} {'':<15} {'all':>8} {'kept':>8}  {'gain':<28} within prompts"
    for opinion in report.opinions:
        gain = opinion.gain
        numbers = f"{'no scores of what is kept':>25}"
        if gain is not None:
            numbers = (
                f"{gain.before.value:>8.4f} {gain.after.value:>8.4f}  "
                f"{_with_interval(gain.gain):<28} {_with_interval(gain.within_prompts)}"
            )
        yield f"  {opinion.name:<24} {_WORDS[opinion.part]:<15} {numbers}"


def _agreements(report: GuardsReport) -> Iterator[str]:
    if report.agreements:
        yield "Rank correlation over all traces, and within prompts:"
    for pair in report.agreements:
        other = "own critiques" if pair.other == CRITIC else pair.other
        yield (
            f"  {f'{pair.judge} with {other}':<49} "
            f"{_with_interval(pair.agreement.correlation):<28} "
            f"{_with_interval(pair.agreement.within_prompts)}"
        )


def _curves(report: GuardsReport) -> Iterator[str]:
    if report.best_of:
        yield "The best of n rollouts by judge.value, as told by:"
    for curve in report.best_of:
        points = ", ".join(f"{point.n}: {point.value.value:.4f}" for point in curve.points)
        yield f"  {curve.told_by:<24} {points}"


def _verdicts(report: GuardsReport) -> Iterator[str]:
    held_out = [opinion for opinion in report.opinions if opinion.part == "held_out"]
    if not held_out:
        yield "Nobody is held out: what selection gained beyond its own judges is not known."
    for opinion in held_out:
        yield f"Held out, {opinion.name}: {_verdict(opinion)}."
    if report.num_prompts_looked_at < FEW_PROMPTS:
        yield f"Of fewer than {FEW_PROMPTS} prompts intervals are too narrow."


def _verdict(opinion: Opinion) -> str:
    if opinion.gain is None:
        return "it says nothing of what is kept"
    gain = opinion.gain.gain
    if gain.num_prompts < FEW_PROMPTS:
        return "of too few prompts to tell"
    if gain.low > 0:
        return "selection gained on it"
    if gain.high < 0:
        return "selection lost on it, and pleases its own judges alone"
    return "no gain is shown; selection may please its own judges alone"


def _with_interval(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    return f"{estimate.value:+.4f} [{estimate.low:+.4f}, {estimate.high:+.4f}]"
