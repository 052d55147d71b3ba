"""Pictures as files: nothing is lost, whatever the file is."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.pictures import Pixels, decode_picture, encode_webp


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_every_pixel_comes_back(height: int, width: int, seed: int):
    pixels = noise(height, width, seed)

    decoded = decode_picture(encode_webp(pixels))

    assert decoded.dtype == np.uint8
    assert decoded.shape == (height, width, 3)
    assert (decoded == pixels).all()


def test_a_file_is_a_webp_that_any_reader_opens():
    image = Image.open(io.BytesIO(encode_webp(noise(20, 30))))

    assert (image.format, image.size, image.mode) == ("WEBP", (30, 20), "RGB")


def test_equal_pixels_make_equal_files():
    pixels = noise(32, 32)

    assert encode_webp(pixels) == encode_webp(np.asfortranarray(pixels))


def test_a_flat_picture_is_small():
    flat = np.full((384, 384, 3), 127, dtype=np.uint8)

    assert len(encode_webp(flat)) < 1000


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF"])
def test_other_lossless_files_are_read_alike(kind: str):
    pixels = noise(9, 12)

    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(Image.fromarray(pixels), kind, **options)

    assert (decode_picture(data) == pixels).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
def test_a_picture_of_any_mode_comes_as_rgb(mode: str):
    image = Image.fromarray(noise(9, 12)).convert(mode)

    decoded = decode_picture(encoded(image, "PNG"))

    assert decoded.shape == (9, 12, 3)
    assert (decoded == np.asarray(image.convert("RGB"))).all()
