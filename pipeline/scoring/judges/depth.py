"""How near things are, by a network of relative depth: DPT (MiDaS) or Depth Anything."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.pictures import Pixels
from pipeline.scoring.formulae.relations import Depth
from pipeline.scoring.judges.batches import grouped
from pipeline.scoring.judges.loading import load_image_processor, load_model
from pipeline.scoring.judges.picture_reader import PictureReader
from schemas.errors import InputError
from schemas.json_values import read_json_object

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class DepthModel:
    """Ranftl et al. 2021, or Yang et al. 2024: inverse depth, so that larger is nearer."""

    def __init__(self, folder: Path, *, dtype: str, device: str) -> None:
        import transformers

        kinds = {
            "dpt": transformers.DPTForDepthEstimation,
            "depth_anything": transformers.DepthAnythingForDepthEstimation,
        }
        try:
            config = read_json_object((folder / "config.json").read_bytes())
        except (OSError, ValueError) as error:
            raise InputError(f"{folder}/config.json cannot be read: {error}") from error
        kind = config.get("model_type")
        if not isinstance(kind, str) or kind not in kinds:
            raise InputError(
                f"{folder} is a model of type {kind!r:.60}; expected one of {', '.join(kinds)}"
            )
        if config.get("depth_estimation_type", "relative") != "relative":
            raise InputError(
                f"{folder} gives metres, of which larger is farther; give a model of relative depth"
            )
        self._model: PreTrainedModel = load_model(kinds[kind], folder, dtype, device)
        processor = load_image_processor(transformers.DPTImageProcessorPil, folder)
        self._reader = PictureReader(processor)

    def depths(self, pictures: Sequence[Pixels]) -> list[Depth]:
        """Of each picture a map of its own height and width."""
        import torch

        model = self._model
        maps: list[Depth] = [np.zeros((0, 0))] * len(pictures)
        self._reader.start(pictures)
        for indices in grouped([picture.shape for picture in pictures]):
            pixels = self._reader.read([pictures[index] for index in indices], model)
            with torch.inference_mode():
                told = model(pixel_values=pixels).predicted_depth
                whole = torch.nn.functional.interpolate(
                    told[:, None].double(),
                    size=pictures[indices[0]].shape[:2],
                    mode="bicubic",
                    align_corners=False,
                )[:, 0]
            for index, depth in zip(indices, whole.cpu().numpy(), strict=True):
                maps[index] = depth
        return maps
