"""Sets in the forms that trainers read: a module a trainer, and `EXPORTS` by name.

Each export says which sets it takes, what a row becomes, for which consumer and version it was
tested, and its own version, which is raised when anything that it writes changes.
"""

from collections.abc import Mapping, Sequence

from pipeline.sets.exports.drawing_pairs import JANUS_DPO
from pipeline.sets.exports.form import Export
from pipeline.sets.exports.imagefolder import IMAGEFOLDER
from pipeline.sets.exports.nemo_curator import NEMO_CURATOR
from pipeline.sets.exports.segments import GRPO
from pipeline.sets.exports.tagged import LLAMA_FACTORY, MS_SWIFT
from pipeline.sets.exports.trl import TRL, TRL_DPO, TRL_MESSAGES
from pipeline.sets.exports.unirl import UNIRL
from pipeline.sets.exports.veomni import VEOMNI
from pipeline.sets.exports.verl import VERL, VERL_GRPO
from pipeline.sets.exports.webdataset import WEBDATASET
from schemas.errors import InputError
from schemas.recipes import SetKind

EXPORTS: Mapping[str, Export] = {
    "trl": TRL,
    "trl-messages": TRL_MESSAGES,
    "llama-factory": LLAMA_FACTORY,
    "ms-swift": MS_SWIFT,
    "verl": VERL,
    "veomni": VEOMNI,
    "unirl": UNIRL,
    "imagefolder": IMAGEFOLDER,
    "webdataset": WEBDATASET,
    "nemo-curator": NEMO_CURATOR,
    "grpo": GRPO,
    "verl-grpo": VERL_GRPO,
    "trl-dpo": TRL_DPO,
    "janus-dpo": JANUS_DPO,
}
"""By name. An export that takes none of a set's rows writes no file."""


def exports_of(kind: SetKind) -> list[str]:
    """The names of the exports that take rows of such sets."""
    return [name for name, export in EXPORTS.items() if kind in export.kinds]


def check_exports(names: Sequence[str], kind: SetKind) -> None:
    """Raises InputError for a name that is none of `EXPORTS`, and for an export of other sets."""
    if unknown := [name for name in names if name not in EXPORTS]:
        raise InputError(f"there is no export {unknown[0]!r}; known: {', '.join(EXPORTS)}")
    if misplaced := [name for name in names if kind not in EXPORTS[name].kinds]:
        kinds = " and ".join(sorted(EXPORTS[misplaced[0]].kinds))
        raise InputError(
            f"the export {misplaced[0]} takes rows of {kinds} sets, and this is a {kind} set; for "
            f"those there are: {', '.join(exports_of(kind))}"
        )
