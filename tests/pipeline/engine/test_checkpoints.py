"""Loading: both formats give the same weights, and nothing incomplete is ever loaded."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.engine.checkpoints import Janus, digest_of, load_janus, resolve_checkpoint
from pipeline.engine.tiny import build_tiny, tiny_checkpoint
from schemas.errors import InputError
from schemas.geometry import Geometry

GOLDEN = Path(__file__).parents[2] / "golden"
DEEPSEEK = GOLDEN / "janus-tiny"
WEIGHTS = "model.safetensors"
TINY_V1 = "f620752344b132b8e94fb8bf579f108eaf5616c9da1a4d30293e4b3d8bf3fa14"


LARGER = {"params": {"image_size": 100, "model_name": "siglip_tiny_patch16"}}


@pytest.fixture(scope="module")
def golden() -> Janus:
    return load(DEEPSEEK)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the golden checkpoint, to be spoilt."""
    return Path(shutil.copytree(DEEPSEEK, tmp_path / "model"))


def load(folder: Path) -> Janus:
    return load_janus(folder, dtype=torch.float32, device="cpu")


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


def add_token(folder: Path) -> None:
    path = folder / "tokenizer.json"
    tokens = json.loads(path.read_text("utf-8"))["added_tokens"]
    edit(path, added_tokens=[*tokens, tokens[0] | {"id": 1024, "content": "<one too many>"}])


def assert_same_weights(janus: Janus, other: Janus) -> None:
    theirs = other.model.state_dict()
    ours = janus.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_deepseek_checkpoint_says_what_its_files_say(golden: Janus):
    assert golden.geometry == Geometry(image_size=96, rows=6, columns=6, num_codes=256)
    assert golden.geometry.num_tokens == 36
    assert golden.image_mean == golden.image_std == (0.5, 0.5, 0.5)
    assert golden.special.bos == 0
    assert golden.special.eoi == 5
    assert golden.model.config.image_token_id == golden.special.image == 3
    assert golden.card is None
    assert golden.tokenizer("a red hat").input_ids[0] == golden.special.bos


def test_deepseek_weights_arrive_where_they_belong(golden: Janus):
    raw = {name: weight.float() for name, weight in load_file(DEEPSEEK / WEIGHTS).items()}
    model = golden.model
    tower = "vision_model.vision_tower"

    qkv = raw[f"{tower}.blocks.1.attn.qkv.weight"]
    attention = model.model.vision_model.encoder.layers[1].self_attn
    assert torch.equal(attention.q_proj.weight, qkv[:64])
    assert torch.equal(attention.v_proj.weight, qkv[128:])
    positions = model.model.vision_model.embeddings.position_embedding.weight
    assert torch.equal(positions, raw[f"{tower}.pos_embed"][0])
    assert torch.equal(model.lm_head.weight, raw["language_model.lm_head.weight"])
    assert not torch.equal(model.lm_head.weight, model.get_input_embeddings().weight)
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())


def test_a_recorded_reflection_comes_out_token_for_token(golden: Janus):
    events = json.loads((GOLDEN / "golden.json").read_text("utf-8"))["traces"][0]["events"]
    kinds = [event["kind"] for event in events]
    reflection = events[kinds.index("reflect")]
    canvas = events[kinds.index("canvas")]

    features = look_at(golden, canvas["tokens"])
    prompt = torch.tensor([reflection["input_ids"]])
    embeddings = golden.model.get_input_embeddings()(prompt)
    embeddings[prompt == golden.special.image] = features

    assert continues(golden, embeddings, reflection["output_ids"])


def look_at(janus: Janus, codes: list[int]) -> torch.Tensor:
    """What the model sees of a picture of these codes: float32[tokens, width]."""
    drawn = janus.model.model.vqmodel.decode(torch.tensor([codes]))
    pixels = ((drawn + 1) / 2 * 255).clamp(0, 255).to(torch.uint8).float() / 255
    return janus.model.model.get_image_features((pixels - 0.5) / 0.5).pooler_output[0]


def continues(janus: Janus, prompt: torch.Tensor, answer: list[int]) -> bool:
    """Whether each token of the answer is the likeliest one after what precedes it."""
    words = janus.model.get_input_embeddings()(torch.tensor([answer]))
    context = torch.cat([prompt, words], dim=1)
    hidden = janus.model.model.language_model(inputs_embeds=context).last_hidden_state
    after = hidden[0, prompt.shape[1] - 1 : -1]
    return janus.model.lm_head(after).argmax(dim=-1).tolist() == answer


def test_the_same_weights_as_a_pickle_load_alike(golden: Janus, folder: Path):
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()

    assert_same_weights(load(folder), golden)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_the_same_weights_in_shards_load_alike(golden: Janus, folder: Path, name: str):
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    save = save_file if name == WEIGHTS else torch.save
    shards = [f"{part}-{name}" for part in range(2)]
    weight_map = {weight: shards[number % 2] for number, weight in enumerate(weights)}
    for shard in shards:
        save({w: weights[w] for w in weights if weight_map[w] == shard}, folder / shard)
    (folder / f"{name}.index.json").write_text(json.dumps({"weight_map": weight_map}))

    assert_same_weights(load(folder), golden)


def test_the_same_model_in_hugging_face_format_loads_alike(golden: Janus, folder: Path):
    golden.model.save_pretrained(folder)

    converted = load(folder)

    assert_same_weights(converted, golden)
    assert converted.geometry == golden.geometry
    assert converted.special == golden.special


def test_the_dtype_is_the_caller_s(folder: Path):
    model = load_janus(folder, dtype=torch.bfloat16, device="cpu").model

    assert {weight.dtype for weight in model.state_dict().values()} == {torch.bfloat16}


def test_a_card_beside_the_weights_is_read(folder: Path):
    (folder / "coppice.json").write_text('{"pack": "plain"}')

    assert load(folder).card == {"pack": "plain"}


def test_a_tokenizer_that_leaves_out_bos_is_put_right(golden: Janus, folder: Path):
    edit(folder / "tokenizer.json", post_processor=None)

    assert load(folder).tokenizer("a red hat").input_ids == golden.tokenizer("a red hat").input_ids


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda f: edit(f / "config.json", model_type="llava"), "model_type 'llava'"),
        (lambda f: edit(f / "config.json", gen_head_config=None), "config.json"),
        (lambda f: edit(f / "config.json", vision_config={"params": {}}), "image_size"),
        (lambda f: (f / "config.json").write_text("{"), "not a JSON object"),
        (lambda f: (f / "config.json").unlink(), "has no config.json"),
        (lambda f: (f / "preprocessor_config.json").unlink(), "has no preprocessor_config.json"),
        (lambda f: edit(f / "preprocessor_config.json", image_std=None), "None for image_std"),
        (lambda f: (f / WEIGHTS).unlink(), "no model.safetensors"),
        (lambda f: os.truncate(f / WEIGHTS, 1_000_000), "cannot be read as weights"),
        (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda f: edit(f / "tokenizer.json", decoder=None), "changes text"),
        (lambda f: edit(f / "tokenizer.json", added_tokens=[]), "lacks <"),
        (add_token, "tokens up to id 1024 and the model knows 1024"),
        (
            lambda f: edit(f / "config.json", vision_config=LARGER),
            "of 96 pixels and reads them at 100",
        ),
    ],
)
def test_a_spoilt_checkpoint_is_refused(folder: Path, spoil, complaint: str):
    spoil(folder)

    with pytest.raises(InputError, match=complaint):
        load(folder)


def without(weights: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {other: weight for other, weight in weights.items() if other != name}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda w: without(w, "gen_embed.weight"), "generation_embeddings.weight is missing"),
        (lambda w: w | {"novelty": torch.zeros(1)}, "novelty is not part of the model"),
        (
            lambda w: w | {"gen_embed.weight": torch.zeros(9, 8)},
            r"\(9, 8\) and should be \(256, 8\)",
        ),
        (lambda w: {}, "make no Janus model"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(folder: Path, change, complaint: str):
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)

    with pytest.raises(InputError, match=complaint):
        load(folder)


def test_an_index_that_names_an_absent_shard_is_refused(folder: Path):
    (folder / WEIGHTS).rename(folder / "part-1.safetensors")
    index = {"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))

    with pytest.raises(InputError, match=r"has no part-2\.safetensors"):
        load(folder)


def test_a_pickle_with_code_in_it_is_refused(folder: Path):
    (folder / WEIGHTS).unlink()
    torch.save({"weight": print}, folder / "pytorch_model.bin")

    with pytest.raises(InputError, match="cannot be read as weights"):
        load(folder)


def test_the_digest_follows_what_is_loaded_and_nothing_else(folder: Path):
    before = digest_of(folder)
    (folder / "README.md").write_text("hello")
    assert digest_of(folder) == before

    edit(folder / "preprocessor_config.json", image_mean=[0.4, 0.5, 0.5])
    assert digest_of(folder) != before


def test_the_bundled_model_is_the_same_to_the_byte_everywhere(tmp_path: Path):
    build_tiny(tmp_path / "one")
    build_tiny(tmp_path / "two")
    build_tiny(tmp_path / "other", seed=1)

    assert digest_of(tmp_path / "one") == digest_of(tmp_path / "two") == TINY_V1
    assert digest_of(tmp_path / "other") != TINY_V1


def test_the_bundled_model_is_built_once_by_many_at_once(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("COPPICE_CACHE", str(tmp_path))
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: resolve_checkpoint("tiny"), range(4)))

    assert len(set(folders)) == 1
    assert list(folders[0].parent.iterdir()) == [folders[0]]
    assert digest_of(folders[0]) == TINY_V1


def test_the_bundled_model_loads_here_and_in_transformers_alike(tmp_path: Path):
    from transformers import JanusForConditionalGeneration

    build_tiny(tmp_path / "tiny")
    ours = load(tmp_path / "tiny")
    theirs = JanusForConditionalGeneration.from_pretrained(tmp_path / "tiny")

    assert_same_weights(ours, replace(ours, model=theirs))
    assert ours.geometry == Geometry(image_size=96, rows=6, columns=6, num_codes=256)
    assert ours.tokenizer.decode(ours.tokenizer.encode("Two cats \u00e9")[1:]) == "Two cats \u00e9"


def test_a_cache_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COPPICE_CACHE", str(tmp_path / "file"))

    with pytest.raises(InputError, match="set COPPICE_CACHE"):
        tiny_checkpoint()


def test_a_folder_is_taken_as_it_is():
    assert resolve_checkpoint(str(DEEPSEEK)) == DEEPSEEK


def test_a_name_that_means_nothing_is_refused():
    with pytest.raises(InputError, match="give a folder"):
        resolve_checkpoint("/no/such/folder")


def test_a_hub_id_without_a_network_is_refused_before_torch_is_imported(tmp_path: Path):
    script = (
        "import sys\n"
        "from pipeline.engine.checkpoints import resolve_checkpoint\n"
        "from schemas.errors import InputError\n"
        "try:\n    resolve_checkpoint('owner/absent@main')\n"
        "except InputError as error:\n    print(error, 'torch' in sys.modules)\n"
    )
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    said = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)

    assert "'owner/absent@main' is not a folder" in said.stdout, said.stderr
    assert "give a folder that holds the model False" in said.stdout
