"""Opening the backends that a config names: one each, of the weights that were planned with."""

import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from pipeline.engine.backends import LoadedBackends, gpu_cache_bytes, open_backends
from pipeline.engine.checkpoints import resolve_checkpoint
from pipeline.engine.engine import Engine
from pipeline.engine.fake import Fake
from pipeline.plan.configs import resolve
from pipeline.twig.requests import Message, Text, TextAnswer, Visual, VisualAnswer
from schemas import __version__
from schemas.config import RunConfig
from schemas.errors import InputError
from schemas.tables import STACK
from schemas.trace import Role
from tests.support import fake_config

GOLDEN = Path(__file__).parents[2] / "golden" / "janus-tiny"


def golden_config(folder: Path = GOLDEN, **changes: Any) -> RunConfig:
    execution = {"cache_gigabytes": 0.05}
    return resolve({"method": {"model": str(folder), **changes}, "execution": execution}).config


def answer_of(opened: LoadedBackends, role: Role) -> Any:
    """What the backend of a role says or draws."""
    backend = opened.backends.by_name[opened.backends.name_of[role]]
    if role is Role.DRAW:
        wanted: dict[str, Any] = {"codes": (), "num_tokens": 6, "cfg_weight": 5.0}
        backend.submit(0, Visual(role=role, temperature=0.0, text="a red cube", **wanted))
    else:
        question = (Message(role="user", text="Hi"),)
        backend.submit(0, Text(role=role, temperature=0.0, messages=question, max_tokens=3))
    while not (answers := backend.poll()):
        pass
    ((_, answer),) = answers
    return answer


def test_the_fake_answers_every_role_and_paints():
    opened = open_backends(fake_config())

    assert isinstance(answer_of(opened, Role.THINK), TextAnswer)
    assert isinstance(answer_of(opened, Role.DRAW), VisualAnswer)
    assert opened.painter.paint([(1, 2)])[0].shape == (32, 32, 3)
    assert (opened.stack["torch"], opened.stack["transformers"]) == ("", "")


@pytest.mark.parametrize("backend", ["engine", "reference"])
def test_a_checkpoint_draws_alike_whoever_runs_it(backend: str):
    opened = open_backends(golden_config(backend=backend))

    drawn = answer_of(opened, Role.DRAW)
    assert isinstance(drawn, VisualAnswer)
    assert len(drawn.codes) == 6
    assert drawn == answer_of(open_backends(golden_config()), Role.DRAW)
    assert opened.painter.paint([drawn.codes])[0].shape == (96, 96, 3)


@pytest.mark.parametrize("make_config", [fake_config, golden_config])
def test_the_stack_says_what_made_the_traces(make_config: Callable[[], RunConfig]):
    import torch
    import transformers

    config = make_config()

    stack = open_backends(config).stack

    assert set(stack) == {field.name for field in STACK}
    assert stack["coppice"] == __version__
    assert stack["device"]
    assert stack["arithmetic"] == "strict"
    if config.method.backend == "engine":
        assert stack["torch"] == torch.__version__
        assert stack["transformers"] == transformers.__version__


def test_a_role_may_have_a_backend_of_its_own():
    opened = open_backends(golden_config(backends={"reflect": "fake", "think": "fake"}))

    kinds = {
        role: type(opened.backends.by_name[name]) for role, name in opened.backends.name_of.items()
    }
    assert kinds == {
        Role.SCHEDULE: Engine,
        Role.THINK: Fake,
        Role.DRAW: Engine,
        Role.REFLECT: Fake,
    }
    assert opened.painter is opened.backends.by_name["engine"]


def test_roles_share_a_model_that_is_loaded_once():
    backends = open_backends(golden_config()).backends

    assert set(backends.name_of.values()) == set(backends.by_name) == {"engine"}


def test_other_weights_than_the_planned_ones_are_refused(tmp_path: Path):
    folder = Path(shutil.copytree(GOLDEN, tmp_path / "model"))
    config = golden_config(folder)
    weights = folder / "model.safetensors"
    body = weights.read_bytes()
    weights.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))

    with pytest.raises(InputError, match=config.method.model.digest):
        open_backends(config)


def test_a_model_that_is_not_on_this_node_is_refused(tmp_path: Path):
    folder = Path(shutil.copytree(GOLDEN, tmp_path / "model"))
    config = golden_config(folder)
    shutil.rmtree(folder)

    with pytest.raises(InputError, match=str(folder)):
        open_backends(config)


# The device


def test_a_gpu_that_torch_does_not_see_is_refused_before_any_weight_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    folder = Path(shutil.copytree(GOLDEN, tmp_path / "model"))
    config = golden_config(folder)
    shutil.rmtree(folder)

    for execution in ({"device": "gpu"}, {"device": "auto"}):
        asked = config.model_copy(
            update={"execution": config.execution.model_copy(update=execution)}
        )
        setting = f"execution.device={execution['device']}"
        with pytest.raises(InputError, match=rf"a GPU on \S+ \({setting}.* found none.*device=cpu"):
            open_backends(asked, device="gpu")


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_the_cpu_is_used_though_a_gpu_can_be_seen(monkeypatch: pytest.MonkeyPatch, device: str):
    def touched(*_: Any, **__: Any) -> Any:
        raise AssertionError("the GPU was touched")

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    for name in ("mem_get_info", "get_device_name", "_lazy_init"):
        monkeypatch.setattr(f"torch.cuda.{name}", touched)
    execution = {"device": device}
    config = resolve({"method": {"model": str(GOLDEN)}, "execution": execution}).config

    opened = open_backends(config, device="cpu")

    assert isinstance(answer_of(opened, Role.THINK), TextAnswer)
    assert opened.stack["device"] == platform.machine()
    assert opened.stack["arithmetic"] == "strict"


@pytest.mark.parametrize(("asked", "device"), [("cpu", "gpu"), ("gpu", "cpu")])
def test_a_device_other_than_the_configs_is_refused(asked: str, device: Any):
    config = resolve({"method": {"model": str(GOLDEN)}, "execution": {"device": asked}}).config

    with pytest.raises(InputError, match=f"execution.device is {asked}, .* on {device}"):
        open_backends(config, device=device)


def test_the_fake_needs_no_gpu_where_ray_has_some():
    assert open_backends(fake_config(), device="gpu").stack["device"] == platform.machine()


@pytest.mark.parametrize(("value", "problem"), [(float("nan"), "not finite"), (0.0, "but 0")])
def test_broken_weights_are_refused(tmp_path: Path, value: float, problem: str):
    folder = Path(shutil.copytree(resolve_checkpoint("tiny"), tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][:] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(InputError, match=rf"lm_head.weight of model.safetensors .*{problem}.*plan"):
        open_backends(golden_config(folder))


def test_the_dtype_is_the_configs():
    half = open_backends(golden_config(dtype="bfloat16"))

    assert isinstance(answer_of(half, Role.DRAW), VisualAnswer)
    (picture,) = half.painter.paint([tuple(range(36))])
    (exact,) = open_backends(golden_config(dtype="float32")).painter.paint([tuple(range(36))])
    assert (picture != exact).any()


def test_actors_that_share_a_gpu_take_equal_caches_whoever_loads_first():
    total, weights = 80_000, 16_000
    first = gpu_cache_bytes(total - weights, total, own=weights, share=0.5)
    second = gpu_cache_bytes(total - 2 * weights - first, total, own=weights, share=0.5)

    assert first == second == int(0.85 * 24_000)
    assert first + second + 2 * weights < total


def test_an_actor_alone_takes_most_of_what_is_free_and_a_full_gpu_gives_none():
    assert gpu_cache_bytes(64_000, 80_000, own=16_000, share=1.0) == int(0.85 * 64_000)
    assert gpu_cache_bytes(500, 80_000, own=16_000, share=0.5) == 425
    assert gpu_cache_bytes(500, 80_000, own=16_000, share=0.1) == 0
