"""What the language model takes in: a vector for every word, drawn code and part of a picture."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.engine.checkpoints import Janus


class Embeddings:
    """One table for words and, behind them, drawn codes: the next input of any row is a number."""

    table: Tensor
    """[words + codes, width], of the model's dtype and on its device. A copy."""

    def __init__(self, janus: Janus) -> None:
        self._image = janus.special.image
        with torch.inference_mode():
            codes = torch.arange(janus.geometry.num_codes, device=janus.model.device)
            drawn = janus.model.prepare_embeddings_for_image_generation(codes[None])[0]
            words = janus.model.get_input_embeddings()
            assert isinstance(words, nn.Embedding)
            self.table = torch.cat([words.weight, drawn])
        self.first_code = len(words.weight)  # the id of code 0

    def of(self, ids: Sequence[int], features: Tensor | None = None) -> Tensor:
        """[tokens, width], with picture features where the placeholders stand.

        `features`, [placeholders, width] of any dtype, are those of all pictures, in order.
        """
        tokens = torch.tensor(ids, device=self.table.device)
        embeds = self.table[tokens]
        if features is not None:
            embeds[tokens == self._image] = features.to(embeds.dtype)
        return embeds
