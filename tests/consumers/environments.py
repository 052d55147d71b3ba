"""An environment a consumer, in a folder of its own: made by pip on first use, and kept.

Each is a venv that looks into the project's environment last, so torch, Ray and pyarrow are there
once and what a consumer wants otherwise lies in its own folder. Knows pip; knows nothing of what
the consumers do.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path

FOLDER = "COPPICE_CONSUMERS"
"""Where the environments lie; by default `consumers` in the cache, `$COPPICE_CACHE`."""

_PINNED = ("torch", "ray", "pyarrow")  # the project's, whatever a consumer's metadata would like


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """What one consumer needs beside the project's own packages."""

    packages: tuple[str, ...]  # exact, by the package index; with what they require
    alone: tuple[str, ...] = ()  # exact; without what they require
    note: str = ""  # why it is not as its metadata says


ENVIRONMENTS = {
    "datasets-2.21": Environment(packages=("datasets==2.21.0",)),
    "llama-factory": Environment(
        packages=(
            *("transformers==5.6.0", "datasets==4.0.0", "accelerate==1.11.0", "peft==0.18.1"),
            *("trl==0.24.0", "omegaconf==2.3.0", "fire", "einops", "sentencepiece", "tiktoken"),
            *("tyro<0.9", "av<=16.0.0", "sse-starlette", "uvicorn", "fastapi", "matplotlib"),
        ),
        alone=("llamafactory==0.9.5", "torchdata==0.11.0", "modelscope"),
        note="without gradio and torchaudio, which its board and sound need",
    ),
    "ms-swift": Environment(
        packages=(
            *("transformers==5.19.0", "datasets==4.8.4", "peft==0.20.0", "trl==0.29.1"),
            *("accelerate", "addict", "attrdict", "binpacking", "dacite", "einops", "fastapi"),
            *("importlib-metadata", "json-repair", "matplotlib", "nltk", "openai", "rouge"),
            *("sentencepiece", "simplejson", "sortedcontainers", "tensorboard", "tiktoken"),
            *("uvicorn", "zstandard"),
        ),
        alone=(
            *("ms-swift==4.6.0", "modelscope", "modelscope_hub", "transformers-stream-generator"),
            *("cpm-kernels",),
        ),
        note="without oss2, which uploads to one cloud",
    ),
    "nemo-curator": Environment(
        packages=(
            *("absl-py>=2,<3", "comment_parser", "hydra-core", "omegaconf", "loguru", "lmdb"),
            *("jieba==0.42.1", "openai"),
        ),
        alone=("nemo-curator==1.4.0", "cosmos-xenna==0.2.0", "mecab-python3"),
    ),
    "peft": Environment(packages=("peft==0.21.2",)),
    "mlcroissant": Environment(packages=("mlcroissant==1.1.1",)),
    "unirl": Environment(
        packages=("omegaconf==2.3.0", "hydra-core==1.3.2", "einops", "peft==0.21.2"),
        alone=("unirl==0.2.0", "diffusers==0.38.0", "tensordict==0.10.0", "pyvers", "cloudpickle"),
        note="declares Python 3.12, and is installed in spite of it",
    ),
    "verl": Environment(
        packages=(
            *("transformers==5.10.2", "peft==0.19.1", "codetiming", "hydra-core", "pylatexenc"),
            *("pybind11", "uvicorn", "fastapi", "tensorboard", "cachetools", "pyzmq"),
        ),
        alone=(
            *("verl==0.9.1", "tensordict==0.10.0", "torchdata==0.11.0", "pyvers", "cloudpickle"),
            *("TransferQueue", "msgspec", "importlib-metadata", "zipp", "orjson"),
        ),
        note="without wandb, which its own trainer logs to",
    ),
}


def python_of(name: str) -> Path:
    """The interpreter of a consumer's environment, which is made if it is not there."""
    root = folder() / name
    wanted = repr(ENVIRONMENTS[name])
    root.parent.mkdir(parents=True, exist_ok=True)
    with (root.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two that start at once, one makes it
        stamp = root / "ready"
        if not stamp.exists() or stamp.read_text() != wanted:
            _make(root, ENVIRONMENTS[name])
            stamp.write_text(wanted)  # last: an environment without it is made again
        _link_project(root)
    return root / "bin" / "python"


def folder() -> Path:
    """Where all of them lie."""
    cache = Path(os.environ.get("COPPICE_CACHE") or "~/.cache/coppice")
    return Path(os.environ.get(FOLDER) or cache / "consumers").expanduser()


def num_bytes(name: str) -> int:
    """What a consumer's environment takes on disk, without the project's."""
    files = (path for path in (folder() / name).rglob("*") if not path.is_symlink())
    return sum(path.stat().st_size for path in files if path.is_file())


def _make(root: Path, environment: Environment) -> None:
    shutil.rmtree(root, ignore_errors=True)
    venv.create(root, symlinks=True)
    python = root / "bin" / "python"
    _link_project(root)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.writelines(f"{name}=={_version(name)}\n" for name in _PINNED)
        constraints.flush()
        _pip(python, *environment.packages, "--constraint", constraints.name)
    if environment.alone:
        _pip(python, *environment.alone, "--no-deps", "--ignore-requires-python")


def _link_project(root: Path) -> None:
    """Have an environment see the project's, which lies elsewhere for every checkout."""
    own = root / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    (own / "project.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n")


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package).partition("+")[0]


def _pip(python: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    command += ["--disable-pip-version-check", "--no-compile", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"pip could not make {python.parents[1].name}:\n{done.stderr[-2000:]}")
