"""A backend without a model: answers at once, of any size, well or badly on demand.

For tests, demos and load tests. Its answers depend on nothing but the request, as a real one's do
in strict mode, and its pictures are as hard to compress as real ones.
"""

import hashlib
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

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
from schemas.config import FakeConfig, Harm
from schemas.errors import RecordFailure, RolloutError
from schemas.geometry import Geometry
from schemas.trace import Finish, Role

Script = Callable[[Request], str | RolloutError | None]
"""Says what to answer: a text, an error, or None for what the config makes of it."""

_WORDS = (
    "pale blue sky",
    "a red kite",
    "soft morning light",
    "two white clouds",
    "a green hill",
    "tall dry grass",
    "an old stone wall",
    "a wooden gate",
    "calm dark water",
    "a yellow boat",
    "wet sand",
    "small round pebbles",
)
_HOARDED_BYTES = 2**28
_GRAIN_LEVELS = 5  # grey levels of noise: makes a 384-pixel picture a 150 to 250 KB lossless WebP


class Fake:
    """Answers `Text` with made-up sentences and critiques, `Visual` with random codes."""

    def __init__(
        self,
        config: FakeConfig,
        *,
        script: Script | None = None,
        harms: Mapping[str, Harm] | None = None,
    ) -> None:
        """`harms` say what is done to this process when a request has the text in it."""
        self.geometry = fake_geometry(config)
        self._config = config
        self._harms = harms or {}
        self._script = script or (lambda request: None)
        self._answers: list[tuple[RequestId, Answer | RolloutError]] = []
        size = config.image_size
        grain = np.random.default_rng(0).integers(0, _GRAIN_LEVELS, (size, size, 3))
        self._grain = (grain - _GRAIN_LEVELS // 2).astype(np.int16)

    def submit(self, request_id: RequestId, request: Request) -> None:
        for text, harm in self._harms.items():
            if text in repr(request):
                _HARMS[harm]()
        if self._config.delay_seconds:
            time.sleep(self._config.delay_seconds)
        self._answers.append((request_id, self._answer(request)))

    def poll(self) -> Sequence[tuple[RequestId, Answer | RolloutError]]:
        answers, self._answers = self._answers, []
        return answers

    def paint(self, canvases: Sequence[Codes]) -> list[Pixels]:
        return [self._paint(codes) for codes in canvases]

    def _answer(self, request: Request) -> Answer | RolloutError:
        chance = _Chance(request)
        scripted = self._script(request)
        if isinstance(scripted, RolloutError):
            return scripted
        if isinstance(request, Visual):
            return self._draw(request, chance)
        assert isinstance(request, Text)
        return self._say(request, chance) if scripted is None else _spoken(scripted, request)

    def _say(self, request: Text, chance: "_Chance") -> Answer | RolloutError:
        config = self._config
        if request.role is Role.THINK and chance.below(config.dead_share):
            return RecordFailure("the fake backend was told to fail here", reason="scripted")
        if request.role is Role.REFLECT:
            return _spoken(self._critique(chance), request)
        if request.role is Role.SCHEDULE:
            return _spoken("BANDS: 30 40 30", request)
        words = [chance.pick(_WORDS) for _ in range(1 + config.num_text_tokens // 8)]
        return _spoken(f"{', '.join(words).capitalize()}.", request)

    def _critique(self, chance: "_Chance") -> str:
        if chance.below(self._config.unparseable_share):
            return "It looks fine to me."
        low = chance.below(self._config.revise_share)
        score = (40 if low else 90) + chance.number % 10
        return f"SCORE: {score}\nIMPROVED_DESCRIPTION: {chance.pick(_WORDS)}, in sharp detail."

    def _draw(self, request: Visual, chance: "_Chance") -> VisualAnswer:
        codes = chance.rng.integers(0, self._config.num_codes, request.num_tokens)
        logp = chance.rng.normal(-4, 1, request.num_tokens).tolist() if request.with_logp else None
        return VisualAnswer(
            prefix_ids=_ids(request.text),
            codes=tuple(codes.tolist()),
            logp_sample=logp and tuple(logp),
            logp_cond=logp and tuple(logp),
        )

    def _paint(self, codes: Codes) -> Pixels:
        """Each code a colour, blended smoothly, under a grain that is as fine as a photograph's."""
        from PIL import Image

        grid = np.zeros(self.geometry.num_tokens, dtype=np.int64)
        grid[: len(codes)] = codes
        colours = 96 + np.stack([grid * 37 % 64, grid * 91 % 64, grid * 151 % 64], axis=-1)
        small = colours.reshape(self.geometry.rows, self.geometry.columns, 3).astype(np.uint8)
        size = (self.geometry.image_size,) * 2
        smooth = np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BILINEAR))
        return np.clip(smooth + self._grain, 0, 255).astype(np.uint8)


def _exit() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hang() -> None:
    threading.Event().wait()


def _hoard() -> None:
    """Take memory until there is none: of what this process may have, not of the machine's."""
    resource.setrlimit(resource.RLIMIT_DATA, (_HOARDED_BYTES, _HOARDED_BYTES))
    hoard = []
    while True:
        hoard.append(bytearray(_HOARDED_BYTES // 8))


_HARMS = {"exit": _exit, "hang": _hang, "hoard": _hoard}


def fake_geometry(config: FakeConfig) -> Geometry:
    """The picture that the fake pretends to draw."""
    side = config.image_size // config.patch_size
    return Geometry(
        image_size=config.image_size, rows=side, columns=side, num_codes=config.num_codes
    )


class _Chance:
    """Numbers that follow from the request alone."""

    def __init__(self, request: Request) -> None:
        digest = hashlib.blake2b(repr(request).encode(), digest_size=16).digest()
        self.number = int.from_bytes(digest[:8], "big")
        self.rng = np.random.Generator(np.random.SFC64(int.from_bytes(digest, "big")))

    def below(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def pick(self, words: Sequence[str]) -> str:
        return words[int(self.rng.integers(len(words)))]


def _spoken(text: str, request: Text) -> TextAnswer:
    prompt = "\n".join(message.text for message in request.messages)
    return TextAnswer(prefix_ids=_ids(prompt), text=text, token_ids=_ids(text), finish=Finish.STOP)


def _ids(text: str) -> tuple[int, ...]:
    """A token a byte, as a byte-level tokenizer without merges would have it."""
    return tuple(text.encode())
