"""Who may begin: requests in a queue, first come first served, and the pages that let them in.

All pages that a job may ever need are taken when it is admitted, so a job that runs waits for
nothing. What is kept to save work makes room for a job, and never the other way round.
"""

from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pipeline.engine.checkpoints import Janus
from pipeline.engine.paged.pages import Pages, num_pages_for
from pipeline.engine.paged.prefixes import NOTHING, Prefix, Prefixes, beginning_of, slots_of
from pipeline.engine.rendering import Renderer
from pipeline.engine.rows import Job, Row
from pipeline.twig.requests import Request, RequestId, Text, Visual
from schemas.errors import RecordFailure

Prefill = Callable[[Row, Sequence[int]], None]
"""Puts ids into the cache, at the end of a row."""

Clear = Callable[[Tensor], None]
"""Puts zeros into slots of the cache, int64 on the CPU."""


class Admission:
    """The queue of one engine, its padding and its kept prefixes.

    It takes pages for jobs; the engine gives those of a job back when the job has ended.
    """

    def __init__(
        self,
        janus: Janus,
        renderer: Renderer,
        pages: Pages,
        *,
        max_rows: int,
        burst: int,
        first_code: int,
        is_sharing: bool,
        clear: Clear,
    ) -> None:
        """Codes are ids from `first_code` on. A job goes up to a `burst` of tokens beyond its end.

        Without `is_sharing` every job has all its pages for itself. `clear` is for what a job left
        that is no number: it would weigh on the next one, even with a weight of 0.
        """
        self._prefixes = Prefixes(pages)
        self._janus = janus
        self._device = janus.model.device
        self._renderer = renderer
        self._pages = pages
        self._max_rows = max_rows
        self._burst = burst
        self._first_code = first_code
        self._is_sharing = is_sharing
        self._clear = clear
        self._tainted: set[int] = set()  # pages that are to be cleared before they are used again
        self._waiting: deque[Job] = deque()
        self._padding = NOTHING

    def job_of(self, request_id: RequestId, request: Request) -> Job:
        """The request, rendered. Raises RecordFailure for one that can never be answered."""
        if isinstance(request, Visual):
            prefix = self._renderer.draw_prefix(request)
            codes = [self._first_code + code for code in request.codes]
            ids = [[*prefix.cond, *codes], [*prefix.uncond, *codes]]
            job = Job(request_id, request, prefix.cond, ids, request.num_tokens)
        else:
            assert isinstance(request, Text)
            prefix_ids = self._renderer.question(request)
            job = Job(request_id, request, prefix_ids, [list(prefix_ids)], request.max_tokens)
            job.num_prefix = self._end_of_pictures(request, prefix_ids)
        self._check_room(job)
        return job

    def _end_of_pictures(self, request: Text, ids: Sequence[int]) -> int:
        """How many tokens stand up to the end of the last picture; 0 without one."""
        if not request.pictures:
            return 0
        return len(ids) - list(reversed(ids)).index(self._janus.special.eoi)

    def _check_room(self, job: Job) -> None:
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

    def wait(self, job: Job) -> None:
        """The job is the last in the queue."""
        self._waiting.append(job)

    def admit(self, num_rows: int, prefill: Prefill) -> list[Job]:
        """Jobs that have their rows and pages from now on, in the order in which they came.

        `num_rows` are taken already; `prefill` is for the padding that rows share. The jobs are to
        be prefilled in this order, too: a job may begin with what another before it brings.
        """
        fresh: list[Job] = []
        while self._waiting:
            job = self._waiting[0]
            num_rows += len(job.ids)
            if num_rows > self._max_rows:
                break
            if not self._reserve(job, prefill, is_alone=num_rows == len(job.ids)):
                break
            fresh.append(self._waiting.popleft())
            if job.num_prefix and self._is_sharing:
                row = job.rows[0]
                self._prefixes.keep(job.prefix_key, row.pages, row.slots, job.num_prefix)
        return fresh

    def _reserve(self, job: Job, prefill: Prefill, *, is_alone: bool) -> bool:
        """Take all the pages that a job may need, or none."""
        total = len(job.ids[0]) + job.num_wanted + self._burst
        shared = [self._shared(job, row, prefill) for row in range(len(job.ids))]
        needed = sum(num_pages_for(total - prefix.num_tokens) for prefix in shared)
        if not self._prefixes.make_room(needed, keep=job.prefix_key):
            if not is_alone:
                return False
            self.drop_shared()  # alone in the engine, a job has all of it
            shared = [NOTHING for _ in shared]
        job.rows = [self._row(total, prefix) for prefix in shared]
        return True

    def _shared(self, job: Job, row: int, prefill: Prefill) -> Prefix:
        """What is in the cache already of a row's prefix, or will be when the row is prefilled."""
        if not self._is_sharing:
            return NOTHING
        if not isinstance(job.request, Visual):
            return self._prefixes.try_get(job.prefix_key) or NOTHING
        if row == 0:
            return NOTHING
        num_tokens = len(job.prefix_ids) - 1  # bos and the padding; then comes the picture
        if self._padding.num_tokens < num_tokens:
            # A power of two, so that it seldom has to grow.
            self._lengthen_padding(1 << (num_tokens - 1).bit_length(), prefill)
        if self._padding.num_tokens < num_tokens:
            return NOTHING
        return beginning_of(self._padding, num_tokens)

    def _lengthen_padding(self, num_tokens: int, prefill: Prefill) -> None:
        """Put [bos, pad, pad, ...] into the cache for all to share, if there is room.

        Rows that share a shorter one keep its pages.
        """
        if not self._prefixes.make_room(num_pages_for(num_tokens), keep=None):
            return
        pages = self._take(num_pages_for(num_tokens))
        slots = slots_of(pages)[:num_tokens]
        special = self._janus.special
        ids = [special.bos, *[special.pad] * (num_tokens - 1)]
        row = Row(pages, slots.to(self._device), 0)
        prefill(row, ids)
        self._pages.give_back(self._padding.pages)
        self._padding = Prefix(pages, slots, num_tokens)

    def distrust(self, job: Job) -> None:
        """What this job left in the cache is not all finite: nobody shares it from now on."""
        self._tainted.update(page for row in job.rows for page in row.pages)
        self._prefixes.drop(job.prefix_key)
        if isinstance(job.request, Visual):
            self._drop_padding()

    def drop_shared(self) -> None:
        """Give up all that is kept in the cache to save work."""
        self._drop_padding()
        self._prefixes.drop_all()

    def _drop_padding(self) -> None:
        self._pages.give_back(self._padding.pages)
        self._padding = NOTHING

    def _row(self, total: int, prefix: Prefix) -> Row:
        own = self._take(num_pages_for(total - prefix.num_tokens))
        self._pages.share(prefix.pages)
        slots = torch.cat([prefix.slots, slots_of(own)])[:total]
        num_shared = prefix.num_tokens
        return Row([*prefix.pages, *own], slots.to(self._device), num_shared, num_shared)

    def _take(self, num_pages: int) -> list[int]:
        """Pages in which every number is finite."""
        taken = self._pages.take(num_pages)
        if tainted := sorted(self._tainted.intersection(taken)):
            self._clear(slots_of(tainted))
            self._tainted.difference_update(tainted)
        return taken
