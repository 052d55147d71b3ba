"""Rows of a training set as batches for Hugging Face Janus, and the loss of a batch.

Knows rows, padding and where each modality's vectors go. Knows no optimizer and no trainer: pass
`Collator` as `collate_fn`, or as the `data_collator` of a `transformers.Trainer` whose loss is
`janus_loss`. Imports torch only when it is used.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict, TypeGuard

import numpy as np

from pipeline.pictures import Pixels, decode_picture
from schemas.errors import InputError
from schemas.rows import DrawRow, ImageCell, TokensRow
from schemas.training import IGNORED

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor
    from transformers import JanusForConditionalGeneration

    from pipeline.engine.checkpoints import Janus

# As ShareGPT-4o-Image (commit 19ac7d7), Janus-Pro-R1 (f9c5133) and ReasonGen-R1 (cda3c80) do.
_DROP_SHARE = 0.1


class Batch(TypedDict, total=False):
    """Rows side by side, padded on the right: a causal model never looks there, so no mask is
    needed.
    """

    input_ids: "Tensor"  # int64 [rows, length]: text tokens and codes
    modality_mask: "Tensor"  # bool [rows, length]: True where a code stands
    labels: "Tensor"  # int64 [rows, length]; IGNORED where nothing is learned
    pixel_values: "Tensor"  # float32 [pictures, 3, side, side]; absent without pictures
    picture_mask: "Tensor"  # bool [rows, length]: True where a picture's features go
    has_text: bool  # whether any text, and any codes, are learned
    has_codes: bool
    # Of drawings that are learned as they were sampled, and absent without any:
    drawing_rows: "Tensor"  # int64 [drawings]: which rows they are
    drawings_without_text: "Tensor"  # int64 [drawings, length]: their `input_ids`, text as pads
    cfg_weight: "Tensor"  # float32 [drawings, 1, 1]
    temperature: "Tensor"  # float32 [drawings, 1, 1]


class PicturedRow(TokensRow):
    """A row of text with a canvas in sight, as `datasets` gives it or as it stands in the file."""

    canvas: list[int] | None
    images: "list[ImageCell | Image]"


class Collator:
    """Makes batches of canonical rows: drawings, thoughts and critiques, also mixed.

    A share of the drawings loses its text, each token of it becoming a pad, so that the model keeps
    what classifier-free guidance needs. Which ones follows from the seed, the epoch and a row's id.
    Raises InputError for a row with a canvas in sight whose picture the set does not hold, and for
    one that an endpoint said, which has no tokens.

    Drawings that the model made itself are best learned `as_sampled`: the loss is that of the
    guided sum of both branches, at each row's own weight and temperature. Without it the
    conditional branch learns alone what guidance had sharpened, and guidance then sharpens it once
    more: 10 points lost on the early toy's own drawings, measured in docs/curate.md.
    """

    def __init__(
        self,
        *,
        pad_id: int,
        image_id: int,  # stands where a picture's features go
        image_mean: Sequence[float] = (0.5, 0.5, 0.5),
        image_std: Sequence[float] = (0.5, 0.5, 0.5),
        drop_share: float | None = None,  # 0.1; or 0 as sampled, which teaches both branches
        as_sampled: bool = False,
        seed: int = 0,
    ) -> None:
        self._pad_id, self._image_id = pad_id, image_id
        self._mean, self._std = np.array(image_mean), np.array(image_std)
        self._as_sampled, self._seed = as_sampled, seed
        if drop_share is None:
            drop_share = 0.0 if as_sampled else _DROP_SHARE
        self._drop_share = drop_share
        self.epoch = 0  # set it, and other drawings lose their text

    @classmethod
    def for_janus(
        cls,
        janus: "Janus",
        *,
        drop_share: float | None = None,
        as_sampled: bool = False,
        seed: int = 0,
    ) -> "Collator":
        """One for a loaded checkpoint."""
        return cls(
            pad_id=janus.special.pad,
            image_id=janus.special.image,
            image_mean=janus.image_mean,
            image_std=janus.image_std,
            drop_share=drop_share,
            as_sampled=as_sampled,
            seed=seed,
        )

    def __call__(self, rows: Sequence[TokensRow]) -> Batch:
        """A batch of these rows, in order, on the CPU."""
        import torch

        _check_tokens(rows)
        shape = len(rows), max(len(row["input_ids"]) for row in rows)
        ids = torch.full(shape, self._pad_id)
        labels = torch.full(shape, IGNORED)
        is_code = torch.zeros(shape, dtype=torch.bool)
        for index, row in enumerate(rows):
            length = len(row["input_ids"])
            ids[index, :length] = torch.tensor(row["input_ids"])
            labels[index, :length] = torch.tensor(row["labels"])
            is_code[index, :length] = torch.tensor(row["modality_mask"], dtype=torch.bool)
            if self._loses_text(row):
                self._blank(ids[index], row)
        is_picture = (ids == self._image_id) & ~is_code
        is_learned = labels != IGNORED
        batch = Batch(
            input_ids=ids,
            modality_mask=is_code,
            labels=labels,
            picture_mask=is_picture,
            has_text=bool((is_learned & ~is_code).any()),
            has_codes=bool((is_learned & is_code).any()),
        )
        if is_picture.any():
            batch["pixel_values"] = self._pixel_values(rows)
        if self._as_sampled:
            self._add_guidance(batch, rows)
        return batch

    def _add_guidance(self, batch: Batch, rows: Sequence[TokensRow]) -> None:
        """What the loss needs of drawings to learn them as they were sampled."""
        import torch

        indices = [index for index, row in enumerate(rows) if _is_drawing(row)]
        drawings = [row for row in rows if _is_drawing(row)]
        if not drawings:
            return
        without_text = batch["input_ids"][indices]  # a copy
        for ids, drawing in zip(without_text, drawings, strict=True):
            self._blank(ids, drawing)
        batch["drawing_rows"] = torch.tensor(indices)
        batch["drawings_without_text"] = without_text
        weights = torch.tensor([float(drawing["cfg_weight"]) for drawing in drawings])
        temperatures = torch.tensor([float(drawing["temperature"]) for drawing in drawings])
        batch["cfg_weight"] = weights.view(-1, 1, 1)
        batch["temperature"] = temperatures.view(-1, 1, 1)

    def _blank(self, ids: "Tensor", drawing: TokensRow) -> None:
        """Make pads of a drawing's text, in place."""
        ids[drawing["droppable_start"] : drawing["droppable_stop"]] = self._pad_id

    def _loses_text(self, row: TokensRow) -> bool:
        if not _is_drawing(row):
            return False
        name = f"{self._seed}|{self.epoch}|{row['id']}".encode()
        lot = int.from_bytes(hashlib.sha256(name).digest()[:8], "big")
        return lot < self._drop_share * 2**64

    def _pixel_values(self, rows: Sequence[TokensRow]) -> "Tensor":
        """The canvases in sight, one after the other, as the vision tower takes them."""
        import torch

        pictures = []
        for row in rows:
            if not _shows_canvas(row) or self._image_id not in row["input_ids"]:
                continue
            if not row["images"]:
                raise InputError(
                    f"row {row['id']} looks at a canvas, and the set holds no picture of it; grow "
                    "the run with --pictures all"
                )
            pictures += [(_pixels(image) / 255 - self._mean) / self._std for image in row["images"]]
        return torch.from_numpy(np.stack(pictures)).float().permute(0, 3, 1, 2)


def janus_loss(model: "JanusForConditionalGeneration", batch: Batch) -> "Tensor":
    """The mean cross-entropy of the tokens that are learned, a scalar: words by the language
    head, codes by the generation head, each from the hidden state before it.

    Of drawings that are learned as they were sampled, it is the mean `logp_sample` of their traces
    with the other sign, and of all else the mean `logp_cond`, while the model is the one that grew
    them.
    """
    import torch
    from torch.nn.functional import cross_entropy

    is_code, labels = batch["modality_mask"], batch["labels"]
    embeds = _embed(model, batch["input_ids"], is_code)
    if "pixel_values" in batch:
        pixels = batch["pixel_values"].to(embeds.dtype)
        features = model.model.get_image_features(pixels).pooler_output.to(embeds.dtype)
        embeds = embeds.masked_scatter(batch["picture_mask"][..., None], features)
    hidden = _hidden(model, embeds)
    targets, is_drawn = labels[:, 1:], is_code[:, 1:]
    total = hidden.new_zeros((), dtype=torch.float32)
    for is_wanted, logits_of, is_own in (
        (batch["has_text"], _word_logits, ~is_drawn),
        (batch["has_codes"], _code_logits, is_drawn),
    ):
        if is_wanted:
            logits = logits_of(model, hidden, batch).flatten(0, 1)
            own = targets.masked_fill(~is_own, IGNORED).flatten()
            total = total + cross_entropy(logits, own, ignore_index=IGNORED, reduction="sum")
    mean: Tensor = total / (targets != IGNORED).sum().clamp(min=1)
    return mean


def _embed(model: "JanusForConditionalGeneration", ids: "Tensor", is_code: "Tensor") -> "Tensor":
    """The vectors of words and codes, [rows, length, width]."""
    import torch

    words = model.get_input_embeddings()
    # Each table sees the tokens of its own alone; where the other's stand it is given a 0.
    codes = model.prepare_embeddings_for_image_generation(ids * is_code)
    return torch.where(is_code[..., None], codes, words(ids * ~is_code))


def _hidden(model: "JanusForConditionalGeneration", embeds: "Tensor") -> "Tensor":
    """The last hidden states of all positions but the last one, [rows, length - 1, width]."""
    output = model.model.language_model(inputs_embeds=embeds, use_cache=False)
    hidden: Tensor = output.last_hidden_state[:, :-1]
    return hidden


def _word_logits(model: "JanusForConditionalGeneration", hidden: "Tensor", _: Batch) -> "Tensor":
    logits: Tensor = model.lm_head(hidden).float()
    return logits


def _code_logits(
    model: "JanusForConditionalGeneration", hidden: "Tensor", batch: Batch
) -> "Tensor":
    """Of codes, float32 [rows, length - 1, codes]; as sampled from, if the batch says how."""
    from pipeline.engine.sampling import guide

    logits: Tensor = model.model.generation_head(hidden).float()
    if "drawing_rows" not in batch:
        return logits
    rows = batch["drawing_rows"]
    blank = _embed(model, batch["drawings_without_text"], batch["modality_mask"][rows])
    uncond = model.model.generation_head(_hidden(model, blank))
    temperature = batch["temperature"].where(batch["temperature"] > 0, 1.0)  # 0: the likeliest
    guided = guide(logits[rows], uncond, batch["cfg_weight"]) / temperature
    return logits.index_copy(0, rows, guided)


def _is_drawing(row: TokensRow) -> TypeGuard[DrawRow]:
    return row.get("droppable_start") is not None


def _check_tokens(rows: Sequence[TokensRow]) -> None:
    for row in rows:
        if not row["input_ids"]:  # null
            raise InputError(
                f"row {row['id']} has no tokens of the model's: endpoint {row['backend']} said it; "
                "learn such rows from their messages, or leave them out: "
                "rows.filter(lambda row: row['input_ids'] is not None)"
            )


def _shows_canvas(row: TokensRow) -> TypeGuard[PicturedRow]:
    return row.get("canvas") is not None


def _pixels(image: "ImageCell | Image") -> Pixels:
    """A picture, decoded; `datasets` gives one that is so already."""
    if isinstance(image, Mapping):
        return decode_picture(image["bytes"])
    sink = io.BytesIO()
    image.save(sink, "PNG")
    return decode_picture(sink.getvalue())
