"""Find a template pack: one that is bundled, or a TOML file of the user's."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from pipeline.twig.programs import Settings
from pipeline.twig.templates import TemplatePack, read_pack
from schemas.errors import InputError
from schemas.runs import RunManifest
from schemas.small_files import read_text_file

_BUNDLED = files("pipeline.twig") / "templates"


def bundled_packs() -> list[str]:
    """The names that `load_pack` knows."""
    return sorted(entry.name.removesuffix(".toml") for entry in _BUNDLED.iterdir())


def load_pack(name: str) -> TemplatePack:
    """The pack called `name`, or the one in the file at that path.

    Raises InputError if there is neither, or if it cannot be used.
    """
    if name in bundled_packs():
        text = (_BUNDLED / f"{name}.toml").read_text(encoding="utf-8")
    elif Path(name).is_file():
        text = _read_text(name)
    else:
        raise InputError(
            f"there is no template pack {name!r}; give a TOML file, or one of: "
            f"{', '.join(bundled_packs())}"
        )
    return read_pack(text, origin=name)


def _read_text(path: str) -> str:
    try:
        return read_text_file(path)
    except (OSError, ValueError) as error:
        raise InputError(f"template pack {path} cannot be read: {error}") from error


def settings_of(manifest: RunManifest, packs: Sequence[str] = ()) -> Settings:
    """What the programs of a run share, in the very words that it was planned with.

    `packs`: files to look for that wording in, after the name that the run was planned with. Raises
    InputError if it is in none of them.
    """
    planned = manifest.config.method.pack
    for name in (planned.name, *packs):
        try:
            pack = load_pack(name)
        except InputError:
            continue
        if pack.digest == planned.digest:
            return Settings(method=manifest.config.method, pack=pack, geometry=manifest.geometry)
    raise InputError(
        f"run {manifest.run_id} is asked in the words of template pack {planned.name} (digest "
        f"{planned.digest}), which is not here in that form; put the same file on every node of a "
        "run, or name it with --pack when you curate"
    )
