"""Evaluation sets in the forms that they are published in."""

import gzip
import json
from hashlib import sha256
from pathlib import Path

import pytest

from pipeline.plan.evaluation_files import read_evaluation_files, read_evaluation_set
from pipeline.plan.prompt_rows import ReadOptions
from schemas.errors import InputError

LEVELS = ("L0", "L1", "L2", "L3")
GENEVAL = {"tag": "counting", "include": [{"class": "dog", "count": 2}], "prompt": "two dogs"}
GENEVAL2 = {"prompt": "two dogs", "atom_count": 2, "vqa_list": [["Is there a dog?", "Yes"]]}
T2I_R1 = {"prompt": "two dogs", "task_type": "numeracy", "nouns": ["dog"]}

FILES = {
    "numeracy_val.txt": "two dogs\n\na red cat\n",  # T2I-CompBench, with a blank line
    "evaluation_metadata.jsonl": json.dumps(GENEVAL) + "\n",
    "geneval2.jsonl": json.dumps(GENEVAL2) + "\n",
    "PartiPrompts.tsv": "Prompt\tCategory\tChallenge\tNote\ntwo dogs\tAnimals\tQuantity\t\n",
    "DrawBench.csv": 'Prompts,Category\n"two dogs",Counting\n"a cat, a dog",Color\n',
    "t2i_r1.json": json.dumps(T2I_R1) + "\n" + json.dumps(T2I_R1) + "\n",
    "array.json": json.dumps([GENEVAL]),
    "windows.txt": "\ufefftwo dogs\r\n",
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_as_what_it_is(tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_bytes(FILES[name].encode())

    evaluation = read_evaluation_set([str(path)], LEVELS)

    assert evaluation.leak_of("Two dogs!") == "L0"
    assert evaluation.leak_of("a photo of two dogs") == "L1"
    assert evaluation.leak_of("three dogs") is None
    assert evaluation.digests == {name: sha256(path.read_bytes()).hexdigest()}


def test_a_packed_file_counts_and_its_digest_is_of_its_bytes(tmp_path: Path):
    path = tmp_path / "val.txt.gz"
    path.write_bytes(gzip.compress(b"two dogs\n"))

    evaluation = read_evaluation_set([str(path)], LEVELS)

    assert evaluation.leak_of("two dogs") == "L0"
    assert evaluation.digests == {"val.txt.gz": sha256(path.read_bytes()).hexdigest()}


def test_a_folder_of_one_file_a_prompt_is_a_set(tmp_path: Path):
    (tmp_path / "prompts").mkdir()
    for number, prompt in enumerate(["A long, quiet street. It rains.", "two dogs"]):
        (tmp_path / "prompts" / f"{number}.txt").write_text(prompt)
    (tmp_path / "prompts" / "readme.md").write_text("# no prompts")

    evaluation = read_evaluation_set([str(tmp_path / "prompts")], LEVELS)

    assert evaluation.index.num_prompts == 2
    assert evaluation.leak_of("a long quiet street, it rains") == "L0"
    assert set(evaluation.digests) == {"0.txt", "1.txt"}


def test_globs_count_each_file_once_and_equal_names_of_other_contents_stay_apart(tmp_path: Path):
    for folder, prompt in (("a", "two dogs"), ("b", "a red cat"), ("c", "two dogs")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "val.txt").write_text(prompt + "\n")

    evaluation = read_evaluation_set(
        [str(tmp_path / "*" / "val.txt"), str(tmp_path / "a" / "val.txt")], LEVELS
    )

    assert evaluation.index.num_prompts == 3
    assert evaluation.leak_of("a red cat") == "L0"
    assert sorted(name.split(" ")[0] for name in evaluation.digests) == ["val.txt", "val.txt"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("empty.txt", ""),
        ("blank.txt", "\n \n"),
        ("empty.jsonl", ""),
        ("header.csv", "prompt,category\n"),
        ("other.jsonl", '{"answer": 1}\n'),
        ("numbers.jsonl", '{"prompt": 7}\n'),
        ("other.csv", "a,b\n1,2\n"),
        ("bell.txt", "two \x07 dogs\n"),
        ("notes.md", "two dogs\n"),
    ],
)
def test_a_file_without_prompts_is_refused(tmp_path: Path, name: str, text: str):
    path, sound = tmp_path / name, tmp_path / "sound.txt"
    path.write_text(text)
    sound.write_text("two dogs\n")

    with pytest.raises(InputError):
        read_evaluation_set([str(sound), str(path)], LEVELS)


@pytest.mark.parametrize("source", ["none.txt", "*.jsonl", "empty"])
def test_what_matches_nothing_is_refused(tmp_path: Path, source: str):
    (tmp_path / "empty").mkdir()

    with pytest.raises(InputError):
        read_evaluation_set([str(tmp_path / source)], LEVELS)


def test_a_column_can_be_named_and_files_that_lack_it_may_have_the_obvious_one(tmp_path: Path):
    (tmp_path / "val.csv").write_text("caption,other\ntwo dogs,1\n")
    (tmp_path / "geneval.jsonl").write_text('{"prompt": "a red cat"}\n')
    sources = [str(tmp_path / name) for name in ("val.csv", "geneval.jsonl")]
    named, obvious = read_evaluation_files(sources, ReadOptions(prompt_column="caption"))

    assert [(prompt.text, prompt.line) for prompt in named.prompts] == [("two dogs", 2)]
    assert [prompt.text for prompt in obvious.prompts] == ["a red cat"]
    evaluation = read_evaluation_set(sources, LEVELS, "caption")
    assert evaluation.leak_of("Two dogs") == evaluation.leak_of("A red cat!") == "L0"


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.tsv"])
def test_a_file_without_the_column_is_named_with_the_option_for_evaluation_files(
    tmp_path: Path, name: str
):
    tables = {".csv": "id,caption\n1,a cat\n", ".tsv": "id\tcaption\n1\ta cat\n"}
    path = tmp_path / name
    path.write_text(tables.get(path.suffix, '[{"id": 1, "caption": "a cat"}]'))
    with pytest.raises(InputError) as unnamed:
        read_evaluation_set([str(path)], LEVELS)
    with pytest.raises(InputError, match="expected one `text` or `prompt` column"):
        read_evaluation_set([str(path)], LEVELS, "text")

    assert f"{name}: expected one `prompt` column, found" in str(unnamed.value)
    assert str(unnamed.value).partition(" (")[0].endswith("with --evaluation-column 'caption'")
    assert "--prompt-column" not in str(unnamed.value)


def test_levels_that_are_not_asked_for_do_not_count(tmp_path: Path):
    (tmp_path / "val.txt").write_text("two dogs\n")
    upto_l0 = read_evaluation_set([str(tmp_path / "val.txt")], ("L0",))
    assert upto_l0.leak_of("a photo of two dogs") is None
    assert upto_l0.leak_of("two dogs") == "L0"
