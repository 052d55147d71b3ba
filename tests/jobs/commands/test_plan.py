"""Planning a model again: under other names, from other folders, and after version 0.1."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.commands.plan import PlanRequest, extend_run, load_run, plan_run
from jobs.commands.terminal import Terminal
from pipeline.store.open import open_store
from pipeline.store.plans import read_manifest
from schemas.config import MethodConfig, fingerprint
from schemas.errors import ConfigMismatch, InputError
from schemas.runs import RunManifest

GOLDEN = Path(__file__).parents[2] / "golden" / "janus-tiny"  # stored in bfloat16, and says so


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with prompts and a model."""
    monkeypatch.chdir(tmp_path)
    Path("prompts.txt").write_text("a red cube\n")
    shutil.copytree(GOLDEN, "model")
    return tmp_path


def request(*settings: str, sources: tuple[str, ...] = ("prompts.txt",)) -> PlanRequest:
    return PlanRequest(sources=list(sources), url="run", settings=list(settings))


def plan(*settings: str) -> tuple[RunManifest, str]:
    """The manifest as it is asked for, and what is said."""
    said = io.StringIO()
    return plan_run(request(*settings), Terminal(said)), said.getvalue()


def stored_manifest() -> RunManifest:
    return read_manifest(open_store("run"))


def as_version_0_1(name: str, dtype: str) -> None:
    """Make the run one that was planned when no names were made absolute and no files kept."""
    path = Path("run/run.json")
    content = json.loads(path.read_text())
    method = content["config"]["method"]
    method["model"]["name"], method["dtype"] = name, dtype
    del content["config"]["model_files"]
    content["fingerprint"] = fingerprint(MethodConfig.model_validate(method))
    path.write_text(json.dumps(content))


def test_the_plan_says_what_is_computed_with_what(workplace: Path):
    _, said = plan("method.model=model")

    assert f"think-while with {workplace}/model (engine, bfloat16)." in " ".join(said.split())


def test_the_same_weights_by_another_name_are_the_same_method(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
):
    plan("method.model=model")
    before = Path("run/run.json").read_bytes()
    Path("model").rename("moved")

    manifest, _ = plan("method.model=moved")
    loaded = load_run(request("method.model=./moved", sources=()))

    assert Path("run/run.json").read_bytes() == before
    for asked in (manifest, loaded):  # nodes look where it is now
        assert asked.config.method.model.name == str(workplace / "moved")
        assert asked.fingerprint == stored_manifest().fingerprint
    (workplace / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    again = PlanRequest(
        sources=["../prompts.txt"], url="../run", settings=["method.model=../moved"]
    )
    assert plan_run(again, Terminal(io.StringIO())).fingerprint == manifest.fingerprint


def test_other_weights_by_the_same_name_are_another_method(workplace: Path):
    plan("method.model=model")
    weights = Path("model/model.safetensors")
    body = weights.read_bytes()
    weights.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))

    with pytest.raises(ConfigMismatch, match=r"model\.digest: "):
        plan("method.model=model")
    with pytest.raises(ConfigMismatch, match=r"model\.digest: "):
        extend_run(request(), Terminal(io.StringIO()))


def test_a_run_of_version_0_1_goes_on_in_float32(workplace: Path):
    plan("method.model=model", "method.dtype=float32")
    as_version_0_1("model", "float32")

    manifest, said = plan("method.model=model")
    loaded = load_run(request(sources=()))

    assert manifest.config.method.dtype == loaded.config.method.dtype == "float32"
    assert "(engine, float32)" in " ".join(said.split())
    extend_run(request(sources=("prompts.txt",)), Terminal(io.StringIO()))
    with pytest.raises(ConfigMismatch) as refused:
        plan("method.model=model", "method.dtype=bfloat16")
    assert "dtype: float32 -> bfloat16" in str(refused.value)
    assert "model" not in str(refused.value).split("):")[1].split("\nrun it")[0]


def test_a_dtype_that_nothing_is_computed_in_is_refused_before_anything_is_written():
    with pytest.raises(InputError, match="bfloat16 or float32"):
        plan("method.model=model", "method.dtype=float16")

    assert not Path("run").exists()


def test_a_prompt_that_the_toys_world_does_not_hold_is_warned_of_by_the_models_name(
    workplace: Path,
):
    (workplace / "prompts.txt").write_text("a red star\na red cube\nan owl")
    warning = "Warning: 2 of 3 prompts speak of what the world of toy, the default model, does not"

    _, said = plan()
    assert f"{warning} hold, such as 'cube'; for other pictures name another model: --model" in said
    _, of_another_model = plan_elsewhere("method.model=model")
    _, of_the_fake = plan_elsewhere("method.backend=fake")
    assert "Warning" not in of_another_model + of_the_fake


def plan_elsewhere(*settings: str) -> tuple[RunManifest, str]:
    """Another plan than that of `plan`."""
    said = io.StringIO()
    asked = replace(request(*settings), url=f"run-{len(list(Path.cwd().iterdir()))}")
    return plan_run(asked, Terminal(said)), said.getvalue()


def endpoint(*settings: str) -> tuple[str, ...]:
    """The settings of a run whose critic is an endpoint."""
    return (
        "method.model=model",
        "method.endpoints.critic.model=qwen",
        "method.backends.reflect=critic",
        "execution.endpoints.critic.url=http://127.0.0.1:9/v1",
        *settings,
    )


def test_the_plan_says_who_answers_and_what_that_does_to_strict_mode():
    _, said = plan(*endpoint())

    assert "Endpoint critic: reflect by qwen, at 127.0.0.1:9." in said
    assert "not promised to be the same twice, in strict mode, too" in " ".join(said.split())


def test_a_key_that_is_not_there_is_refused_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch,
):
    settings = endpoint("execution.endpoints.critic.api_key_env=CRITIC_KEY")
    monkeypatch.delenv("CRITIC_KEY", raising=False)
    with pytest.raises(InputError, match="CRITIC_KEY, which this environment does not have"):
        plan(*settings)
    assert not Path("run/run.json").exists()

    monkeypatch.setenv("CRITIC_KEY", "sk-swordfish")
    _, said = plan(*settings)
    assert "key from CRITIC_KEY" in said
    assert "swordfish" not in said + Path("run/run.json").read_text()
    monkeypatch.delenv("CRITIC_KEY")
    with pytest.raises(InputError, match="CRITIC_KEY"):
        load_run(request(sources=()))


@pytest.mark.parametrize(
    "setting",
    [
        "execution.endpoints.critic.api_key_env=sk-swordfish-1",
        "execution.endpoints.critic.api_key=sk-swordfish-1",
        "execution.endpoints.critic.url=http://u:sk-swordfish-1@127.0.0.1/v1",
        'execution.endpoints.critic={api_key="sk-swordfish-1", url="x"}',
        "method.endpoints.critic.key=sk-swordfish-1",
    ],
)
def test_a_key_in_a_config_is_refused_and_not_shown(setting: str):
    with pytest.raises(InputError) as refused:
        plan(*endpoint(setting))

    assert "swordfish" not in str(refused.value)


def test_an_endpoint_that_is_named_and_not_there_is_refused():
    with pytest.raises(InputError, match="an endpoint of that name"):
        plan("method.model=model", "method.backends.reflect=critic")
    with pytest.raises(InputError, match="with url or serve"):
        plan(*endpoint()[:3])


def test_an_endpoint_may_move_and_may_not_become_another():
    plan(*endpoint())
    moved = load_run(request("execution.endpoints.critic.url=http://127.0.0.1:8/v1", sources=()))
    assert moved.config.execution.endpoints["critic"].url == ("http://127.0.0.1:8/v1",)
    with pytest.raises(ConfigMismatch, match=r"endpoints\.critic\.model: qwen -> llama"):
        load_run(request("method.endpoints.critic.model=llama", sources=()))
