"""What Janus sees and shows: canvases to pixels, and pixels to the features of a question.

A picture's pixels and features depend on nothing but the picture, if pictures go one at a time. In
batches they are faster on a GPU, and may differ in the last bit.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from pipeline.engine.checkpoints import Janus
from pipeline.engine.sampling import spread_of
from pipeline.engine.soundness import not_finite
from pipeline.pictures import Pixels, decode_picture
from pipeline.twig.requests import Canvas, Codes, Picture
from schemas.errors import RecordFailure

T = TypeVar("T")


class Vision:
    """The eyes and the brush of one checkpoint. `batch_size` 1 is exact, see above.

    The pictures of the last `num_remembered` canvases are kept: a canvas that was judged is often
    the one that is finished, and rollouts of one record may draw alike.
    """

    def __init__(self, janus: Janus, *, batch_size: int = 1, num_remembered: int = 0) -> None:
        self._model = janus.model
        self._geometry = janus.geometry
        self._batch_size = batch_size
        self._num_remembered = num_remembered
        self._remembered: OrderedDict[Codes, Pixels] = OrderedDict()
        self._mean = torch.tensor(janus.image_mean, device=janus.model.device).view(1, 3, 1, 1)
        self._std = torch.tensor(janus.image_std, device=janus.model.device).view(1, 3, 1, 1)

    @torch.inference_mode()
    def paint(self, canvases: Sequence[Codes]) -> list[Pixels]:
        """The pictures of canvases. Values are cut to bytes, not rounded, as published.

        Raises RecordFailure for one whose values are not finite: bytes would not show it.
        """
        pictures = self._painted(canvases)
        if len(pictures) < len(set(canvases)):
            raise not_finite("the pixels of a canvas")
        return [pictures[codes] for codes in canvases]

    def _painted(self, canvases: Sequence[Codes]) -> dict[Codes, Pixels]:
        """The pictures of canvases, and none of one whose values are not finite."""
        known = {codes: self._remembered.get(codes) for codes in canvases}
        new = [codes for codes, pixels in known.items() if pixels is None]
        for batch in self._batches(new):
            known |= zip(batch, self._decode(batch), strict=True)
        pictures = {codes: pixels for codes, pixels in known.items() if pixels is not None}
        self._remember(pictures)
        return pictures

    def _decode(self, canvases: Sequence[Codes]) -> list[Pixels | None]:
        """None where a value is not finite."""
        tokens = torch.tensor([self._padded(codes) for codes in canvases], dtype=torch.int64)
        decoded = self._model.decode_image_tokens(tokens.to(self._model.device)).float()
        pixels = ((decoded + 1) / 2 * 255).clamp(0, 255).to(torch.uint8)  # [n, height, width, 3]
        shared = pixels.cpu().numpy()
        shared.setflags(write=False)  # the same array may be given out again
        is_sound = spread_of(decoded.flatten(1)).isfinite().tolist()
        return [picture if good else None for picture, good in zip(shared, is_sound, strict=True)]

    def _remember(self, pictures: dict[Codes, Pixels]) -> None:
        for codes, pixels in pictures.items():
            self._remembered[codes] = pixels
            self._remembered.move_to_end(codes)
        while len(self._remembered) > self._num_remembered:
            self._remembered.popitem(last=False)

    @torch.inference_mode()
    def features(self, pictures: Sequence[Canvas | Picture]) -> Tensor:
        """Features [pictures, tokens, width] as the language model takes them.

        All NaN for a canvas whose pixels are not finite: then what is said of it is not, either.
        Raises RecordFailure for a picture of another size than the model sees.
        """
        side = self._geometry.image_size
        blank = np.zeros((side, side, 3), np.uint8)
        painted = self._painted([p.codes for p in pictures if isinstance(p, Canvas)])
        pixels = [
            painted.get(picture.codes, blank)
            if isinstance(picture, Canvas)
            else self._pixels_of(picture)
            for picture in pictures
        ]
        features = torch.cat([self._see(batch) for batch in self._batches(pixels)])
        for index, picture in enumerate(pictures):
            if isinstance(picture, Canvas) and picture.codes not in painted:
                features[index] = torch.nan
        return features

    def check(self, pictures: Sequence[Canvas | Picture]) -> None:
        """Raises what `features` would, without looking at more than the pictures' sizes."""
        for picture in pictures:
            if isinstance(picture, Picture):
                self._pixels_of(picture)

    def _see(self, pictures: Sequence[Pixels]) -> Tensor:
        pixels = torch.from_numpy(np.stack(pictures)).to(self._model.device).permute(0, 3, 1, 2)
        pixels = pixels.contiguous()  # kernels, and so the last bits, go by the layout in memory
        values = ((pixels.float() / 255 - self._mean) / self._std).to(self._model.dtype)
        features: Tensor = self._model.model.get_image_features(values).pooler_output
        return features

    def _pixels_of(self, picture: Picture) -> Pixels:
        pixels = decode_picture(picture.data)
        side = self._geometry.image_size
        if pixels.shape[:2] != (side, side):
            height, width = pixels.shape[:2]
            raise RecordFailure(
                f"a picture of {width} x {height} pixels, where the model sees {side} x {side}",
                reason="picture_size",
            )
        return pixels

    def _padded(self, codes: Codes) -> list[int]:
        return [*codes, *[0] * (self._geometry.num_tokens - len(codes))]

    def _batches(self, items: Sequence[T]) -> Iterator[Sequence[T]]:
        for start in range(0, len(items), self._batch_size):
            yield items[start : start + self._batch_size]
