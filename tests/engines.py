"""What tests of Janus backends share: a very small model, requests for it, and a judge of answers.

The judge holds answers against the reference's. Where the first differing token is a near tie, as
the plainest loop there is tells it (no cache, all tokens again for each new one), it counts it and
goes on; everything else is a difference.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.engine.checkpoints import Janus, load_janus
from pipeline.engine.engine import Engine
from pipeline.engine.paged.attention import bytes_per_token
from pipeline.engine.paged.pages import PAGE_TOKENS
from pipeline.engine.reference import Reference
from pipeline.engine.sampling import gumbel_noise
from pipeline.engine.tiny import build_tiny
from pipeline.twig.drive import Backends, Given, Rollout, drive
from pipeline.twig.programs import Running
from pipeline.twig.requests import (
    Answer,
    Backend,
    Canvas,
    Codes,
    Message,
    Picture,
    Request,
    RequestId,
    Text,
    TextAnswer,
    Visual,
    VisualAnswer,
)
from schemas.errors import RolloutError
from schemas.trace import Role

NEAR_TIE = 1e-4
"""Two scores closer than this may change places between two ways of computing them."""

_LOGP_TOLERANCE = 1e-3

_SIZES: dict[str, dict[str, Any]] = {
    # Two query heads share a key head, which no published Janus does and its config allows.
    "text_config": {"hidden_size": 32, "intermediate_size": 64, "num_key_value_heads": 2},
    "vision_config": {
        "image_size": 8,
        "patch_size": 2,
        "num_image_tokens": 16,
        "hidden_size": 32,
        "num_attention_heads": 2,
        "projection_dim": 32,
    },
    "vq_config": {
        "channel_multiplier": [1, 1],
        "num_patches": 4,
        "projection_dim": 32,
        "image_token_embed_dim": 32,
    },
}


def build_small(folder: Path) -> None:
    """A random Janus that draws pictures of 4 x 4 tokens, 8 pixels wide. Seeing them is cheap."""
    build_tiny(folder, sizes=_SIZES)


def load_small(folder: Path) -> Janus:
    """The model of `build_small`, a talker that ends a third of its answers early."""
    janus = load_janus(folder, dtype=torch.float32, device="cpu")
    janus.model.lm_head.weight.data[janus.special.eos] *= 2.5
    return janus


# Requests


def question(text: str = "What is next?", **changes: Any) -> Text:
    wanted = {"role": Role.THINK, "temperature": 0.0, "max_tokens": 12} | changes
    return Text(messages=(Message(role="user", text=text),), **wanted)


def look(text: str = "What is it?", *canvases: tuple[int, ...], **changes: Any) -> Text:
    """A question about pictures, with a system prompt that is shorter than Janus's own."""
    wanted = {"role": Role.REFLECT, "temperature": 0.0, "max_tokens": 8} | changes
    messages = (Message(role="system", text="Look."), Message(role="user", text=text))
    return Text(messages=messages, pictures=tuple(map(Canvas, canvases)), **wanted)


def drawing(text: str = "a red cube", **changes: Any) -> Visual:
    wanted = {"codes": (), "num_tokens": 12, "cfg_weight": 5.0, "temperature": 0.0} | changes
    return Visual(role=Role.DRAW, text=text, **wanted)


def sampled(seed: int, **changes: Any) -> dict[str, Any]:
    """The fields of a request whose answer is left to chance, and is to say how likely it was."""
    return {"temperature": 1.0, "seed": seed, "with_logp": True} | changes


def many_requests() -> list[Request]:
    """Requests of every kind, for the small model. Some share a picture, or a text."""
    kept, whole = (12, 13, 14, 15), tuple(range(100, 116))
    return [
        question(),
        question("x" * 41, **sampled(1)),  # 64 tokens with its two: see `attention.BLOCK`
        question("y" * 52, **sampled(2, temperature=0.7, top_p=0.8)),
        question("z" * 53, max_tokens=1),
        question("z" * 54, max_tokens=17, **sampled(2**64 - 1, with_logp=False)),
        look("What is it?", kept),
        look("Why is it?", kept, **sampled(3)),
        look("Whose is it?", whole, **sampled(4, top_p=0.3)),
        look("Whose is it?", whole, kept, max_tokens=9),
        look("Is it?" * 9, whole, **sampled(5, temperature=2.0)),
        drawing(num_tokens=16),
        drawing(codes=kept, **sampled(6)),
        drawing("a red cube", **sampled(7, cfg_weight=1.0)),
        drawing("", num_tokens=9, **sampled(8, cfg_weight=0.0)),
        drawing("a blue hill " * 4, codes=kept, **sampled(9, cfg_weight=2.5, temperature=0.5)),
        drawing("on a hill", codes=whole[:12], num_tokens=4, cfg_weight=3.0),
    ]


# Backends at work


def engine_with(janus: Janus, *, num_pages: int = 255, **limits: Any) -> Engine:
    """An engine with so many pages to hand out; one more is scratch."""
    page = PAGE_TOKENS * bytes_per_token(janus.text_config, janus.model.dtype)
    return Engine(janus, kv_bytes=(num_pages + 1) * page, **limits)


def answered(backend: Backend, *requests: Request) -> list[Any]:
    """What comes of these, in the order asked."""
    for request_id, request in enumerate(requests):
        backend.submit(request_id, request)
    return in_order(collect(backend, len(requests)))


def collect(backend: Backend, num_requests: int) -> dict[RequestId, Answer | RolloutError]:
    """So many answers, each of which came once."""
    answers: dict[RequestId, Answer | RolloutError] = {}
    num_idle = 0
    while len(answers) < num_requests:
        polled = backend.poll()
        fresh = dict(polled)
        assert len(fresh) == len(polled), "one request was answered twice"
        assert not fresh.keys() & answers.keys(), "one request was answered twice"
        answers |= fresh
        num_idle = 0 if polled else num_idle + 1
        assert num_idle < 1000, f"{num_requests - len(answers)} requests are never answered"
    return answers


def in_order(answers: dict[RequestId, Any]) -> list[Any]:
    return [answers[request_id] for request_id in sorted(answers)]


def drawn_twice(backend: Backend) -> tuple[Codes, Codes]:
    """A region, and its revision after a critique that left the thought as it was."""

    def program() -> Running:
        first = yield drawing(temperature=1.0)
        again = yield drawing(temperature=1.0, revision=1)
        return first.codes + again.codes

    rollout = Rollout(record_id="a-record", rollout_index=0, run_seed=3, program=program())
    backends = Backends({"backend": backend}, dict.fromkeys(Role, "backend"))
    (outcome,) = drive(Given([rollout]), backends, max_live=1)
    return outcome.codes[:12], outcome.codes[12:]


class Unruly:
    """Passes requests on late and in any order, so that they arrive in the middle of others."""

    def __init__(self, backend: Backend, chance: random.Random) -> None:
        self._backend = backend
        self._chance = chance
        self._held: list[tuple[RequestId, Request]] = []

    def submit(self, request_id: RequestId, request: Request) -> None:
        self._held.append((request_id, request))

    def poll(self) -> Sequence[tuple[RequestId, Answer | RolloutError]]:
        self._chance.shuffle(self._held)
        for _ in range(self._chance.randint(0, len(self._held))):
            self._backend.submit(*self._held.pop())
        return self._backend.poll()


# The judge


class Judge:
    """Holds answers against the reference's, and keeps count."""

    def __init__(self, janus: Janus) -> None:
        self._janus = janus
        self._reference = Reference(janus)
        self._expected: dict[Request, Answer] = {}
        self.num_tokens = 0
        self.num_near_ties = 0

    def expected(self, request: Request) -> Answer:
        if request not in self._expected:
            self._expected[request] = self._reference.answer(request)
        return self._expected[request]

    def differences(self, calls: Iterable[tuple[Request, Answer | RolloutError]]) -> list[str]:
        """What is wrong with each of these answers that is not right, in words."""
        told = ((request, self._difference(request, answer)) for request, answer in calls)
        return [f"{request}: {difference}" for request, difference in told if difference]

    def _difference(self, request: Request, answer: Answer | RolloutError) -> str:
        expected = self.expected(request)
        if type(answer) is not type(expected):
            return f"{answer!r} is no answer"
        ours, theirs = tokens_of(answer), tokens_of(expected)
        self.num_tokens += len(theirs)
        pairs = enumerate(zip_longest(ours, theirs))
        first = next((index for index, (a, b) in pairs if a != b), len(theirs))
        if first < max(len(ours), len(theirs)):
            if len(ours) <= first or self._gap(request, expected, first) >= NEAR_TIE:
                return f"token {first} of {ours}, where the reference says {theirs}"
            self.num_near_ties += 1
        elif replace(answer, logp_sample=None, logp_cond=None) != replace(
            expected, logp_sample=None, logp_cond=None
        ):
            return f"{answer}, where the reference says {expected}"
        return _difference_in_logp(answer, expected, first)

    def _gap(self, request: Request, expected: Answer, index: int) -> float:
        """Between the two best scores of a step, noise included."""
        before = tokens_of(expected)[:index]
        scores, _ = scores_without_a_cache(self._janus, expected.prefix_ids, request, before)
        second, best = np.sort(with_noise(scores, request, index))[-2:]
        return float(best - second)


def tokens_of(answer: Answer | RolloutError) -> tuple[int, ...]:
    if isinstance(answer, VisualAnswer):
        return answer.codes
    assert isinstance(answer, TextAnswer)
    return answer.token_ids


def _difference_in_logp(answer: Answer, expected: Answer, num_tokens: int) -> str:
    for name in ("logp_sample", "logp_cond"):
        ours, theirs = getattr(answer, name), getattr(expected, name)
        if (ours is None) != (theirs is None):
            return f"{name} {ours}, where the reference says {theirs}"
        if ours is not None and len(ours) != len(tokens_of(answer)):
            return f"{len(ours)} of {name} for {len(tokens_of(answer))} tokens"
        if ours is not None and not np.allclose(
            ours[:num_tokens], theirs[:num_tokens], rtol=0, atol=_LOGP_TOLERANCE
        ):
            return f"{name} {ours}, where the reference says {theirs}"
    return ""


# The plain loop, written from the method alone


def without_a_cache(
    janus: Janus, prefix_ids: tuple[int, ...], request: Request
) -> tuple[list[int], list[float], list[float]]:
    """Tokens, and their log-probabilities in the sampled and in the plain distribution."""
    tokens: list[int] = []
    sample: list[float] = []
    cond: list[float] = []
    while not _is_done(request, tokens, eos=janus.special.eos):
        scores, plain = scores_without_a_cache(janus, prefix_ids, request, tokens)
        tokens.append(int(with_noise(scores, request, len(tokens)).argmax()))
        sample.append(log_softmax(scores)[tokens[-1]])
        cond.append(log_softmax(plain)[tokens[-1]])
    return tokens, sample, cond


def _is_done(request: Request, tokens: Sequence[int], *, eos: int) -> bool:
    if isinstance(request, Visual):
        return len(tokens) == request.num_tokens
    assert isinstance(request, Text)
    return len(tokens) == request.max_tokens or eos in tokens


@torch.inference_mode()
def scores_without_a_cache(
    janus: Janus, prefix_ids: tuple[int, ...], request: Request, before: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Logits of the next token after those `before` it: as sampled from, and as they are."""
    if isinstance(request, Visual):
        codes = (*request.codes, *before)
        first, *between, last = prefix_ids
        blank = (first, *[janus.special.pad] * len(between), last)
        told, untold = code_logits(janus, prefix_ids, codes), code_logits(janus, blank, codes)
        guided = untold + request.cfg_weight * (told - untold)
        return guided / (request.temperature or 1), told
    assert isinstance(request, Text)
    pictures = [pixel_values(janus, picture) for picture in request.pictures]
    output = janus.model(
        input_ids=torch.tensor([[*prefix_ids, *before]]),
        pixel_values=torch.cat(pictures) if pictures else None,
        use_cache=False,
    )
    plain = output.logits[0, -1].double().numpy()
    return nucleus(plain / (request.temperature or 1), request.top_p), plain


def code_logits(janus: Janus, ids: tuple[int, ...], codes: tuple[int, ...]) -> np.ndarray:
    """Of the code that comes after a text and some codes."""
    embeds = janus.model.get_input_embeddings()(torch.tensor([ids]))
    if codes:
        drawn = janus.model.prepare_embeddings_for_image_generation(torch.tensor([codes]))
        embeds = torch.cat([embeds, drawn], dim=1)
    hidden = janus.model.model.language_model(inputs_embeds=embeds, use_cache=False)
    logits: torch.Tensor = janus.model.model.generation_head(hidden.last_hidden_state[:, -1])
    return logits[0].double().numpy()


def pixel_values(janus: Janus, picture: Canvas | Picture) -> torch.Tensor:
    """A canvas as the vision tower takes it: bytes, cut and not rounded, then normalised."""
    assert isinstance(picture, Canvas)
    canvas = torch.zeros(1, janus.geometry.num_tokens, dtype=torch.int64)
    canvas[0, : len(picture.codes)] = torch.tensor(picture.codes)
    image = janus.model.decode_image_tokens(canvas)[0].numpy()
    levels = np.clip((image + 1) / 2 * 255, 0, 255).astype(np.uint8)
    normal = (levels / 255 - np.array(janus.image_mean)) / np.array(janus.image_std)
    return torch.tensor(normal.transpose(2, 0, 1)[None], dtype=torch.float32)


def nucleus(logits: np.ndarray, top_p: float) -> np.ndarray:
    """Only the likeliest words that together reach `top_p`."""
    kept, mass = np.full_like(logits, -np.inf), 0.0
    for word in np.argsort(-logits):
        kept[word] = logits[word]
        mass += np.exp(log_softmax(logits)[word])
        if mass >= top_p:
            break
    return kept


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


def with_noise(logits: np.ndarray, request: Request, index: int) -> np.ndarray:
    """The scores whose largest is chosen, for the answer's token `index`."""
    if request.temperature == 0:
        return logits
    assert request.seed is not None
    seed = torch.tensor([[request.seed % 2**32, request.seed // 2**32]])
    position = index + (len(request.codes) if isinstance(request, Visual) else 0)
    noise = gumbel_noise(seed, torch.tensor([position]), len(logits))
    return np.asarray(logits + noise[0].double().numpy())
