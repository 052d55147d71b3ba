"""The arithmetic for GPUs, on a CPU: the kernel interpreted, plain torch where a GPU is needed."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.engine.checkpoints import Janus, load_janus
from pipeline.engine.engine import Engine
from pipeline.engine.paged.attention import Cache, Span
from pipeline.engine.paged.cuda import FlashPrefill, choose_attention, paged_attention_plain
from pipeline.engine.paged.kernels import paged_attention
from tests.conformance import replay
from tests.engines import answered, drawing, engine_with, look, question

GOLDEN = Path(__file__).parents[3] / "golden"
NUM_SLOTS = 512


def cached(key_heads: int, width: int) -> tuple[Tensor, Tensor]:
    keys, values = torch.randn(2, NUM_SLOTS, key_heads, width)
    return keys, values


@pytest.mark.parametrize(("heads", "key_heads", "width"), [(4, 4, 16), (4, 2, 24), (2, 1, 128)])
def test_the_kernel_attends_as_plain_torch_does(heads: int, key_heads: int, width: int):
    torch.manual_seed(heads)
    last = torch.tensor([0, 1, 31, 32, 33, 79], dtype=torch.int32)
    table = torch.randperm(NUM_SLOTS)[: 80 * len(last)].view(len(last), 80).int()
    query = torch.randn(len(last), heads, width)
    key, value = torch.randn(2, len(last), key_heads, width)
    ours, plain = cached(key_heads, width), cached(key_heads, width)
    for mine, theirs in zip(ours, plain, strict=True):
        mine.copy_(theirs)

    out = paged_attention(query, key, value, *ours, table, last, width**-0.5)

    expected = paged_attention_plain(query, key, value, *plain, table, last, width**-0.5)
    assert torch.allclose(out, expected, atol=1e-6)
    for mine, theirs in zip(ours, plain, strict=True):
        assert torch.equal(mine, theirs)  # the new tokens are where they belong, and nothing else


def test_the_kernel_reads_nothing_beyond_the_last_token():
    torch.manual_seed(0)
    keys, values = cached(2, 16)
    table = torch.arange(128, dtype=torch.int32)[None]
    last = torch.tensor([70], dtype=torch.int32)
    query, key, value = torch.randn(3, 1, 2, 16)
    before = paged_attention(query, key, value, keys, values, table, last, 0.25)
    keys[70:], values[70:] = torch.nan, torch.nan  # its own is to be written, and not read

    after = paged_attention(query, key, value, keys, values, table, last, 0.25)
    assert torch.equal(after, before)


def test_plain_attention_is_not_harmed_by_what_stands_beyond_a_row():
    torch.manual_seed(0)
    keys, values = cached(2, 16)
    table = torch.arange(256, dtype=torch.int32).view(2, 128)
    last = torch.tensor([10, 70], dtype=torch.int32)  # so that the first row reads beyond its own
    query, key, value = torch.randn(3, 2, 2, 16)
    before = paged_attention_plain(query, key, value, keys, values, table, last, 0.25)
    keys[11:128], values[11:128] = torch.nan, torch.inf

    after = paged_attention_plain(query, key, value, keys, values, table, last, 0.25)
    assert torch.equal(after, before)


def test_without_a_c_compiler_plain_torch_takes_the_kernels_place(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    assert choose_attention(torch.device("cpu")) is paged_attention

    def without_a_compiler(*_: Any) -> Any:
        raise RuntimeError("no C compiler\nand more words")

    monkeypatch.setattr("pipeline.engine.paged.kernels.paged_attention", without_a_compiler)

    assert choose_attention(torch.device("cpu")) is paged_attention_plain
    assert caplog.messages == [
        "no Triton kernel (no C compiler): decode attention gathers pages instead"
    ]


class Sizes:
    """As much of a LLaMA's config as a cache asks for."""

    num_hidden_layers, num_attention_heads, num_key_value_heads = 1, 4, 2
    hidden_size, head_dim = 64, 16


def test_flash_prefill_attends_each_sequence_to_itself_and_what_is_cached_of_it():
    torch.manual_seed(1)
    cache = Cache(Sizes, NUM_SLOTS, torch.float32, "cpu")
    cache.keys.normal_()
    cache.values.normal_()
    slots = torch.randperm(NUM_SLOTS)
    spans = [
        Span(first=0, num_tokens=5, start=0, slots=slots[:5]),
        Span(first=5, num_tokens=3, start=4, slots=slots[10:17]),
    ]
    query, key, value = torch.randn(10, 4, 16), torch.randn(10, 2, 16), torch.randn(10, 2, 16)

    out = FlashPrefill(cache, spans).attend(0, query, key, value, 0.25)

    assert len(out) == 10
    for span in spans:
        keys, values = (
            part[0][span.slots].repeat_interleave(2, dim=1) for part in (cache.keys, cache.values)
        )
        for index in range(span.num_tokens):
            seen = span.start + index + 1
            scores = torch.einsum("hd,thd->ht", query[span.first + index], keys[:seen]) * 0.25
            expected = torch.einsum("ht,thd->hd", scores.softmax(-1), values[:seen])
            assert torch.allclose(out[span.first + index], expected, atol=1e-5)


def test_the_fast_engine_makes_every_golden_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # The interpreted kernel would take minutes; it has been compared with this above.
    monkeypatch.setattr(
        "pipeline.engine.paged.cuda.choose_attention", lambda _: paged_attention_plain
    )
    golden = json.loads((GOLDEN / "golden.json").read_text())
    golden["traces"] = golden["traces"][4:5]  # one with a rejected region
    (tmp_path / "golden.json").write_text(json.dumps(golden))
    shutil.copy(GOLDEN / golden["traces"][0]["final_image"], tmp_path)
    janus = load_janus(GOLDEN / "janus-tiny", dtype=torch.float32, device="cpu")
    engine = Engine(janus, kv_bytes=2**24, strict=False)

    report = replay(tmp_path, engine)

    assert not engine.is_strict
    assert report.num_calls
    assert not report.differences, str(report)


def fast_answers(small: Janus, *, compile: bool) -> list[Any]:
    engine = engine_with(small, strict=False, compile=compile)
    return answered(engine, question(), look("What is it?", (1, 2)), drawing(), drawing("a hill"))


@pytest.fixture
def without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "pipeline.engine.paged.cuda.choose_attention", lambda _: paged_attention_plain
    )


@pytest.mark.slow
@pytest.mark.usefixtures("without_triton")
def test_compiled_steps_give_the_same_tokens(
    small: Janus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    # What is captured is the same for all of torch's compilers, and this one takes no minute.
    eager = partial(torch.compile, backend="eager")
    monkeypatch.setattr("pipeline.engine.paged.cuda.torch.compile", eager)

    assert fast_answers(small, compile=True) == fast_answers(small, compile=False)
    assert "no torch.compile" not in caplog.text


@pytest.mark.usefixtures("without_triton")
def test_where_steps_cannot_be_compiled_the_log_says_so_and_they_run_as_they_are(
    small: Janus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def without_a_compiler(*_: Any, **__: Any) -> Any:
        def fail(*_: Any) -> None:
            raise RuntimeError("no C++ compiler")

        return fail

    monkeypatch.setattr("pipeline.engine.paged.cuda.torch.compile", without_a_compiler)

    assert fast_answers(small, compile=True) == fast_answers(small, compile=False)
    assert caplog.text.count("no torch.compile (no C++ compiler)") == 1


def test_strict_steps_are_not_compiled(small: Janus, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr("pipeline.engine.paged.cuda.torch.compile")  # whoever asks for it fails

    assert engine_with(small, compile=True).is_strict
