"""Open the backends that a run's config names, and say what they run on."""

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.engine.fake import Fake
from pipeline.pictures import Painter
from pipeline.twig.drive import Backends
from pipeline.twig.requests import Backend
from schemas import __version__
from schemas.config import MethodConfig
from schemas.errors import InputError
from schemas.trace import Role

if TYPE_CHECKING:
    from pipeline.engine.reference import Reference


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """A run's backends, ready to answer."""

    backends: Backends
    painter: Painter  # of what the draw role draws
    stack: dict[str, str]  # see schemas.tables.STACK


def open_backends(method: MethodConfig, *, num_threads: int = 1) -> Opened:
    """Load the models of a config, once each, on this process's GPU or else its CPU."""
    name_of = {role: method.backend_of(role) for role in Role}
    by_name: dict[str, Backend] = {}
    painters: dict[str, Painter] = {}
    stack = {"coppice": __version__, "python": platform.python_version()}
    for name in sorted(set(name_of.values())):
        if name == "fake":
            fake = Fake(method.fake)
            by_name[name], painters[name] = fake, fake
        else:
            backend, facts = _open_reference(method, num_threads)
            by_name[name], painters[name] = backend, backend
            stack |= facts
    return Opened(
        backends=Backends(by_name, name_of),
        painter=painters[name_of[Role.DRAW]],
        stack={"torch": "", "transformers": "", "device": platform.machine()} | stack,
    )


def _open_reference(method: MethodConfig, num_threads: int) -> "tuple[Reference, dict[str, str]]":
    import torch
    import transformers

    from pipeline.engine.checkpoints import digest_of, load_janus, resolve_checkpoint
    from pipeline.engine.reference import Reference

    torch.set_num_threads(num_threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    folder = resolve_checkpoint(method.model.name)
    if (found := digest_of(folder)[:16]) != method.model.digest:
        raise InputError(
            f"{method.model.name} is {found} on {platform.node()}, and the run was planned with "
            f"{method.model.digest}: put the same weights on every node"
        )
    janus = load_janus(folder, dtype=getattr(torch, method.dtype), device=device)
    return Reference(janus), {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
    }
