"""What planning knows of a model from its small files, and which folders it refuses."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.engine.checkpoints import digest_of, load_janus
from pipeline.engine.tiny import build_tiny
from pipeline.plan.models import ModelFacts, describe_model, fake_facts, prompt_limit
from pipeline.plan.packs import load_pack
from schemas.config import FakeConfig, MethodConfig, SamplingConfig, ScheduleConfig
from schemas.errors import InputError
from schemas.geometry import Geometry
from tests.support import fake_method

GOLDEN = Path(__file__).parents[2] / "golden" / "janus-tiny"


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "tiny"
    build_tiny(folder)
    return folder


@pytest.fixture(params=["hugging_face", "deepseek"])
def folder(request: pytest.FixtureRequest, hugging_face: Path, tmp_path: Path) -> Path:
    """A copy of a checkpoint in either format, to be spoilt."""
    source = GOLDEN if request.param == "deepseek" else hugging_face
    return Path(shutil.copytree(source, tmp_path / "model"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


# What is known


def test_a_checkpoint_is_described_without_its_weights_as_it_is_with_them(folder: Path):
    facts = describe_model(str(folder))

    janus = load_janus(folder, dtype=torch.float32, device="cpu")
    assert facts.geometry == janus.geometry
    assert facts.max_positions == janus.max_positions
    assert facts.num_layers == len(janus.model.model.language_model.layers)
    text = "un caf\u00e9, twice"
    assert facts.count_tokens(text) == len(janus.tokenizer.encode(text, add_special_tokens=False))
    assert facts.model.name == str(folder)
    assert facts.model.digest == digest_of(folder)[:16]
    assert facts.pack is None


def test_a_special_token_that_a_prompt_spells_counts_as_its_letters(folder: Path):
    count = describe_model(str(folder)).count_tokens

    assert count("<image_placeholder>" * 10) == 10 * count("<image_placeholder>") > 50


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_other_files_make_another_digest(folder: Path, name: str):
    before = describe_model(str(folder)).model.digest

    path = folder / name
    # Blank space at the end of JSON, or one other bit in the last weight: the model still loads.
    body = path.read_bytes()
    path.write_bytes(body + b"\n" if name.endswith("json") else body[:-1] + bytes([body[-1] ^ 1]))

    assert describe_model(str(folder)).model.digest != before


def test_a_card_names_the_template_pack(folder: Path):
    (folder / "coppice.json").write_text('{"pack": "toy", "note": "made for tests"}')

    assert describe_model(str(folder)).pack == "toy"


def test_the_fake_has_the_configured_pictures_and_no_limits():
    facts = fake_facts(FakeConfig(image_size=64, patch_size=16, num_codes=99))

    assert facts.geometry == Geometry(image_size=64, rows=4, columns=4, num_codes=99)
    assert (facts.max_positions, facts.num_layers, facts.pack) == (None, 0, None)


# What is refused


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def write(name: str, body: bytes) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).write_bytes(body)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (remove("config.json"), "config.json"),
        (remove("tokenizer.json"), "tokenizer.json"),
        (remove("preprocessor_config.json"), "preprocessor_config.json"),
        (remove("model.safetensors"), "model.safetensors"),
        (write("config.json", b"{"), "config.json"),
        (write("config.json", b"3"), "config.json"),
        (write("config.json", b"[]"), "model_type|model of type|config.json"),
        (write("config.json", b"\xff"), "config.json"),
        (write("config.json", b'{"model_type": "llama"}'), "llama"),
        (write("config.json", b'{"model_type": "janus"}'), "config.json"),
        (write("config.json", b'{"model_type": "multi_modality"}'), "config.json"),
        (write("config.json", b'{"model_type": "janus", "vision_config": 3}'), "config.json"),
        (write("tokenizer.json", b"{"), "tokenizer.json"),
        (write("coppice.json", b"{"), "coppice.json"),
        (write("coppice.json", b"null"), "coppice.json"),
        (write("coppice.json", b'{"pack": 3}'), "coppice.json"),
    ],
)
def test_a_folder_that_holds_no_whole_janus_is_refused(
    folder: Path, spoil: Callable[[Path], None], named: str
):
    spoil(folder)

    with pytest.raises(InputError, match=named):
        describe_model(str(folder))


@pytest.mark.parametrize("name", ["no-such-model", "./nowhere", "a b/c", ""])
def test_a_name_that_is_no_model_is_refused(name: str):
    with pytest.raises(InputError):
        describe_model(name)


# How long a prompt may be


def words() -> ModelFacts:
    """A model of 1000 positions that counts a token a word."""
    facts = fake_facts(FakeConfig(image_size=32, patch_size=8, num_codes=512))
    return replace(facts, max_positions=1000, count_tokens=lambda text: len(text.split()))


def method(max_text_tokens: int = 32, num_regions: int = 3) -> MethodConfig:
    return fake_method(
        sampling=SamplingConfig(max_text_tokens=max_text_tokens),
        schedule=ScheduleConfig(num_regions=num_regions),
    )


def longest(facts: ModelFacts, planned: MethodConfig) -> int:
    """In words."""
    too_long = prompt_limit(facts, planned, load_pack("default"))
    return next(length for length in range(1000, 0, -1) if too_long("word " * length) is None)


def test_a_model_without_a_limit_takes_any_prompt():
    facts = fake_facts(FakeConfig())

    assert prompt_limit(facts, method(), load_pack("default"))("word " * 10**6) is None


def test_a_prompt_that_is_too_long_is_told_both_lengths():
    limit = longest(words(), method())
    too_long = prompt_limit(words(), method(), load_pack("default"))

    assert too_long("word " * limit) is None
    assert too_long("word " * (limit + 1)) == (
        f"{limit + 1} tokens long, where {limit} fit the model"
    )


@pytest.mark.parametrize("more", [{"max_text_tokens": 64}, {"num_regions": 4}])
def test_more_thoughts_leave_less_room_for_the_prompt(more: dict[str, int]):
    assert longest(words(), method(**more)) < longest(words(), method())


def test_a_model_too_small_for_the_method_is_refused():
    with pytest.raises(InputError, match="max_text_tokens"):
        prompt_limit(words(), method(max_text_tokens=512), load_pack("default"))
