"""Open the backends that a run's config names, and say what they run on."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.endpoints.backend import RemoteBackend
from pipeline.endpoints.opening import open_endpoint
from pipeline.engine.fake import Fake
from pipeline.engine.soundness import Device, check_model, check_weights, torch_device
from pipeline.pictures import Painter
from pipeline.twig.drive import Backends
from pipeline.twig.requests import Backend
from schemas import __version__
from schemas.config import MethodConfig, RunConfig
from schemas.endpoints import MODEL_BACKENDS
from schemas.errors import InputError
from schemas.rows import StackRow
from schemas.trace import Role

if TYPE_CHECKING:
    from pipeline.engine.checkpoints import Janus
    from pipeline.engine.engine import Engine
    from pipeline.engine.reference import Reference

_CPU_CACHE_BYTES = 10**9
_GPU_CACHE_SHARE = 0.85  # of what is free once the weights are there: activations need the rest


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedBackends:
    """A run's backends, ready to answer."""

    backends: Backends
    painter: Painter  # of what the draw role draws
    stack: StackRow
    endpoints: Mapping[str, RemoteBackend] = field(default_factory=dict)  # those of the backends

    def close(self) -> None:
        """End the threads that ask endpoints."""
        for endpoint in self.endpoints.values():
            endpoint.client.close()


def open_backends(config: RunConfig, *, device: Device = "cpu") -> LoadedBackends:
    """Load the model of a config, once, on this device and no other, and meet its endpoints.

    Raises InputError where the device is not to be had, or is not the one that the config asks for;
    if this machine has other weights than those that the run was planned with; for a model that is
    not what was asked for, or whose weights are not all numbers; and for an endpoint whose key is
    not in this environment, or whose server is not what the config says. Raises EndpointAway for
    one that does not answer within its patience.
    """
    if config.execution.device not in ("auto", device):
        raise InputError(
            f"execution.device is {config.execution.device}, and the models were to be opened on "
            f"{device}: give one of both"
        )
    method = config.method
    names = {name for role in Role for name in method.backends_of(role)}
    by_name: dict[str, Backend] = {}
    painters: dict[str, Painter] = {}
    stack = _stack_without_model()
    janus: Janus | None = None
    for name in sorted(names & set(MODEL_BACKENDS)):
        backend: Fake | Reference | Engine
        if name == "fake":
            backend = Fake(method.fake, harms=config.execution.fake_harms)
        else:
            janus = janus or _load(config, device)
            backend = _on_janus(name, janus, config)
            stack = _stack_of(janus, is_strict=getattr(backend, "is_strict", True))
        by_name[name] = painters[name] = backend
    painter = painters[method.backend_of(Role.DRAW)]
    endpoints = {name: open_endpoint(config, name, painter) for name in method.endpoints_in_use}
    told = [stack["device"], *(str(endpoint.facts) for endpoint in endpoints.values())]
    return LoadedBackends(
        backends=Backends(by_name | endpoints, {role: _named(method, role) for role in Role}),
        painter=painter,
        stack={**stack, "device": "; ".join(told)},
        endpoints=endpoints,
    )


def _named(method: MethodConfig, role: Role) -> str | tuple[str, ...]:
    return method.backends.get(role, method.backend)


def _load(config: RunConfig, device: Device) -> "Janus":
    import torch

    from pipeline.engine.checkpoints import load_janus, planned_model

    method, node = config.method, platform.node()
    asked = config.execution.device
    setting = f"execution.device={asked}" + (", and Ray has GPUs" if asked == "auto" else "")
    on = torch_device(device, setting, node)  # before any weight is read
    torch.set_num_threads(max(1, int(config.execution.cpus_per_actor)))
    folder, dtype = planned_model(method.model, config.model_files), getattr(torch, method.dtype)
    janus = load_janus(folder, dtype=dtype, device=on)
    check_model(janus.model, dtype=dtype, device=on)
    check_weights(janus.model, folder)
    return janus


def _on_janus(name: str, janus: "Janus", config: RunConfig) -> "Engine | Reference":
    if name == "reference":
        from pipeline.engine.reference import Reference

        return Reference(janus)
    from pipeline.engine.engine import Engine

    return Engine(
        janus,
        max_rows=config.execution.rows_per_actor,
        kv_bytes=_cache_bytes(config, janus.model.device.type),
        strict=config.method.strict or None,
        compile=config.execution.compile,
    )


def _cache_bytes(config: RunConfig, device_type: str) -> int:
    """What the config says, or a gigabyte of a CPU's memory, or most of a GPU's that is free."""
    import torch

    execution = config.execution
    if execution.cache_gigabytes is not None:
        return int(execution.cache_gigabytes * 1e9)
    if device_type == "cpu":
        return _CPU_CACHE_BYTES
    return gpu_cache_bytes(
        *torch.cuda.mem_get_info(),
        own=torch.cuda.memory_reserved(),
        share=min(1.0, execution.gpus_per_actor),
    )


def gpu_cache_bytes(free: int, total: int, *, own: int, share: float) -> int:
    """How many bytes of a GPU the cache of an actor takes that has this share of it.

    `free` and `total` are the GPU's, `own` is what this process has taken for its weights. What is
    free tells little of a share: the others on the GPU may have loaded already, or not yet.
    """
    room = free if share == 1.0 else min(free, total * share - own)
    return max(0, int(room * _GPU_CACHE_SHARE))


def _stack_without_model() -> StackRow:
    return {
        "coppice": __version__,
        "python": platform.python_version(),
        "torch": "",
        "transformers": "",
        "device": platform.machine(),
        "arithmetic": "strict",
    }


def _stack_of(janus: "Janus", *, is_strict: bool) -> StackRow:
    import torch
    import transformers

    device = janus.model.device
    is_on_gpu = device.type == "cuda"
    return {
        **_stack_without_model(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": torch.cuda.get_device_name(device) if is_on_gpu else platform.machine(),
        "arithmetic": "strict" if is_strict else "fast",
    }


def open_painter(config: RunConfig, *, device: Device = "cpu") -> Painter:
    """What paints the canvases of a run, as they were painted in it: its VQ decoder alone.

    The model's files are checked against those that the run was planned with, and of its weights
    only the decoder's are read into memory. Equal to pictures that a trace kept to the grey level,
    if these were painted on the same device. Raises InputError as `open_backends` does.
    """
    method = config.method
    if method.backend_of(Role.DRAW) == "fake":
        return Fake(method.fake)

    import torch

    from pipeline.engine.checkpoints import load_decoder, planned_model
    from pipeline.engine.painting import PICTURES_AT_ONCE, VqPainter

    on = torch_device(device, "a scorer that needs pictures", platform.node())
    folder = planned_model(method.model, config.model_files)
    decoder, geometry = load_decoder(folder, dtype=getattr(torch, method.dtype), device=on)
    check_weights(decoder, folder)
    is_exact = on == "cpu" or method.strict or method.backend_of(Role.DRAW) == "reference"
    return VqPainter(decoder, geometry, batch_size=1 if is_exact else PICTURES_AT_ONCE)
