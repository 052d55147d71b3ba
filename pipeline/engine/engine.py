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

from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from pipeline.engine.admission import Admission
from pipeline.engine.answer_cache import AnswerCache
from pipeline.engine.checkpoints import Janus
from pipeline.engine.embeddings import Embeddings
from pipeline.engine.paged.attention import (
    ATTENTION,
    AttentionPass,
    Cache,
    Span,
    StrictDecode,
    StrictPrefill,
    bytes_per_token,
    register,
)
from pipeline.engine.paged.cuda import DecodeBuffers, FlashPrefill, Forward, PagedDecode, compiled
from pipeline.engine.paged.pages import PAGE_TOKENS, Pages
from pipeline.engine.painting import PICTURES_AT_ONCE
from pipeline.engine.rendering import Renderer
from pipeline.engine.rows import (
    LARGE_BUCKET,
    ROW_BUCKET,
    DecodeBatch,
    Job,
    PrefillPart,
    Row,
    batch_sizes,
    pictures_of,
    prefill_batches,
)
from pipeline.engine.sampling import Sampler, gumbel_noise
from pipeline.engine.vision import Vision
from pipeline.pictures import Pixels
from pipeline.twig.requests import (
    Answer,
    Codes,
    Request,
    RequestId,
    Text,
    TextAnswer,
    Visual,
    VisualAnswer,
)
from schemas.errors import InputError, RecordFailure, RolloutError
from schemas.trace import Finish

_BURST = 6  # steps; longer ones go on past the end of more answers, shorter ones copy more
_REMEMBERED_PICTURES = 256  # 113 MB of them at 384 pixels


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
        compile: bool = False,
    ) -> None:
        """Takes `kv_bytes` of the model's device. Raises InputError if that is too little.

        `max_rows` sequences are at work at most; a `burst` is so many steps. `strict` arithmetic
        makes the same tokens whatever else is asked. None: on a CPU alone, where it costs little.
        `compile` has torch fuse what it can, unless arithmetic is strict: what is fused rounds in
        other places.
        """
        text_config = janus.text_config
        num_slots = kv_bytes // bytes_per_token(text_config, janus.model.dtype)
        if max_rows < 2 or num_slots < 2 * PAGE_TOKENS:
            raise InputError(
                f"an engine of {max_rows} rows and {kv_bytes} bytes of cache can hold no request; "
                "give at least 2 rows and more memory"
            )
        self.geometry = janus.geometry
        self.is_strict = janus.model.device.type == "cpu" if strict is None else strict
        self._janus, self._model, self._device = janus, janus.model, janus.model.device
        self._burst = burst
        self._sizes = batch_sizes(self._device, is_strict=self.is_strict, max_rows=max_rows)
        self._renderer = Renderer(janus)
        self._vision = Vision(
            janus,
            batch_size=1 if self.is_strict else PICTURES_AT_ONCE,
            num_remembered=_REMEMBERED_PICTURES,
        )
        self._embeddings = Embeddings(janus)
        self._pages = Pages(num_slots // PAGE_TOKENS)
        self._cache = Cache(text_config, num_slots, janus.model.dtype, self._device)
        self._admission = Admission(
            janus,
            self._renderer,
            self._pages,
            max_rows=max_rows,
            burst=burst,
            first_code=self._embeddings.first_code,
            is_sharing=self._sizes.is_sharing,
            clear=self._cache.clear,
        )
        self._running: list[Job] = []
        self._answers: list[tuple[RequestId, Answer | RolloutError]] = []
        self._answer_cache = AnswerCache()
        self._prepare_passes(max_rows, is_compiled=compile and not self.is_strict)

    def _prepare_passes(self, max_rows: int, *, is_compiled: bool) -> None:
        """What each pass of the model runs, and on what buffers."""
        # A method of the engine would hold it, and so its memory, until the collector comes.
        self._run: Forward = partial(_run, self._model.model.language_model)
        self._noise = gumbel_noise
        if is_compiled:
            self._run, self._noise = compiled(self._run), compiled(self._noise)
        if not self.is_strict:
            self._buffers = DecodeBuffers(
                2 * (max_rows + LARGE_BUCKET),
                self._janus.max_positions + self._burst,
                self._embeddings.table.shape[1],
                like=self._embeddings.table,
            )
        register()
        self._janus.text_config._attn_implementation = ATTENTION

    @property
    def num_free_pages(self) -> int:
        """Pages that neither a request holds nor what is kept to save work."""
        return self._pages.num_free

    @property
    def num_pages(self) -> int:
        """All pages that there are to hand out."""
        return self._pages.capacity

    def submit(self, request_id: RequestId, request: Request) -> None:
        """Take a request, and run nothing. One that can never be answered fails at the next poll.

        No two requests that are not answered yet may have one id.
        """
        try:
            if isinstance(request, Text):
                self._vision.check(request.pictures)
            job = self._admission.job_of(request_id, request)
        except RecordFailure as failure:
            self._answers.append((request_id, failure))
            return
        known_answer = self._answer_cache.try_answer(request)
        if known_answer is not None:
            self._answers.append((request_id, known_answer))
        elif not self._answer_cache.wait_if_asked(request_id, request):
            self._admission.wait(job)

    def poll(self) -> Sequence[tuple[RequestId, Answer | RolloutError]]:
        """What has been answered since the last call, after a `step` if that is nothing yet."""
        if not self._answers:
            self.step()
        answers, self._answers = self._answers, []
        return answers

    @torch.inference_mode()
    def step(self) -> None:
        """Admit what fits, decode one burst, and answer what has ended."""
        num_rows = sum(len(job.rows) for job in self._running)
        fresh = self._admission.admit(num_rows, self._prefill_ids)
        self._running += fresh
        self._prefill(fresh)
        if self._running:
            self._decode()
            self._finish([job for job in self._running if job.is_done])

    def paint(self, canvases: Sequence[Codes]) -> list[Pixels]:
        """Their pictures, read-only: the same one may be given out again."""
        return self._vision.paint(canvases)

    def forget(self) -> None:
        """Give up all that is kept to save work. Answers stay the same."""
        self._admission.drop_shared()
        self._answer_cache.forget()

    # Prefill

    def _prefill(self, jobs: Sequence[Job]) -> None:
        """Put all but the last token of each row's prefix into the cache."""
        features = self._features([job for job in jobs if job.num_prefix > job.rows[0].length])
        parts: list[PrefillPart] = []
        for job in jobs:
            for row, ids in zip(job.rows, job.ids, strict=True):
                new_ids = ids[row.length : -1]
                if new_ids:
                    embeds = self._embeddings.of(new_ids, features.get(id(job)))
                    parts.append(PrefillPart(row, embeds))
        for batch in prefill_batches(parts, self._sizes.prefill_tokens):
            self._prefill_batch(batch)

    def _prefill_ids(self, row: Row, ids: Sequence[int]) -> None:
        self._prefill_batch([PrefillPart(row, self._embeddings.of(ids))])

    def _prefill_batch(self, parts: Sequence[PrefillPart]) -> None:
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
        prefill = StrictPrefill if self.is_strict else FlashPrefill
        self._forward(embeds, positions.to(self._device), prefill(self._cache, spans))
        for part, span in zip(parts, spans, strict=True):
            part.row.length = span.stop

    def _forward(self, embeds: Tensor, positions: Tensor, current: AttentionPass) -> Tensor:
        """Hidden states [tokens, width] of packed tokens; their number is padded to a bucket."""
        num_tokens = len(embeds)
        padding = -num_tokens % ROW_BUCKET
        if padding:
            embeds = torch.cat([embeds, embeds.new_zeros(padding, embeds.shape[1])])
            positions = torch.cat([positions, positions.new_zeros(padding)])
        return self._run(embeds, positions, current)

    def _features(self, jobs: Sequence[Job]) -> dict[int, Tensor]:
        """The features [tokens, width] of each job's pictures, by the job's `id`.

        Equal pictures are seen once.
        """
        pictures = {picture: None for job in jobs for picture in pictures_of(job.request)}
        if not pictures:
            return {}
        seen = dict(zip(pictures, self._vision.features(list(pictures)), strict=True))
        return {
            id(job): torch.cat([seen[picture] for picture in pictures_of(job.request)])
            for job in jobs
        }

    # Decode

    def _decode(self) -> None:
        """One burst of steps for all rows at once."""
        draws = [job for job in self._running if isinstance(job.request, Visual)]
        texts = [job for job in self._running if not isinstance(job.request, Visual)]
        first_code = self._embeddings.first_code
        batch = DecodeBatch(draws, texts, first_code, self._sizes.least_rows, self._device)
        burst = self._new_burst(batch)
        code_sampler, word_sampler = self._sampler(draws), self._sampler(texts)
        tokens, positions = batch.tokens, batch.positions
        for _ in range(self._burst):
            hidden = self._step(self._embeddings.table[tokens], positions, burst)
            tokens = torch.zeros_like(tokens)
            if draws:
                logits = self._model.model.generation_head(hidden[: batch.first_text])
                cond, uncond = logits[: len(draws)], logits[len(draws) : 2 * len(draws)]
                codes = code_sampler.codes(cond, uncond)
                tokens[: 2 * len(draws)] = (codes + first_code).repeat(2)
            if texts:
                logits = self._model.lm_head(hidden[batch.first_text :])
                words = word_sampler.words(logits[: len(texts)])
                tokens[batch.first_text : batch.first_text + len(texts)] = words
            positions = positions + batch.is_live
            burst.advance()
        burst.store()
        for jobs, sampler in ((draws, code_sampler), (texts, word_sampler)):
            choices = zip(jobs, sampler.chosen(), sampler.evidence(), strict=True)
            for job, chosen, evidence in choices:
                job.take(*chosen, evidence, eos=self._janus.special.eos)
                for row in job.rows:
                    row.length += self._burst

    def _sampler(self, jobs: Sequence[Job]) -> Sampler:
        return Sampler(
            [job.request for job in jobs],
            [job.position for job in jobs],
            self._device,
            num_steps=self._burst,
            noise=self._noise,
        )

    def _new_burst(self, batch: DecodeBatch) -> StrictDecode | PagedDecode:
        if self.is_strict:
            return StrictDecode(self._cache, batch.slots, batch.lengths, self._burst)
        return PagedDecode(self._cache, batch.slots, batch.lengths, self._buffers)

    def _step(self, embeds: Tensor, positions: Tensor, burst: StrictDecode | PagedDecode) -> Tensor:
        if isinstance(burst, PagedDecode):
            return self._buffers.run(self._run, embeds, burst)
        return self._forward(embeds, positions, burst)

    def _finish(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self._running.remove(job)
            if job.is_tainted:
                self._admission.distrust(job)
            for row in job.rows:
                self._pages.give_back(row.pages)
            if job.may_be_misled:
                self._admission.wait(job.once_more())
                continue
            answer = job.failure or self._answer(job)
            self._answers.append((job.request_id, answer))
            self._answers += self._answer_cache.keep(job.request, answer)

    def _answer(self, job: Job) -> Answer:
        logp_sample = tuple(job.logp_sample) if job.has_logp else None
        logp_cond = tuple(job.logp_cond) if job.has_logp else None
        if isinstance(job.request, Visual):
            return VisualAnswer(
                prefix_ids=job.prefix_ids,
                codes=tuple(job.tokens),
                logp_sample=logp_sample,
                logp_cond=logp_cond,
            )
        is_stopped = job.tokens[-1:] == [self._janus.special.eos]
        return TextAnswer(
            prefix_ids=job.prefix_ids,
            text=self._renderer.words(job.tokens),
            token_ids=tuple(job.tokens),
            finish=Finish.STOP if is_stopped else Finish.LENGTH,
            logp_sample=logp_sample,
            logp_cond=logp_cond,
        )


def _run(llama: nn.Module, embeds: Tensor, positions: Tensor, current: AttentionPass) -> Tensor:
    """Hidden states [tokens, width] of packed tokens."""
    output = llama(
        inputs_embeds=embeds[None], position_ids=positions[None], use_cache=False, current=current
    )
    hidden: Tensor = output.last_hidden_state[0]
    return hidden
