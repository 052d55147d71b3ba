"""Training the toy's VQ model: a decoder and codebook for the exact patches, and an encoder to fit.

The codes of a picture are known beforehand (the patches that it is tiled from), so nothing has to
be discovered: the decoder regresses pixels on codes, and the encoder classifies pixels into codes.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from pipeline.toy.patches import code_of, patches, tile_all
from pipeline.toy.scenes import GROUND_THINGS, GROUNDS, codes_of, sample_scene

if TYPE_CHECKING:
    from transformers.models.janus.modeling_janus import JanusVQVAE

_BATCH = 16  # pictures
_POOL = 4000  # scenes that the grids are made of
_STREWN_SHARE = 0.4
_PEAK_RATE = 3e-3
_SHARPNESS = 20.0  # of the encoder's choice among the codes, as a scale on cosines

Say = Callable[[str], None]


def train_decoder(vq: "JanusVQVAE", *, num_steps: int, seed: int, say: Say) -> None:
    """Fit codebook and decoder to draw the patches of scenes, unfinished and broken ones too.

    Hugging Face's encoder needs a residual block a level, and its decoder then has two. One is
    enough here and trains in half the time, so the second is left to do nothing.
    """
    slim = slim_decoder(vq, seed)
    trained: list[torch.nn.Module] = [slim.quantize, slim.post_quant_conv, slim.decoder]

    def loss_of(codes: Tensor) -> Tensor:
        wrong = slim.decode(codes) - _pixels(codes)  # type: ignore[arg-type]  # any integers do
        return (wrong**2).mean() + 0.1 * wrong.abs().mean()

    _train(trained, loss_of, seed, vq.device, num_steps, lambda line: say(f"decoder {line}"))
    take_slim(vq, slim)


def slim_decoder(vq: "JanusVQVAE", seed: int) -> "JanusVQVAE":
    """A new VQ model of which only the decoding half can be used, with one block a level."""
    from transformers.models.janus.configuration_janus import JanusVQVAEConfig
    from transformers.models.janus.modeling_janus import JanusVQVAE

    torch.manual_seed(seed)
    config = JanusVQVAEConfig.from_dict(vq.config.to_dict() | {"num_res_blocks": 0})
    slim = JanusVQVAE(config)
    slim.to(vq.device)  # type: ignore[arg-type]  # its decorator hides `self` from mypy
    return slim


def take_slim(vq: "JanusVQVAE", slim: "JanusVQVAE") -> None:
    """Take over what a slim decoder has learned; it draws the same to the last bit."""
    weights = {
        name: weight
        for name, weight in slim.state_dict().items()
        if name.split(".")[0] in ("quantize", "post_quant_conv", "decoder")
    }
    vq.load_state_dict(weights, strict=False)
    with torch.no_grad():
        for name, weight in vq.decoder.named_parameters(prefix="decoder"):
            if name not in weights and ("conv2" in name or "proj_out" in name):
                weight.zero_()  # the end of a residual branch: the block adds nothing
        # The quantiser compares with the codebook as it is stored, and decoding normalises it.
        book = vq.quantize.embedding.weight
        book.copy_(normalize(book, dim=-1))


def train_encoder(vq: "JanusVQVAE", *, num_steps: int, seed: int, say: Say) -> None:
    """Fit the encoder to give back the codes that a picture is tiled from."""
    book = vq.quantize.embedding.weight.detach()

    def loss_of(codes: Tensor) -> Tensor:
        pixels = _pixels(codes)
        latents = vq.quant_conv(vq.encoder(pixels)).permute(0, 2, 3, 1).flatten(0, 2)
        # The nearest code in the quantiser's own measure, softly.
        near = 2 * latents @ book.T - (book**2).sum(-1)
        return cross_entropy(_SHARPNESS * near, codes.flatten()) + 0.1 * latents.pow(2).mean()

    _train(
        [vq.encoder, vq.quant_conv],
        loss_of,
        seed,
        vq.device,
        num_steps,
        lambda line: say(f"encoder {line}"),
    )


def _train(
    modules: list[torch.nn.Module],
    loss_of: Callable[[Tensor], Tensor],
    seed: int,
    device: torch.device,
    num_steps: int,
    say: Say,
) -> None:
    grids = _grids(seed)
    weights = [weight for module in modules for weight in module.parameters()]
    for weight in weights:
        weight.requires_grad_(True)
    optimiser = torch.optim.AdamW(weights, lr=_PEAK_RATE, betas=(0.9, 0.98), weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, _PEAK_RATE, total_steps=num_steps + 1, pct_start=0.05
    )
    for step in range(num_steps):
        loss = loss_of(torch.from_numpy(next(grids)).to(device))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
        if step % 100 == 99 or step == num_steps - 1:
            say(f"step {step + 1} of {num_steps}, loss {loss.item():.4f}")
    for weight in weights:
        weight.requires_grad_(False)


def _pixels(codes: Tensor) -> Tensor:
    """The clean pictures of grids [pictures, 36], float [pictures, 3, 48, 48], -1 to 1."""
    tiled = torch.from_numpy(tile_all(codes.cpu().numpy())).permute(0, 3, 1, 2)
    return (tiled.float() / 127.5 - 1).to(codes.device)


def _grids(seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Canvases [pictures, 36] without end: whole, unfinished, broken, and with a strewn ground.

    What stands on the ground is one token in a picture, and would be learned last.
    """
    rng = np.random.default_rng(seed)
    pool = np.array([codes_of(sample_scene(rng)) for _ in range(_POOL)])
    while True:
        codes = pool[rng.integers(len(pool), size=_BATCH)].copy()
        for row in codes:
            if rng.random() < _STREWN_SHARE:
                _strew(rng, row)
            chance = rng.random()
            if chance < 0.25:
                row[12 * int(rng.integers(1, 3)) :] = 0
            elif chance < 0.4:
                broken = rng.integers(36, size=int(rng.integers(1, 6)))
                row[broken] = rng.integers(len(patches()), size=len(broken))
        yield codes


def _strew(rng: np.random.Generator, codes: npt.NDArray[np.int64]) -> None:
    """Put things on up to five tokens of a picture's ground."""
    ground = GROUNDS[int(rng.integers(len(GROUNDS)))]
    tokens = np.arange(24, 36)
    codes[24:] = [code_of(("ground", ground, int(at // 6 + at % 6) % 2)) for at in tokens]
    for token in rng.choice(tokens, size=int(rng.integers(1, 6)), replace=False):
        codes[token] = code_of(("ground", ground, str(rng.choice(GROUND_THINGS))))
