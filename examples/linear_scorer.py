"""A scorer with weights, as one's own is written: how bright and how colourful pictures are liked.

It is as small as a model can be, nine numbers that a line through 8 statistics of a picture needs,
and shows all that a large one needs too: settings that become part of its version, weights in
safetensors that are read once on the device that the command gives, text and boxes beside numbers.

    python -m examples.linear_scorer runs/first linear.safetensors    # fit to scores of `toy`
    coppice score runs/first --scorer 'examples.linear_scorer:Linear[weights=linear.safetensors]'
"""

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from pydantic import Field
from safetensors.torch import load_file, save_file

from coppice import Score, ScorerSettings, ScoringInput
from pipeline.pictures import Pixels
from pipeline.scoring.painting import RunPainter, pictures_of
from pipeline.store.local import LocalStore
from pipeline.store.runs import open_run
from schemas.errors import InputError
from schemas.scores import ColumnType

STATISTICS = ("red", "green", "blue", "red spread", "green spread", "blue spread", "edges", "bias")


class Settings(ScorerSettings):
    """What `Linear` can be told."""

    NOT_COMPARED: ClassVar[frozenset[str]] = frozenset({"weights", "batch_size"})

    weights: str
    """A safetensors file with `weight`, float32 [8]. Where it lies changes no score."""
    sha256: str = ""
    """Of that file: found when work is planned, and so a part of the version."""
    brightest: float = Field(default=0.9, ge=0, le=1)
    """From what share of full white on a spot is told as a box."""
    batch_size: int = Field(default=64, ge=1)

    def pinned(self) -> Self:
        """With the digest of the file as it is now, and its whole path."""
        path = Path(self.weights).resolve()
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise InputError(
                f"{path} cannot be read ({error.strerror}); make it with: python -m "
                "examples.linear_scorer RUN FILE"
            ) from error
        return self.model_copy(update={"weights": str(path), "sha256": digest})


class Linear:
    """From 0 to 1, by the statistics of the finished picture and of the region of each drawing."""

    Settings = Settings
    name = "linear"
    version = "1"
    subjects = frozenset({"trace", "draw"})
    needs_pictures = True
    columns: Mapping[str, ColumnType] = {
        "value": "float32",
        "edges": "float32",
        "says": "string",
        "brightest": "boxes",
    }

    def __init__(self, settings: Settings) -> None:
        self.settings = settings  # cheap: this is called where work is planned, too

    def load(self, device: str) -> None:
        """Once, in the process that scores."""
        if self.settings.pinned().sha256 != self.settings.sha256:
            raise InputError(
                f"{self.settings.weights} is another file here than where the work was planned; "
                "put the same one on every node"
            )
        self._device = device
        weight = load_file(self.settings.weights)["weight"]
        if weight.shape != (len(STATISTICS),):
            raise InputError(
                f"{self.settings.weights} has a weight of {tuple(weight.shape)}, expected "
                f"({len(STATISTICS)},)"
            )
        self._weight = weight.to(device)

    @torch.inference_mode()
    def score(self, batch: Sequence[ScoringInput]) -> list[Score]:
        # Of a drawing the region alone; of a trace the picture. None where nothing can be painted.
        pictures = [sample.crop if sample.event else sample.pixels for sample in batch]
        seen = [pixels for pixels in pictures if pixels is not None]
        values: list[float] = []
        for start in range(0, len(seen), self.settings.batch_size):
            some_seen = seen[start : start + self.settings.batch_size]
            statistics = torch.stack([statistics_of(pixels, self._device) for pixels in some_seen])
            values += torch.sigmoid(statistics @ self._weight).tolist()
        told = iter(zip(seen, values, strict=True))
        return [
            Score(value=None) if pixels is None else self._say(*next(told)) for pixels in pictures
        ]

    def _say(self, pixels: Pixels, value: float) -> Score:
        grey = pixels.mean(2) / 255
        y, x = np.unravel_index(int(grey.argmax()), grey.shape)
        box = {"label": "spot", "score": float(grey[y, x])}
        box |= {"x0": float(x), "y0": float(y), "x1": float(x + 1), "y1": float(y + 1)}
        return Score(
            value=value,
            parts={
                "edges": float(np.abs(np.diff(grey, axis=1)).mean()),
                "says": "bright" if grey.mean() > 0.5 else "dark",
                "brightest": [box] if grey[y, x] >= self.settings.brightest else [],
            },
        )


def statistics_of(pixels: Pixels, device: str = "cpu") -> torch.Tensor:
    """float32 [8] of a picture uint8 [height, width, 3], in the order of STATISTICS."""
    values = torch.from_numpy(pixels.copy()).to(device).float() / 255
    edges = values.diff(dim=1).abs().mean()
    spread = values.flatten(0, 1).std(0, correction=0)
    return torch.cat([values.flatten(0, 1).mean(0), spread, torch.stack([edges, edges * 0 + 1])])


def fit(run_url: str, column: str = "toy@1.value") -> npt.NDArray[np.float32]:
    """The weight [8] float32 that comes closest to scores of finished pictures that are there."""
    run = open_run(run_url)
    scorer, _, name = column.rpartition(".")
    statistics, wanted = [], []
    painter = RunPainter(run.manifest)
    for source in run.objects:
        assert isinstance(run.store, LocalStore)
        rows = pq.read_table(run.store.root / source.key).to_pylist()
        scores = pq.read_table(run.store.root / f"scores/{scorer}/{source.name}").to_pylist()
        value_of = {row["trace_id"]: row[name] for row in scores if row["event"] is None}
        rows = [row for row in rows if value_of.get(row["trace_id"]) is not None]
        judged = [Linear(Settings(weights="none"))]
        for row, pictures in zip(rows, pictures_of(rows, judged, painter), strict=True):
            statistics.append(statistics_of(pictures[None]).numpy())
            wanted.append(value_of[row["trace_id"]])
    logits = np.log((np.array(wanted) * 0.98 + 0.01) / (1 - np.array(wanted) * 0.98 - 0.01))
    weight, *_ = np.linalg.lstsq(np.array(statistics), logits, rcond=None)
    return weight.astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="a run on this disk that `toy` has scored")
    parser.add_argument("out", help="the safetensors file to write")
    options = parser.parse_args()
    save_file({"weight": torch.from_numpy(fit(options.run))}, options.out)


if __name__ == "__main__":
    main()
