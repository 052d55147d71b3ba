"""Find a template pack: one that is bundled, or a TOML file of the user's."""

from importlib.resources import files
from pathlib import Path

from pipeline.twig.templates import TemplatePack, read_pack
from schemas.errors import InputError

_BUNDLED = files("pipeline.twig") / "templates"


def bundled_packs() -> list[str]:
    """The names that `load_pack` knows."""
    return sorted(entry.name.removesuffix(".toml") for entry in _BUNDLED.iterdir())


def load_pack(name: str) -> TemplatePack:
    """The pack called `name`, or the one in the file at that path."""
    if name in bundled_packs():
        text = (_BUNDLED / f"{name}.toml").read_text(encoding="utf-8")
    elif Path(name).is_file():
        text = Path(name).read_text(encoding="utf-8")
    else:
        raise InputError(
            f"there is no template pack {name!r}; give a TOML file, or one of: "
            f"{', '.join(bundled_packs())}"
        )
    return read_pack(text, origin=name)
