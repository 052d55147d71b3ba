"""Exports load in the consumers' own loaders, or have the columns that they ask for.

TRL, WebDataset and `datasets` are in the project's environment; what the other consumers do with
the very same files, `make test-consumers` tries.
"""

import json
import re
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import webdataset
from datasets import load_dataset
from huggingface_hub import DatasetCard
from PIL import Image
from trl.data_utils import is_conversational, prepare_multimodal_messages

from pipeline.select.recipes import read_recipe
from pipeline.select.selection import open_curation
from pipeline.sets.adding import add_exports
from pipeline.sets.exports import EXPORTS, check_exports, exports_of
from pipeline.sets.exports.form import Reason
from pipeline.sets.write import write_set
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.runs import open_run
from schemas.errors import InputError
from schemas.recipes import SetKind
from schemas.sets import SetManifest
from tests.pipeline.conftest import score

RECIPES: Mapping[SetKind, str] = {
    SetKind.SFT: "",
    SetKind.PREFERENCE: 'scorers = ["tokens@1"]\n[pairs]\nby = "tokens.entropy"',
    SetKind.GRPO: 'scorers = ["toy@1"]\n[groups]\nrewards = ["toy.value"]',
}


def written(
    run: Store, kind: SetKind, out: Path, exports: Sequence[str] | None = None
) -> SetManifest:
    """A set of a kind of all that a run has, in these forms; in all of them by default."""
    exports = exports_of(kind) if exports is None else exports
    head = f'name = "all: [1]"\nkind = "{kind}"\nsplit = {{ validation = 0 }}\n'
    text = f"{head}exports = {json.dumps(exports)}\n{RECIPES[kind]}"
    curation = open_curation([open_run(run.url)], read_recipe(text, origin="test"), Path())
    return write_set(curation, open_store(str(out)))


@pytest.fixture(scope="module")
def sets(toy_run: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    for kind in SetKind:
        written(toy_run, kind, folder / kind.value)
    return folder


@pytest.fixture
def out(sets: Path) -> Path:
    return sets / SetKind.SFT.value


def load(out: Path, name: str) -> list[dict[str, Any]]:
    files = str(out / "exports" / name / "train" / "**" / "*.parquet")
    cache = str(out.parent / "cache")
    return list(load_dataset("parquet", data_files=files, split="train", cache_dir=cache))


def manifest_of(out: Path) -> SetManifest:
    return SetManifest.model_validate_json((out / "manifest.json").read_text())


def num_pictures(row: dict[str, Any]) -> int:
    return len(row["images"])


def test_the_card_has_a_config_for_every_task(out: Path):
    row = load_dataset(str(out), "reflect_2", split="train", cache_dir=str(out.parent / "c"))[0]

    assert row["images"][0].size == (48, 48)
    assert row["messages"][-1]["role"] == "assistant"
    assert "SCORE:" in row["messages"][-1]["content"]


@pytest.mark.parametrize("kind", SetKind)
def test_every_row_of_a_set_is_in_an_export_or_counted_with_a_reason(sets: Path, kind: SetKind):
    manifest = manifest_of(sets / kind.value)
    num_rows = sum(
        stream.num_rows for key, stream in manifest.files.items() if not key.startswith("exports")
    )

    assert list(manifest.exports) == exports_of(kind)
    for name, note in manifest.exports.items():
        assert (note.version, note.consumer) == (EXPORTS[name].version, EXPORTS[name].consumer)
        assert note.left_out.keys() <= {reason.value for reason in Reason}
        ids = names_in(sets / kind.value / "exports" / name, EXPORTS[name].container)
        assert len(ids) == num_rows - sum(note.left_out.values()), name
    funnel = json.loads((sets / kind.value / "funnel.json").read_text())
    assert funnel["exports"].keys() == manifest.exports.keys()


def names_in(folder: Path, container: str) -> set[str]:
    """The names of the canonical rows that an export has something of."""
    names: set[str] = set()
    for path in folder.rglob("*"):
        if container == "tar" and path.suffix == ".tar":
            names |= {
                json.loads(s["json"])["id"]
                for s in webdataset.WebDataset(str(path), shardshuffle=False)
            }
        elif path.suffix == ".jsonl":
            lines = map(json.loads, path.read_text().splitlines())
            names |= {line.get("metadata", line)["id"] for line in lines}
        elif path.suffix == ".parquet":
            names |= set(pq.read_table(path)["id"].to_pylist())
    is_of_segments = SetKind.GRPO.value in folder.parts
    return {name.rpartition("-")[0] for name in names} if is_of_segments else names


def test_trl_reads_text_rows(out: Path):
    rows = load(out, "trl")

    assert {num_pictures(row) for row in rows} == {0, 1}
    for row in rows:
        assert is_conversational(row)
        prepared = prepare_multimodal_messages(row["prompt"], images=row["images"])
        parts = [part for message in prepared for part in message["content"]]
        assert sum(part["type"] == "image" for part in parts) == num_pictures(row)
        assert [message["role"] for message in row["completion"]] == ["assistant"]


def test_webdataset_reads_text_rows(out: Path):
    paths = list((out / "exports" / "webdataset" / "train").rglob("*.tar"))
    samples = [
        sample
        for path in paths
        for sample in webdataset.WebDataset(str(path), shardshuffle=False).decode("pil")
    ]

    assert len(samples) == len(load(out, "trl"))
    for sample in samples:
        assert sample["json"]["messages"][-1]["role"] == "assistant"
        assert sample["json"]["trace_id"] in sample["__key__"]
    pictures = [sample["0.png"] for sample in samples if "0.png" in sample]
    assert all(isinstance(picture, Image.Image) for picture in pictures)
    assert pictures


@pytest.mark.parametrize("is_streamed", [False, True])
def test_datasets_reads_tars_by_its_own_loader(out: Path, is_streamed: bool):
    for folder, num in (("pictured", 1), ("text", 0)):
        files = str(out / "exports" / "webdataset" / "train" / folder / "*.tar")
        rows = load_dataset(
            *("webdataset",),
            data_files=files,
            split="train",
            streaming=is_streamed,
            cache_dir=str(out.parent / "cache"),
        )
        assert {("0.png" in row) for row in rows} == {bool(num)}


def test_datasets_reads_the_folder_of_pictures(out: Path):
    folder = out / "exports" / "imagefolder" / "train"
    rows = load_dataset(
        "imagefolder", data_dir=str(folder), split="train", cache_dir=str(out.parent / "cache")
    )

    assert len(rows) == len(list(folder.rglob("*.png")))
    assert {row["is_whole"] for row in rows} == {True, False}
    for row in rows:
        assert row["image"].size == (48, 48)
        assert 0 <= row["top"] < row["bottom"] <= 48
    listed = [row for path in folder.rglob("t2i.json") for row in json.loads(path.read_text())]
    assert len(listed) == sum(row["is_whole"] for row in rows)


@pytest.mark.parametrize("is_streamed", [False, True])
def test_every_config_of_the_card_is_read(sets: Path, is_streamed: bool):
    for kind in SetKind:
        out = sets / kind.value
        for config in DatasetCard.load(out / "README.md").data["configs"]:
            rows = load_dataset(
                str(out),
                config["config_name"],
                split="train",
                streaming=is_streamed,
                cache_dir=str(out.parent / "cache"),
            )
            assert next(iter(rows))["run_id"]


@pytest.mark.parametrize("name", ["llama-factory", "ms-swift"])
def test_a_tag_stands_for_each_picture(out: Path, name: str):
    for row in load(out, name):
        said = "".join(message["content"] for message in row["messages"])
        assert said.count("<image>") == num_pictures(row)
        assert [message["role"] for message in row["messages"]][-2:] == ["user", "assistant"]


def test_llama_factory_finds_its_columns(out: Path):
    folder = out / "exports" / "llama-factory"
    ((name, info),) = json.loads((folder / "dataset_info.json").read_text()).items()

    assert re.fullmatch(r"[\w.-]+", name), "names are given on one line, with commas"
    assert (folder / info["file_name"]).is_dir()
    assert set(info["columns"].values()) <= load(out, "llama-factory")[0].keys()


def test_nemo_curator_has_a_row_for_every_part(out: Path):
    rows = load(out, "nemo-curator")
    samples: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        samples.setdefault(row["sample_id"], []).append(row)

    assert len(samples) == len(load(out, "trl"))
    for parts in samples.values():
        assert [part["position"] for part in parts] == list(range(-1, len(parts) - 1))
        assert parts[0]["modality"] == "metadata"
        assert all(
            (part["text_content"] is not None) == (part["modality"] == "text") for part in parts
        )
        assert json.loads(parts[0]["source_ref"])["trace_id"]


def test_trl_reads_preferences_of_one_question(fake_run: Store, tmp_path: Path):
    score(fake_run, "tokens")
    manifest = written(fake_run, SetKind.PREFERENCE, tmp_path / "set")
    rows = load(tmp_path / "set", "trl-dpo")

    assert rows
    for row in rows:
        assert is_conversational(row)
        assert row["chosen"] != row["rejected"]
        assert row["prompt"][-1]["role"] == "user"
    pairs = list(load_dataset(str(tmp_path / "set"), split="train", cache_dir=str(tmp_path / "c")))
    assert len(rows) + sum(manifest.exports["trl-dpo"].left_out.values()) == len(pairs)


def test_verl_has_a_row_for_every_segment_of_whole_groups(sets: Path):
    out = sets / SetKind.GRPO.value
    groups = load_dataset(str(out), split="train", cache_dir=str(sets / "cache"))
    rows = load(out, "verl-grpo")

    wanted = [
        (group, segment)
        for group in groups
        for segment in group["segments"]
        if segment["is_policy"]
    ]
    assert len(rows) == len(wanted) > len(groups)
    for row, (group, segment) in zip(rows, wanted, strict=True):
        is_drawing = segment["modality"] == "image"
        num_canvas = len(segment["canvas"]) if is_drawing else 0
        assert (row["uid"], row["session_id"]) == (group["group_id"], group["rollout_index"])
        assert row["prompt_ids"] == segment["prefix_ids"]
        assert row["response_ids"][num_canvas:] == segment["tokens"]
        assert row["response_mask"] == [0] * num_canvas + [1] * len(segment["tokens"])
        assert row["response_logprobs"][num_canvas:] == segment["logp_sample"]
        assert row["reward_score"] == group["reward"]
        assert len(row["images"]) == (not is_drawing and bool(segment["canvas"]))
        told = row["extra_fields"]
        assert (told["trace_id"], told["event"]) == (group["trace_id"], segment["event"])


def test_groups_without_text_of_the_policy_are_exported_too(sets: Path):
    rows = load(sets / SetKind.GRPO.value, "grpo")

    by_rollout: dict[str, float] = {}
    for row in rows:
        weight = row["weight"] * len(row["tokens"])
        key = f"{row['group_id']}-{row['rollout_index']}"
        by_rollout[key] = by_rollout.get(key, 0.0) + weight
    assert all(weight == pytest.approx(1) for weight in by_rollout.values())


def test_an_unknown_export_is_refused():
    with pytest.raises(InputError, match=r"no export 'trl2'.*llama-factory"):
        check_exports(["trl", "trl2"], SetKind.SFT)


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name in EXPORTS for kind in SetKind if kind not in EXPORTS[name].kinds],
)
def test_an_export_of_another_kind_of_set_is_refused_with_those_that_fit(name: str, kind: SetKind):
    with pytest.raises(InputError, match=f"{name} takes rows of .* this is a {kind} set") as told:
        check_exports([name], kind)
    assert all(fit in str(told.value) for fit in exports_of(kind))


@pytest.mark.parametrize("kind", SetKind)
def test_there_are_exports_for_every_kind_of_set(kind: SetKind):
    check_exports(exports_of(kind), kind)
    assert exports_of(kind)


def contents(folder: Path) -> dict[str, list[str]]:
    """The rows of exports, in no order, and all other files below a folder."""
    read: dict[str, list[str]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.suffix == ".parquet":
            lines = [str(row) for row in pq.read_table(path).to_pylist()]
        elif path.suffix == ".tar":
            with tarfile.open(path) as tar:
                lines = tar.getnames()
        elif path.suffix in (".jsonl", ".csv"):
            lines = path.read_text().splitlines()
        elif path.suffix == ".json":
            listed = json.loads(path.read_text())
            lines = [str(row) for row in (listed if isinstance(listed, list) else [listed])]
        else:
            lines = [str(path.stat().st_size)]
        read[str(path.relative_to(folder))] = sorted(lines)
    return read


@pytest.mark.parametrize("kind", SetKind)
def test_an_export_that_is_added_is_what_it_had_been_with_the_set(
    toy_run: Store, sets: Path, tmp_path: Path, kind: SetKind
):
    bare = written(toy_run, kind, tmp_path / "set", exports=())
    rows = contents(tmp_path / "set" / kind.value)
    store, run = open_store(str(tmp_path / "set")), open_run(toy_run.url)
    manifest = add_exports(store, exports_of(kind), [run], [])
    again = add_exports(store, exports_of(kind), [], [])

    assert (manifest.version, again) == (bare.version, manifest)
    assert contents(tmp_path / "set" / kind.value) == rows
    whole = sets / kind.value
    made, known = contents(tmp_path / "set" / "exports"), contents(whole / "exports")
    if kind is SetKind.GRPO:  # rewards of rows are rounded to float32, and so are means of them
        assert {name: len(lines) for name, lines in made.items()} == {
            name: len(lines) for name, lines in known.items()
        }
    else:  # the digest of the recipe is over the exports that it asks for, too
        digests = (manifest.inputs.recipe_digest, manifest_of(whole).inputs.recipe_digest)
        assert str(made).replace(*digests) == str(known)
    assert manifest.exports == manifest_of(whole).exports
    cards, funnels = (
        [(folder / name).read_text() for folder in (tmp_path / "set", whole)]
        for name in ("README.md", "funnel.json")
    )
    assert (
        cards[0].replace(manifest.version, manifest_of(whole).version).splitlines()[-20:]
        == (cards[1].splitlines()[-20:])
    )
    assert json.loads(funnels[0]) == json.loads(funnels[1])


def test_what_cannot_be_added_is_refused_before_any_work(
    toy_run: Store, fake_run: Store, tmp_path: Path
):
    written(toy_run, SetKind.SFT, tmp_path / "set", exports=())
    before = contents(tmp_path / "set")
    store = open_store(str(tmp_path / "set"))
    with pytest.raises(InputError, match=r"imagefolder shows what .* give it with --run"):
        add_exports(store, ["trl", "imagefolder"], [], [])
    with pytest.raises(InputError, match=r"imagefolder shows what .* give it with --run"):
        add_exports(store, ["imagefolder"], [open_run(fake_run.url)], [])
    with pytest.raises(InputError, match="takes rows of grpo sets"):
        add_exports(store, ["verl-grpo"], [], [])
    with pytest.raises(InputError, match="holds no whole set"):
        add_exports(open_store(str(tmp_path / "nothing")), ["trl"], [], [])
    assert contents(tmp_path / "set") == before

    assert add_exports(store, ["trl"], [], []).exports.keys() == {"trl"}
    note = json.loads((tmp_path / "set" / "manifest.json").read_text())
    note["exports"]["trl"]["version"] = 1
    (tmp_path / "set" / "manifest.json").write_text(json.dumps(note))
    with pytest.raises(InputError, match=r"has the export trl in version 1, and this is version 2"):
        add_exports(store, ["trl"], [], [])
