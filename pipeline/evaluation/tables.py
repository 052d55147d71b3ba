"""From what judges say of pictures to the rows of a table, with intervals over prompts.

Pictures of a prompt are alike, so a prompt counts once, by the mean of its pictures, and prompts
are drawn again for an interval (percentile bootstrap, Efron 1979). Two models are compared on the
prompts that both have drawn: the differences of a prompt vary less than the prompts do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from pipeline.evaluation.suites import CLASS_KEY, Metric, Picture, Suite
from pipeline.scoring.formulae.guards import mean_of_classes
from schemas.json_values import JsonObject

PromptMeans: TypeAlias = Mapping[str, float]
"""One number a prompt, by the id of its record."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A row: the mean of a metric over prompts, or of the differences of two models."""

    prompt_class: str  # all: every prompt
    metric: str
    judges: tuple[str, ...]
    is_surrogate: bool
    value: float | None  # None: no picture has a value
    interval: tuple[float, float] | None  # None: one prompt of a class tells nothing of others
    num_prompts: int  # with a value
    num_pictures: int  # with a value
    num_without: int  # pictures that no value could be told of, dead ones included

    def as_json(self) -> JsonObject:
        low, high = self.interval or (None, None)
        return {
            "class": self.prompt_class,
            "metric": self.metric,
            "judges": list(self.judges),
            "is_surrogate": self.is_surrogate,
            "value": self.value,
            "low": low,
            "high": high,
            "num_prompts": self.num_prompts,
            "num_pictures": self.num_pictures,
            "num_without": self.num_without,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class _Told:
    """A metric of the pictures of its class."""

    metric: Metric
    means: PromptMeans
    num_pictures: int
    num_without: int

    @property
    def is_empty(self) -> bool:
        return not self.num_pictures and not self.num_without


def lines_of(suite: Suite, pictures: Sequence[Picture], judges: Sequence[str]) -> list[Line]:
    """The table of one model, by these scorers. Rows of which there are no prompts are left out."""
    told = [
        _told(metric, pictures) for metric in suite.metrics if set(metric.judges) <= set(judges)
    ]
    return _lines(suite, [each for each in told if not each.is_empty])


def differences(
    suite: Suite,
    pictures: Sequence[Picture],
    others: Sequence[Picture],
    judges: Sequence[str],
) -> list[Line]:
    """The table of what one model has more than another, over the prompts that have a value of
    both. Counts are of the pictures of both.
    """
    both: list[_Told] = []
    for metric in suite.metrics:
        if not set(metric.judges) <= set(judges):
            continue
        own, other = _told(metric, pictures), _told(metric, others)
        common = [record_id for record_id in own.means if record_id in other.means]
        both.append(
            _Told(
                metric=metric,
                means={key: own.means[key] - other.means[key] for key in common},
                num_pictures=own.num_pictures + other.num_pictures,
                num_without=own.num_without + other.num_without,
            )
        )
    return _lines(suite, [each for each in both if not each.is_empty])


def _told(metric: Metric, pictures: Sequence[Picture]) -> _Told:
    values: dict[str, list[float]] = {}
    num_without = 0
    for picture in pictures:
        if metric.prompt_class not in (None, picture.metadata.get(CLASS_KEY)):
            continue
        value = metric.value_of(picture)
        if value is None:
            num_without += 1
        else:
            values.setdefault(picture.record_id, []).append(value)
    return _Told(
        metric=metric,
        means={record_id: float(np.mean(values[record_id])) for record_id in sorted(values)},
        num_pictures=sum(map(len, values.values())),
        num_without=num_without,
    )


def _lines(suite: Suite, told: Sequence[_Told]) -> list[Line]:
    lines = [_line(each.metric.prompt_class or "all", each.metric.name, [each]) for each in told]
    for total in suite.totals:
        parts = [each for each in told if each.metric.name == total.of]
        if parts and all(part.means for part in parts):  # a mean over some says something else
            lines.append(_line(total.name, total.of, parts))
    return lines


def _line(prompt_class: str, name: str, parts: Sequence[_Told]) -> Line:
    """A row over classes that count the same."""
    numbers = [np.array(list(part.means.values()), np.float64) for part in parts]
    estimate = mean_of_classes(numbers) if all(map(len, numbers)) else None
    has_several = all(len(of_class) > 1 for of_class in numbers)
    return Line(
        prompt_class=prompt_class,
        metric=name,
        judges=parts[0].metric.judges,
        is_surrogate=parts[0].metric.is_surrogate,
        value=estimate.value if estimate else None,
        interval=(estimate.low, estimate.high) if estimate and has_several else None,
        num_prompts=sum(map(len, numbers)),
        num_pictures=sum(part.num_pictures for part in parts),
        num_without=sum(part.num_without for part in parts),
    )
