"""A checkpoint's tokenizer, and the ids of the tokens that Janus gives a meaning to.

Knows nothing of prompts or chat templates. It reads `tokenizer.json` and nothing beside it: the
class that `tokenizer_config.json` names, LLaMA's, makes transformers 5 replace Janus's byte-level
splitting by its own, which loses spaces without a word.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from pipeline.engine.model_files.listing import refuse_pointer
from schemas.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    from schemas.json_values import JsonObject


@dataclass(frozen=True, kw_only=True, slots=True)
class SpecialTokens:
    """Ids in the text vocabulary."""

    bos: int
    eos: int
    pad: int
    image: int  # stands where one vector of a picture's features goes
    boi: int  # begin of image
    eoi: int  # end of image
    user: int  # opens a turn of the conversation
    assistant: int


# As the published Janus-Pro tokenizers spell them. The bars and the low lines are not ASCII.
SPECIAL_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "bos": "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
        "eos": "<\uff5cend\u2581of\u2581sentence\uff5c>",
        "pad": "<\uff5c\u2581pad\u2581\uff5c>",
        "image": "<image_placeholder>",
        "boi": "<begin_of_image>",
        "eoi": "<end_of_image>",
        "user": "<|User|>",
        "assistant": "<|Assistant|>",
    }
)

_COPY = "copy the one of the Janus model that this one was made from"
_PROBES = (
    " Two  red cats,\n\none (blue) - isn't it? 3.5 m \u00e9 \u6a39 \U0001f333",
    "Two red cats  ",  # with no space before it, and some behind
    "\ufb01 \u00bd \uff21\u00b2 ``It's'' \u2026\t",  # what normal forms write as other letters
)
_HARMLESS = {"NFC", "Sequence"}  # normalisers: of prompts as people type them they change nothing


def load_tokenizer(folder: Path) -> "tuple[PreTrainedTokenizerFast, SpecialTokens]":
    """The tokenizer in `folder`: it puts bos before a text, and decodes unchanged what it encoded.

    The files of some checkpoints leave bos to the class that we do not use, so it is set here.
    Raises InputError for a tokenizer that is missing, not Janus's, or changes a text.
    """
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    path = folder / "tokenizer.json"
    core = read_tokenizer(path)
    with _refusing(path):
        special = _special_tokens(core, path)
        core.post_processor = TemplateProcessing(
            single=f"{SPECIAL_NAMES['bos']} $A",
            special_tokens=[(SPECIAL_NAMES["bos"], special.bos)],
        )
        names = {f"{role}_token": SPECIAL_NAMES[role] for role in ("bos", "eos", "pad")}
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=core, clean_up_tokenization_spaces=False, **names
        )
        _check_round_trip(tokenizer, path)
    return tokenizer, special


def read_tokenizer(path: Path) -> "Tokenizer":
    """The bare tokenizer in a `tokenizer.json`, without transformers. Raises InputError.

    What a training job leaves in the file and would change what is counted or asked is switched
    off: texts cut or padded to one length, and merges left out by lot.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import BPE

    if not path.is_file():
        raise InputError(f"{path.parent} has no tokenizer.json; {_COPY}")
    refuse_pointer(path)
    with _refusing(path):
        tokenizer = Tokenizer.from_file(str(path))
    _check_ids(tokenizer, path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if isinstance(tokenizer.model, BPE):
        tokenizer.model.dropout = None
    return tokenizer


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Whatever the tokenizers library says of the file at `path` is InputError.

    Its errors have no type of their own; and where it panics, they are not even Exceptions.
    """
    try:
        yield
    except (InputError, KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        raise InputError(f"{path} cannot be read ({error}); fetch it again") from error


def _check_ids(tokenizer: "Tokenizer", path: Path) -> None:
    """Raises InputError where two tokens have one id: the library then keeps either of them."""
    tokens: dict[int, str] = {}
    for token, token_id in tokenizer.get_vocab().items():
        other = tokens.setdefault(token_id, token)
        if other != token:
            raise InputError(
                f"{path} gives the id {token_id} to two tokens, {sorted((other, token))}; {_COPY}"
            )


def _special_tokens(core: "Tokenizer", path: Path) -> SpecialTokens:
    ids_by_role = {
        role: core.encode(name, add_special_tokens=False).ids
        for role, name in SPECIAL_NAMES.items()
    }
    absent = [SPECIAL_NAMES[role] for role, ids in ids_by_role.items() if len(ids) != 1]
    if absent:
        raise InputError(
            f"{path} lacks {', '.join(absent)}, so it is not Janus's tokenizer; {_COPY}"
        )
    return SpecialTokens(**{role: token for role, (token,) in ids_by_role.items()})


def _check_round_trip(tokenizer: "PreTrainedTokenizerFast", path: Path) -> None:
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    for normaliser in _parts_of(core["normalizer"], "normalizers"):
        if normaliser["type"] not in _HARMLESS:
            raise InputError(
                f"{path} changes text, by a normaliser {normaliser['type']!r:.60}; {_COPY}"
            )
    for probe in _PROBES:
        returned = tokenizer.decode(tokenizer.encode(probe), skip_special_tokens=True)
        if returned != probe:
            raise InputError(f"{path} changes text: {probe!r} comes back as {returned!r}; {_COPY}")
    for step in _parts_of(core["pre_tokenizer"], "pretokenizers"):
        if step.get("add_prefix_space"):
            raise InputError(f"{path} puts a space before every text (add_prefix_space); {_COPY}")


def _parts_of(step: "JsonObject | None", key: str) -> "Iterator[JsonObject]":
    """A step of a tokenizer, and those that it is a sequence of, however deep."""
    left = [step] if step else []
    while left:
        step = left.pop()
        yield step
        inner = step.get(key)
        left += (
            [part for part in inner if isinstance(part, dict)] if isinstance(inner, list) else []
        )
