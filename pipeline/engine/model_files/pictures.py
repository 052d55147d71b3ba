"""How pictures are shown to a model: what its image processor's file says of their pixels."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.engine.model_files.listing import (
    PREPROCESSOR,
    PROCESSOR,
    ModelSource,
    processor_name,
    read_json,
)
from schemas.errors import InputError

if TYPE_CHECKING:
    from schemas.json_values import JsonMapping, JsonObject

_GREATEST = 1e6  # far from any, and within all floats
_COPY = "copy the file of the Janus model that this one was made from"


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelScale:
    """Of each of three channels, for pixels from 0 to 1: shown is `(pixel - mean) / std`."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def read_pixel_scale(source: ModelSource) -> PixelScale:
    """Raises InputError for a file that is missing, or asks for what is not done to pictures."""
    name = processor_name(source)
    path = f"{source.label}/{name}"
    processor = _processor_in(read_json(source, name), name)
    _refuse_other_steps(processor, path)
    scale = PixelScale(
        mean=_per_channel(processor, "image_mean", path),
        std=_per_channel(processor, "image_std", path),
    )
    if not all(scale.std):
        raise InputError(f"{path} has 0 in image_std, which divides; {_COPY}")
    if name == PREPROCESSOR and source.has(PROCESSOR):
        other = _processor_in(read_json(source, PROCESSOR), PROCESSOR)
        for key in ("image_mean", "image_std"):
            if other.get(key, processor.get(key)) != processor.get(key):
                raise InputError(
                    f"{path} has {processor.get(key)!r:.60} for {key}, and {PROCESSOR} beside it "
                    f"{other.get(key)!r:.60}; remove the file that is not the model's"
                )
    return scale


def _processor_in(content: "JsonObject", name: str) -> "JsonMapping":
    if name == PREPROCESSOR:
        return content
    inner = content.get("image_processor")
    return inner if isinstance(inner, dict) else {}


def _refuse_other_steps(processor: "JsonMapping", path: str) -> None:
    """Pictures are always scaled by 1/255 and then normalised, as every Janus has it."""
    for step in ("do_rescale", "do_normalize"):
        if processor.get(step) is False:
            raise InputError(f"{path} turns {step} off, and every Janus is shown pictures with it")
    factor = processor.get("rescale_factor")
    if factor is not None and not (
        isinstance(factor, int | float) and math.isclose(factor, 1 / 255, rel_tol=1e-4)
    ):
        raise InputError(f"{path} has {factor!r:.60} for rescale_factor, where 1/255 is due")


def _per_channel(processor: "JsonMapping", key: str, path: str) -> tuple[float, ...]:
    values = processor.get(key)
    numbers: list[float] = []
    if isinstance(values, list):
        numbers = [value for value in values if isinstance(value, int | float)]
    if len(numbers) != 3 or numbers != values or not all(abs(v) <= _GREATEST for v in numbers):
        raise InputError(
            f"{path} has {values!r:.60} for {key}, where three numbers are due; {_COPY}"
        )
    return tuple(map(float, numbers))
