"""Pictures as a model reads them, cut and resized ahead of time.

Pillow takes milliseconds a picture, longer than a large model on a GPU. So it works in threads,
while the model is busy with the pictures before, and once for all judges whose image processors do
the same; what is but arithmetic is left to the model's device.
"""

import json
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

from pipeline.pictures import Pixels

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel
    from transformers.image_processing_backends import PilBackend

Features: TypeAlias = Mapping[str, "torch.Tensor"]
"""What an image processor gives of one picture; the first dimension is that picture."""

_MOST_THREADS = 16
_MOST_BYTES = 512 * 2**20  # of what is kept for other judges, and for the batch that comes next


class PictureReader:
    """What an image processor makes of pictures.

    `on_device`: rescaling and normalising, which the processor does last, are done on the model's
    device, so that bytes go there and not floats.
    """

    def __init__(self, processor: "PilBackend", *, on_device: bool = False) -> None:
        self._processor = processor
        self._settings = processor.to_dict()
        has_both = self._settings["do_rescale"] and self._settings["do_normalize"]
        self._on_device: bool = on_device and has_both
        self._key = json.dumps([self._settings, self._on_device], sort_keys=True, default=str)

    def start(self, pictures: Sequence[Pixels]) -> None:
        """Begin to read pictures that are going to be asked for."""
        for pixels in pictures:
            self._begun(pixels)

    def features(self, pixels: Pixels) -> Features:
        """All that the processor gives of one picture."""
        return self._begun(pixels).result()

    def read(self, pictures: Sequence[Pixels], model: "PreTrainedModel") -> "torch.Tensor":
        """[pictures, 3, height, width] as the model wants it, of pictures that are read at one
        size.
        """
        import torch

        begun = [self._begun(pixels) for pixels in pictures]
        values = torch.cat([future.result()["pixel_values"] for future in begun]).to(model.device)
        if self._on_device:
            mean, std = (
                torch.tensor(self._settings[name], device=model.device).view(-1, 1, 1)
                for name in ("image_mean", "image_std")
            )
            values = (values.float() * self._settings["rescale_factor"] - mean) / std
        return values.to(model.dtype)

    def _begun(self, pixels: Pixels) -> "Future[Features]":
        return _READ.begun(self._key, pixels, self._read)

    def _read(self, pixels: Pixels) -> Features:
        told: Features = self._processor(
            [pixels],
            return_tensors="pt",
            input_data_format="channels_last",
            do_rescale=self._settings["do_rescale"] and not self._on_device,
            do_normalize=self._settings["do_normalize"] and not self._on_device,
        )
        return told


class _Read:
    """Pictures that were read, or are being read: while somebody has them, and as far as there is
    room for them. The oldest make way.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a picture may vanish in a thread that holds it
        self._futures: dict[tuple[str, int], Future[Features]] = {}
        self._watched: dict[tuple[str, int], weakref.ref[Pixels]] = {}
        self._sizes: dict[tuple[str, int], int] = {}  # bytes of those that are read

    def begun(
        self, key: str, pixels: Pixels, read: Callable[[Pixels], Features]
    ) -> "Future[Features]":
        entry = key, id(pixels)
        with self._lock:
            future = self._futures.get(entry)
            if future is None:
                future = self._futures[entry] = _threads().submit(self._kept, entry, pixels, read)
                self._watched[entry] = weakref.ref(pixels, lambda _: self._forget(entry))
        return future

    def _kept(
        self, entry: tuple[str, int], pixels: Pixels, read: Callable[[Pixels], Features]
    ) -> Features:
        try:
            told = read(pixels)
        except BaseException:  # whoever waits is told; the next one tries again
            self._forget(entry)
            raise
        with self._lock:
            self._sizes[entry] = sum(tensor.nbytes for tensor in told.values())
            while sum(self._sizes.values()) > _MOST_BYTES:
                self._forget(next(iter(self._sizes)))
        return told

    def _forget(self, entry: tuple[str, int]) -> None:
        with self._lock:
            for kept in (self._futures, self._watched, self._sizes):
                kept.pop(entry, None)


_READ = _Read()


@cache
def _threads() -> ThreadPoolExecutor:
    num_threads = min(_MOST_THREADS, os.cpu_count() or 1)
    return ThreadPoolExecutor(num_threads, thread_name_prefix="pictures")
