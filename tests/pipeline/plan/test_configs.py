"""From a config file and `--set` pairs to a frozen config whose model and pack are known."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.engine.checkpoints import digest_of
from pipeline.plan.configs import Tables, read_config_file, resolve, validated, with_settings
from pipeline.plan.models import describe_model
from pipeline.plan.packs import load_pack
from schemas.config import FakeConfig, RunConfig, differences, fingerprint
from schemas.errors import InputError
from schemas.trace import Role

GOLDEN = Path(__file__).parents[2] / "golden" / "janus-tiny"
FAKE: Tables = {"method": {"backend": "fake", "fake": {"image_size": 32, "patch_size": 8}}}


def a_pack(folder: Path, **more: str) -> Path:
    """A pack of one's own, with only the questions that every run needs, unless told otherwise."""
    path = folder / "mine.toml"
    questions = {"think_first": "{prompt}?", "think_next": "And?", "reflect": "Score?"} | more
    lines = [f"{name} = {json.dumps(text)}" for name, text in questions.items()]
    path.write_text("\n".join(['name = "mine"', "[questions]", *lines]), encoding="utf-8")
    return path


# Files


def test_a_config_file_is_read_as_tables(tmp_path: Path):
    path = tmp_path / "run.toml"
    path.write_text('[method]\nbackend = "fake"\n[execution]\nnum_actors = 2\n')

    tables = read_config_file(str(path))

    assert tables == {"method": {"backend": "fake"}, "execution": {"num_actors": 2}}
    assert resolve(tables).config.execution.num_actors == 2


@pytest.mark.parametrize("body", [b"method = [", b"\xff\xfe", b"a = 1\na = 2\n"])
def test_a_file_that_is_no_toml_is_refused(tmp_path: Path, body: bytes):
    path = tmp_path / "run.toml"
    path.write_bytes(body)

    with pytest.raises(InputError, match=r"run\.toml"):
        read_config_file(str(path))


def test_a_mark_of_an_editor_at_the_beginning_is_no_setting(tmp_path: Path):
    path = tmp_path / "run.toml"
    path.write_bytes("[method]\nseed = 3\n".encode("utf-8-sig"))

    assert read_config_file(str(path)) == {"method": {"seed": 3}}


def test_what_planning_finds_is_no_setting(tmp_path: Path):
    path = tmp_path / "run.toml"
    path.write_text('[model_files]\n"config.json" = "0"\n')

    with pytest.raises(InputError, match="has a table model_files, which planning finds"):
        read_config_file(str(path))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path):
    for path in (tmp_path / "nowhere.toml", tmp_path):
        with pytest.raises(InputError, match=str(path)):
            read_config_file(str(path))


# Settings


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("method.sampling.cfg_weight=4", 4),
        ("method.sampling.cfg_weight = 4.5", 4.5),
        ("method.sampling.cfg_weight=true", True),
        ("method.sampling.cfg_weight=think-while", "think-while"),
        ('method.sampling.cfg_weight="4"', "4"),
        ("method.sampling.cfg_weight=[1, 2]", [1, 2]),
        ("method.sampling.cfg_weight=a=b", "a=b"),
        ("method.sampling.cfg_weight=", ""),
        ("method.sampling.cfg_weight=1\nmethod = 2", "1\nmethod = 2"),  # nothing is dropped
    ],
)
def test_a_setting_is_a_toml_value_or_a_word(pair: str, value: Any):
    assert with_settings({}, [pair]) == {"method": {"sampling": {"cfg_weight": value}}}


def test_settings_go_over_a_file_and_none_over_another():
    before = {"method": {"seed": 1, "backend": "fake"}}

    after = with_settings(before, ["method.seed=3", "method.seed=3", "execution.num_actors=4"])

    assert after == {"method": {"seed": 3, "backend": "fake"}, "execution": {"num_actors": 4}}
    assert before == {"method": {"seed": 1, "backend": "fake"}}
    with pytest.raises(InputError, match=r"method\.seed is given twice"):
        with_settings(before, ["method.seed=2", "method.seed=3"])


@pytest.mark.parametrize("pair", ["method.seed", "seed=1", "=1", ""])
def test_what_is_no_setting_is_refused(pair: str):
    with pytest.raises(InputError, match="dotted name"):
        with_settings({}, [pair])


def test_a_setting_below_a_value_is_refused():
    with pytest.raises(InputError, match="seed is a value"):
        with_settings({"method": {"seed": 1}}, ["method.seed.low=1"])


# What it comes to


def test_the_fake_needs_no_model():
    resolved = resolve(FAKE)

    assert (resolved.config.method.model.name, resolved.facts.geometry.rows) == ("fake", 4)
    assert resolved.pack == load_pack("default")
    assert resolved.config.method.pack.digest == load_pack("default").digest


def test_a_model_is_found_by_name_and_gets_its_digest():
    resolved = resolve({"method": {"model": str(GOLDEN)}})

    assert resolved.config.method.model.name == str(GOLDEN)
    assert resolved.config.method.model.digest == digest_of(GOLDEN)[:16]
    assert resolved.facts.geometry == describe_model(str(GOLDEN)).geometry


def test_without_a_word_the_model_is_the_bundled_one():
    assert resolve({}).config.method.model.name == "toy"


def test_a_pack_may_be_a_file(tmp_path: Path):
    path = a_pack(tmp_path)

    resolved = resolve({"method": {**FAKE["method"], "pack": str(path)}})

    assert resolved.pack.questions["think_first"] == "{prompt}?"
    assert resolved.config.method.pack.name == str(path)  # where a worker finds it again
    assert load_pack(resolved.config.method.pack.name).digest == resolved.config.method.pack.digest


def test_a_model_brings_the_pack_of_its_card(tmp_path: Path):
    folder = Path(shutil.copytree(GOLDEN, tmp_path / "model"))
    (folder / "coppice.json").write_text(json.dumps({"pack": str(a_pack(tmp_path))}))

    assert resolve({"method": {"model": str(folder)}}).pack.name == "mine"
    assert resolve({"method": {"model": str(folder), "pack": "default"}}).pack.name == "default"


def test_a_planned_config_resolves_to_itself():
    planned = resolve({"method": {"model": str(GOLDEN), "pack": "default", "seed": 7}}).config

    again = resolve(planned.model_dump(mode="json")).config

    assert again == planned
    assert fingerprint(again.method) == fingerprint(planned.method)


def test_roles_may_have_backends_of_their_own():
    tables = with_settings({"method": {"model": str(GOLDEN)}}, ["method.backends.reflect=fake"])

    method = resolve(tables).config.method

    assert [method.backend_of(role) for role in (Role.THINK, Role.REFLECT)] == ["engine", "fake"]


# What is refused


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("method.sampling.cfg_weight=-1", r"method\.sampling\.cfg_weight"),
        ("method.sampling.cfg_wieght=1", r"method\.sampling\.cfg_wieght"),
        ("method.program=think-hard", r"method\.program"),
        ("method.backends.dream=fake", r"method\.backends"),
        ("execution.num_actors=0", r"execution\.num_actors"),
        ("method.sampling.cfg_weight=nan", r"method\.sampling\.cfg_weight"),
        ("methods.seed=1", "methods"),
        ("method.fake.image_size=33", "patch_size"),
        ("method.schedule.num_regions=5", "5 regions"),
        ("method.pack=no-such-pack", "no-such-pack"),
        ("method.pack=''", r"method\.pack is no name \(found ''\); to have the default one, leave"),
        ("method.model=' '", r"method\.model is no name"),
        ("method.sampling.text_temperature=1e-38", "text_temperature is 1e-38: expected 0, or at"),
        ("method.sampling.image_temperature=1e-7", "image_temperature is 1e-07"),
        ("method.sampling.text_top_p=1e-46", r"text_top_p is 1e-46: expected at least 1e-06"),
        ("method.sampling.cfg_weight=1e38", r"cfg_weight is 1e\+38: expected at most 10000"),
        (
            "execution.cache_gigabytes=1e300",
            r"cache_gigabytes is 1e\+300: expected at most 100,000",
        ),
    ],
)
def test_a_bad_field_is_named(setting: str, named: str):
    with pytest.raises(InputError, match=named):
        resolve(with_settings(FAKE, [setting]))


def test_no_temperature_and_high_ones_are_taken():
    pairs = ["method.sampling.text_temperature=0", "method.sampling.image_temperature=1e-6"]

    assert resolve(with_settings(FAKE, pairs)).config.method.sampling.text_temperature == 0


def test_all_bad_fields_are_named_at_once():
    tables = with_settings(FAKE, ["method.seed=-1", "method.reflection.theta=101"])

    with pytest.raises(InputError, match=r"(?s)method\.reflection\.theta.*method\.seed") as refused:
        resolve(tables)

    assert "found 101" in str(refused.value)
    assert "found -1" in str(refused.value)


@pytest.mark.parametrize(
    "tables",
    [
        {"method": 3},
        {"method": "fake"},
        {"method": [["backend", "fake"]]},
        {"method": None},
        {"execution": 3},
        {"method": {"model": 3}},
        {"method": {"model": {"digest": "abc"}}},
        {"method": {"model": {"name": 3}}},
        {"method": {"model": ["tiny"]}},
        {"method": {**FAKE["method"], "pack": 3}},
        {"method": {**FAKE["method"], "pack": {}}},
        {"method": {**FAKE["method"], "fake": 3}},
        {"method": {**FAKE["method"], "fake": None}},
        {"method": {"backend": ["fake"]}},
    ],
    ids=str,
)
def test_a_table_of_another_shape_is_refused(tables: Tables):
    with pytest.raises(InputError):
        resolve(tables)


@pytest.mark.parametrize(
    ("setting", "question"),
    [
        ("method.schedule.kind=adaptive", "schedule"),
        ("method.reflection.on_unparseable=ask_again", "ask_again"),
        ("method.seed=0", "reflect"),
    ],
)
def test_a_pack_without_a_question_that_will_be_asked_is_refused(
    tmp_path: Path, setting: str, question: str
):
    def tables(pack: Path) -> Tables:
        return with_settings(FAKE, [f"method.pack={json.dumps(str(pack))}", setting])

    lacking = a_pack(tmp_path)
    lacking.write_text(lacking.read_text().replace(f"{question} = ", "ask_again = "))
    with pytest.raises(InputError, match=f'lacks the question "{question}"'):
        resolve(tables(lacking))
    assert resolve(tables(a_pack(tmp_path, **{question: "Well?"}))).pack.name == "mine"


def test_programs_that_draw_in_one_go_need_no_rows_for_regions():
    settings = ["method.schedule.num_regions=5", "method.program=plain"]

    assert resolve(with_settings(FAKE, settings)).config.method.schedule.num_regions == 5


def test_a_table_is_checked_as_what_it_is_for():
    assert validated(FakeConfig, {"num_codes": 99}).num_codes == 99
    with pytest.raises(InputError, match=r"method\.model"):
        validated(RunConfig, {"method": {}})


# In which numbers


def with_dtype(folder: Path, word: str | None) -> str:
    """A copy of the golden model, which is stored in bfloat16, whose config says this dtype."""
    model = Path(shutil.copytree(GOLDEN, folder / f"says-{word}"))
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"torch_dtype": word}))
    return str(model)


@pytest.mark.parametrize("word", ["bfloat16", "float32", None])
def test_a_model_is_computed_in_its_own_dtype_unless_one_is_named(tmp_path: Path, word: str | None):
    model = with_dtype(tmp_path, word)

    assert resolve({"method": {"model": model}}).config.method.dtype == (word or "bfloat16")
    for named in ("bfloat16", "float32"):
        tables: Tables = {"method": {"model": model, "dtype": named}}
        assert resolve(tables).config.method.dtype == named


@pytest.mark.parametrize("name", ["toy", "tiny"])
def test_bundled_models_and_the_fake_are_computed_in_float32(name: str):
    config = resolve({"method": {"model": name}}).config

    assert config.method.dtype == resolve(FAKE).config.method.dtype == "float32"
    assert config.model_files == resolve(FAKE).config.model_files == {}


@pytest.mark.parametrize("word", ["float16", "float64", "float8_e4m3fn", "int8"])
def test_another_dtype_is_refused_whoever_says_it(tmp_path: Path, word: str):
    own: Tables = {"method": {"model": with_dtype(tmp_path, word)}}
    planned = resolve(with_settings(own, ["method.dtype=float32"])).config.method

    with pytest.raises(InputError, match=rf"made for '{word}'.*bfloat16 or float32 .*--dtype"):
        resolve(own)
    with pytest.raises(InputError, match=rf"method.dtype is '{word}'.*bfloat16 or float32"):
        resolve({"method": {"dtype": word}})
    assert resolve(own, planned).config.method.dtype == "float32"  # as it was named then


def test_a_run_that_is_planned_keeps_its_dtype_where_none_is_named():
    tables: Tables = {"method": {"model": str(GOLDEN)}}
    planned = resolve(with_settings(tables, ["method.dtype=float32"])).config.method

    assert resolve(tables, planned).config.method == planned
    again = resolve(with_settings(tables, ["method.dtype=bfloat16"]), planned).config.method
    assert differences(planned, again) == ["dtype: float32 -> bfloat16"]


# By which name


def test_a_relative_folder_is_named_as_it_is_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(GOLDEN, tmp_path / "model")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    assert resolve({"method": {"model": "../model"}}).config.method.model.name == str(
        tmp_path / "model"
    )


def test_the_files_of_a_model_are_kept_with_their_digests():
    files = resolve({"method": {"model": str(GOLDEN)}}).config.model_files

    sha256 = hashlib.sha256((GOLDEN / "model.safetensors").read_bytes()).hexdigest()
    assert files["model.safetensors"] == sha256
    assert set(files) == {
        *("config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json")
    }


@pytest.mark.parametrize(
    ("execution", "said"),
    [
        ({"gpus_per_actor": 1.5}, "gpus_per_actor is 1.5: expected a whole number"),
        ({"gpus_per_actor": 2.0001}, "expected a whole number"),
        ({"gpus_per_actor": 1e-9}, "gpus_per_actor is 1e-09: expected 0.0001 to 1,000,000"),
        ({"cpus_per_actor": 1e300}, "cpus_per_actor is 1e+300: expected 0.0001"),
        ({"resources": {"drawer": 0}}, "resources.drawer is 0"),
        ({"resources": {"drawer": -1}}, "resources.drawer is -1"),
        ({"resources": {"GPU": 1}}, "say execution.gpus_per_actor instead"),
        ({"resources": {"CPU": 1}}, "say execution.cpus_per_actor instead"),
        ({"resources": {"memory": 1e5}}, "Ray keeps that for itself"),
        ({"resources": {" ": 1}}, "empty or white space"),
        ({"min_actors": 3, "num_actors": 2}, "min_actors is 3, and num_actors, the most, is 2"),
    ],
)
def test_what_no_ray_gives_to_an_actor_is_refused_when_planning(
    execution: dict[str, Any], said: str
):
    with pytest.raises(InputError) as refused:
        resolve({"method": {"backend": "fake"}, "execution": execution})
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "execution",
    [
        {"gpus_per_actor": 0.25},
        {"gpus_per_actor": 512.0},
        {"cpus_per_actor": 1.5},
        {"resources": {"drawer": 0.5, "accelerator_type:A100": 0.001}},
        {"min_actors": 2, "num_actors": 2},
    ],
)
def test_what_a_ray_may_come_to_have_is_not_refused(execution: dict[str, Any]):
    assert resolve({"method": {"backend": "fake"}, "execution": execution}).config.execution
