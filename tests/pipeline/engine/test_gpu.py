"""The arithmetic for GPUs, on a GPU. Skipped where there is none."""

import copy
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.engine.checkpoints import Janus, load_janus
from pipeline.engine.paged.cuda import compiled, flash_attention, paged_attention_plain
from pipeline.engine.sampling import Noise, gumbel_noise
from tests.conformance import replay
from tests.engines import (
    Judge,
    Unruly,
    answered,
    drawing,
    engine_with,
    load_small,
    many_requests,
    question,
    sampled,
    tokens_of,
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.fixture(autouse=True)
def without_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions in float32 as they are written; torch rounds them to 10 bits by default."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def on_gpu(janus: Janus, dtype: torch.dtype = torch.float32) -> Janus:
    return replace(janus, model=copy.deepcopy(janus.model).to("cuda", dtype))


def relative_error(ours: Tensor, exact: Tensor) -> float:
    return float((ours.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    ("heads", "key_heads", "width"), [(32, 32, 128), (16, 16, 128), (4, 2, 24), (4, 4, 16)]
)
def test_the_kernel_attends_as_plain_torch_does(
    heads: int, key_heads: int, width: int, dtype: torch.dtype
):
    from pipeline.engine.paged.kernels import paged_attention

    torch.manual_seed(width)
    last = torch.tensor([0, 1, 31, 32, 33, 64, 599, 1023] * 8, dtype=torch.int32)
    pages = torch.randperm(len(last) * 64).view(len(last), 64, 1) * 16
    table = (pages + torch.arange(16)).view(len(last), -1).int().cuda()
    query = torch.randn(len(last), heads, width, device="cuda", dtype=dtype)
    key, value = torch.randn(2, len(last), key_heads, width, device="cuda", dtype=dtype)
    cache = torch.randn(2, table.numel(), key_heads, width, device="cuda", dtype=dtype)
    exact = cache.double()

    out = paged_attention(query, key, value, *cache, table, last.cuda(), width**-0.5)

    exact_inputs = (query.double(), key.double(), value.double(), *exact)
    expected = paged_attention_plain(*exact_inputs, table, last.cuda(), width**-0.5)
    assert relative_error(out, expected) < (1e-5 if dtype is torch.float32 else 1e-2)
    assert torch.equal(cache.double(), exact)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_flash_attention_attends_as_plain_torch_does(dtype: torch.dtype):
    torch.manual_seed(0)
    lengths, ends = [(5, 5), (300, 940), (1, 77), (64, 64)], []
    for side in zip(*lengths, strict=True):
        ends.append(torch.tensor([0, *side]).cumsum(0).int())
    query = torch.randn(int(ends[0][-1]), 8, 128, dtype=dtype)
    keys, values = torch.randn(2, int(ends[1][-1]), 8, 128, dtype=dtype)
    longest = (300, 940)

    out = flash_attention(
        query.cuda(), keys.cuda(), values.cuda(), (ends[0].cuda(), ends[1].cuda()), longest, 0.1
    )

    exact = (query.double(), keys.double(), values.double())
    expected = flash_attention(*exact, (ends[0], ends[1]), longest, 0.1)
    assert relative_error(out.cpu(), expected) < (1e-5 if dtype is torch.float32 else 1e-2)


@pytest.mark.parametrize("is_compiled", [False, True])
def test_noise_is_the_same_as_on_a_cpu(is_compiled: bool):
    make: Noise = compiled(gumbel_noise) if is_compiled else gumbel_noise
    seeds = torch.randint(0, 2**32, (64, 2))
    positions = torch.arange(64)

    on_device = make(seeds.cuda(), positions.cuda(), 16_384).cpu()

    assert torch.equal(on_device, gumbel_noise(seeds, positions, 16_384))


@pytest.mark.parametrize("strict", [True, False])
def test_every_golden_call_is_made(strict: bool):
    janus = load_janus(GOLDEN / "janus-tiny", dtype=torch.float32, device="cuda")

    report = replay(GOLDEN, engine_with(janus, max_rows=16, strict=strict))

    assert not report.differences, str(report)


@pytest.mark.parametrize("max_rows", [5, 64])
def test_the_fast_engine_answers_as_the_reference_does_on_a_cpu(
    small: Janus, judge: Judge, max_rows: int
):
    engine = engine_with(on_gpu(small), max_rows=max_rows)
    requests = many_requests()

    answers = answered(Unruly(engine, random.Random(max_rows)), *requests)

    assert not engine.is_strict
    assert judge.differences(zip(requests, answers, strict=True)) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_strict_answers_depend_on_nothing_around(small_folder: Path, dtype: torch.dtype):
    janus = on_gpu(load_small(small_folder), dtype)
    requests = many_requests()
    mates = [question("word " * (n % 23), **sampled(n)) for n in range(60)]
    alone = [
        answered(engine_with(janus, max_rows=64, strict=True), request)[0] for request in requests
    ]

    crowded = engine_with(janus, max_rows=64, num_pages=1000, strict=True)

    assert answered(crowded, *mates, *requests)[len(mates) :] == alone


def quick(small: Janus, **options: Any) -> list[Any]:
    engine = engine_with(on_gpu(small), **options)
    return answered(engine, question(), *[drawing(f"hill {n}", **sampled(n)) for n in range(9)])


def test_steps_replayed_as_graphs_give_the_same_answers(
    small: Janus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    replayed = quick(small)
    assert "CUDA graphs" not in caplog.text

    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("not today")

    monkeypatch.setattr("pipeline.engine.paged.cuda.torch.cuda.graph", refuse)

    assert quick(small) == replayed
    assert caplog.text.count("no CUDA graphs (not today)") == 1


def test_compiled_steps_give_the_same_tokens(small: Janus, caplog: pytest.LogCaptureFixture):
    compiled, plain = quick(small, compile=True), quick(small)

    assert list(map(tokens_of, compiled)) == list(map(tokens_of, plain))
    assert "no torch.compile" not in caplog.text
