"""A backend that answers all waiting questions together, token by token, in a padded batch.

For benchmarks of small models, where thousands of rollouts are wanted and a batch costs little more
than a row. It chooses tokens as the reference backend does, noise included; being padded, it may
part from it where two logits nearly tie. Greedy words only, and no log-probabilities.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from pipeline.engine.checkpoints import Janus
from pipeline.engine.rendering import Renderer
from pipeline.engine.sampling import guide, gumbel_noise, split_seed
from pipeline.pictures import Pixels
from pipeline.twig.requests import (
    Answer,
    Canvas,
    Codes,
    Request,
    RequestId,
    Text,
    TextAnswer,
    Visual,
    VisualAnswer,
)
from schemas.errors import RolloutError
from schemas.trace import Finish

_MOST_ROWS = 128


@dataclass(frozen=True, slots=True)
class _Waiting:
    id: RequestId
    request: Request


class Lockstep:
    """Answers everything that waits at each poll. Not thread-safe."""

    def __init__(self, janus: Janus) -> None:
        self.geometry = janus.geometry
        self._janus = janus
        self._model = janus.model
        self._renderer = Renderer(janus)
        self._waiting: list[_Waiting] = []

    def submit(self, request_id: RequestId, request: Request) -> None:
        self._waiting.append(_Waiting(request_id, request))

    @torch.inference_mode()
    def poll(self) -> Sequence[tuple[RequestId, Answer | RolloutError]]:
        waiting, self._waiting = sorted(self._waiting, key=_kind), []
        answered: list[tuple[RequestId, Answer | RolloutError]] = []
        for _, group in groupby(waiting, key=_kind):
            same = list(group)
            for first in range(0, len(same), _MOST_ROWS):
                answered += self._answer(same[first : first + _MOST_ROWS])
        return answered

    @torch.inference_mode()
    def paint(self, canvases: Sequence[Codes]) -> list[Pixels]:
        """Pictures, in batches. Values are cut to bytes as the reference cuts them."""
        painted: list[Pixels] = []
        for first in range(0, len(canvases), _MOST_ROWS):
            batch = canvases[first : first + _MOST_ROWS]
            full = [[*codes, *[0] * (self.geometry.num_tokens - len(codes))] for codes in batch]
            decoded = self._model.decode_image_tokens(torch.tensor(full)).float()
            painted += list(((decoded + 1) / 2 * 255).clamp(0, 255).to(torch.uint8).numpy())
        return painted

    def _answer(self, same: list[_Waiting]) -> list[tuple[RequestId, Answer]]:
        """The answers to requests of one kind."""
        requests = [waiting.request for waiting in same]
        texts = [request for request in requests if isinstance(request, Text)]
        visuals = [request for request in requests if isinstance(request, Visual)]
        answers: Sequence[Answer] = self._say(texts) if texts else self._draw(visuals)
        return [(waiting.id, answer) for waiting, answer in zip(same, answers, strict=True)]

    def _say(self, requests: list[Text]) -> list[TextAnswer]:
        prefixes = [self._renderer.question(request) for request in requests]
        rows = [self._embed_words(ids) for ids in prefixes]
        self._show(rows, prefixes, requests)
        run = _Run(self._model.model.language_model, rows)
        said: list[list[int]] = [[] for _ in requests]
        eos, limit = self._janus.special.eos, min(request.max_tokens for request in requests)
        for _ in range(limit):
            words = self._model.lm_head(run.hidden).argmax(-1)
            for ids, word in zip(said, words.tolist(), strict=True):
                if not ids or ids[-1] != eos:
                    ids.append(word)
            if all(ids[-1] == eos for ids in said):
                break
            run.step(self._model.get_input_embeddings()(words)[:, None])
        return [
            TextAnswer(
                prefix_ids=prefix,
                text=self._renderer.words(ids),
                token_ids=tuple(ids),
                finish=Finish.STOP if ids[-1] == eos else Finish.LENGTH,
            )
            for prefix, ids in zip(prefixes, said, strict=True)
        ]

    def _draw(self, requests: list[Visual]) -> list[VisualAnswer]:
        """Guided drawing: the conditional rows, then as many unconditional ones."""
        prefixes = [self._renderer.draw_prefix(request) for request in requests]
        branches = [prefix.cond for prefix in prefixes] + [prefix.uncond for prefix in prefixes]
        kept = [self._embed_codes(request.codes) for request in requests] * 2
        rows = [
            torch.cat([self._embed_words(ids), codes])
            for ids, codes in zip(branches, kept, strict=True)
        ]
        run = _Run(self._model.model.language_model, rows)
        seeds = torch.tensor([split_seed(request.seed or 0) for request in requests])
        first, num_tokens = len(requests[0].codes), requests[0].num_tokens
        weight, temperature = requests[0].cfg_weight, requests[0].temperature
        drawn = []
        for position in range(first, first + num_tokens):
            cond, uncond = self._model.model.generation_head(run.hidden).chunk(2)
            logits = guide(cond, uncond, weight)
            if temperature:
                positions = torch.full((len(requests),), position)
                logits = logits / temperature + gumbel_noise(seeds, positions, logits.shape[-1])
            drawn.append(logits.argmax(-1))
            if len(drawn) < num_tokens:
                step = self._model.prepare_embeddings_for_image_generation(drawn[-1])
                run.step(step.repeat(2, 1)[:, None])
        codes = torch.stack(drawn, 1).tolist()
        return [
            VisualAnswer(prefix_ids=prefix.cond, codes=tuple(row))
            for prefix, row in zip(prefixes, codes, strict=True)
        ]

    def _embed_words(self, ids: Sequence[int]) -> Tensor:
        table = self._model.get_input_embeddings()
        embeds: Tensor = table(torch.tensor(ids))
        return embeds

    def _embed_codes(self, codes: Codes) -> Tensor:
        tokens = torch.tensor(codes, dtype=torch.int64)
        embeds: Tensor = self._model.prepare_embeddings_for_image_generation(tokens)
        return embeds

    def _show(
        self, rows: list[Tensor], prefixes: list[tuple[int, ...]], requests: list[Text]
    ) -> None:
        """Put the features of the canvases where the placeholders stand."""
        looking = [row for row, request in enumerate(requests) if request.pictures]
        canvases = [
            shown.codes
            for row in looking
            for shown in requests[row].pictures
            if isinstance(shown, Canvas)
        ]
        if not looking:
            return
        pixels = torch.from_numpy(np.stack(self.paint(canvases))).permute(0, 3, 1, 2)
        mean = torch.tensor(self._janus.image_mean).view(1, 3, 1, 1)
        std = torch.tensor(self._janus.image_std).view(1, 3, 1, 1)
        seen = self._model.model.get_image_features((pixels.float() / 255 - mean) / std)
        for row, features in zip(looking, seen.pooler_output, strict=True):
            rows[row][torch.tensor(prefixes[row]) == self._janus.special.image] = features


class _Run:
    """A batch of rows in a language model, padded on the left. `hidden` is after the last token."""

    def __init__(self, llama: torch.nn.Module, rows: list[Tensor]) -> None:
        self._llama = llama
        self._cache = DynamicCache()
        lengths = torch.tensor([len(row) for row in rows])
        longest = int(lengths.max())
        self._next = lengths
        self._mask = (torch.arange(longest) >= (longest - lengths)[:, None]).long()
        embeds = torch.zeros(len(rows), longest, rows[0].shape[-1])
        for padded, row in zip(embeds, rows, strict=True):
            padded[longest - len(row) :] = row
        self.hidden = self._forward(embeds, (self._mask.cumsum(-1) - 1).clamp(min=0))

    def step(self, embeds: Tensor) -> None:
        """One token [rows, 1, width] more."""
        is_read = torch.ones(len(embeds), 1, dtype=torch.int64)
        self._mask = torch.cat([self._mask, is_read], dim=1)
        self.hidden = self._forward(embeds, self._next[:, None])
        self._next = self._next + 1

    def _forward(self, embeds: Tensor, positions: Tensor) -> Tensor:
        output = self._llama(
            inputs_embeds=embeds,
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
        )
        hidden: Tensor = output.last_hidden_state[:, -1]
        return hidden


def _kind(waiting: _Waiting) -> tuple[object, ...]:
    """What can be answered in one batch: sorts, and is equal for what belongs together."""
    request = waiting.request
    if isinstance(request, Visual):
        return (
            "draw",
            len(request.codes),
            request.num_tokens,
            request.cfg_weight,
            request.temperature,
        )
    return (
        ("say", bool(request.pictures), request.role, 0, 0.0) if isinstance(request, Text) else ()
    )
