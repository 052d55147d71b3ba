"""The data card: README.md with the front matter that the Hugging Face hub reads.

It says what is known. What is not, such as a licence that no one has written down, is printed as
unknown and never guessed.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from pipeline.select.funnel import lines_of
from pipeline.select.guard_lines import guard_lines_of
from pipeline.select.selection import Curation
from pipeline.sets.export_notes import num_rows
from pipeline.store.runs import stack_of
from schemas.config import MethodConfig
from schemas.recipes import Recipe
from schemas.sets import SetManifest, StreamFiles
from schemas.specs import PromptOrigin
from schemas.trace import Role

_HEADING = "\n\n## "
_EXPORTS, _AFTER_EXPORTS = f"{_HEADING}Exports\n\n", f"{_HEADING}Where it comes from\n\n"
_UNKNOWN = "unknown"
_LONGEST_NAME = 120
_JANUS_LICENCE = "DeepSeek Model License"
_LICENCES = {"toy": "Apache-2.0", "tiny": "Apache-2.0", "fake": "Apache-2.0"}  # bundled
_RESTRICTIONS = f"""\
Janus-Pro's weights come under the {_JANUS_LICENCE}. It treats a model that is trained on the output
of Janus so as to perform similarly as a *derivative of the model*: its use restrictions
(Attachment A) then flow on to that model, and have to be passed on with it. Read the licence before
training on rows that a Janus-Pro wrote, judged or drew."""


def card_of(curation: Curation, manifest: SetManifest) -> str:
    """The whole card, as Markdown. Equal sets have equal cards."""
    recipe, files = curation.recipe, manifest.files
    parts = [
        front_matter(recipe.name, files),
        f"# {_one_line(recipe.name)}",
        recipe.about or "A training set of Thinking-while-Generating traces.",
        f"Version `{manifest.version}`, of recipe `{curation.checked.digest}`. Made by Coppice "
        "from the runs below; `manifest.json` names every input by its digest, "
        "`decisions.parquet` says of every row that could have been why it is not here, and "
        "`leaks.json` which prompts were found in evaluation sets.",
        "## Rows\n\n" + "\n".join(_rows(files)),
        f"## Funnel\n\n{_block(lines_of(curation.funnel))}",
        *_guards(curation),
        "## Where it comes from\n\n" + "\n".join(_runs(curation)),
        "## Scorers\n\n" + "\n".join(_scorers(recipe)),
        "## Licences and restrictions\n\n" + "\n".join(_licences(curation)),
    ]
    return with_exports("\n\n".join(parts) + "\n", manifest)


def front_matter(name: str, files: Mapping[str, StreamFiles]) -> str:
    """What the hub reads, with its two fences. It has one config a task; exports are no configs,
    since they hold the same rows again. Any name is read back as it is.
    """
    from huggingface_hub import DatasetCardData  # slow to import

    splits_of: dict[str, list[dict[str, str]]] = {}  # by config
    for key in files:
        if not key.startswith("exports/"):
            folder, _, split = key.rpartition("/")
            splits = splits_of.setdefault(folder.rpartition("/")[2], [])
            splits.append({"split": split, "path": f"{key}-*.parquet"})
    data = DatasetCardData(
        pretty_name=name,
        license="other",
        license_name=_UNKNOWN,
        tags=["coppice", "thinking-while-generating", "synthetic"],
        configs=[
            {"config_name": config, "data_files": splits} for config, splits in splits_of.items()
        ],
    )
    return f"---\n{data.to_yaml()}\n---"


def with_exports(card: str, manifest: SetManifest) -> str:
    """A card that tells what each export of a set is for; as it was where there is none."""
    if not manifest.exports:
        return card
    before, _, rest = card.rpartition(_AFTER_EXPORTS)  # above it may stand words of users
    above, heading, last = before.rpartition(_HEADING)
    if f"{heading}{last}".startswith(_EXPORTS):  # what users say stands above our own headings
        before = above
    return f"{before}{_EXPORTS}{_exports(manifest)}{_AFTER_EXPORTS}{rest}"


def _exports(manifest: SetManifest) -> str:
    lines = (
        f"- `{name}`, version {note.version}, for {note.consumer}: "
        f"{num_rows(manifest, name):,} rows; left out: {_counts(note.left_out)}."
        for name, note in manifest.exports.items()
    )
    return "\n".join(lines)


def _counts(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {num:,}" for reason, num in left_out.items()) or "none"


def _guards(curation: Curation) -> Iterator[str]:
    """Whether selection pleased more than its judges; nothing where none judges by a role."""
    if curation.guards is not None:
        yield f"## What the judges say\n\n{_block(guard_lines_of(curation.guards))}"


def _rows(files: Mapping[str, StreamFiles]) -> Iterator[str]:
    yield "| files | rows |"
    yield "|---|---|"
    for key, stream in files.items():
        if not key.startswith("exports/"):
            yield f"| `{key}-*` | {stream.num_rows:,} |"


def _scorers(recipe: Recipe) -> Iterator[str]:
    yield ", ".join(f"`{scorer}`" for scorer in recipe.scorers) or "none"
    if recipe.judge is not None:
        judges, held_out = (
            ", ".join(f"`{scorer}`" for scorer in scorers) or "nobody"
            for scorers in (recipe.judge.scorers, recipe.judge.held_out)
        )
        yield ""
        yield f"`judge.value` is the {recipe.judge.aggregate} of {judges}. Held out: {held_out}."


def _runs(curation: Curation) -> Iterator[str]:
    for run_index, run in enumerate(curation.runs):
        manifest, method = run.manifest, run.manifest.config.method
        sampling = method.sampling
        yield (
            f"- Run `{run.run_id}` (fingerprint `{manifest.fingerprint}`, coppice "
            f"{manifest.coppice_version}): {method.program.value}, seed {method.seed}, "
            f"{method.dtype}, pack {_one_line(method.pack.name)} (`{method.pack.digest}`), "
            f"CFG {sampling.cfg_weight:g}, temperature {sampling.image_temperature:g} for images "
            f"and {sampling.text_temperature:g} for text, theta {method.reflection.theta}, "
            f"up to {method.reflection.max_revisions} revisions."
        )
        for role, verb in ((Role.THINK, "thought"), (Role.REFLECT, "judged"), (Role.DRAW, "drew")):
            yield f"  - {_who(method, role)} {verb}."
        if method.endpoints_in_use:
            yield (
                "  - What endpoints said has no token ids: those rows are for trainers of "
                "messages, and forms of tokens leave them out."
            )
        stack = ", ".join(f"{name} {value}" for name, value in stack_of(run).items() if value)
        yield f"  - Stack of its first trace (each trace has its own): {stack or _UNKNOWN}."
        for origin, num_traces in _origins(curation, run_index):
            yield f"  - {num_traces:,} traces of prompts from {_origin_words(origin)}."


def _who(method: MethodConfig, role: Role) -> str:
    return f"{' and '.join(_named(method, name) for name in method.backends_of(role))},"


def _named(method: MethodConfig, backend: str) -> str:
    if backend == "fake":
        return "the fake backend, on backend fake"
    if table := method.endpoints.get(backend):
        revision = f" (revision `{_one_line(table.revision)}`)" if table.revision else ""
        return f"Model {_one_line(table.model)}{revision}, behind endpoint {backend}"
    name = _one_line(method.model.name)
    return f"Model {name} (digest `{method.model.digest}`), on backend {backend}"


def _origins(curation: Curation, run_index: int) -> list[tuple[PromptOrigin, int]]:
    """Where the prompts of a run's traces come from, the most of them first."""
    total: Counter[PromptOrigin] = Counter()
    for (run_of_shard, _), shard in zip(curation.objects, curation.shards, strict=True):
        if run_of_shard == run_index:
            total += shard.origins
    return sorted(total.items(), key=lambda item: (-item[1], item[0].model_dump_json()))


def _origin_words(origin: PromptOrigin) -> str:
    name = _quoted(origin.name) if origin.name else f"a source that is {_UNKNOWN}"
    revision, licence = (
        _quoted(text) if text else _UNKNOWN for text in (origin.revision, origin.licence)
    )
    return f"{name} (revision: {revision}, licence: {licence})"


def _block(lines: Iterable[str]) -> str:
    """Lines that may quote anything, as a block of code that none of them ends."""
    text = "\n".join(_printable(line) for line in lines)
    fence = max([*re.findall(r"`+", text), "``"], key=len) + "`"
    return f"{fence}\n{text}\n{fence}"


def _quoted(text: str) -> str:
    """Words of a prompt file, which may be hostile, as code on one line of Markdown."""
    return f"`{_one_line(text.replace('`', ' '))[:_LONGEST_NAME]}`"


def _one_line(text: str) -> str:
    return " ".join(_printable(text).split())


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


def _licences(curation: Curation) -> Iterator[str]:
    models = {run.manifest.config.method.model.name for run in curation.runs}
    for name in sorted(models):
        is_janus = "janus" in name.lower()
        licence = _JANUS_LICENCE if is_janus else _LICENCES.get(name, _UNKNOWN)
        yield f"- Model {_one_line(name)}: {licence}."
    origins = {origin for shard in curation.shards for origin in shard.origins}
    if any(not origin.licence for origin in origins):
        yield f"- Prompts: {_UNKNOWN}, at least of some. Find out before you publish."
    for licence in sorted({origin.licence for origin in origins if origin.licence}):
        yield f"- Prompts: {_quoted(licence)}."
    yield ""
    if models - set(_LICENCES):
        yield _RESTRICTIONS
    else:
        yield "The bundled models are of this project; no restriction of Janus-Pro's flows on."
