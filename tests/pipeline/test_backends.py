"""Opening the backends that a config names: one each, of the weights that were planned with."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.backends import Opened, open_backends
from pipeline.configs import resolve
from pipeline.engine.fake import Fake
from pipeline.engine.reference import Reference
from pipeline.twig.requests import Message, Text, TextAnswer, Visual, VisualAnswer
from schemas import __version__
from schemas.config import MethodConfig
from schemas.errors import InputError
from schemas.tables import STACK
from schemas.trace import Role
from tests.support import fake_method

GOLDEN = Path(__file__).parents[1] / "golden" / "janus-tiny"


def reference_method(folder: Path = GOLDEN, **changes: Any) -> MethodConfig:
    return resolve({"method": {"model": str(folder), **changes}}).config.method


def answer_of(opened: Opened, role: Role) -> Any:
    """What the backend of a role says or draws."""
    backend = opened.backends.by_name[opened.backends.name_of[role]]
    if role is Role.DRAW:
        wanted: dict[str, Any] = {"codes": (), "num_tokens": 6, "cfg_weight": 5.0}
        backend.submit(0, Visual(role=role, temperature=0.0, text="a red cube", **wanted))
    else:
        question = (Message(role="user", text="Hi"),)
        backend.submit(0, Text(role=role, temperature=0.0, messages=question, max_tokens=3))
    ((_, answer),) = backend.poll()
    return answer


def test_the_fake_answers_every_role_and_paints():
    method = fake_method()

    opened = open_backends(method)

    assert isinstance(answer_of(opened, Role.THINK), TextAnswer)
    assert isinstance(answer_of(opened, Role.DRAW), VisualAnswer)
    assert opened.painter.paint([(1, 2)])[0].shape == (32, 32, 3)
    assert (opened.stack["torch"], opened.stack["transformers"]) == ("", "")


def test_the_reference_answers_as_its_checkpoint_does():
    opened = open_backends(reference_method())

    drawn = answer_of(opened, Role.DRAW)
    assert isinstance(drawn, VisualAnswer)
    assert len(drawn.codes) == 6
    assert drawn == answer_of(open_backends(reference_method()), Role.DRAW)
    assert opened.painter.paint([drawn.codes])[0].shape == (96, 96, 3)


@pytest.mark.parametrize("make_method", [fake_method, reference_method])
def test_the_stack_says_what_made_the_traces(make_method: Callable[[], MethodConfig]):
    import torch
    import transformers

    method = make_method()

    stack = open_backends(method).stack

    assert set(stack) == {field.name for field in STACK}
    assert stack["coppice"] == __version__
    assert stack["device"]
    if method.backend == "reference":
        assert stack["torch"] == torch.__version__
        assert stack["transformers"] == transformers.__version__


def test_a_role_may_have_a_backend_of_its_own():
    opened = open_backends(reference_method(backends={"reflect": "fake", "think": "fake"}))

    kinds = {
        role: type(opened.backends.by_name[name]) for role, name in opened.backends.name_of.items()
    }
    assert kinds == {
        Role.SCHEDULE: Reference,
        Role.THINK: Fake,
        Role.DRAW: Reference,
        Role.REFLECT: Fake,
    }
    assert opened.painter is opened.backends.by_name["reference"]


def test_roles_share_a_model_that_is_loaded_once():
    backends = open_backends(reference_method()).backends

    assert set(backends.name_of.values()) == set(backends.by_name) == {"reference"}


def test_other_weights_than_the_planned_ones_are_refused(tmp_path: Path):
    folder = Path(shutil.copytree(GOLDEN, tmp_path / "model"))
    method = reference_method(folder)
    weights = folder / "model.safetensors"
    body = weights.read_bytes()
    weights.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))

    with pytest.raises(InputError, match=method.model.digest):
        open_backends(method)


def test_a_model_that_is_not_on_this_node_is_refused(tmp_path: Path):
    folder = Path(shutil.copytree(GOLDEN, tmp_path / "model"))
    method = reference_method(folder)
    shutil.rmtree(folder)

    with pytest.raises(InputError, match=str(folder)):
        open_backends(method)


def test_the_dtype_is_the_configs():
    half = open_backends(reference_method(dtype="bfloat16"))

    assert isinstance(answer_of(half, Role.DRAW), VisualAnswer)
    (picture,) = half.painter.paint([tuple(range(36))])
    (exact,) = open_backends(reference_method()).painter.paint([tuple(range(36))])
    assert (picture != exact).any()
