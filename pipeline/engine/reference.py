"""The plain published loop, and the definition of correct: one request at a time, batch 1.

Hugging Face's modules as they are, an ordinary dynamic KV cache, no cleverness. A faster backend is
right if it answers as this one does.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline.engine.checkpoints import Janus
from pipeline.engine.rendering import Renderer
from pipeline.engine.sampling import (
    evidence_of,
    guide,
    gumbel_noise,
    keep_top_p,
    logp_of,
    split_seed,
)
from pipeline.engine.soundness import is_sound, not_finite
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
from schemas.errors import RecordFailure, RolloutError
from schemas.trace import Finish

if TYPE_CHECKING:
    from transformers import DynamicCache


class Reference:
    """Answers the oldest request at each poll. Not thread-safe."""

    def __init__(self, janus: Janus) -> None:
        self.geometry = janus.geometry
        self._janus = janus
        self._model = janus.model
        self._renderer = Renderer(janus)
        self._vision = Vision(janus)
        self._device = janus.model.device
        self._queue: list[tuple[RequestId, Request]] = []

    def submit(self, request_id: RequestId, request: Request) -> None:
        self._queue.append((request_id, request))

    def poll(self) -> Sequence[tuple[RequestId, Answer | RolloutError]]:
        if not self._queue:
            return []
        request_id, request = self._queue.pop(0)
        try:
            return [(request_id, self.answer(request))]
        except RecordFailure as failure:
            return [(request_id, failure)]

    @torch.inference_mode()
    def answer(self, request: Request) -> Answer:
        """The answer to one request, computed at once.

        Raises RecordFailure if the model has no room for it, for a picture of another size, and
        where logits are not finite.
        """
        if isinstance(request, Visual):
            return self._draw(request)
        assert isinstance(request, Text)
        return self._say(request)

    def paint(self, canvases: Sequence[Codes]) -> list[Pixels]:
        return self._vision.paint(canvases)

    def _say(self, request: Text) -> TextAnswer:
        prefix_ids = self._renderer.question(request)
        self._check_room(len(prefix_ids) + request.max_tokens)
        choice, cache = _Choice(request, self._device), _new_cache()
        embeds = self._embed_question(prefix_ids, request.pictures)
        token = -1
        while token != self._janus.special.eos and len(choice.tokens) < request.max_tokens:
            logits = self._model.lm_head(self._step(embeds, cache))
            token = choice.of_word(logits, request.top_p)
            embeds = self._embed_ids([token])
        return TextAnswer(
            prefix_ids=prefix_ids,
            text=self._renderer.words(choice.tokens),
            token_ids=tuple(choice.tokens),
            finish=Finish.STOP if token == self._janus.special.eos else Finish.LENGTH,
            logp_sample=choice.logp_sample,
            logp_cond=choice.logp_cond,
        )

    def _draw(self, request: Visual) -> VisualAnswer:
        prefix = self._renderer.draw_prefix(request)
        self._check_room(len(prefix.cond) + len(request.codes) + request.num_tokens)
        choice, cache = _Choice(request, self._device, len(request.codes)), _new_cache()
        text = torch.cat([self._embed_ids(prefix.cond), self._embed_ids(prefix.uncond)])
        embeds = torch.cat([text, self._embed_codes(request.codes).expand(2, -1, -1)], dim=1)
        while len(choice.tokens) < request.num_tokens:
            logits = self._model.model.generation_head(self._step(embeds, cache))
            code = choice.of_code(logits[0:1], logits[1:2], request.cfg_weight)
            embeds = self._embed_codes([code]).expand(2, -1, -1)
        return VisualAnswer(
            prefix_ids=prefix.cond,
            codes=tuple(choice.tokens),
            logp_sample=choice.logp_sample,
            logp_cond=choice.logp_cond,
        )

    def _step(self, embeds: Tensor, cache: "DynamicCache") -> Tensor:
        """Hidden states [rows, width] after the last of `embeds` [rows, length, width]."""
        llama = self._model.model.language_model
        output = llama(inputs_embeds=embeds, past_key_values=cache, use_cache=True)
        hidden: Tensor = output.last_hidden_state[:, -1]
        return hidden

    def _embed_ids(self, ids: Sequence[int]) -> Tensor:
        """Text embeddings [1, length, width]."""
        table = self._model.get_input_embeddings()
        embeds: Tensor = table(torch.tensor([list(ids)], device=self._device))
        return embeds

    def _embed_codes(self, codes: Sequence[int]) -> Tensor:
        """Image token embeddings [1, length, width]."""
        tokens = torch.tensor([list(codes)], dtype=torch.int64, device=self._device)
        embeds: Tensor = self._model.prepare_embeddings_for_image_generation(tokens)
        return embeds

    def _embed_question(self, ids: Sequence[int], pictures: Sequence[Canvas | Picture]) -> Tensor:
        """Embeddings [1, length, width], with picture features where the placeholders stand."""
        embeds = self._embed_ids(ids)
        if pictures:
            features = self._vision.features(pictures)
            is_image = torch.tensor(ids, device=self._device) == self._janus.special.image
            embeds[0, is_image] = features.to(embeds.dtype).flatten(0, 1)
        return embeds

    def _check_room(self, num_tokens: int) -> None:
        if num_tokens > self._janus.max_positions:
            raise RecordFailure(
                f"{num_tokens} tokens, of which the model holds {self._janus.max_positions}; "
                "use a shorter prompt or lower max_text_tokens",
                reason="too_long",
            )


class _Choice:
    """The tokens chosen for one request so far, and how likely each was."""

    def __init__(self, request: Request, device: torch.device, first_position: int = 0) -> None:
        self.tokens: list[int] = []
        self._temperature = request.temperature
        self._with_logp = request.with_logp and request.temperature > 0
        self._sample: list[float] = []
        self._cond: list[float] = []
        self._first_position = first_position
        self._seed = torch.tensor([split_seed(request.seed or 0)], device=device)

    def of_word(self, logits: Tensor, top_p: float) -> int:
        """Choose from logits [1, vocabulary]."""
        logits = logits.float()
        if self._temperature == 0:
            return self._keep(logits, logits)
        return self._keep(keep_top_p(logits / self._temperature, top_p), logits)

    def of_code(self, cond: Tensor, uncond: Tensor, cfg_weight: float) -> int:
        """Choose from the logits [1, codes] of the two branches."""
        guided = guide(cond, uncond, cfg_weight)
        return self._keep(guided / (self._temperature or 1), cond)

    @property
    def logp_sample(self) -> tuple[float, ...] | None:
        return tuple(self._sample) if self._with_logp else None

    @property
    def logp_cond(self) -> tuple[float, ...] | None:
        return tuple(self._cond) if self._with_logp else None

    def _keep(self, scaled: Tensor, cond: Tensor) -> int:
        noisy = scaled
        if self._temperature > 0:
            position = torch.tensor([self._first_position + len(self.tokens)], device=scaled.device)
            noisy = scaled + gumbel_noise(self._seed, position, scaled.shape[-1])
        token = noisy.argmax(-1)
        if self._with_logp:
            self._sample.append(logp_of(scaled, token).item())
            self._cond.append(logp_of(cond, token).item())
        evidence = evidence_of(scaled, cond, token).item()
        if not is_sound([evidence], self._sample[-1:], self._cond[-1:]):
            raise not_finite(f"the logits of token {len(self.tokens)}")
        self.tokens.append(int(token.item()))
        return self.tokens[-1]


def _new_cache() -> "DynamicCache":
    from transformers import DynamicCache

    return DynamicCache()
