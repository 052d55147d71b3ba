"""Rows of a training set as batches for Hugging Face Janus, and the loss of a batch.

Knows rows, padding and where each modality's vectors go. Knows no optimizer and no trainer: pass
`Collator` as `collate_fn`, or as the `data_collator` of a `transformers.Trainer` whose loss is
`janus_loss`. Imports torch only when it is used.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from pipeline.pictures import Pixels, decode_picture
from schemas.errors import InputError
from schemas.training import IGNORED

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import JanusForConditionalGeneration

    from pipeline.engine.checkpoints import Janus

_DROP_SHARE = 0.1  # as Janus's own fine-tuning and most of guidance has it


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


class Collator:
    """Makes batches of canonical rows: drawings, thoughts and critiques, also mixed.

    A share of the drawings loses its text, each token of it becoming a pad, so that the model keeps
    what classifier-free guidance needs. Which ones follows from the seed, the epoch and a row's id.
    Raises InputError for a row with a canvas in sight whose picture the set does not hold.
    """

    def __init__(
        self,
        *,
        pad_id: int,
        image_id: int,  # stands where a picture's features go
        image_mean: Sequence[float] = (0.5, 0.5, 0.5),
        image_std: Sequence[float] = (0.5, 0.5, 0.5),
        drop_share: float = _DROP_SHARE,
        seed: int = 0,
    ) -> None:
        self._pad_id, self._image_id = pad_id, image_id
        self._mean, self._std = np.array(image_mean), np.array(image_std)
        self._drop_share, self._seed = drop_share, seed
        self.epoch = 0  # set it, and other drawings lose their text

    @classmethod
    def for_janus(cls, janus: "Janus", **settings: Any) -> "Collator":
        """One for a loaded checkpoint. `settings` are `drop_share` and `seed`."""
        return cls(
            pad_id=janus.special.pad,
            image_id=janus.special.image,
            image_mean=janus.image_mean,
            image_std=janus.image_std,
            **settings,
        )

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        import torch

        shape = len(rows), max(len(row["input_ids"]) for row in rows)
        ids = torch.full(shape, self._pad_id)
        labels = torch.full(shape, IGNORED)
        is_code = torch.zeros(shape, dtype=torch.bool)
        for place, row in enumerate(rows):
            length = len(row["input_ids"])
            ids[place, :length] = torch.tensor(row["input_ids"])
            labels[place, :length] = torch.tensor(row["labels"])
            is_code[place, :length] = torch.tensor(row["modality_mask"], dtype=torch.bool)
            if self._loses_text(row):
                ids[place, row["droppable_start"] : row["droppable_stop"]] = self._pad_id
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
        return batch

    def _loses_text(self, row: Mapping[str, Any]) -> bool:
        if row.get("droppable_start") is None:
            return False
        name = f"{self._seed}|{self.epoch}|{row['id']}".encode()
        lot = int.from_bytes(hashlib.sha256(name).digest()[:8], "big")
        return lot < self._drop_share * 2**64

    def _pixel_values(self, rows: Sequence[Mapping[str, Any]]) -> "Tensor":
        import torch

        pictures = []
        for row in rows:
            is_seen = row.get("canvas") is not None and self._image_id in row["input_ids"]
            in_sight = row["images"] if is_seen else []
            if is_seen and not in_sight:
                raise InputError(
                    f"row {row['id']} looks at a canvas, and the set holds no picture of it; grow "
                    "the run with --pictures all"
                )
            pictures += [(_pixels(one) / 255 - self._mean) / self._std for one in in_sight]
        return torch.from_numpy(np.stack(pictures)).float().permute(0, 3, 1, 2)


def janus_loss(model: "JanusForConditionalGeneration", batch: Batch) -> "Tensor":
    """The mean cross-entropy of the tokens that are learned, a scalar: words by the language
    head, codes by the generation head, each from the hidden state before it.
    """
    import torch
    from torch.nn.functional import cross_entropy

    ids, is_code, labels = batch["input_ids"], batch["modality_mask"], batch["labels"]
    words: Any = model.get_input_embeddings()
    # Each table sees the tokens of its own alone; where the other's stand it is given a 0.
    codes = model.prepare_embeddings_for_image_generation(ids * is_code)
    embeds = torch.where(is_code[..., None], codes, words(ids * ~is_code))
    if "pixel_values" in batch:
        pixels = batch["pixel_values"].to(embeds.dtype)
        features = model.model.get_image_features(pixels).pooler_output.to(embeds.dtype)
        embeds = embeds.masked_scatter(batch["picture_mask"][..., None], features)
    llama = model.model.language_model
    output = llama(inputs_embeds=embeds, use_cache=False)
    hidden, targets, is_drawn = output.last_hidden_state[:, :-1], labels[:, 1:], is_code[:, 1:]
    total = hidden.new_zeros((), dtype=torch.float32)
    heads = [(batch["has_text"], model.lm_head, ~is_drawn)]
    heads.append((batch["has_codes"], model.model.generation_head, is_drawn))
    for is_wanted, head, is_own in heads:
        if is_wanted:
            logits = head(hidden).float().flatten(0, 1)
            own = targets.masked_fill(~is_own, IGNORED).flatten()
            total = total + cross_entropy(logits, own, ignore_index=IGNORED, reduction="sum")
    mean: Tensor = total / (targets != IGNORED).sum().clamp(min=1)
    return mean


def _pixels(image: Any) -> Pixels:
    """A picture as `datasets` gives it, decoded, or as it stands in the file."""
    if isinstance(image, Mapping):
        return decode_picture(image["bytes"])
    sink = io.BytesIO()
    image.save(sink, "PNG")
    return decode_picture(sink.getvalue())
