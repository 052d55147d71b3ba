"""Pictures are read as the processor reads them, ahead of time, and once for all judges."""

import gc
import threading
import weakref
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf

from pipeline.scoring.judges import picture_reader
from pipeline.scoring.judges.picture_reader import PictureReader
from tests.pipeline.scoring.judges.conftest import picture

SQUARE = {"height": 32, "width": 32}


class Model(torch.nn.Module):
    """Anything with a device and a dtype."""

    device, dtype = torch.device("cpu"), torch.float32


class Processor:
    """Counts the pictures that it has to read, and cannot read black ones."""

    def __init__(self, side: int = 4) -> None:
        self.side, self.num_read, self.is_done = side, 0, threading.Event()

    def to_dict(self) -> dict[str, Any]:
        return {"side": self.side, "do_rescale": False, "do_normalize": False}

    def __call__(self, pictures: list[np.ndarray], **_: object) -> dict[str, torch.Tensor]:
        self.num_read += 1
        self.is_done.set()
        if not pictures[0].any():
            raise ValueError("black")
        cut = pictures[0][: self.side, : self.side].astype(np.float32)
        return {"pixel_values": torch.from_numpy(cut).permute(2, 0, 1)[None]}


def reader(processor: Any) -> PictureReader:
    return PictureReader(processor)


@pytest.mark.parametrize(
    "processor",
    [
        tf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=SQUARE),
        tf.BlipImageProcessorPil(size=SQUARE),
        tf.BlipImageProcessorPil(size=SQUARE, do_normalize=False),
        tf.GroundingDinoImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 96}),
    ],
)
@pytest.mark.parametrize("on_device", [True, False])
def test_it_is_what_the_processor_makes_of_them_wherever_the_arithmetic_is_done(
    processor: Any, on_device: bool
):
    pictures = [picture(seed, height=70) for seed in range(3)]
    expected = processor(pictures, return_tensors="pt")["pixel_values"]

    read = PictureReader(processor, on_device=on_device).read(pictures, Model())

    assert torch.allclose(read, expected, atol=1e-6)


def test_a_picture_is_read_once_for_all_whose_processors_do_the_same():
    first, same, other = Processor(), Processor(), Processor(side=5)
    shown = picture(1)

    reader(first).start([shown])
    assert first.is_done.wait(10), "it is read before anybody asks for it"
    read = [reader(processor).features(shown) for processor in (first, same, other)]

    assert [processor.num_read for processor in (first, same, other)] == [1, 0, 1]
    assert read[0] is read[1]
    assert torch.equal(read[2]["pixel_values"][0, 0], torch.tensor(shown[:5, :5, 0]).float())


def test_what_nobody_has_any_more_is_let_go_and_another_picture_is_another():
    processor = Processor()
    for seed in range(20):  # whose places in memory are often the same
        shown = picture(seed)
        told = reader(processor).features(shown)["pixel_values"]
        assert told[0, 0, 0, 0] == shown[0, 0, 0]
        gone = weakref.ref(told)
        del told, shown
    gc.collect()

    assert processor.num_read == 20
    assert gone() is None


def test_the_oldest_make_way_where_memory_ends(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(picture_reader, "_MOST_BYTES", 3 * 4 * 4 * 4 * 2)  # two pictures
    processor, pictures = Processor(), [picture(seed) for seed in range(3)]
    for shown in (*pictures, *reversed(pictures)):
        reader(processor).features(shown)

    assert processor.num_read == 4  # the first one twice


def test_what_cannot_be_read_is_told_each_time():
    processor, black = Processor(), np.zeros((8, 8, 3), np.uint8)

    for _ in range(2):
        with pytest.raises(ValueError, match="black"):
            reader(processor).features(black)
    assert processor.num_read == 2
