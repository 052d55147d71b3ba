"""What the toy Janus is trained to do: cross-entropies of one batch.

Pictures that are looked at are mostly tiled from clean patches and made noisy, which costs nothing;
a part goes through the decoder, as every picture does when the model is used.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from pipeline.engine.checkpoints import Janus
from pipeline.engine.sampling import guide
from pipeline.toy.patches import COLUMNS, ROWS, meanings, tile_all
from pipeline.toy.training.batches import NUM_CODES, Ints, TrainingBatch
from schemas.training import IGNORED

if TYPE_CHECKING:
    from transformers import JanusForConditionalGeneration

_DECODED_SHARE = 0.08
_PATCH_NOISE, _PIXEL_NOISE = 0.07, 0.05  # of the range from -1 to 1
_SHARPNESS = 10.0  # of likeness, as a scale on cosines
_TOLD_SHARE = 0.3  # of the names' part in the probe's loss
_CFG_WEIGHT, _GUIDED_SHARE = 5.0, 0.2  # the paper's guidance, and its part in the loss


class Probe(torch.nn.Linear):
    """Reads patches off their features; no part of the model.

    It makes the vision tower see early, when the language model still does better by believing what
    it is told, and in a language that is already spoken: the features of a red circle's patch lie
    near the embeddings of the words "red" and "circle".
    """

    names: Tensor

    def __init__(self, janus: Janus) -> None:
        width = _word_table(janus.model).shape[1]
        super().__init__(width, janus.geometry.num_codes, device=janus.model.device)
        torch.nn.init.zeros_(self.weight)  # it must not shout before it knows anything
        torch.nn.init.zeros_(self.bias)
        names = _names_of_codes(janus).to(janus.model.device)
        self.register_buffer("names", names, persistent=False)

    def loss_of(self, features: Tensor, codes: Tensor, embeddings: Tensor) -> Tensor:
        """How badly codes and names are read off features: a mean over the patches.

        `features` are [pictures, 36, width], `codes` int64 [pictures, 36], and `embeddings` those
        of all words, [vocabulary, width], which learn nothing from it.
        """
        patch_features, codes = features.flatten(0, 1), codes.flatten()
        names = self.names[codes]
        is_named = names.sum(-1) > 0
        directions = normalize(patch_features[is_named], dim=-1)
        likeness = directions @ normalize(embeddings.detach(), dim=-1).T
        chances = (_SHARPNESS * likeness).log_softmax(-1)
        told = -(names[is_named] * chances).sum(-1).mean()
        return cross_entropy(self(patch_features), codes) + _TOLD_SHARE * told


def _word_table(model: "JanusForConditionalGeneration") -> Tensor:
    """The embeddings of the words, [vocabulary, width]."""
    table = model.get_input_embeddings()
    assert isinstance(table, torch.nn.Embedding)
    return table.weight


def _names_of_codes(janus: Janus) -> Tensor:
    """The words for what each code shows, as shares [codes, vocabulary] that add up to 1 or 0."""
    shares = torch.zeros(janus.geometry.num_codes, len(_word_table(janus.model)))
    for code, (_, *parts) in enumerate(meanings()):
        for word in (part for part in parts if isinstance(part, str)):
            (token,) = janus.tokenizer.encode(f" {word}", add_special_tokens=False)
            shares[code, token] = 1
    return shares / shares.sum(-1, keepdim=True).clamp(min=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Losses:
    """Mean cross-entropies of a batch, and how often the likeliest token was right."""

    words: Tensor
    codes: Tensor
    guided: Tensor  # of codes, under guidance
    patches: Tensor  # of the codes of the patches that are looked at

    @property
    def by_name(self) -> dict[str, Tensor]:
        return {
            "words": self.words,
            "codes": self.codes,
            "guided codes": self.guided,
            "patches": self.patches,
        }

    @property
    def total(self) -> Tensor:
        return self.words + self.codes + _GUIDED_SHARE * self.guided + self.patches


def losses_of(
    model: "JanusForConditionalGeneration",
    probe: "Probe",
    batch: TrainingBatch,
    generator: torch.Generator,
) -> Losses:
    """Run the model over a batch, with gradients. The generator, on the CPU, makes the noise."""
    device = model.device
    ids, codes = torch.from_numpy(batch.ids).to(device), torch.from_numpy(batch.codes).to(device)
    is_code = codes >= 0
    embeds = model.get_input_embeddings()(ids)
    embeds[is_code] = model.prepare_embeddings_for_image_generation(codes[is_code])
    patches = embeds.new_zeros(())
    if len(batch.canvases):
        pixels = shown(model, batch.canvases, generator)
        features = model.model.get_image_features(pixels).pooler_output
        rows = torch.from_numpy(batch.seen_at[:, :1]).to(device)
        positions = torch.from_numpy(batch.seen_at[:, 1:]) + torch.arange(NUM_CODES)
        embeds[rows, positions.to(device)] = features
        shown_codes = torch.from_numpy(batch.canvases).to(device)
        patches = probe.loss_of(features, shown_codes, _word_table(model))
    hidden = model.model.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
    return Losses(
        words=_loss(model.lm_head, hidden, batch.words),
        codes=_loss(model.model.generation_head, hidden, batch.drawn),
        guided=_guided_loss(model.model.generation_head, hidden, batch),
        patches=patches,
    )


def _loss(head: torch.nn.Module, hidden: Tensor, targets: Ints) -> Tensor:
    wanted = torch.from_numpy(targets).to(hidden.device)
    is_wanted = wanted != IGNORED
    if not is_wanted.any():
        return hidden.new_zeros(())
    return cross_entropy(head(hidden[is_wanted]), wanted[is_wanted])


def _guided_loss(head: torch.nn.Module, hidden: Tensor, batch: TrainingBatch) -> Tensor:
    """What the guided sum of both branches gets wrong.

    Guidance multiplies every difference between the branches, those between hopeless codes too,
    which nothing else trains: without this a code that both hold for impossible is drawn now and
    then.
    """
    if not len(batch.twins):
        return hidden.new_zeros(())
    wanted = torch.from_numpy(batch.drawn[batch.twins[:, 0]]).to(hidden.device)
    is_wanted = wanted != IGNORED
    cond, uncond = (
        head(hidden[torch.from_numpy(rows).to(hidden.device)][is_wanted]) for rows in batch.twins.T
    )
    return cross_entropy(guide(cond, uncond, _CFG_WEIGHT), wanted[is_wanted])


def shown(
    model: "JanusForConditionalGeneration", canvases: Ints, generator: torch.Generator
) -> Tensor:
    """Pictures of canvases as the model looks at them, float [pictures, 3, 48, 48], -1 to 1."""
    pixels = torch.from_numpy(tile_all(canvases)).permute(0, 3, 1, 2).float() / 127.5 - 1
    coarse = torch.randn(len(pixels), 3, ROWS, COLUMNS, generator=generator) * _PATCH_NOISE
    pixels += torch.nn.functional.interpolate(coarse, size=pixels.shape[-2:])
    pixels += torch.randn(pixels.shape, generator=generator) * _PIXEL_NOISE
    pixels = pixels.clamp(-1, 1).to(model.device)
    num_decoded = round(len(canvases) * _DECODED_SHARE)
    if num_decoded:
        tokens = torch.from_numpy(canvases[:num_decoded]).to(model.device)
        with torch.no_grad():
            decoded = model.decode_image_tokens(tokens).permute(0, 3, 1, 2).float()
        quantised = ((decoded + 1) / 2 * 255).clamp(0, 255).to(torch.uint8)
        pixels[:num_decoded] = quantised.float() / 127.5 - 1
    return pixels
