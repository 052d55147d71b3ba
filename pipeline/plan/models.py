"""What planning has to know of a model, read from its small files and from headers: no weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.engine.checkpoints import JanusSizes, check_janus
from pipeline.engine.fake import fake_geometry
from pipeline.engine.model_files.digests import digest_of_files
from pipeline.engine.model_files.places import planned_checkpoint
from pipeline.engine.rendering import JANUS_SYSTEM_PROMPT
from pipeline.engine.tokenizer import read_tokenizer
from pipeline.twig.templates import TemplatePack
from schemas.config import FakeConfig, MethodConfig, ModelConfig
from schemas.errors import InputError
from schemas.geometry import Geometry
from schemas.json_values import JsonMapping, JsonObject, read_json_object

_CHAT_TOKENS = 16  # role tags, line ends and the begin and end of a picture, generously


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFacts:
    """A model by name, with its sizes. `count_tokens` counts text in its own tokenizer."""

    model: ModelConfig
    files: Mapping[str, str]  # sha256 by name of what its digest is of; of bundled ones none
    geometry: Geometry
    num_layers: int  # of the language model; 0 for the fake
    max_positions: int | None  # None: no limit
    own_dtype: str  # what it says that it is to be computed in; not always what Coppice can do
    count_tokens: Callable[[str], int]
    pack: str | None  # the template pack that its card names


def fake_facts(config: FakeConfig) -> ModelFacts:
    """The fake backend's: it has no weights and no limits."""
    return ModelFacts(
        model=ModelConfig(name="fake", digest="none"),
        files={},
        geometry=fake_geometry(config),
        num_layers=0,
        max_positions=None,
        own_dtype="float32",
        count_tokens=len,
        pack=None,
    )


def describe_model(name: str) -> ModelFacts:
    """Find a checkpoint and check that it can be run, from headers: no weight is loaded.

    Its digest is of the weights, too. The bundled models are known to be whole; any other is set up
    without weights, as it will be on every node. Raises InputError for what would be refused there.
    """
    with planned_checkpoint(name) as planned:
        sizes = (
            _bundled_sizes(planned.folder) if planned.is_bundled else check_janus(planned.folder)
        )
        tokenizer = read_tokenizer(planned.folder / "tokenizer.json")
        card = planned.folder / "coppice.json"
        pack = _pack_of(card) if card.is_file() else None
        digests = planned.take_digests()
    tokenizer.encode_special_tokens = True  # a prompt that spells one is its letters, as when asked
    return ModelFacts(
        model=ModelConfig(
            name=planned.name,
            digest=digest_of_files(digests)[:16],
        ),
        files={} if planned.is_bundled else digests,
        geometry=sizes.geometry,
        num_layers=sizes.num_layers,
        max_positions=sizes.max_positions,
        own_dtype=sizes.own_dtype,
        count_tokens=lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids),
        pack=pack,
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


def _bundled_sizes(folder: Path) -> JanusSizes:
    """Those of a model that ships with Coppice, without torch: they are in Hugging Face's terms."""
    config = _read(folder / "config.json")
    text, vision, vq = (_table(config, f"{part}_config") for part in ("text", "vision", "vq"))
    side = _number(vision, "image_size") // _number(vision, "patch_size")
    return JanusSizes(
        geometry=Geometry(
            image_size=_number(vision, "image_size"),
            rows=side,
            columns=side,
            num_codes=_number(vq, "num_embeddings"),
        ),
        num_layers=_number(text, "num_hidden_layers"),
        max_positions=_number(text, "max_position_embeddings"),
        own_dtype="float32",  # whatever their files are stored in
    )


def _table(config: JsonMapping, name: str) -> JsonMapping:
    table = config[name]
    assert isinstance(table, dict)
    return table


def _number(table: JsonMapping, name: str) -> int:
    number = table[name]
    assert isinstance(number, int)
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
