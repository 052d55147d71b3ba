"""The tests bite: bugs planted in the real code, each of which the judge must notice.

A bug is a line of the code and what stands there instead. When the line is rewritten, the planting
fails, and the bug is to be planted in the new one.
"""

import inspect
import textwrap
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.engine.admission import Admission
from pipeline.engine.checkpoints import Janus
from pipeline.engine.engine import Engine
from pipeline.engine.paged.attention import StrictPrefill, _BlockGroup, _RowGroup
from pipeline.engine.paged.pages import Pages
from pipeline.engine.rows import DecodeBatch, Job
from pipeline.engine.sampling import Sampler
from pipeline.twig import drive as driving
from tests.engines import (
    Judge,
    answered,
    drawn_twice,
    engine_with,
    look,
    many_requests,
    sampled,
)


@dataclass(frozen=True)
class Patch:
    """Lines of a function or a property, and what stands there instead."""

    owner: Any  # a class or a module
    name: str
    lines: dict[str, str]


BUGS: dict[str, list[Patch]] = {
    "positions off by one": [
        Patch(
            DecodeBatch,
            "__init__",
            {"tensor(self.lengths, device=device)": "tensor(self.lengths) + 1"},
        )
    ],
    "positions that stand still during a burst": [
        Patch(Engine, "_decode", {"positions + batch.is_live": "positions"})
    ],
    "a prefix's positions off by one": [
        Patch(
            Engine,
            "_prefill_batch",
            {"arange(span.start, span.stop)": "arange(span.start, span.stop) + (span.start > 0)"},
        )
    ],
    "another pad token": [
        Patch(Admission, "_lengthen_padding", {"[special.pad]": "[special.eos]"})
    ],
    "conditional and unconditional rows swapped": [
        Patch(
            Engine,
            "_decode",
            {"code_sampler.codes(cond, uncond)": "code_sampler.codes(uncond, cond)"},
        )
    ],
    "two drawings' tokens swapped": [
        Patch(Engine, "_decode", {".repeat(2)": ".roll(1).repeat(2)"})
    ],
    "two texts' tokens swapped": [
        Patch(Engine, "_decode", {"len(texts)] = words": "len(texts)] = words.roll(1)"})
    ],
    "two requests' noise swapped": [
        Patch(Sampler, "_next_noise", {"self._seeds.repeat": "self._seeds.roll(1, 0).repeat"})
    ],
    "noise made ahead that comes in the wrong order": [
        Patch(Sampler, "_next_noise", {".flip(0)": ""})
    ],
    "a burst that is not stored": [Patch(Engine, "_decode", {"burst.store()": "pass"})],
    "a burst whose last step is not stored": [
        Patch(_RowGroup, "store", {"torch.arange(steps, ": "torch.arange(steps - 1, "})
    ],
    "pages handed out twice": [
        Patch(
            Pages,
            "take",
            {
                "[self._free.pop() for _ in range(num_pages)]": (
                    "self._free[len(self._free) - num_pages :]"
                ),
                "self._num_owners[page] = 1": "self._num_owners[page] += 1",
            },
        ),
        Patch(Pages, "give_back", {"self._free.append(page)": "pass"}),
    ],
    "shared pages that are free after the first owner": [
        Patch(Pages, "take", {"self._num_owners[page] = 1": "self._num_owners[page] += 1"}),
        Patch(Pages, "give_back", {"if not self._num_owners[page]:": "if True:"}),
    ],
    "a decoding token that sees one too far": [
        Patch(_RowGroup, "_look_from", {"> at[:, None]": "> at[:, None] + 1"})
    ],
    "a decoding token that does not see itself": [
        Patch(_RowGroup, "_look_from", {"> at[:, None]": ">= at[:, None]"})
    ],
    "a prefilled token that sees one too far": [
        Patch(_BlockGroup, "__init__", {".triu(1)": ".triu(2)"})
    ],
    "a prefilled token's query in another's place": [
        Patch(
            _BlockGroup,
            "__init__",
            {"= block.first_packed + ": "= max(0, block.first_packed - 1) + "},
        )
    ],
    "keys of a prefill that go one slot astray": [
        Patch(
            StrictPrefill,
            "__init__",
            {"span.start : span.stop]": "span.start : span.stop].roll(1)"},
        )
    ],
    "a revision with the seed of the first drawing": [
        Patch(driving, "_as_of", {"request.revision": "0"})
    ],
    "noise of the next position": [
        Patch(Job, "position", {"before + len(self.tokens)": "before + len(self.tokens) + 1"})
    ],
    "noise that begins again with every region": [
        Patch(Job, "position", {"return before + ": "return "})
    ],
    "padding that is shared one token too far": [
        Patch(Admission, "_shared", {"len(job.prefix_ids) - 1": "len(job.prefix_ids)"})
    ],
    # One token more would do no harm: after a picture comes a line feed, whatever is asked.
    "a picture's prefix that is shared two tokens too far": [
        Patch(Admission, "admit", {"row.slots, job.num_prefix": "row.slots, job.num_prefix + 2"})
    ],
    "a prefix that is shared with another picture": [
        Patch(Job, "prefix_key", {"pictures_of(self.request)": "()"})
    ],
    "the features of another picture": [
        Patch(Engine, "_features", {"features(list(pictures))": "features(list(pictures)).flip(0)"})
    ],
    "words after the end": [Patch(Job, "take", {"num_left = tokens.index(eos) + 1": "pass"})],
    "words without their end": [Patch(Job, "take", {"tokens.index(eos) + 1": "tokens.index(eos)"})],
    "a whole burst of codes, wanted or not": [
        Patch(Job, "take", {"self.tokens += tokens[:num_left]": "self.tokens += tokens"}),
        Patch(Job, "is_done", {"== self.num_wanted": ">= self.num_wanted"}),
    ],
    "the guidance of another": [
        Patch(Sampler, "codes", {"self._cfg_weight)": "self._cfg_weight.roll(1, 0))"})
    ],
    "log-probabilities of the other branch": [
        Patch(Sampler, "codes", {"self._temperature, cond)": "self._temperature, uncond)"})
    ],
    "log-probabilities of a tempered distribution": [
        Patch(Sampler, "words", {"_top_p), logits)": "_top_p), logits / self._temperature)"})
    ],
}


def plant(monkeypatch: pytest.MonkeyPatch, patch: Patch) -> None:
    target = inspect.getattr_static(patch.owner, patch.name)
    function = target.fget if isinstance(target, property) else target
    source = textwrap.dedent(inspect.getsource(function))
    for right, wrong in patch.lines.items():
        assert source.count(right) == 1, f"plant it anew: {right!r} in\n{source}"
        source = source.replace(right, wrong)
    planted: dict[str, Any] = {}
    exec(source, function.__globals__, planted)
    monkeypatch.setattr(patch.owner, patch.name, planted[patch.name])


def problems(small: Janus, judge: Judge) -> list[str]:
    """What is wrong with the answers to many requests, and with a revision."""
    requests = [*many_requests(), *later_requests()]
    engine = engine_with(small, max_rows=12)
    answers = answered(engine, *requests)
    differences = judge.differences(zip(requests, answers, strict=True))
    first, again = drawn_twice(engine)
    return differences + ["the revision is the first drawing again"] * (first == again)


def later_requests() -> list[Any]:
    """Of pictures that are known by then, in pages that others had before."""
    return [look(f"{n}, is it?", tuple(range(100, 116)), **sampled(n)) for n in range(4)]


def test_code_without_planted_bugs_has_no_problems(small: Janus, judge: Judge):
    assert problems(small, judge) == []
    assert judge.num_near_ties == 0


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_noticed(
    small: Janus, judge: Judge, monkeypatch: pytest.MonkeyPatch, bug: str
):
    for patch in BUGS[bug]:
        plant(monkeypatch, patch)

    assert problems(small, judge) != []
