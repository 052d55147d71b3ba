"""Pixels to files. Tokens are the truth; a picture can be made again from them at any time."""

import io
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pipeline.twig.requests import Codes

Pixels = npt.NDArray[np.uint8]
"""uint8 [height, width, 3], RGB."""


class Painter(Protocol):
    """Turns canvases into pixels. The backend that draws can also show what was drawn."""

    def paint(self, canvases: Sequence[Codes]) -> list[Pixels]:
        """The pictures of canvases, in one batch. Tokens that are missing count as code 0."""


def encode_webp(pixels: Pixels) -> bytes:
    """Lossless WebP at method 0: smaller than PNG, and about ten times as fast to write."""
    from PIL import Image

    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "WEBP", lossless=True, method=0, quality=0)
    return sink.getvalue()


def encode_png(pixels: Pixels) -> bytes:
    """PNG, which everybody who decodes it writes again without loss."""
    from PIL import Image

    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG", compress_level=1)
    return sink.getvalue()


def decode_picture(data: bytes) -> Pixels:
    """The pixels of an encoded picture."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
