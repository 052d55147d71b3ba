"""The engine on a GPU: its kernels against the card's ceilings, and whole rollouts end to end.

Nothing here needs more of the project than the engine, so it runs where only torch, transformers
and Triton are installed.
"""

import statistics
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from benchmarks.harness import Rows
from benchmarks.random_janus import JANUS_1B, JANUS_7B, SMALL, Shape, one_layer_of, random_janus
from pipeline.engine.engine import Engine
from pipeline.engine.paged.attention import ATTENTION, Cache, Span, register
from pipeline.engine.paged.cuda import (
    FlashPrefill,
    PagedDecode,
    choose_attention,
    compiled,
    paged_attention_plain,
)
from pipeline.engine.reference import Reference
from pipeline.engine.rows import Job
from pipeline.twig.requests import Backend, Canvas, Codes, Message, Request, Text, Visual
from schemas.errors import RolloutError
from schemas.geometry import Geometry
from schemas.ids import event_seed
from schemas.trace import Role

T = TypeVar("T")
Device = torch.device
Dtype = torch.dtype

_NUM_REGIONS = 3
_PROMPT_TOKENS, _THOUGHT_TOKENS, _CRITIQUE_TOKENS = 80, 45, 75
# The bundled pack's questions under Janus's own tokenizer, without what is put into them.
_FIRST_TOKENS, _NEXT_TOKENS, _REFLECT_TOKENS = 100, 140, 300
_ROW_COUNTS = (16, 32, 64, 96, 128, 160, 192, 224, 256, 288)  # all that graphs are made for
_MEAN_TOKENS = 600  # in a row's cache, of a rollout with reflection


def kernels(*, dry_run: bool) -> Iterator[Rows]:
    """Decode attention against a copy, prefill against a product."""
    shape, device, dtype = _target(JANUS_7B, dry_run)
    rows, tokens = (4, 100) if dry_run else (256, _MEAN_TOKENS)
    copied = copy_rate(device, 2**20 if dry_run else 2**31)
    product = matrix_rate(device, dtype, 256 if dry_run else 8192)
    yield {
        "shape": shape.name,
        "rows": rows,
        "tokens": tokens,
        "copy_gigabytes_per_second": round(copied / 1e9, 1),
        "matrix_teraflop_per_second": round(product / 1e12, 3),
    }
    inputs = _decode_inputs(shape, rows, tokens, device, dtype)
    attention = choose_attention(device)
    difference = (attention(*inputs) - paged_attention_plain(*inputs)).abs().max().item()
    seconds = timed(lambda: attention(*inputs), device)
    num_bytes = 2 * rows * tokens * shape.width * dtype.itemsize
    yield {
        "decode_attention_largest_difference": difference,
        "decode_attention_milliseconds": round(seconds * 1e3, 4),
        "decode_attention_gigabytes_per_second": round(num_bytes / seconds / 1e9, 1),
        "decode_attention_share_of_copy": round(num_bytes / seconds / copied, 3),
    }
    if device.type == "cuda":
        yield from _measure_prefill(shape, device, dtype, product)


def model_7b(*, dry_run: bool) -> Iterator[Rows]:
    """Rollouts per second of Janus-Pro-7B."""
    return _measure_model(JANUS_7B, dry_run)


def model_1b(*, dry_run: bool) -> Iterator[Rows]:
    """Rollouts per second of Janus-Pro-1B."""
    return _measure_model(JANUS_1B, dry_run)


STAGES: dict[str, Callable[..., Iterator[Rows]]] = {
    "kernels": kernels,
    "7b": model_7b,
    "1b": model_1b,
}
"""Each gives its figures as they come, so that one that is cut short has told something."""


def copy_rate(device: Device, num_bytes: int) -> float:
    """Bytes per second of a copy within the device's memory, read and written counted."""
    source = torch.ones(num_bytes // 4, device=device)
    target = torch.empty_like(source)
    return 2 * num_bytes / timed(lambda: target.copy_(source), device)


def matrix_rate(device: Device, dtype: Dtype, size: int) -> float:
    """Floating-point operations per second of a square product."""
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / timed(lambda: left @ right, device)


def timed(call: Callable[[], object], device: Device, num_runs: int = 20) -> float:
    """The median of several runs, in seconds, after three to warm up."""
    for _ in range(3):
        call()
    seconds = []
    for _ in range(num_runs):
        _wait(device)
        started = time.perf_counter()
        call()
        _wait(device)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def forced_rollout(
    index: int, geometry: Geometry, *, revised: bool
) -> Generator[Request, Any, None]:
    """Think-while-generating with answers of set lengths; half of the regions are drawn again.

    What is said does not matter here, only how long it is: one token is one byte.
    """
    prompt, thought = f"{index:<{_PROMPT_TOKENS}}", "w" * _THOUGHT_TOKENS
    codes: Codes = ()
    num_tokens = geometry.num_tokens // _NUM_REGIONS
    for region in range(_NUM_REGIONS):
        asked = "q" * (_NEXT_TOKENS if region else _FIRST_TOKENS) + thought * region
        yield _question(Role.THINK, region, asked + prompt, codes, _THOUGHT_TOKENS)
        drawn = (yield _drawing(index, region, 0, thought, codes, num_tokens)).codes
        if revised:
            asked = "q" * _REFLECT_TOKENS + thought * (region + 1)
            yield _question(Role.REFLECT, region, asked + prompt, codes + drawn, _CRITIQUE_TOKENS)
            if (index + region) % 2:
                drawn = (yield _drawing(index, region, 1, thought, codes, num_tokens)).codes
        codes += drawn


def _question(role: Role, region: int, asked: str, canvas: Codes, max_tokens: int) -> Text:
    return Text(
        role=role,
        region=region,
        temperature=0.0,
        messages=(Message(role="user", text=asked),),
        pictures=(Canvas(canvas),) if canvas else (),
        max_tokens=max_tokens,
    )


def _drawing(
    index: int, region: int, revision: int, thought: str, codes: Codes, num_tokens: int
) -> Visual:
    return Visual(
        role=Role.DRAW,
        region=region,
        revision=revision,
        temperature=1.0,
        seed=event_seed(0, str(index), 0, Role.DRAW, region, revision, 0),
        with_logp=True,
        text=" ".join([thought] * (region + 1)),
        codes=codes,
        num_tokens=num_tokens,
        cfg_weight=5.0,
    )


def grow(backend: Backend, geometry: Geometry, num_rollouts: int, *, revised: bool) -> float:
    """Seconds that so many forced rollouts take, all of them live at once."""
    rollouts = [forced_rollout(i, geometry, revised=revised) for i in range(num_rollouts)]
    started = time.perf_counter()
    for index, rollout in enumerate(rollouts):
        backend.submit(index, next(rollout))
    num_live = num_rollouts
    while num_live:
        for index, answer in backend.poll():
            if isinstance(answer, RolloutError):
                raise answer
            try:
                backend.submit(index, rollouts[index].send(answer))
            except StopIteration:
                num_live -= 1
    return time.perf_counter() - started


def _measure_model(published: Shape, dry_run: bool) -> Iterator[Rows]:
    shape, device, dtype = _target(published, dry_run)
    janus = random_janus(shape, device, dtype)
    rows, num_rollouts = (16, 4) if dry_run else (256, 256)
    kv_bytes = 2**25 if dry_run else int(torch.cuda.mem_get_info()[0] * 0.85)
    engine = TimedEngine(janus, max_rows=rows, kv_bytes=kv_bytes, compile=not dry_run)
    yield {"shape": shape.name, "rows": rows, "rollouts": num_rollouts}
    yield _measure_steps(engine, shape, device)  # which captures the graphs, too
    engine.clear()
    grow(engine, janus.geometry, 2, revised=True)  # to warm up
    for name, revised in (("half_revised", True), ("no_reflection", False)):
        engine.clear()
        seconds = grow(engine, janus.geometry, num_rollouts, revised=revised)
        rate = num_rollouts / seconds
        shares = {f"{name}_{part}_share": share for part, share in engine.shares().items()}
        yield {f"{name}_rollouts_per_second": round(rate, 3)} | shares
    # The published loop on the same weights, one rollout at a time. The first has one of its three
    # regions drawn again, which favours this loop a little.
    seconds = grow(Reference(janus), janus.geometry, 1, revised=True)
    yield {"plain_loop_third_revised_rollouts_per_second": round(1 / seconds, 4)}


class TimedEngine(Engine):
    """An engine that can say where its time goes. It waits for the device a little more often."""

    def clear(self) -> None:
        """Forget all that was measured, and all that would save work."""
        self.forget()
        self._seconds = {"prefill": 0.0, "decode": 0.0, "vision": 0.0}
        self._started = time.perf_counter()

    def shares(self) -> dict[str, float]:
        """The shares of the time since `clear`; what is left is the host's."""
        total = time.perf_counter() - self._started
        shares = {part: round(seconds / total, 3) for part, seconds in self._seconds.items()}
        return shares | {"host": round(1 - sum(shares.values()), 3)}

    def _prefill(self, jobs: Sequence[Job]) -> None:
        vision = self._seconds["vision"]
        self._timed("prefill", lambda: super(TimedEngine, self)._prefill(jobs))
        self._seconds["prefill"] -= self._seconds["vision"] - vision  # pictures were seen within

    def _features(self, jobs: Sequence[Job]) -> dict[int, Tensor]:
        return self._timed("vision", lambda: super(TimedEngine, self)._features(jobs))

    def _decode(self) -> None:
        self._timed("decode", lambda: super(TimedEngine, self)._decode())

    def _timed(self, part: str, call: Callable[[], T]) -> T:
        _wait(self._device)
        started = time.perf_counter()
        answer = call()
        _wait(self._device)
        self._seconds[part] += time.perf_counter() - started
        return answer


def _measure_steps(engine: Engine, shape: Shape, device: Device) -> Rows:
    """Milliseconds of one decode step of the language model, by the number of rows."""
    if device.type != "cuda":
        return {}
    result: Rows = {}
    for rows in _ROW_COUNTS:
        # Rows of their own pages: shared ones would be read once, and from the L2.
        slots = 16 + torch.arange(rows * (_MEAN_TOKENS + 64), device=device)
        slots %= engine._cache.keys.shape[1]
        burst = PagedDecode(
            engine._cache,
            list(slots.view(rows, -1)),
            [_MEAN_TOKENS] * rows,
            engine._buffers,
        )
        embeds = torch.randn(rows, shape.width, device=device, dtype=torch.bfloat16)

        def step(burst: PagedDecode = burst, embeds: Tensor = embeds) -> None:
            engine._buffers.run(engine._run, embeds, burst)

        with torch.inference_mode():
            result[f"step_milliseconds_{rows}_rows"] = round(timed(step, device) * 1e3, 3)
    return result


def _measure_prefill(shape: Shape, device: Device, dtype: Dtype, product: float) -> Iterator[Rows]:
    """One LLaMA layer over 8,192 packed tokens: its operations against those of a product."""
    from transformers.models.llama.modeling_llama import LlamaModel

    config = one_layer_of(shape)
    register()
    config._attn_implementation = ATTENTION
    llama = LlamaModel(config).to(device, dtype).eval()
    length, num_sequences = 1024, 8
    num_tokens = length * num_sequences
    cache = Cache(config, num_tokens, dtype, device)
    spans = [
        Span(
            first=index * length,
            num_tokens=length,
            start=0,
            slots=torch.arange(index * length, (index + 1) * length, device=device),
        )
        for index in range(num_sequences)
    ]
    embeds = torch.randn(1, num_tokens, shape.width, device=device, dtype=dtype)
    positions = torch.arange(length, device=device).repeat(num_sequences)[None]

    def run(call: Callable[..., Any]) -> None:
        current = FlashPrefill(cache, spans)
        call(inputs_embeds=embeds, position_ids=positions, use_cache=False, current=current)

    weights = 4 * shape.width**2 + 3 * shape.width * shape.inner
    operations = 2 * num_tokens * weights + 2 * num_tokens * length * shape.width
    for name, call in (("prefill", llama), ("compiled_prefill", compiled(llama))):
        with torch.inference_mode():
            rate = operations / timed(partial(run, call), device)
        yield {
            f"{name}_teraflop_per_second": round(rate / 1e12, 1),
            f"{name}_share_of_product": round(rate / product, 3),
        }


def _decode_inputs(
    shape: Shape, rows: int, tokens: int, device: Device, dtype: Dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, float]:
    """The arguments of a `PagedAttention`: rows that live in shuffled pages of random numbers."""
    head_width = shape.width // shape.heads
    pages = rows * -(-tokens // 16)
    cache = Cache(one_layer_of(shape), 16 * pages, dtype, device)
    cache.keys.normal_()
    cache.values.normal_()
    order = torch.randperm(pages, device=device).view(rows, -1, 1) * 16
    table = (order + torch.arange(16, device=device)).view(rows, -1).int()
    last = torch.full((rows,), tokens - 1, dtype=torch.int32, device=device)
    query, key, value = torch.randn(3, rows, shape.heads, head_width, device=device, dtype=dtype)
    scale = head_width**-0.5
    return query, key, value, cache.keys[0], cache.values[0], table, last, scale


def _target(published: Shape, dry_run: bool) -> tuple[Shape, Device, Dtype]:
    if dry_run:
        return SMALL, torch.device("cpu"), torch.float32
    if not torch.cuda.is_available():
        raise SystemExit("there is no GPU here; try the code with --dry-run")
    return published, torch.device("cuda"), torch.bfloat16


def _wait(device: Device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
