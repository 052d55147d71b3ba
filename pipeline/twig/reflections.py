"""Reading a critique: a score, a better thought, and what they amount to.

A critique that cannot be used is `unparseable`. It is never taken for a pass: the published script
scores it 100, which is how a model that cannot judge looks as if it were pleased.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from schemas.trace import Reflection, Verdict

# Labels may be dressed in Markdown, and some models echo the brackets of the asked-for format.
_DRESS = r"[\s*_`\[(]*"
_SCORE_LABEL = re.compile(rf"\bSCORE\b{_DRESS}:", re.IGNORECASE)
_BETTER_LABEL = re.compile(rf"\bIMPROVED[_ ]DESCRIPTION\b{_DRESS}:", re.IGNORECASE)
_SCORE = re.compile(
    _SCORE_LABEL.pattern
    + _DRESS
    + r"(?P<number>[-+]?\d++(?:[.,]\d++)?+)(?!\w|\s*[-\u2013]\s*\d)"  # not 9e1, not 80-90
    + r"(?P<unit>\s*/\s*\d+|\s*%)?",
    re.IGNORECASE,
)


def single_line(text: str) -> str:
    """The text with every run of white space collapsed to one space. Thoughts are single lines."""
    return " ".join(text.split())


def read_reflection(answer: str, *, theta: int) -> Reflection:
    """Read `SCORE: n` and `IMPROVED_DESCRIPTION: ...` out of an answer.

    Accept is a score of at least `theta`; revise is a lower one with a better thought. Everything
    else is unparseable: no whole number from 0 to 100, scores that contradict each other, or a
    score below `theta` with nothing better to draw.
    """
    score, problem = _read_score(answer)
    better = _read_better_thought(answer)
    if not problem and score is not None and score < theta and not better:
        problem = f"a score of {score:g}, below {theta}, without a better thought"
    if problem or score is None:
        verdict = Verdict.UNPARSEABLE
    else:
        verdict = Verdict.ACCEPT if score >= theta else Verdict.REVISE
    return Reflection(verdict=verdict, score=score, better_thought=better, problem=problem)


def combined(reflections: Sequence[Reflection], how: str, *, theta: int) -> Reflection:
    """What several critiques of one drawing amount to. One that cannot be used accepts nothing.

    first: the first that can be used decides. mean: the mean of the scores that can be used, held
    against `theta`. all: each must be usable and accept; one that says revise is enough to revise.
    The better thought is that of the lowest score that came with one.
    """
    usable = [said for said in reflections if said.verdict is not Verdict.UNPARSEABLE]
    if not usable or how == "first":
        return (usable or reflections)[0]
    if how == "mean":
        return _by_mean(usable, theta)
    refusals = [said for said in usable if said.verdict is Verdict.REVISE]
    if refusals:
        return min(refusals, key=_score)
    if len(usable) < len(reflections):
        problem = f"{len(reflections) - len(usable)} of {len(reflections)} critiques cannot be used"
        return replace(usable[0], verdict=Verdict.UNPARSEABLE, problem=problem)
    return min(usable, key=_score)


def _by_mean(usable: Sequence[Reflection], theta: int) -> Reflection:
    mean = sum(map(_score, usable)) / len(usable)
    worst = min((said for said in usable if said.better_thought), key=_score, default=usable[0])
    if mean >= theta:
        return replace(worst, verdict=Verdict.ACCEPT, score=mean)
    if worst.better_thought:
        return replace(worst, verdict=Verdict.REVISE, score=mean)
    problem = f"a mean score of {mean:g}, below {theta}, without a better thought"
    return replace(worst, verdict=Verdict.UNPARSEABLE, score=mean, problem=problem)


def _score(said: Reflection) -> float:
    return said.score or 0.0


def _read_score(answer: str) -> tuple[float | None, str]:
    """The score found, and what is wrong with it (empty: nothing)."""
    scores = [
        (match["number"].replace(",", "."), "".join((match["unit"] or "").split()))
        for match in _SCORE.finditer(answer)
    ]
    if not scores:
        return None, "a score without a number" if _SCORE_LABEL.search(answer) else "no score"
    number, unit = scores[0]
    score = float(number)
    if len(set(scores)) > 1:
        return score, "several different scores"
    if unit not in ("", "%", "/100"):
        return score, f"a score out of {unit[1:]}, not of 100"
    if not number.isdecimal() or score > 100:
        return score, f"{number} is not a whole number from 0 to 100"
    return score, ""


def _read_better_thought(answer: str) -> str:
    """What follows the first label, to the next label or the end, as one line."""
    parts = _BETTER_LABEL.split(answer, maxsplit=2)
    if len(parts) == 1:
        return ""
    text = _SCORE_LABEL.split(parts[1], maxsplit=1)[0]
    return single_line(text.strip("*_` \t\r\n"))
