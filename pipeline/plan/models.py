"""What planning has to know of a model, read from its small files: no weights, no torch."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.engine.checkpoints import digest_of, resolve_checkpoint
from pipeline.engine.fake import fake_geometry
from pipeline.engine.rendering import JANUS_SYSTEM_PROMPT
from pipeline.engine.tokenizer import read_tokenizer
from pipeline.twig.templates import TemplatePack
from schemas.config import FakeConfig, MethodConfig, ModelConfig
from schemas.errors import InputError
from schemas.geometry import Geometry
from schemas.json_values import JsonMapping, JsonObject, read_json_object

_LLAMA_POSITIONS, _LLAMA_LAYERS = 2048, 32  # of transformers, where a config leaves them out
_CHAT_TOKENS = 16  # role tags, line ends and the begin and end of a picture, generously


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFacts:
    """A model by name, with its sizes. `count_tokens` counts text in its own tokenizer."""

    model: ModelConfig
    geometry: Geometry
    num_layers: int  # of the language model; 0 for the fake
    max_positions: int | None  # None: no limit
    count_tokens: Callable[[str], int]
    pack: str | None  # the template pack that its card names


def fake_facts(config: FakeConfig) -> ModelFacts:
    """The fake backend's: it has no weights and no limits."""
    return ModelFacts(
        model=ModelConfig(name="fake", digest="none"),
        geometry=fake_geometry(config),
        num_layers=0,
        max_positions=None,
        count_tokens=len,
        pack=None,
    )


def describe_model(name: str) -> ModelFacts:
    """Find a checkpoint and read its sizes; its weights are read for their digest alone.

    Raises InputError for what is no Janus.
    """
    folder = resolve_checkpoint(name)
    config = _read(folder / "config.json")
    tokenizer = read_tokenizer(folder / "tokenizer.json")
    tokenizer.encode_special_tokens = True  # a prompt that spells one is its letters, as when asked
    card = folder / "coppice.json"
    llama = _table(config, "text_config") or _table(config, "language_config")
    try:
        geometry = _geometry(config, folder)
        num_layers = _number(llama, "num_hidden_layers", _LLAMA_LAYERS)
        max_positions = _number(llama, "max_position_embeddings", _LLAMA_POSITIONS)
    except KeyError as error:
        raise InputError(f"{folder}/config.json does not describe a Janus: no {error}") from error
    return ModelFacts(
        model=ModelConfig(name=name, digest=digest_of(folder)[:16]),
        geometry=geometry,
        num_layers=num_layers,
        max_positions=max_positions,
        count_tokens=lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids),
        pack=_pack_of(card) if card.is_file() else None,
    )


def prompt_limit(
    facts: ModelFacts, method: MethodConfig, pack: TemplatePack
) -> Callable[[str], str | None]:
    """Says why a prompt is too long: the longest question about it must leave room to answer.

    Counts the worst case, every thought as long as `max_text_tokens` allows. Raises InputError if
    not even an empty prompt fits.
    """
    if facts.max_positions is None:
        return lambda prompt: None
    num_regions = method.schedule.num_regions
    wording = max(facts.count_tokens(body) for body in pack.questions.values())
    used = (
        wording
        + facts.count_tokens(pack.system or JANUS_SYSTEM_PROMPT)
        + facts.geometry.num_tokens
        + (num_regions + 1) * method.sampling.max_text_tokens
        + _CHAT_TOKENS
    )
    room = facts.max_positions - used
    if room <= 0:
        raise InputError(
            f"{facts.model.name} holds {facts.max_positions} tokens, and {num_regions} regions "
            f"with max_text_tokens {method.sampling.max_text_tokens} can need {used} before any "
            "prompt; "
            "lower max_text_tokens or the number of regions"
        )

    def too_long(prompt: str) -> str | None:
        length = facts.count_tokens(prompt)
        return f"{length} tokens long, where {room} fit the model" if length > room else None

    return too_long


def _geometry(config: JsonMapping, folder: Path) -> Geometry:
    """Raises KeyError for a size that the config does not tell, InputError for another model."""
    kind, vision = config.get("model_type"), _table(config, "vision_config")
    if kind == "janus":
        image_size, patch = _number(vision, "image_size"), _number(vision, "patch_size")
        num_codes = _number(_table(config, "vq_config"), "num_embeddings")
    elif kind == "multi_modality":
        params = _table(vision, "params")
        image_size, patch = _number(params, "image_size"), _patch_size(params)
        num_codes = _number(
            _table(_table(config, "gen_vision_config"), "params"), "image_token_size"
        )
    else:
        raise InputError(
            f"{folder} holds a model of type {kind!r}; expected janus (Hugging Face format) "
            "or multi_modality (DeepSeek's own)"
        )
    side = image_size // patch
    return Geometry(image_size=image_size, rows=side, columns=side, num_codes=num_codes)


def _patch_size(params: JsonMapping) -> int:
    """DeepSeek's own configs have it in a name: `siglip_large_patch16_384`."""
    match = re.search(r"patch(\d+)", str(params.get("model_name")))
    if match is None:
        raise KeyError("model_name")
    return int(match[1])


def _table(config: JsonMapping, name: str) -> JsonObject:
    """A table of a config; empty where there is none."""
    table = config.get(name)
    return table if isinstance(table, dict) else {}


def _number(table: JsonMapping, name: str, default: int | None = None) -> int:
    """A size in a table. Raises KeyError where there is none, and no default."""
    number = table.get(name, default)
    if not isinstance(number, int):
        raise KeyError(name)
    return number


def _pack_of(card: Path) -> str | None:
    pack = _read(card).get("pack")
    if pack is not None and not isinstance(pack, str):
        raise InputError(f"{card}: expected the name of a template pack, found {pack!r:.60}")
    return pack


def _read(path: Path) -> JsonObject:
    try:
        return read_json_object(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a JSON object: {error}") from error
