"""Canvases to pixels: the brush of a checkpoint, which needs its VQ decoder and nothing else.

A picture's pixels depend on nothing but its tokens if pictures go one at a time. In batches they
are faster on a GPU, and may differ in the last bit.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch

from pipeline.engine.sampling import spread_of
from pipeline.engine.soundness import not_finite
from pipeline.pictures import Pixels
from pipeline.twig.requests import Codes
from schemas.geometry import Geometry

if TYPE_CHECKING:
    from transformers import JanusVQVAE

T = TypeVar("T")

PICTURES_AT_ONCE = 32  # on a GPU without strict arithmetic


class VqPainter:
    """Paints with a VQ decoder. `batch_size` 1 is exact, see above.

    The pictures of the last `num_remembered` canvases are kept: a canvas that was judged is often
    the one that is finished, and rollouts of one record may draw alike.
    """

    def __init__(
        self,
        decoder: "JanusVQVAE",
        geometry: Geometry,
        *,
        batch_size: int = 1,
        num_remembered: int = 0,
    ) -> None:
        self._decoder, self._device = decoder, decoder.device
        self._decode_tokens: Callable[..., torch.Tensor] = decoder.decode  # of any integers
        self._geometry = geometry
        self._batch_size = batch_size
        self._num_remembered = num_remembered
        self._remembered: OrderedDict[Codes, Pixels] = OrderedDict()

    def paint(self, canvases: Sequence[Codes]) -> list[Pixels]:
        """The pictures of canvases. Values are cut to bytes, not rounded, as published.

        Raises RecordFailure for one whose values are not finite: bytes would not show it.
        """
        pictures = self.painted(canvases)
        if len(pictures) < len(set(canvases)):
            raise not_finite("the pixels of a canvas")
        return [pictures[codes] for codes in canvases]

    @torch.inference_mode()
    def painted(self, canvases: Sequence[Codes]) -> dict[Codes, Pixels]:
        """The pictures of canvases, and none of one whose values are not finite."""
        known = {codes: self._remembered.get(codes) for codes in canvases}
        new = [codes for codes, pixels in known.items() if pixels is None]
        for batch in in_batches(new, self._batch_size):
            known |= zip(batch, self._decode(batch), strict=True)
        pictures = {codes: pixels for codes, pixels in known.items() if pixels is not None}
        self._remember(pictures)
        return pictures

    def _decode(self, canvases: Sequence[Codes]) -> list[Pixels | None]:
        """None where a value is not finite."""
        tokens = torch.tensor([self._padded(codes) for codes in canvases], dtype=torch.int64)
        decoded = self._decode_tokens(tokens.to(self._device)).permute(0, 2, 3, 1).float()
        pixels = ((decoded + 1) / 2 * 255).clamp(0, 255).to(torch.uint8)  # [n, height, width, 3]
        shared = pixels.cpu().numpy()
        shared.setflags(write=False)  # the same array may be given out again
        is_sound = spread_of(decoded.flatten(1)).isfinite().tolist()
        return [picture if good else None for picture, good in zip(shared, is_sound, strict=True)]

    def _padded(self, codes: Codes) -> list[int]:
        return [*codes, *[0] * (self._geometry.num_tokens - len(codes))]

    def _remember(self, pictures: dict[Codes, Pixels]) -> None:
        for codes, pixels in pictures.items():
            self._remembered[codes] = pixels
            self._remembered.move_to_end(codes)
        while len(self._remembered) > self._num_remembered:
            self._remembered.popitem(last=False)


def in_batches(items: Sequence[T], batch_size: int) -> Iterator[Sequence[T]]:
    """The items in order, so many at once."""
    for start in range(0, len(items), batch_size):
        yield items[start : start + batch_size]
