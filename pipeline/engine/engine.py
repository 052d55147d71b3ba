"""The fast backend: continuous batching of all requests at hand over one paged cache.

Requests wait in a queue, first come first served. At a boundary the engine admits as many as rows
and pages allow, prefills them together, and decodes a *burst*: a few steps of all rows at once,
without looking at a single token on the host. Then it answers what has ended and begins again.

A `Text` is one row; a `Visual` is two, admitted, stepped and freed together, so that no pairing can
go wrong. Everything is looked up in one table of embeddings, words first and image codes behind
them. All but the last token of a request's prefix is prefilled; the last one is the first input of
decoding, so there is one way to choose a token, and not two.

Exact savings, none of which changes a token: the padding of all unconditional rows is computed
once; a picture's prefix is kept for the question that follows about the same canvas; and a greedy
question that was asked already is answered from memory.

The arithmetic is that of `attention`, `sampling` and the unmodified Hugging Face modules.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pipeline.engine.attention import (
    ATTENTION,
    Cache,
    Pass,
    Span,
    StrictDecode,
    StrictPrefill,
    bytes_per_token,
    register,
)
from pipeline.engine.checkpoints import Janus
from pipeline.engine.cuda import FlashPrefill, PagedDecode, Room
from pipeline.engine.pages import PAGE_TOKENS, Pages, num_pages_for
from pipeline.engine.rendering import Renderer
from pipeline.engine.sampling import Sampler
from pipeline.engine.vision import Vision
from pipeline.pictures import Pixels
from pipeline.twig.requests import (
    Answer,
    Canvas,
    Codes,
    Picture,
    Request,
    RequestId,
    Text,
    TextAnswer,
    Visual,
    VisualAnswer,
)
from schemas.errors import InputError, RecordFailure, RolloutError
from schemas.trace import Finish

ROW_BUCKET = 16
"""Rows and packed tokens come in multiples of this. From 16 rows on a matrix product computes each
row alike whatever their number; below, it takes another path."""

_BURST = 6  # steps; longer ones go on past the end of more answers, shorter ones copy more
_PREFILL_TOKENS = 4096  # in one pass
_PREFILL_TOKENS_ON_CPU = 1024  # what goes from layer to layer stays near the core
_PICTURES_AT_ONCE = 32
_REMEMBERED = 4096  # greedy answers
_REMEMBERED_PICTURES = 256  # 113 MB of them at 384 pixels
_LARGE_BUCKET = 32  # of the rows of a CUDA graph, from so many on


class Engine:
    """Answers requests in batches. Not thread-safe. Owns the model's attention from now on."""

    def __init__(
        self,
        janus: Janus,
        *,
        max_rows: int = 256,
        kv_bytes: int = 2**30,
        burst: int = _BURST,
        strict: bool | None = None,
    ) -> None:
        """Takes `kv_bytes` of the model's device. Raises InputError if that is too little.

        `strict` arithmetic makes the same tokens whatever else is asked. None: on a CPU alone,
        where it costs nothing.
        """
        self.geometry = janus.geometry
        self._janus = janus
        self._model = janus.model
        self._device = janus.model.device
        self.is_strict = janus.model.device.type == "cpu" if strict is None else strict
        self._max_rows = max_rows
        self._burst = burst
        self._renderer = Renderer(janus)
        self._vision = Vision(
            janus,
            batch_size=1 if self.is_strict else _PICTURES_AT_ONCE,
            num_remembered=_REMEMBERED_PICTURES,
        )
        self._embeddings = _embeddings_of(janus)
        self._num_words = len(self._embeddings) - janus.geometry.num_codes
        text_config: Any = janus.model.config.text_config
        num_slots = kv_bytes // bytes_per_token(text_config, janus.model.dtype)
        if max_rows < 2 or num_slots < 2 * PAGE_TOKENS:
            raise InputError(
                f"an engine of {max_rows} rows and {kv_bytes} bytes of cache can hold no request; "
                "give at least 2 rows and more memory"
            )
        self._pages = Pages(num_slots // PAGE_TOKENS)
        self._cache = Cache(text_config, num_slots, janus.model.dtype, self._device)
        self._waiting: deque[_Job] = deque()
        self._running: list[_Job] = []
        self._answers: list[tuple[RequestId, Answer | RolloutError]] = []
        self._padding = _NOTHING
        self._prefixes = _Prefixes(self._pages)
        self._memory = _Memory()
        self._least_rows, self._pack_tokens, self._is_sharing = 0, _PREFILL_TOKENS, True
        if self._device.type == "cpu":
            self._pack_tokens = _PREFILL_TOKENS_ON_CPU
        elif self.is_strict:
            # Here every size of a product may be computed in a way of its own: so one size for all
            # steps, and for a prefill the size that the request alone decides.
            self._least_rows, self._pack_tokens, self._is_sharing = max_rows, 0, False
        if not self.is_strict:
            self._room = Room(
                2 * (max_rows + _LARGE_BUCKET),
                janus.max_positions + burst,
                self._embeddings.shape[1],
                like=self._embeddings,
            )
        register()
        text_config._attn_implementation = ATTENTION

    @property
    def num_free_pages(self) -> int:
        """Pages that no request holds, and none of what is kept to save work."""
        return self._pages.num_free

    @property
    def num_pages(self) -> int:
        return self._pages.capacity

    def submit(self, request_id: RequestId, request: Request) -> None:
        try:
            job = self._job(request_id, request)
        except RecordFailure as failure:
            self._answers.append((request_id, failure))
            return
        known = self._memory.try_answer(request)
        if known is not None:
            self._answers.append((request_id, known))
        elif not self._memory.is_asked(request_id, request):
            self._waiting.append(job)

    def poll(self) -> Sequence[tuple[RequestId, Answer | RolloutError]]:
        if not self._answers:
            self.step()
        answers, self._answers = self._answers, []
        return answers

    @torch.inference_mode()
    def step(self) -> None:
        """Admit what fits, decode one burst, and answer what has ended."""
        self._prefill(self._admitted())
        if self._running:
            self._decode()
            self._finish([job for job in self._running if job.is_done])

    def paint(self, canvases: Sequence[Codes]) -> list[Pixels]:
        return self._vision.paint(canvases)

    def forget(self) -> None:
        """Give up all that is kept to save work. Answers stay the same."""
        self._drop_shared()
        self._memory.forget()

    # Taking requests in

    def _job(self, request_id: RequestId, request: Request) -> "_Job":
        """The request, rendered. Raises RecordFailure for one that can never be answered."""
        if isinstance(request, Visual):
            prefix = self._renderer.draw_prefix(request)
            codes = [self._num_words + code for code in request.codes]
            ids = [[*prefix.cond, *codes], [*prefix.uncond, *codes]]
            job = _Job(request_id, request, prefix.cond, ids, request.num_tokens)
        else:
            assert isinstance(request, Text)
            self._vision.check(request.pictures)
            prefix_ids = self._renderer.question(request)
            job = _Job(request_id, request, prefix_ids, [list(prefix_ids)], request.max_tokens)
            job.num_prefix = self._end_of_pictures(request, prefix_ids)
        self._check_room(job)
        return job

    def _end_of_pictures(self, request: Text, ids: Sequence[int]) -> int:
        """How many tokens stand up to the end of the last picture; 0 without one."""
        if not request.pictures:
            return 0
        return len(ids) - list(reversed(ids)).index(self._janus.special.eoi)

    def _check_room(self, job: "_Job") -> None:
        num_tokens = len(job.ids[0]) + job.num_wanted
        if num_tokens > self._janus.max_positions:
            raise RecordFailure(
                f"{num_tokens} tokens, of which the model holds {self._janus.max_positions}; "
                "use a shorter prompt or lower max_text_tokens",
                reason="too_long",
            )
        needed = len(job.ids) * num_pages_for(num_tokens + self._burst)
        if needed > self._pages.capacity:
            raise RecordFailure(
                f"{num_tokens} tokens need {needed} pages, of which the engine has "
                f"{self._pages.capacity}; give it more memory, or lower max_text_tokens",
                reason="too_long",
            )

    def _admitted(self) -> "list[_Job]":
        """Jobs that have their rows and pages from now on, in the order in which they came."""
        fresh: list[_Job] = []
        num_rows = sum(len(job.ids) for job in self._running)
        arriving: set[object] = set()
        while self._waiting:
            job = self._waiting[0]
            num_rows += len(job.ids)
            if num_rows > self._max_rows or job.prefix_key in arriving:
                break
            if not self._reserve(job, is_alone=num_rows == len(job.ids)):
                break
            fresh.append(self._waiting.popleft())
            if job.num_prefix and job.rows[0].length == 0:
                arriving.add(
                    job.prefix_key
                )  # the next one with this prefix waits until it is there
        self._running += fresh
        return fresh

    def _reserve(self, job: "_Job", *, is_alone: bool) -> bool:
        """Take all the pages that a job may need, or none."""
        total = len(job.ids[0]) + job.num_wanted + self._burst
        shared = [self._shared(job, row) for row in range(len(job.ids))]
        needed = sum(num_pages_for(total - prefix.num_tokens) for prefix in shared)
        if not self._prefixes.make_room(needed, keep=job.prefix_key):
            if not is_alone:
                return False
            self._drop_shared()  # alone in the engine, a job has all of it
            shared = [_NOTHING for _ in shared]
        job.rows = [self._row(total, prefix) for prefix in shared]
        return True

    def _shared(self, job: "_Job", row: int) -> "_Prefix":
        """What is in the cache already of a row's prefix."""
        if not self._is_sharing:
            return _NOTHING
        if not isinstance(job.request, Visual):
            return self._prefixes.try_get(job.prefix_key) or _NOTHING
        if row == 0:
            return _NOTHING
        num_tokens = len(job.prefix_ids) - 1  # bos and the padding; then comes the picture
        if self._padding.num_tokens < num_tokens:
            self._lengthen_padding(1 << (num_tokens - 1).bit_length())
        if self._padding.num_tokens < num_tokens:
            return _NOTHING
        return _beginning(self._padding, num_tokens)

    def _lengthen_padding(self, num_tokens: int) -> None:
        """Put [bos, pad, pad, ...] into the cache for all to share, if there is room."""
        if not self._prefixes.make_room(num_pages_for(num_tokens), keep=None):
            return
        pages = self._pages.take(num_pages_for(num_tokens))
        slots = _slots_of(pages)[:num_tokens]
        special = self._janus.special
        ids = [special.bos, *[special.pad] * (num_tokens - 1)]
        row = _Row(pages, slots.to(self._device), 0)
        self._prefill_pack([_Part(row, self._embed(ids, None))])
        self._pages.give_back(self._padding.pages)
        self._padding = _Prefix(pages, slots, num_tokens)

    def _drop_shared(self) -> None:
        self._pages.give_back(self._padding.pages)
        self._padding = _NOTHING
        self._prefixes.drop_all()

    def _row(self, total: int, prefix: "_Prefix") -> "_Row":
        own = self._pages.take(num_pages_for(total - prefix.num_tokens))
        self._pages.share(prefix.pages)
        slots = torch.cat([prefix.slots, _slots_of(own)])[:total]
        return _Row([*prefix.pages, *own], slots.to(self._device), prefix.num_tokens)

    # Prefill

    def _prefill(self, jobs: "Sequence[_Job]") -> None:
        """Put all but the last token of each row's prefix into the cache."""
        features = self._features([job for job in jobs if job.num_prefix > job.rows[0].length])
        parts: list[_Part] = []
        for job in jobs:
            for row, ids in zip(job.rows, job.ids, strict=True):
                new = ids[row.length : -1]
                if new:
                    parts.append(_Part(row, self._embed(new, features.get(id(job)))))
        for pack in _packs(parts, self._pack_tokens):
            self._prefill_pack(pack)
        for job in jobs:
            if job.num_prefix and self._is_sharing:
                self._prefixes.keep(job.prefix_key, job.rows[0], job.num_prefix)

    def _prefill_pack(self, parts: "Sequence[_Part]") -> None:
        spans, first = [], 0
        for part in parts:
            span = Span(
                first=first,
                num_tokens=len(part.embeds),
                start=part.row.length,
                slots=part.row.slots,
            )
            spans.append(span)
            first += span.num_tokens
        embeds = torch.cat([part.embeds for part in parts])
        positions = torch.cat([torch.arange(span.start, span.stop) for span in spans])
        kind = StrictPrefill if self.is_strict else FlashPrefill
        self._forward(embeds, positions.to(self._device), kind(self._cache, spans))
        for part, span in zip(parts, spans, strict=True):
            part.row.length = span.stop

    def _forward(self, embeds: Tensor, positions: Tensor, current: Pass) -> Tensor:
        """Hidden states [tokens, width] of packed tokens; their number is padded to a bucket."""
        num_tokens = len(embeds)
        padding = -num_tokens % ROW_BUCKET
        if padding:
            embeds = torch.cat([embeds, embeds.new_zeros(padding, embeds.shape[1])])
            positions = torch.cat([positions, positions.new_zeros(padding)])
        return self._run(embeds, positions, current)

    def _run(self, embeds: Tensor, positions: Tensor, current: Pass) -> Tensor:
        output = self._model.model.language_model(
            inputs_embeds=embeds[None],
            position_ids=positions[None],
            use_cache=False,
            current=current,
        )
        hidden: Tensor = output.last_hidden_state[0]
        return hidden

    def _embed(self, ids: Sequence[int], features: Tensor | None) -> Tensor:
        """Embeddings [tokens, width], with picture features where the placeholders stand."""
        tokens = torch.tensor(ids, device=self._device)
        embeds = self._embeddings[tokens]
        if features is not None:
            embeds[tokens == self._janus.special.image] = features.to(embeds.dtype)
        return embeds

    def _features(self, jobs: "Sequence[_Job]") -> dict[int, Tensor]:
        """The features [tokens, width] of each job's pictures, equal canvases once."""
        pictures = {p: None for job in jobs for p in _pictures_of(job.request)}
        if not pictures:
            return {}
        seen = dict(zip(pictures, self._vision.features(list(pictures)), strict=True))
        return {
            id(job): torch.cat([seen[picture] for picture in _pictures_of(job.request)])
            for job in jobs
        }

    # Decode

    def _decode(self) -> None:
        """One burst of steps for all rows at once."""
        draws = [job for job in self._running if isinstance(job.request, Visual)]
        texts = [job for job in self._running if not isinstance(job.request, Visual)]
        batch = _Batch(draws, texts, self._num_words, self._least_rows, self._device)
        burst = self._new_burst(batch)
        draw, say = (
            Sampler([job.request for job in jobs], [job.position for job in jobs], self._device)
            for jobs in (draws, texts)
        )
        tokens, positions = batch.tokens, batch.positions
        for _ in range(self._burst):
            hidden = self._step(self._embeddings[tokens], positions, burst)
            tokens = torch.zeros_like(tokens)
            if draws:
                logits = self._model.model.generation_head(hidden[: batch.first_text])
                codes = draw.codes(logits[: len(draws)], logits[len(draws) : 2 * len(draws)])
                tokens[: 2 * len(draws)] = (codes + self._num_words).repeat(2)
            if texts:
                logits = self._model.lm_head(hidden[batch.first_text :])
                words = say.words(logits[: len(texts)])
                tokens[batch.first_text : batch.first_text + len(texts)] = words
            positions = positions + batch.is_live
            burst.advance()
        burst.store()
        for jobs, sampler in ((draws, draw), (texts, say)):
            for job, chosen in zip(jobs, sampler.chosen(), strict=True):
                job.take(*chosen, eos=self._janus.special.eos)
                for row in job.rows:
                    row.length += self._burst

    def _new_burst(self, batch: "_Batch") -> StrictDecode | PagedDecode:
        if self.is_strict:
            return StrictDecode(self._cache, batch.slots, batch.lengths, self._burst)
        return PagedDecode(self._cache, batch.slots, batch.lengths, self._room)

    def _step(self, embeds: Tensor, positions: Tensor, burst: StrictDecode | PagedDecode) -> Tensor:
        if isinstance(burst, PagedDecode):
            return self._room.run(self._run, embeds, burst)
        return self._forward(embeds, positions, burst)

    def _finish(self, jobs: "Iterable[_Job]") -> None:
        for job in jobs:
            self._running.remove(job)
            for row in job.rows:
                self._pages.give_back(row.pages)
            answer = self._answer(job)
            self._answers.append((job.request_id, answer))
            self._answers += self._memory.keep(job.request, answer)

    def _answer(self, job: "_Job") -> Answer:
        logps = {
            "logp_sample": tuple(job.logp_sample) if job.has_logp else None,
            "logp_cond": tuple(job.logp_cond) if job.has_logp else None,
        }
        if isinstance(job.request, Visual):
            return VisualAnswer(prefix_ids=job.prefix_ids, codes=tuple(job.tokens), **logps)
        is_stopped = job.tokens[-1:] == [self._janus.special.eos]
        return TextAnswer(
            prefix_ids=job.prefix_ids,
            text=self._renderer.words(job.tokens),
            token_ids=tuple(job.tokens),
            finish=Finish.STOP if is_stopped else Finish.LENGTH,
            **logps,
        )


@dataclass(slots=True, eq=False)
class _Row:
    """One sequence of a job: its pages, and how much of it is in the cache."""

    pages: list[int]
    slots: Tensor  # int64 [tokens reserved]: where each position lives
    length: int


@dataclass(slots=True, eq=False)
class _Job:
    """A request at work."""

    request_id: RequestId
    request: Request
    prefix_ids: tuple[int, ...]  # as the answer tells them
    ids: list[list[int]]  # of each row's prefix, codes behind the words
    num_wanted: int  # tokens at most
    num_prefix: int = 0  # tokens up to the end of its pictures: what another job may share
    rows: list[_Row] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)  # chosen: words, or codes
    logp_sample: list[float] = field(default_factory=list)
    logp_cond: list[float] = field(default_factory=list)
    is_stopped: bool = False

    @property
    def is_done(self) -> bool:
        return self.is_stopped or len(self.tokens) == self.num_wanted

    @property
    def has_logp(self) -> bool:
        return self.request.with_logp and self.request.temperature > 0

    @property
    def position(self) -> int:
        """Of the next token in the picture or the answer."""
        before = len(self.request.codes) if isinstance(self.request, Visual) else 0
        return before + len(self.tokens)

    @property
    def prefix_key(self) -> "_PrefixKey | None":
        if not self.num_prefix:
            return None
        return self.prefix_ids[: self.num_prefix], _pictures_of(self.request)

    def next_id(self, row: int, first_code: int) -> int:
        """The row's next input, as the table of embeddings counts: its last token."""
        if not self.tokens:
            return self.ids[row][-1]
        return self.tokens[-1] + (first_code if isinstance(self.request, Visual) else 0)

    def take(self, tokens: list[int], sample: list[float], cond: list[float], *, eos: int) -> None:
        """What a burst chose, up to the end of the answer."""
        num_left = self.num_wanted - len(self.tokens)
        if not isinstance(self.request, Visual) and eos in tokens[:num_left]:
            num_left = tokens.index(eos) + 1
            self.is_stopped = True
        self.tokens += tokens[:num_left]
        self.logp_sample += sample[:num_left]
        self.logp_cond += cond[:num_left]


_Place = tuple[_Job, int] | None
"""A row of a batch: a job and which of its rows, or padding."""


class _Batch:
    """The rows of one burst: conditional, unconditional, padding, then texts and padding."""

    def __init__(
        self,
        draws: Sequence[_Job],
        texts: Sequence[_Job],
        first_code: int,
        least_rows: int,
        device: torch.device,
    ) -> None:
        pairs = _padded([(job, row) for row in (0, 1) for job in draws], ROW_BUCKET, least_rows)
        places = [*pairs, *_padded([(job, 0) for job in texts], ROW_BUCKET, least_rows)]
        if len(places) > _LARGE_BUCKET:
            places = _padded(places, _LARGE_BUCKET)
        rows = [place[0].rows[place[1]] if place else None for place in places]
        ids = [place[0].next_id(place[1], first_code) if place else 0 for place in places]
        self.first_text = len(pairs)
        self.slots = [row.slots if row else None for row in rows]
        self.lengths = [row.length if row else 0 for row in rows]
        self.tokens = torch.tensor(ids, device=device)
        self.positions = torch.tensor(self.lengths, device=device)
        self.is_live = torch.tensor([row is not None for row in rows], device=device).long()


@dataclass(frozen=True, slots=True)
class _Part:
    """New tokens of a row, to be prefilled."""

    row: _Row
    embeds: Tensor  # [tokens, width]


@dataclass(frozen=True, slots=True)
class _Prefix:
    """The beginning of a sequence, in the cache."""

    pages: list[int]
    slots: Tensor
    num_tokens: int


_NOTHING = _Prefix([], torch.zeros(0, dtype=torch.int64), 0)
_PrefixKey = tuple[tuple[int, ...], tuple[Canvas | Picture, ...]]


class _Prefixes:
    """Questions up to the end of their pictures, kept for the next one; the oldest go first."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._kept: OrderedDict[_PrefixKey, _Prefix] = OrderedDict()

    def try_get(self, key: _PrefixKey | None) -> _Prefix | None:
        if key is None or key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key]

    def keep(self, key: _PrefixKey | None, row: _Row, num_tokens: int) -> None:
        if key is not None and key not in self._kept:
            whole = _Prefix(row.pages, row.slots.cpu(), len(row.slots))
            self._kept[key] = _beginning(whole, num_tokens)
            self._pages.share(self._kept[key].pages)

    def make_room(self, num_pages: int, keep: _PrefixKey | None) -> bool:
        """Whether so many pages are free, after giving up what it takes; `keep` stays."""
        for key in list(self._kept):
            if self._pages.can_take(num_pages):
                break
            if key != keep:
                self._drop(key)
        return self._pages.can_take(num_pages)

    def drop_all(self) -> None:
        for key in list(self._kept):
            self._drop(key)

    def _drop(self, key: _PrefixKey) -> None:
        self._pages.give_back(self._kept.pop(key).pages)


class _Memory:
    """Greedy questions and their answers: a question is a pure function of what it says."""

    def __init__(self) -> None:
        self._answers: OrderedDict[Request, Answer] = OrderedDict()
        self._waiting: dict[Request, list[RequestId]] = {}

    def try_answer(self, request: Request) -> Answer | None:
        """The answer, if the request was answered before."""
        if not _is_greedy_text(request) or request not in self._answers:
            return None
        self._answers.move_to_end(request)
        return self._answers[request]

    def is_asked(self, request_id: RequestId, request: Request) -> bool:
        """Whether the same is at work already; `keep` will then tell this id, too."""
        if not _is_greedy_text(request):
            return False
        if request in self._waiting:
            self._waiting[request].append(request_id)
            return True
        self._waiting[request] = []
        return False

    def keep(self, request: Request, answer: Answer) -> list[tuple[RequestId, Answer]]:
        """Remember an answer; who else waits for it."""
        if not _is_greedy_text(request):
            return []
        self._answers[request] = answer
        while len(self._answers) > _REMEMBERED:
            self._answers.popitem(last=False)
        return [(waiting, answer) for waiting in self._waiting.pop(request, [])]

    def forget(self) -> None:
        """Forget the answers, and not who still waits for one."""
        self._answers.clear()


def _is_greedy_text(request: Request) -> bool:
    return isinstance(request, Text) and request.temperature == 0


def _pictures_of(request: Request) -> tuple[Canvas | Picture, ...]:
    return request.pictures if isinstance(request, Text) else ()


def _beginning(prefix: _Prefix, num_tokens: int) -> _Prefix:
    """The first tokens of a prefix, and the pages that they stand in."""
    slots = prefix.slots[:num_tokens]
    used = set((slots // PAGE_TOKENS).tolist())
    return _Prefix([page for page in prefix.pages if page in used], slots, num_tokens)


def _slots_of(pages: Sequence[int]) -> Tensor:
    """int64 [tokens]: the slots of pages, in their order."""
    firsts = torch.tensor(pages, dtype=torch.int64)[:, None] * PAGE_TOKENS
    return (firsts + torch.arange(PAGE_TOKENS)).flatten()


def _packs(parts: Sequence[_Part], pack_tokens: int) -> Iterable[list[_Part]]:
    """Parts in order, in packs of up to so many tokens, and of one part at least."""
    pack: list[_Part] = []
    num_tokens = 0
    for part in parts:
        if pack and num_tokens + len(part.embeds) > pack_tokens:
            yield pack
            pack, num_tokens = [], 0
        pack.append(part)
        num_tokens += len(part.embeds)
    if pack:
        yield pack


def _padded(places: Sequence[_Place], bucket: int, least: int = 0) -> list[_Place]:
    """The places, and padding up to a multiple of `bucket`, and to `least` at the least."""
    size = -(-max(len(places), least) // bucket) * bucket
    return [*places, *[None] * (size - len(places))]


def _embeddings_of(janus: Janus) -> Tensor:
    """[words + codes, width]: what the language model sees for a word, and for a drawn code."""
    with torch.inference_mode():
        codes = torch.arange(janus.geometry.num_codes, device=janus.model.device)
        drawn = janus.model.prepare_embeddings_for_image_generation(codes[None])[0]
        words: Any = janus.model.get_input_embeddings().weight
        return torch.cat([words, drawn])
