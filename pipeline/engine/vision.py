"""What Janus sees and shows: canvases to pixels, and pixels to the features of a question.

A picture's pixels and features depend on nothing but the picture, if pictures go one at a time. In
batches they are faster on a GPU, and may differ in the last bit.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.engine.checkpoints import Janus
from pipeline.engine.painting import VqPainter, in_batches
from pipeline.pictures import Pixels, decode_picture
from pipeline.twig.requests import Canvas, Codes, Picture
from schemas.errors import RecordFailure


class Vision:
    """The eyes and the brush of one checkpoint. `batch_size` 1 is exact, see above.

    The pictures of the last `num_remembered` canvases are kept, see `VqPainter`.
    """

    def __init__(self, janus: Janus, *, batch_size: int = 1, num_remembered: int = 0) -> None:
        self._model = janus.model
        self._geometry = janus.geometry
        self._batch_size = batch_size
        self._painter = VqPainter(
            janus.model.model.vqmodel,
            janus.geometry,
            batch_size=batch_size,
            num_remembered=num_remembered,
        )
        self._mean = torch.tensor(janus.image_mean, device=janus.model.device).view(1, 3, 1, 1)
        self._std = torch.tensor(janus.image_std, device=janus.model.device).view(1, 3, 1, 1)

    def paint(self, canvases: Sequence[Codes]) -> list[Pixels]:
        """The pictures of canvases, see `VqPainter.paint`."""
        return self._painter.paint(canvases)

    @torch.inference_mode()
    def features(self, pictures: Sequence[Canvas | Picture]) -> Tensor:
        """Features [pictures, tokens, width] as the language model takes them.

        All NaN for a canvas whose pixels are not finite: then what is said of it is not, either.
        Raises RecordFailure for a picture of another size than the model sees.
        """
        side = self._geometry.image_size
        blank = np.zeros((side, side, 3), np.uint8)
        painted = self._painter.painted([p.codes for p in pictures if isinstance(p, Canvas)])
        pixels = [
            painted.get(picture.codes, blank)
            if isinstance(picture, Canvas)
            else self._pixels_of(picture)
            for picture in pictures
        ]
        features = torch.cat([self._see(batch) for batch in in_batches(pixels, self._batch_size)])
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
