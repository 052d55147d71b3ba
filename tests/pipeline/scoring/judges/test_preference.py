from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as tf
from torch import nn

from schemas.errors import InputError
from tests.pipeline.scoring.judges.checkpoints import clip_config, clip_tokenizer
from tests.pipeline.scoring.judges.conftest import Checkpoints, asked, loaded, picture

INPUTS = [asked("a dog", 1), asked("two red cups", 2), asked("a dog", 3), asked("x " * 90, 4)]


def cosines(folder: Path) -> list[float]:
    """From the raw towers, a picture and a text at a time."""
    model = tf.CLIPModel.from_pretrained(folder).eval()
    processor = tf.CLIPImageProcessorPil.from_pretrained(folder)
    values = []
    for scoring_input in INPUTS:
        pixels = processor(scoring_input.pixels, return_tensors="pt")["pixel_values"]
        ids = clip_tokenizer()(scoring_input.prompt, truncation=True, max_length=77)["input_ids"]
        with torch.no_grad():
            shown = model.visual_projection(model.vision_model(pixels).pooler_output)[0]
            states = model.text_model(torch.tensor([ids])).last_hidden_state[0]
            said = model.text_projection(states[-1])  # the end of the text
        image, text = shown.double().numpy(), said.double().numpy()
        values.append(float(image @ text / np.sqrt((image @ image) * (text @ text))))
    return values


@pytest.mark.parametrize("name", ["pickscore", "clipscore"])
def test_it_is_the_cosine_of_the_projected_towers_without_the_logit_scale(
    checkpoint: Checkpoints, name: str
):
    scores = loaded(name, model=str(checkpoint("clip")), batch_size=2).score(INPUTS)

    assert [score.value for score in scores] == pytest.approx(cosines(checkpoint("clip")), abs=1e-5)
    assert len({round(score.value or 0, 4) for score in scores}) == 4, "they differ"
    scale = tf.CLIPModel.from_pretrained(checkpoint("clip")).logit_scale.exp().item()
    assert scores[0].parts["logit"] == pytest.approx((scores[0].value or 0) * scale, rel=1e-5)
    assert [score.parts["prompt_cut"] for score in scores] == [0, 0, 0, 1]


class Block(nn.Module):
    """A block of open_clip's transformer, with its names."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, 2, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(width, 32), "gelu": nn.GELU(), "c_proj": nn.Linear(32, width)}
        )

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        seen = self.ln_1(x)
        x = x + self.attn(seen, seen, seen, need_weights=False, attn_mask=mask)[0]
        inner = self.mlp["gelu"](self.mlp["c_fc"](self.ln_2(x)))
        return x + self.mlp["c_proj"](inner)


class Transformer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList([Block(width), Block(width)])

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class Visual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 16, 16, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(16))
        self.positional_embedding = nn.Parameter(torch.randn(5, 16))
        self.ln_pre, self.ln_post = nn.LayerNorm(16), nn.LayerNorm(16)
        self.transformer = Transformer(16)
        self.proj = nn.Parameter(torch.randn(16, 8))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(pixels), 1, -1)
        x = torch.cat([first, patches], dim=1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x))[:, 0]) @ self.proj


class OpenClip(nn.Module):
    """The CLIP of open_clip, small, written from its description."""

    def __init__(self, num_words: int) -> None:
        super().__init__()
        self.visual = Visual()
        self.token_embedding = nn.Embedding(num_words, 16)
        self.positional_embedding = nn.Parameter(torch.randn(77, 16))
        self.transformer = Transformer(16)
        self.ln_final = nn.LayerNorm(16)
        self.text_projection = nn.Parameter(torch.randn(16, 8))
        self.logit_scale = nn.Parameter(torch.tensor(4.6))

    def encode_text(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        mask = torch.full((ids.shape[1], ids.shape[1]), float("-inf")).triu(1)
        x = self.ln_final(self.transformer(x, mask))
        return x[range(len(ids)), ids.argmax(dim=1)] @ self.text_projection


def open_clip_checkpoint(folder: Path) -> Path:
    model = OpenClip(len(clip_tokenizer())).eval()
    with torch.random.fork_rng():
        torch.manual_seed(7)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.4)
    weights = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": weights, "epoch": 3}, folder / "HPS_v2.1_compressed.pt")
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Config, tokenizer and image processor of a CLIP of these sizes, without its weights."""
    folder = tmp_path / "base"
    clip_config(hidden_act="gelu").save_pretrained(folder)
    clip_tokenizer().save_pretrained(folder)
    crop = {"height": 32, "width": 32}
    processor = tf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=crop)
    processor.save_pretrained(folder)
    return folder


def test_weights_of_open_clip_give_in_clip_model_what_they_give_at_home(tmp_path: Path, base: Path):
    folder = open_clip_checkpoint(tmp_path)
    home = OpenClip(len(clip_tokenizer())).eval()
    weights = torch.load(folder / "HPS_v2.1_compressed.pt", weights_only=True)["state_dict"]
    home.load_state_dict({name.removeprefix("module."): weights[name] for name in weights})
    processor = tf.CLIPImageProcessorPil.from_pretrained(base)
    expected = []
    for scoring_input in INPUTS[:3]:
        pixels = processor(scoring_input.pixels, return_tensors="pt")["pixel_values"]
        ids = clip_tokenizer()(scoring_input.prompt)["input_ids"]
        with torch.no_grad():
            shown, said = home.visual(pixels)[0], home.encode_text(torch.tensor([ids]))[0]
        expected.append(torch.cosine_similarity(shown, said, dim=0).item())

    scores = loaded("hps", model=str(folder), base=str(base)).score(INPUTS[:3])

    assert [score.value for score in scores] == pytest.approx(expected, abs=1e-5)


def test_weights_of_another_model_and_a_missing_one_are_refused(tmp_path: Path, base: Path):
    path = open_clip_checkpoint(tmp_path) / "HPS_v2.1_compressed.pt"
    content = torch.load(path, weights_only=True)
    del content["state_dict"]["module.ln_final.weight"]
    torch.save(content, path)
    with pytest.raises(InputError, match=r"lacks weights.*text_model.final_layer_norm.weight"):
        loaded("hps", model=str(tmp_path), base=str(base))

    content["state_dict"]["module.visual.attnpool.positional_embedding"] = torch.zeros(2)
    torch.save(content, path)
    with pytest.raises(InputError, match=r"attnpool.* has no counterpart"):
        loaded("hps", model=str(tmp_path), base=str(base))

    path.write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"cannot be read as a model"):
        loaded("hps", model=str(tmp_path), base=str(base))


def test_the_version_tells_what_is_in_the_folder_and_not_where_it_lies(
    checkpoint: Checkpoints, tmp_path: Path
):
    from pipeline.scoring.find import find_scorer
    from pipeline.scoring.scorers import id_of

    first = checkpoint("clip")
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in first.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    here, there = (id_of(find_scorer("pickscore", {"model": str(f)})) for f in (first, copy))
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    changed = id_of(find_scorer("pickscore", {"model": str(copy)}))

    assert here == there != changed
    assert picture(1).shape == (96, 96, 3)
