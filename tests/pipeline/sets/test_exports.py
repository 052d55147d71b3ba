"""Exports load in the consumers' own loaders, or have the columns that they ask for."""

import json
from pathlib import Path
from typing import Any

import pytest
import webdataset
from datasets import load_dataset
from PIL import Image
from trl.data_utils import is_conversational, prepare_multimodal_messages

from pipeline.select.recipes import read_recipe
from pipeline.select.selection import open_curation
from pipeline.sets.exports import EXPORTS, check_exports
from pipeline.sets.write import write_set
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.runs import open_run
from schemas.errors import InputError
from schemas.recipes import SetKind

SFT = ("trl", "llama-factory", "ms-swift", "verl", "webdataset", "nemo-curator")


@pytest.fixture(scope="module")
def out(toy_run: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets") / "all"
    text = f'name = "all"\nsplit = {{ validation = 0 }}\nexports = {json.dumps(SFT)}'
    curation = open_curation([open_run(toy_run.url)], read_recipe(text, origin="test"), Path())
    write_set(curation, open_store(str(folder)))
    return folder


def load(out: Path, name: str) -> list[dict[str, Any]]:
    files = str(out / "exports" / name / "train" / "*.parquet")
    cache = str(out.parent / "cache")
    return list(load_dataset("parquet", data_files=files, split="train", cache_dir=cache))


def num_pictures(row: dict[str, Any]) -> int:
    return len(row["images"])


def test_the_card_has_a_config_for_every_task(out: Path):
    row = load_dataset(str(out), "reflect_2", split="train", cache_dir=str(out.parent / "c"))[0]

    assert row["images"][0].size == (48, 48)
    assert row["messages"][-1]["role"] == "assistant"
    assert "SCORE:" in row["messages"][-1]["content"]


def test_trl_reads_text_rows(out: Path):
    rows = load(out, "trl")

    assert {num_pictures(row) for row in rows} == {0, 1}
    for row in rows:
        assert is_conversational(row)
        prepared = prepare_multimodal_messages(row["messages"], images=row["images"])
        parts = [part for message in prepared for part in message["content"]]
        assert sum(part["type"] == "image" for part in parts) == num_pictures(row)


def test_webdataset_reads_text_rows(out: Path):
    (path,) = (out / "exports" / "webdataset" / "train").iterdir()
    samples = list(webdataset.WebDataset(str(path), shardshuffle=False).decode("pil"))

    assert len(samples) == len(load(out, "trl"))
    for sample in samples:
        assert sample["json"]["messages"][-1]["role"] == "assistant"
        assert sample["json"]["trace_id"] in sample["__key__"]
    pictures = [sample["0.webp"] for sample in samples if "0.webp" in sample]
    assert all(isinstance(picture, Image.Image) for picture in pictures)
    assert pictures


@pytest.mark.parametrize("name", ["llama-factory", "ms-swift"])
def test_a_tag_stands_for_each_picture(out: Path, name: str):
    for row in load(out, name):
        said = "".join(message["content"] for message in row["messages"])
        assert said.count("<image>") == num_pictures(row)
        assert [message["role"] for message in row["messages"]][-2:] == ["user", "assistant"]


def test_llama_factory_finds_its_columns(out: Path):
    folder = out / "exports" / "llama-factory"
    info = json.loads((folder / "dataset_info.json").read_text())["all_train"]

    assert (folder / info["file_name"]).is_dir()
    assert set(info["columns"].values()) <= load(out, "llama-factory")[0].keys()


def test_verl_has_its_columns(out: Path):
    for row in load(out, "verl"):
        assert set(row) == {
            *("data_source", "prompt", "images", "ability", "reward_model", "extra_info")
        }
        assert row["prompt"][-1]["role"] == "user"
        assert row["reward_model"]["ground_truth"]
        assert row["ability"] in ("think", "reflect")


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


def test_trl_reads_preferences(toy_run: Store, tmp_path: Path):
    text = (
        'name = "d"\nkind = "preference"\nsplit = { validation = 0 }\nscorers = ["tokens@1"]\n'
        'exports = ["trl-dpo"]\n[pairs]\nby = "tokens.entropy"'
    )
    recipe = read_recipe(text, origin="test")
    write_set(
        open_curation([open_run(toy_run.url)], recipe, Path()), open_store(str(tmp_path / "out"))
    )

    rows = load(tmp_path / "out", "trl-dpo")
    assert rows
    for row in rows:
        assert is_conversational(row)
        assert row["chosen"] != row["rejected"]


def test_verl_has_a_row_for_every_segment_of_whole_groups(toy_run: Store, tmp_path: Path):
    text = (
        'name = "g"\nkind = "grpo"\nsplit = { validation = 0 }\nscorers = ["toy@1"]\n'
        'exports = ["verl-grpo"]\n[groups]\nrewards = ["toy.value"]'
    )
    recipe = read_recipe(text, origin="test")
    write_set(
        open_curation([open_run(toy_run.url)], recipe, Path()), open_store(str(tmp_path / "out"))
    )
    groups = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "c"))

    rows = load(tmp_path / "out", "verl-grpo")

    wanted = [
        (group, segment)
        for group in groups
        for segment in group["segments"]
        if segment["is_policy"]
    ]
    assert len(rows) == len(wanted) > len(groups)
    for row, (group, segment) in zip(rows, wanted, strict=True):
        assert row["uid"] == group["group_id"]
        assert row["prompt_ids"] == segment["prefix_ids"]
        assert row["response_ids"] == segment["tokens"]
        assert row["response_mask"] == [1] * len(segment["tokens"])
        assert row["response_logprobs"] == segment["logp_sample"]
        assert row["reward_score"] == group["reward"]
        told = json.loads(row["extra_fields"])
        assert (told["modality"], told["canvas"]) == (segment["modality"], segment["canvas"])
        assert (told["trace_id"], told["event"]) == (group["trace_id"], segment["event"])


def test_an_unknown_export_is_refused():
    with pytest.raises(InputError, match=r"no export 'trl2'.*llama-factory"):
        check_exports(["trl", "trl2"], SetKind.SFT)
    assert set(SFT) < set(EXPORTS)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("trl-dpo", SetKind.SFT), ("verl-grpo", SetKind.PREFERENCE), ("trl", SetKind.GRPO)],
)
def test_an_export_of_another_kind_of_set_is_refused_with_those_that_fit(name: str, kind: SetKind):
    with pytest.raises(InputError, match=f"{name} takes rows of .* makes a {kind} set"):
        check_exports([name], kind)


def test_every_export_fits_one_kind_of_set():
    for name in EXPORTS:
        fits = [kind for kind in SetKind if _is_accepted(name, kind)]
        assert len(fits) == 1


def _is_accepted(name: str, kind: SetKind) -> bool:
    try:
        check_exports([name], kind)
    except InputError:
        return False
    return True
