"""Any shape of checkpoint ends as working or as one sentence, when it is planned.

Whatever planning takes is loaded, and has the same weights; what loading refuses, planning does.
"""

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from pipeline.engine.checkpoints import check_janus, digest_of, load_janus
from pipeline.engine.tiny import build_tiny
from pipeline.engine.tokenizer import load_tokenizer, read_tokenizer
from pipeline.plan.models import describe_model
from schemas.errors import InputError
from schemas.json_values import JsonObject

DEEPSEEK = Path(__file__).parents[3] / "golden" / "janus-tiny"
WEIGHTS, PICKLE = "model.safetensors", "pytorch_model.bin"
PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "tiny"
    build_tiny(folder)
    return folder


@pytest.fixture
def folder(hugging_face: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be spoilt."""
    return Path(shutil.copytree(hugging_face, tmp_path / "model"))


@pytest.fixture(params=["hugging_face", "deepseek"])
def either(request: pytest.FixtureRequest, folder: Path, tmp_path: Path) -> Path:
    """The same in either format."""
    if request.param == "hugging_face":
        return folder
    return Path(shutil.copytree(DEEPSEEK, tmp_path / "deepseek"))


def weights_of(folder: Path) -> Weights:
    return load_file(folder / WEIGHTS)


def save(folder: Path, weights: Weights, name: str = WEIGHTS) -> None:
    save_file({key: value.contiguous() for key, value in weights.items()}, folder / name)


def pickle(folder: Path, content: object) -> None:
    """The weights as a pickle in the place of the others."""
    (folder / WEIGHTS).unlink(missing_ok=True)
    torch.save(content, folder / PICKLE)


def read_json(path: Path) -> JsonObject:
    content: JsonObject = json.loads(path.read_text("utf-8"))
    return content


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(read_json(path) | changes), "utf-8")


def state_of(folder: Path) -> Weights:
    return load_janus(folder, dtype=torch.float32, device="cpu").model.state_dict()


def assert_works(folder: Path, like: Path) -> None:
    """It is planned, and loads with the weights of another."""
    facts = describe_model(str(folder))
    assert facts.geometry == describe_model(str(like)).geometry
    ours, theirs = state_of(folder), state_of(like)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def assert_refused(folder: Path, complaint: str) -> None:
    """In one sentence, when planned and when loaded."""
    for open_it in (lambda: describe_model(str(folder)), lambda: state_of(folder)):
        with pytest.raises(InputError, match=complaint) as refused:
            open_it()
        assert "\n" not in str(refused.value)


# Weight files of another make


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: {"state_dict": weights, "epoch": 3},
        lambda weights: {"model": weights, "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
        lambda weights: {"module": weights, "step": torch.tensor(3), "rng": None},
        lambda weights: {"generator": weights},
    ],
)
def test_weights_one_level_down_are_read(
    folder: Path, hugging_face: Path, wrap: Callable[[Weights], object]
):
    pickle(folder, wrap(weights_of(folder)))

    assert_works(folder, hugging_face)


@pytest.mark.parametrize(
    ("wrap", "complaint"),
    [
        (lambda w: {"model": w, "ema": w}, "'model', 'ema', and which of it"),
        (lambda w: {"a": {"b": {"c": w}}}, "holds 'a', and which of it"),
        (lambda w: {"model": w, "scale": torch.ones(3)}, "'model', 'scale', and which"),
        (lambda w: {**w, "version": 2}, "'lm_head.weight'|, ..., and which"),
        (lambda w: {"epoch": 3}, "holds 'epoch', and which"),
        (lambda w: {}, "holds nothing, and which"),
        (lambda w: list(w.values()), "holds a list where"),
        (lambda w: torch.ones(3), "holds a Tensor where"),
        (lambda w: {3: w, "\x1b[2J": w}, r"holds 3, '\\x1b\[2J', and which"),
    ],
)
def test_a_pickle_in_which_the_weights_cannot_be_told_is_refused(
    folder: Path, wrap: Callable[[Weights], object], complaint: str
):
    pickle(folder, wrap(weights_of(folder)))

    assert_refused(folder, complaint)


def test_a_pickle_with_objects_beside_the_weights_says_so(folder: Path):
    pickle(folder, {"args": Path("x"), "model": weights_of(folder)})

    with pytest.raises(InputError, match=r"Python objects beside them.*could run code"):
        describe_model(str(folder))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda weight: weight.to("meta"), "has no numbers where dense"),
        (lambda weight: weight.to_sparse(), "has torch.sparse_coo torch.float32 numbers"),
        (lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8), "qint8 numbers"),
    ],
)
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.filterwarnings("ignore:TypedStorage")
@pytest.mark.parametrize("wrap", [lambda weights: weights, lambda weights: {"model": weights}])
def test_weights_that_are_not_dense_numbers_are_refused(
    folder: Path,
    change: Callable[[torch.Tensor], torch.Tensor],
    complaint: str,
    wrap: Callable[[Weights], object],
):
    weights = weights_of(folder)
    pickle(folder, wrap(weights | {"lm_head.weight": change(weights["lm_head.weight"])}))

    assert_refused(folder, complaint)


def test_a_pickle_of_an_old_torch_is_read(folder: Path, hugging_face: Path):
    weights = weights_of(folder)
    (folder / WEIGHTS).unlink()
    torch.save(weights, folder / PICKLE, _use_new_zipfile_serialization=False)

    assert_works(folder, hugging_face)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "base_model.model.", "actor.module."])
def test_what_every_name_begins_with_is_taken_off(either: Path, tmp_path: Path, prefix: str):
    whole = Path(shutil.copytree(either, tmp_path / "whole"))
    save(either, {prefix + name: weight for name, weight in weights_of(either).items()})

    assert_works(either, whole)


@pytest.mark.parametrize(
    "wrapper", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"]
)
def test_what_torch_wraps_some_modules_in_is_taken_off(
    folder: Path, hugging_face: Path, wrapper: str
):
    save(
        folder,
        {
            name.replace(".layers.0.", f".layers.0.{wrapper}."): weight
            for name, weight in weights_of(folder).items()
        },
    )

    assert_works(folder, hugging_face)


def test_a_prefix_of_some_names_is_shown(folder: Path):
    weights = weights_of(folder)
    weights["wrapped.lm_head.weight"] = weights.pop("lm_head.weight")
    save(folder, weights)

    assert_refused(
        folder, r"\(2 of them\): lm_head\.weight is missing; wrapped\.lm_head\.weight is"
    )


def test_two_names_of_one_weight_are_refused(folder: Path):
    weights = weights_of(folder)
    save(folder, weights | {"_orig_mod.lm_head.weight": weights["lm_head.weight"].clone()})

    assert_refused(folder, "'_orig_mod.lm_head.weight'.*'lm_head.weight'|name one weight")


@pytest.mark.parametrize(
    "buffer",
    [
        "model.vision_model.embeddings.position_ids",
        "model.language_model.rotary_emb.inv_freq",
        "model.language_model.layers.0.self_attn.rotary_emb.cos_cached",
        "model.language_model.rotary_emb.original_inv_freq",
    ],
)
def test_buffers_that_are_computed_are_no_weights(folder: Path, hugging_face: Path, buffer: str):
    save(folder, weights_of(folder) | {buffer: torch.arange(36)[None]})

    assert_works(folder, hugging_face)


def test_an_adapter_that_is_not_merged_is_refused_wherever_it_is(folder: Path):
    weights = {f"base_model.model.{name}": w for name, w in weights_of(folder).items()}
    save(folder, weights | {"base_model.model.lm_head.lora_A.weight": torch.ones(4, 64)})

    assert_refused(folder, "lora_A.weight in .* is an adapter.*merge_and_unload")


@pytest.mark.parametrize(
    "name",
    [
        *("adapter_model.safetensors", "adapter_model.bin", "pytorch_lora_weights.safetensors"),
        *("adapters.safetensors", "adapter_0.pt", "adapter.safetensors"),
    ],
)
def test_an_adapter_beside_the_base_or_alone_is_refused(folder: Path, name: str):
    (folder / name).write_bytes(b"")
    assert_refused(folder, f"{name} is an adapter, and adapters are not applied")

    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/base"}')
    for path in folder.iterdir():
        if path.name not in (name, "adapter_config.json"):
            path.unlink()
    assert_refused(folder, "is an adapter .its base model is 'owner/base'.*merge_and_unload")


@pytest.mark.parametrize("below", ["lora", "checkpoint-500", "default"])
def test_an_adapter_in_a_folder_of_the_model_is_refused(folder: Path, below: str):
    (folder / below).mkdir()
    (folder / below / "adapter_config.json").write_text('{"base_model_name_or_path": "a/b"}')

    assert_refused(folder, f"{below}/adapter_config.json is an adapter .its base model is 'a/b'")


# Quantised


@pytest.mark.parametrize("table", [{}, {"text_config": None}])
@pytest.mark.parametrize(
    "told",
    [
        {"quantization_config": {"quant_method": method}}
        for method in ("bitsandbytes", "gptq", "awq", "quanto", "fp8", "torchao", "never-heard-of")
    ]
    + [{"compression_config": {"format": "pack"}}, {"load_in_8bit": True}],
)
def test_a_config_that_tells_of_a_quantisation_is_refused(
    folder: Path, told: dict[str, Any], table: dict[str, Any]
):
    inside = {"text_config": {**read_json(folder / "config.json")["text_config"], **told}}  # type: ignore[dict-item]
    edit(folder / "config.json", **(inside if table else told))

    assert_refused(folder, f"config.json has {next(iter(told))}, so the weights are quantised")


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn, torch.int32])
def test_weights_that_are_no_plain_numbers_are_refused(folder: Path, dtype: torch.dtype):
    weights = weights_of(folder)
    name = "model.language_model.layers.0.self_attn.q_proj.weight"
    save(folder, weights | {name: weights[name].to(dtype)})

    assert_refused(folder, f"{name} in .* is stored as .*quantised")


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_numbers_that_no_weight_has_are_not_called_quantised(folder: Path, dtype: torch.dtype):
    save(folder, weights_of(folder) | {"step": torch.ones(3).to(dtype)})

    assert_refused(folder, "step in .* is stored as .*, as no weight of a Janus is; save the")


@pytest.mark.parametrize(
    "name",
    [
        *("quantize_config.json", "quant_strategy.json", "quanto_qmap.json"),
        *("gptq_model-4bit-128g.safetensors", "model.int8.safetensors"),
    ],
)
def test_a_file_of_a_quantiser_is_refused(folder: Path, name: str):
    (folder / name).write_text('{"bits": 4}')

    assert_refused(folder, f"{name}, so the weights are quantised")


# Folders of another make


def test_a_model_as_the_installed_transformers_saves_it_works(
    folder: Path, hugging_face: Path, tmp_path: Path
):
    from transformers import JanusForConditionalGeneration, JanusImageProcessorPil

    saved = tmp_path / "saved"
    model = JanusForConditionalGeneration.from_pretrained(folder)
    model.save_pretrained(saved, max_shard_size="200KB")
    shutil.copy(folder / "tokenizer.json", saved)
    processor = JanusImageProcessorPil.from_pretrained(folder).to_dict()
    content = {"image_processor": processor, "processor_class": "JanusProcessor"}
    (saved / PROCESSOR).write_text(json.dumps(content))

    assert_works(saved, hugging_face)
    edit(saved / PROCESSOR, image_processor={**processor, "image_std": [0.5, 0.5, 0.25]})
    assert load_janus(saved, dtype=torch.float32, device="cpu").image_std == (0.5, 0.5, 0.25)


def test_a_tied_model_as_the_installed_transformers_saves_it_works(folder: Path, tmp_path: Path):
    from transformers import JanusForConditionalGeneration

    saved = tmp_path / "saved"
    model = JanusForConditionalGeneration.from_pretrained(folder)
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(saved)
    for name in ("tokenizer.json", PREPROCESSOR):
        shutil.copy(folder / name, saved)

    assert "lm_head.weight" not in weights_of(saved)
    describe_model(str(saved))
    state = state_of(saved)
    words = state["model.language_model.embed_tokens.weight"]
    assert torch.equal(state["lm_head.weight"], words)


def test_a_model_without_a_head_that_is_not_tied_is_refused(folder: Path):
    weights = weights_of(folder)
    del weights["lm_head.weight"]
    save(folder, weights)
    edit(folder / "config.json", tie_word_embeddings=False)

    assert_refused(folder, "lm_head.weight is missing")


@pytest.mark.parametrize(
    "said", [{"return_dict": False}, {"output_attentions": True}, {"use_cache": False}]
)
def test_how_another_program_wants_its_answers_is_not_the_models(
    folder: Path, said: dict[str, bool]
):
    config = read_json(folder / "config.json")
    table = config["text_config"]
    assert isinstance(table, dict)
    edit(folder / "config.json", text_config=table | said, **said)

    assert describe_model(str(folder)).geometry
    model = load_janus(folder, dtype=torch.float32, device="cpu").model
    answer = model.model.language_model(torch.tensor([[1, 2]]))
    assert answer.last_hidden_state.shape[:2] == (1, 2)
    assert answer.attentions is None


def test_another_processor_file_makes_another_model(folder: Path):
    inner = read_json(folder / PREPROCESSOR)
    (folder / PREPROCESSOR).unlink()
    (folder / PROCESSOR).write_text(json.dumps({"image_processor": inner}))
    before = digest_of(folder)

    edit(folder / PROCESSOR, image_processor=inner | {"image_mean": [0.4, 0.5, 0.5]})

    assert digest_of(folder) != before


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"image_mean": [0.5, 0.5]}, "image_mean, where three numbers are due"),
        ({"image_mean": None}, "None for image_mean"),
        ({"image_mean": [10**400] * 3}, "image_mean, where three"),
        ({"image_std": [0.5, 0.5, 0]}, "0 in image_std"),
        ({"image_std": [0.5, 0.5, float("nan")]}, "image_std, where three"),
        ({"do_normalize": False}, "do_normalize off"),
        ({"rescale_factor": 1}, "1 for rescale_factor, where 1/255"),
    ],
)
def test_pictures_that_would_be_shown_otherwise_are_refused(
    folder: Path, changes: dict[str, Any], complaint: str
):
    edit(folder / PREPROCESSOR, **changes)

    assert_refused(folder, complaint)


def test_two_processor_files_that_differ_are_refused(folder: Path):
    other = {"image_mean": [0.4, 0.4, 0.4], "image_std": [0.5, 0.5, 0.5]}
    (folder / PROCESSOR).write_text(json.dumps({"image_processor": other}))

    assert_refused(folder, f"and {PROCESSOR} beside it")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", PREPROCESSOR, WEIGHTS])
def test_a_pointer_of_git_lfs_is_told_from_the_file(folder: Path, name: str):
    pointer = f"version https://git-lfs.example/spec/v1\noid sha256:{'0' * 64}\nsize 3\n"
    (folder / name).write_text(pointer)

    assert_refused(folder, f"{name} is a pointer of git LFS .*git lfs pull")


@pytest.mark.parametrize("shard", ["../elsewhere.safetensors", "/etc/x.safetensors", "a/../b", ""])
def test_an_index_that_leads_out_of_the_folder_is_refused(folder: Path, shard: str):
    (folder / WEIGHTS).rename(folder.parent / "elsewhere.safetensors")
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))

    assert_refused(folder, "names .* in the model's folder")


@pytest.mark.parametrize("weight_map", [None, {}, [], 3, {"a": 3}, {"a": None}])
def test_an_index_that_names_no_files_is_refused(folder: Path, weight_map: Any):
    (folder / WEIGHTS).unlink()
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": weight_map}))

    assert_refused(folder, "names no files|names '")


def test_weights_of_two_savings_are_refused(folder: Path):
    (folder / f"{WEIGHTS}.index.json").write_text('{"weight_map": {"a": "b.safetensors"}}')
    assert_refused(folder, f"both {WEIGHTS} and {WEIGHTS}.index.json")


def test_a_weight_in_two_shards_is_refused(folder: Path):
    weights = weights_of(folder)
    (folder / WEIGHTS).unlink()
    save(folder, weights, "a.safetensors")
    save(folder, {"lm_head.weight": weights["lm_head.weight"]}, "b.safetensors")
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))

    assert_refused(folder, "lm_head.weight.* another file")


@pytest.mark.parametrize("name", ["model.gguf", "model-00001-of-00002.safetensors", "last.ckpt"])
def test_weights_of_another_name_are_named(folder: Path, name: str):
    (folder / WEIGHTS).rename(folder / name)

    assert_refused(folder, rf"no {WEIGHTS}.*\(but {name}\)")


def test_a_file_in_the_place_of_its_folder_is_told_from_a_name(folder: Path):
    with pytest.raises(InputError, match=f"is a file; give the folder .*: {folder}$"):
        describe_model(str(folder / WEIGHTS))


# Headers and configs that lie


def header_of(folder: Path) -> dict[str, Any]:
    body = (folder / WEIGHTS).read_bytes()
    header: dict[str, Any] = json.loads(body[8 : 8 + struct.unpack("<Q", body[:8])[0]])
    return header


def write_header(folder: Path, header: Any, length: int | None = None) -> None:
    body = (folder / WEIGHTS).read_bytes()
    data = body[8 + struct.unpack("<Q", body[:8])[0] :]
    text = json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(
        struct.pack("<Q", len(text) if length is None else length) + text + data
    )


@pytest.mark.parametrize("cut", [0, 7, 100, 100_000, -1])
@pytest.mark.parametrize("kind", ["safetensors", "pickle"])
def test_a_file_that_was_cut_is_refused(folder: Path, kind: str, cut: int):
    if kind == "pickle":
        pickle(folder, weights_of(folder))
    path = folder / (WEIGHTS if kind == "safetensors" else PICKLE)
    os.truncate(path, cut if cut >= 0 else path.stat().st_size - 1)

    assert_refused(folder, "cannot be read as weights")


EXAMPLES = int(os.environ.get("EXAMPLES", "10"))
LYING = st.one_of(
    st.none(),
    st.integers(-(2**70), 2**70),
    st.text(max_size=5),
    st.lists(st.integers(-3, 2**64), max_size=3),
    st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "I8", "F8_E4M3", "BF16", "F4", "X", 3]),
            "shape": st.lists(st.integers(-1, 2**40), max_size=4),
            "data_offsets": st.lists(st.integers(-1, 2**40), max_size=3),
        }
    ),
)
MANY = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@MANY
@given(lie=LYING, index=st.integers(0, 100), length=st.none() | st.integers(0, 2**64 - 1))
def test_a_header_that_lies_is_one_sentence(
    hugging_face: Path,
    tmp_path_factory: pytest.TempPathFactory,
    lie: Any,
    index: int,
    length: int | None,
):
    folder = Path(shutil.copytree(hugging_face, tmp_path_factory.mktemp("lies") / "model"))
    header = header_of(folder)
    names = [name for name in header if name != "__metadata__"]
    write_header(folder, header | {names[index % len(names)]: lie}, length)

    with pytest.raises(InputError) as refused:
        describe_model(str(folder))
    assert "\n" not in str(refused.value)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats()
    | st.sampled_from(["", "auto", "float16", "gelu", "\x1b[2J", "janus", "llama"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


def paths_in(table: JsonObject, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Where everything stands in a config."""
    paths = []
    for name, value in table.items():
        paths.append((*before, name))
        if isinstance(value, dict):
            paths += paths_in(value, (*before, name))
    return paths


@MANY
@given(data=st.data(), name=st.sampled_from(["config.json", PREPROCESSOR, "tokenizer.json"]))
@pytest.mark.parametrize("source", ["hugging_face", "deepseek"])
def test_a_config_in_which_anything_stands_is_one_sentence_or_works(
    hugging_face: Path, tmp_path_factory: pytest.TempPathFactory, source: str, name: str, data: Any
):
    origin = DEEPSEEK if source == "deepseek" else hugging_face
    folder = Path(shutil.copytree(origin, tmp_path_factory.mktemp("lies") / "model"))
    content = table = read_json(folder / name)
    *way, last = data.draw(st.sampled_from(sorted(paths_in(content))))
    for step in way:
        table = table[step]  # type: ignore[assignment]
    table[last] = data.draw(JSON)
    (folder / name).write_text(json.dumps(content), "utf-8")

    try:
        planned = describe_model(str(folder))
    except InputError:
        return
    loaded = load_janus(folder, dtype=torch.float32, device="cpu")
    assert planned.geometry == loaded.geometry
    assert planned.max_positions == loaded.max_positions


def test_a_tokenizer_in_which_two_tokens_share_an_id_is_refused(folder: Path):
    model = read_json(folder / "tokenizer.json")["model"]
    assert isinstance(model, dict)
    model["vocab"]["a new word"] = model["vocab"]["a"]
    edit(folder / "tokenizer.json", model=model)

    assert_refused(folder, "to two tokens, .*a new word")


def test_a_tokenizer_that_its_own_library_dies_of_is_refused(folder: Path):
    model = read_json(folder / "tokenizer.json")["model"]
    assert isinstance(model, dict)
    model["continuing_subword_prefix"] = "##"
    edit(folder / "tokenizer.json", model=model)

    assert_refused(folder, "tokenizer.json")


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 3000 + "1" + "}" * 3000])
def test_a_config_without_bottom_is_refused(folder: Path, content: str):
    (folder / "config.json").write_text(content)

    assert_refused(folder, "config.json")


@pytest.mark.parametrize("part", ["text_config", "vision_config", "vq_config"])
def test_a_config_of_more_layers_than_weights_is_refused_at_once(folder: Path, part: str):
    table = read_json(folder / "config.json")[part]
    assert isinstance(table, dict)
    edit(folder / "config.json", **{part: table | {"num_hidden_layers": 10**9}})

    assert_refused(folder, "1000000000 for num_hidden_layers, and there are only 190 weights")


# Tokenizers


LEFT_BEHIND = {
    "truncation": {
        "direction": "Right",
        "max_length": 8,
        "strategy": "LongestFirst",
        "stride": 0,
    },
    "padding": {
        "strategy": {"Fixed": 2000},
        "direction": "Left",
        "pad_to_multiple_of": 64,
        "pad_id": 2,
        "pad_type_id": 0,
        "pad_token": "x",
    },
}


@pytest.mark.parametrize("state", ["truncation", "padding", "dropout", "post_processor"])
def test_what_a_training_job_left_in_a_tokenizer_changes_nothing(
    folder: Path, hugging_face: Path, state: str
):
    path = folder / "tokenizer.json"
    model = read_json(path)["model"]
    assert isinstance(model, dict)
    if state == "dropout":
        edit(path, model=model | {"dropout": 0.5})
    else:
        edit(path, **{state: LEFT_BEHIND.get(state)})
    text = "a small red boat " * 30

    assert describe_model(str(folder)).count_tokens(text) == len(text)
    ours, theirs = (load_tokenizer(place)[0] for place in (folder, hugging_face))
    assert ours(text).input_ids == theirs(text).input_ids
    assert (
        read_tokenizer(path).encode(text, add_special_tokens=False).ids == ours(text).input_ids[1:]
    )


# What it is computed in


def dtype_of(folder: Path) -> str:
    return check_janus(folder).own_dtype


def test_a_model_says_itself_what_it_is_computed_in(folder: Path):
    text = read_json(folder / "config.json")["text_config"]
    assert isinstance(text, dict)
    assert dtype_of(folder) == "float32"  # as it is stored

    save(folder, {name: weight.bfloat16() for name, weight in weights_of(folder).items()})
    assert dtype_of(folder) == "bfloat16"
    edit(folder / "config.json", text_config=text | {"torch_dtype": "float32"})
    assert dtype_of(folder) == "float32"
    edit(folder / "config.json", torch_dtype="torch.float16")
    assert dtype_of(folder) == "float16"
    edit(folder / "config.json", dtype="bfloat16")
    assert dtype_of(folder) == "bfloat16"
    edit(folder / "config.json", dtype=None, torch_dtype="auto")
    assert dtype_of(folder) == "float32"


def test_it_is_the_language_model_that_counts(folder: Path):
    weights = weights_of(folder)
    save(
        folder,
        {
            name: weight.bfloat16() if ".language_model." in name else weight
            for name, weight in weights.items()
        },
    )

    assert dtype_of(folder) == "bfloat16"
    assert dtype_of(DEEPSEEK) == "bfloat16"


# Tokenizers of another make


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"normalizer": {"type": "NFKC"}}, "a normaliser 'NFKC'"),
        ({"normalizer": {"type": "Lowercase"}}, "a normaliser 'Lowercase'"),
        (
            {"normalizer": {"type": "Strip", "strip_left": False, "strip_right": True}},
            "a normaliser 'Strip'",
        ),
        (
            {"normalizer": {"type": "Replace", "pattern": {"String": "dog"}, "content": "cat"}},
            "a normaliser 'Replace'",
        ),
        (
            {
                "normalizer": {
                    "type": "Sequence",
                    "normalizers": [{"type": "NFC"}, {"type": "StripAccents"}],
                }
            },
            "a normaliser 'StripAccents'",
        ),
    ],
)
def test_a_tokenizer_that_changes_text_is_refused(
    folder: Path, changes: dict[str, Any], complaint: str
):
    edit(folder / "tokenizer.json", **changes)

    assert_refused(folder, complaint)


def test_a_tokenizer_that_puts_a_space_before_every_text_is_refused(folder: Path):
    text = (folder / "tokenizer.json").read_text("utf-8")
    assert '"add_prefix_space": false' in text
    (folder / "tokenizer.json").write_text(
        text.replace('"add_prefix_space": false', '"add_prefix_space": true'), "utf-8"
    )

    assert_refused(folder, "add_prefix_space|changes text")


def test_a_token_beyond_the_models_words_is_refused(folder: Path):
    content = read_json(folder / "tokenizer.json")
    model = content["model"]
    assert isinstance(model, dict)
    assert isinstance(model["vocab"], dict)
    model["vocab"]["ca"] = 5000
    model["merges"] = ["c a"]
    edit(folder / "tokenizer.json", model=model)

    assert_refused(folder, "has tokens up to id 5000 and the model knows")


@pytest.mark.parametrize("name", [WEIGHTS, "config.json", "tokenizer.json"])
def test_a_link_to_nothing_is_told_from_no_file(folder: Path, name: str):
    (folder / name).unlink()
    (folder / name).symlink_to("nowhere")

    assert_refused(folder, f"a link to nothing, at {name}|{name} ")
