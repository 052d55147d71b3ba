"""What every judge can be told, and how a model is pinned to the files that it is now."""

import re
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator

from pipeline.engine.model_files import hub
from pipeline.engine.model_files.digests import digest_of_files, sha256_of
from pipeline.scoring.formulae.modes import Mode
from pipeline.scoring.judges.outcomes import Look
from pipeline.scoring.settings import ScorerSettings
from schemas.errors import InputError

FILES = ("*.json", "*.jinja", "*.txt", "*.safetensors", "pytorch_model*.bin")
"""What a model of transformers is read from, on the hub and in a folder."""

_DIGEST = "sha256-"
_COMMIT = re.compile(r"[0-9a-f]{40}")


class JudgeSettings(ScorerSettings):
    """What every judge can be told."""

    MODELS: ClassVar[tuple[str, ...]] = ("model",)  # settings that name one, `NAME_revision` beside
    NOT_COMPARED: ClassVar[frozenset[str]] = frozenset({"batch_size"})
    MODES: ClassVar[tuple[Mode, ...]] = (Mode.FIXED, Mode.T2I_R1)  # that the judge has

    model: str
    """A folder that every node has, or `owner/name` on the hub."""
    revision: str | None = None
    """A commit or branch on the hub; of a folder `sha256-` and the digest of its files."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    mode: Mode = Mode.FIXED
    look: Look = "trace"
    batch_size: int = Field(default=16, ge=1)  # pictures at once

    @field_validator("mode")
    @classmethod
    def _has_mode(cls, mode: Mode) -> Mode:
        if mode not in cls.MODES:
            raise ValueError(f"expected one of its modes: {', '.join(cls.MODES)}")
        return mode

    @property
    def digest(self) -> str:
        """8 hex digits; where a folder of weights lies does not count, what is in it does."""
        folders = [
            name for name in self.MODELS if (self.revision_of(name) or "").startswith(_DIGEST)
        ]
        unplaced = self.model_copy(update=dict.fromkeys(folders, ""))
        return super(JudgeSettings, unplaced).digest

    def pinned(self) -> Self:
        """With each model's path whole and its revision as it is now. Raises InputError."""
        pins: dict[str, str] = {}
        for name in self.MODELS:
            pinned = pinned_model(getattr(self, name), self.revision_of(name))
            pins |= zip((name, _revision_field(name)), pinned, strict=True)
        return self.model_copy(update=pins)

    def revision_of(self, model: str) -> str | None:
        """The revision of the model that this setting names."""
        revision: str | None = getattr(self, _revision_field(model))
        return revision

    def folder(self, model: str = "model", patterns: tuple[str, ...] = FILES) -> Path:
        """The folder of the model that this setting names, on this machine. Raises InputError, also
        for a folder whose files are not those that it was pinned to.
        """
        name, revision = getattr(self, model), self.revision_of(model)
        folder = as_folder(name)
        if folder is None:
            return hub.download(name, revision, patterns)
        pinned_model(name, revision)
        return folder


def _revision_field(model: str) -> str:
    return "revision" if model == "model" else f"{model}_revision"


def pinned_model(model: str, revision: str | None) -> tuple[str, str]:
    """A model's name, and what it is now: the commit, or the digest of a folder's files.

    Raises InputError for a model that is not there, and for a folder with other files than its
    revision says.
    """
    if folder := as_folder(model):
        digest = folder_digest(folder)
        if revision not in (None, digest):
            raise InputError(
                f"{model} is {digest}, and its revision was to be {revision}; give the folder that "
                "holds these files, or leave the revision away"
            )
        return str(folder.absolute()), digest
    if revision is not None and _COMMIT.fullmatch(revision):
        return model, revision
    try:
        return model, hub.open_repository(model, revision).label.rpartition("@")[2]
    except InputError:  # without the hub, what it gave before
        downloaded = hub.downloaded(model, revision)
        if downloaded is None or not _COMMIT.fullmatch(downloaded.name):
            raise
        return model, downloaded.name


def folder_digest(folder: Path) -> str:
    """`sha256-` and 16 hex digits of the files that a model is read from, by name."""
    names = sorted({path.name for pattern in (*FILES, "*.pt") for path in folder.glob(pattern)})
    if not names:
        raise InputError(f"{folder} holds no model; expected config.json and weights in it")
    return _DIGEST + digest_of_files({name: sha256_of(folder / name) for name in names})[:16]


def as_folder(model: str) -> Path | None:
    """The folder of this name, if there is one."""
    try:
        folder = Path(model).expanduser()
        return folder if model and folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # too long, of nobody, with a null in it
        return None
