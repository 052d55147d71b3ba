"""Many small pictures in one file: a sheet, of which a page shows a part at a time."""

import io
from collections.abc import Callable

import numpy as np

from pipeline.pictures import Pixels

LOSSLESS_BELOW = 96  # pixels a side: there every pixel is seen, and lossless files are small
_QUALITY = 82  # of WebP, above that size
_EFFORT = 2  # of WebP's 6: most of the gain, at a third of the time

Slot = tuple[int, int]
"""A sheet's number, and which of its pictures it is, row by row."""


class SheetWriter:
    """Puts square pictures of one size into sheets, one sheet after the other.

    Holds one sheet in memory. `put` is called with the name of a sheet and its bytes.
    """

    def __init__(
        self, put: Callable[[str, bytes], None], folder: str, *, cell: int, columns: int, rows: int
    ) -> None:
        self._put, self._folder = put, folder
        self.cell, self.columns = cell, columns
        self._num_slots = columns * rows
        self._sheet = np.zeros((rows * cell, columns * cell, 3), np.uint8)
        self._next: Slot = (0, 0)

    def add(self, pixels: Pixels) -> Slot:
        """Add a picture, resized if it is of another size, and say where it is."""
        sheet, slot = self._next
        row, column = divmod(slot, self.columns)
        top, left = row * self.cell, column * self.cell
        self._sheet[top : top + self.cell, left : left + self.cell] = resized(pixels, self.cell)
        self._next = sheet, slot + 1
        if slot + 1 == self._num_slots:
            self.finish()
        return sheet, slot

    def finish(self) -> None:
        """Put what is not put yet. The next picture begins a sheet."""
        sheet, num_slots = self._next
        if not num_slots:
            return
        num_rows = -(-num_slots // self.columns)
        self._put(f"{self._folder}/{sheet:05d}.webp", self._encoded(num_rows))
        self._sheet[:] = 0
        self._next = sheet + 1, 0

    def _encoded(self, num_rows: int) -> bytes:
        from PIL import Image

        sink = io.BytesIO()
        is_lossless = self.cell < LOSSLESS_BELOW
        Image.fromarray(self._sheet[: num_rows * self.cell]).save(
            sink,
            "WEBP",
            lossless=is_lossless,
            method=0 if is_lossless else _EFFORT,
            quality=0 if is_lossless else _QUALITY,
        )
        return sink.getvalue()


def resized(pixels: Pixels, side: int) -> Pixels:
    """A picture as a square of so many pixels a side."""
    if pixels.shape[:2] == (side, side):
        return pixels
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS))
