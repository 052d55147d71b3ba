"""Prompt files in every form that people have: what is in them decides, not their names."""

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.plan import prompt_lines
from pipeline.plan.prompt_files import PromptSet, read_prompts
from pipeline.plan.prompt_rows import ReadOptions
from schemas.errors import InputError
from schemas.ids import normalise

Row = dict[str, str]

ROWS: list[Row] = [
    {"prompt": 'a sign, it says "open"; 1|2', "style": "photo", "note": ""},
    {"prompt": "un caf\u00e9 \u732b", "style": 'line one\nline "two"\n', "note": "a\tb"},
    {"prompt": '"Sunflowers" by van Gogh', "style": '"', "note": "x,y"},
    {"prompt": "[1] {2} 'three'", "style": " padded ", "note": "\u2028"},
]


def as_table(rows: Sequence[Row], delimiter: str, **dialect: Any) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, **dialect)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_json_lines(rows: Sequence[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_parquet(rows: Sequence[Any]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows)), sink)
    return bytes(sink.getvalue().to_pybytes())


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, "zstd", asbytes=True))


WRITERS: dict[str, Callable[[Sequence[Row]], bytes]] = {
    "a.csv": lambda rows: as_table(rows, ","),
    "all-quoted.csv": lambda rows: b"\xef\xbb\xbf" + as_table(rows, ",", quoting=csv.QUOTE_ALL),
    "unix.csv": lambda rows: as_table(rows, ",", lineterminator="\n"),
    "german.csv": lambda rows: as_table(rows, ";"),
    "tabs.csv": lambda rows: as_table(rows, "\t"),
    "a.tsv": lambda rows: as_table(rows, "\t"),
    "table.txt": lambda rows: as_table(rows, "\t"),
    "commas.txt": lambda rows: as_table(rows, ","),
    "a.jsonl": as_json_lines,
    "a.ndjson": as_json_lines,
    "lines.json": as_json_lines,
    "lines.csv": as_json_lines,
    "lines.txt": as_json_lines,
    "array.json": lambda rows: json.dumps(rows).encode(),
    "pretty.json": lambda rows: json.dumps(rows, indent=2, ensure_ascii=False).encode(),
    "array.jsonl": lambda rows: b"\xef\xbb\xbf\n" + json.dumps(rows, indent=1).encode(),
    "array.txt": lambda rows: json.dumps(rows, indent=1).encode(),
    "a.parquet": as_parquet,
    "parquet.jsonl": as_parquet,
    "a.csv.gz": lambda rows: gzip.compress(as_table(rows, ","), mtime=0),
    "a.TSV.ZST": lambda rows: zstd(as_table(rows, "\t")),
    "a.jsonl.zst": lambda rows: zstd(as_json_lines(rows)),
    "two-members.jsonl.gz": lambda rows: b"".join(
        gzip.compress(as_json_lines([row]), mtime=0) for row in rows
    ),
    "array.json.gz": lambda rows: gzip.compress(json.dumps(rows).encode(), mtime=0),
    "packed.jsonl": lambda rows: gzip.compress(as_json_lines(rows), mtime=0),
    "unpacked.jsonl.gz": as_json_lines,
}


def write(folder: Path, name: str, content: bytes) -> str:
    (folder / name).write_bytes(content)
    return str(folder / name)


def read(folder: Path, name: str, content: bytes, **options: Any) -> PromptSet:
    return read_prompts([write(folder, name, content)], options=ReadOptions(**options))


def texts(prompts: PromptSet) -> list[str]:
    return [prompt.text for prompt in prompts.prompts]


def refusal(folder: Path, name: str, content: bytes, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(folder, name, content, **options)
    return str(caught.value)


# One content, many forms


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_rows_are_the_same_prompts_in_every_form(tmp_path: Path, name: str):
    prompts = read(tmp_path, name, WRITERS[name](ROWS)).prompts

    assert [prompt.text for prompt in prompts] == [normalise(row["prompt"]) for row in ROWS]
    assert [prompt.metadata for prompt in prompts] == [
        {key: row[key] for key in ("style", "note")} for row in ROWS
    ]


_WORD = st.text(
    st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from('\t",;| a'), min_size=1
).filter(lambda text: bool(normalise(text)))
_CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=9)


@settings(deadline=None)
@given(
    rows=st.lists(
        st.fixed_dictionaries({"prompt": _WORD, "style": _CELL, "note": _CELL}),
        min_size=1,
        max_size=5,
    )
)
def test_any_rows_survive_any_form(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]
):
    folder = tmp_path_factory.mktemp("any")
    for name in ("a.csv", "a.tsv", "array.json", "a.jsonl.zst", "a.parquet", "array.json.gz"):
        prompts = read(folder, name, WRITERS[name](rows))

        distinct = {normalise(row["prompt"]): row for row in reversed(rows)}
        assert set(texts(prompts)) == set(distinct)
        for prompt in prompts.prompts:
            row = distinct[prompt.text]
            assert prompt.metadata == {"style": row["style"], "note": row["note"]}, name


def test_values_of_a_table_are_strings_and_those_of_json_are_what_they_are(tmp_path: Path):
    (table,) = read(tmp_path, "a.csv", b"prompt,seed,none\na red cube,1,\n").prompts
    (line,) = read(tmp_path, "a.json", b'[{"prompt": "a", "seed": 1, "none": null}]').prompts

    assert table.metadata == {"seed": "1", "none": ""}
    assert line.metadata == {"seed": 1, "none": None}


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.txt"])
def test_an_array_of_strings_is_prompts_without_metadata(tmp_path: Path, name: str):
    prompts = read(tmp_path, name, b'["a red cube, high",\n "two birds"]\n').prompts

    assert [(prompt.text, prompt.line, prompt.metadata) for prompt in prompts] == [
        ("a red cube, high", 1, {}),
        ("two birds", 2, {}),
    ]


def test_a_row_of_a_table_is_numbered_by_its_first_line(tmp_path: Path):
    content = b'prompt,note\na,"x\ny\nz"\nb,c\n'

    assert [prompt.line for prompt in read(tmp_path, "a.csv", content).prompts] == [2, 5]


def test_blank_rows_at_the_very_end_are_no_prompts(tmp_path: Path):
    assert texts(read(tmp_path, "a.csv", b"\n\nprompt,x\na red cube,1\n,\n\n  ,\n")) == [
        "a red cube"
    ]


# As published


def test_published_sets_go_in_unchanged(tmp_path: Path):
    parti = (
        "Prompt\tCategory\tChallenge\tNote\n"
        "bond\tAbstract\tBasic\tBiology-inspired concepts with multiple meanings\n"
        'a newspaper named "Toaday"\tAnimals\tPerspective\t\n'
        '"Sunflowers" by van Gogh\tArts\tStyle\t"When a quote opens\n'
        'the sign says "No"\tArts\tStyle\tand closes elsewhere"\n'
    )
    published = {
        "PartiPrompts.tsv": parti,
        "DrawBench.csv": 'Prompts,Category\nA red car.,Colors\n"Rainbow, coloured.",Colors\n',
        "evaluation_metadata.jsonl": (
            '{"tag": "single_object", "include": [{"class": "bench", "count": 1}], '
            '"prompt": "a photo of a bench"}\n'
        ),
        "t2i-r1.json": '{"prompt": "a car below a zebra", "nouns": ["car", "zebra"]}\n',
    }
    for name, text in published.items():
        (tmp_path / name).write_text(text)

    prompts = read_prompts([str(tmp_path / name) for name in published]).prompts

    assert [prompt.text for prompt in prompts] == [
        "bond",
        'a newspaper named "Toaday"',
        '"Sunflowers" by van Gogh',
        'the sign says "No"',
        "A red car.",
        "Rainbow, coloured.",
        "a photo of a bench",
        "a car below a zebra",
    ]
    assert prompts[2].metadata == {
        "Category": "Arts",
        "Challenge": "Style",
        "Note": '"When a quote opens',
    }
    assert prompts[5].metadata == {"Category": "Colors"}


# Prompts a line, and what is none

LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
FLICKR = (
    "image_name| comment_number| comment\n1.jpg| 0| Two men, outside .\n1.jpg| 1| A dog runs .\n"
)


@pytest.mark.parametrize(
    "content",
    [
        "a red kite, high above two hills\na cat, sitting\n",
        "1girl,solo,long hair\n1boy,solo,hat\n",
        "text,neon,city\na,b\n",
        "text, neon\ncity, logo\n",
        "a red cube\ntwo\tbirds\n",
        "two\tbirds\n",
        "\ta red cube\n\ttwo birds\n",
        "[photo] a cat\n[drawing] a dog\n",
        '["Hello" written on a wall]\na dog\n',
        '"quoted"\n"too"\n',
        "{a, b} in a set\na; b\n",
        "3 apples, 1980\n4 pears, 1990\n5 figs, 2000\n",
        "a prompt, written\nprompts, written\n",
        "PAR1 spotlight on a stage\n",
        "a cat | a dog\na fox | a hen\n",
        "prompt engineering\nprompt, the word\n",
        "text\n",
        "a sign that says text\ncaption on a wall\n",
        "<3 in neon letters\na sign with <b> on it\n",
        "404 not found, on a screen\nan HTTP error page\n",
        "version https is shown on a screen\n",
        "1, 2, 3 painted on a wall\n4, 5, 6 painted on a door\n",
        "2 cats, sleeping\n3 dogs, running\n",
        "7, a lucky number\n8, an unlucky number\n",
        "a cat | oil painting | 4k\na dog | ink | 8k\n",
        "a cat | 1980 | film\na dog | 1990 | film\na fox | 2000 | film\n",
        'a sign, "open"\na door, "closed"\n',
        "1. a red kite\n2. two dogs\n",
    ],
)
def test_lines_of_text_are_prompts_whatever_signs_they_hold(tmp_path: Path, content: str):
    prompts = read(tmp_path, "a.txt", content.encode())

    assert texts(prompts) == [normalise(line) for line in content.splitlines()]
    assert all(prompt.metadata == {} for prompt in prompts.prompts)


@pytest.mark.parametrize(
    "content",
    [
        "Prompt\tCategory\tNote\na paper boat\tOutdoor\tsimple\n",
        "Prompts,Category\nA red car.,Colors\n",
        "Category;Prompt\nColors;A red car, seen from above\n",
        'id, prompt\n1, "a boat, red"\n2, "a dog"\n',
        '"prompt","style"\n"a cat, sitting","photo"\n',
        '{"prompt": "a cat", "style": "photo"}\n{"prompt": "a dog"}\n',
        '[{"prompt": "a cat"},\n {"prompt": "a dog"}]\n',
    ],
)
def test_a_table_under_the_name_of_text_is_never_a_list_of_lines(tmp_path: Path, content: str):
    prompts = read_prompts([write(tmp_path, "a.txt", content.encode())], skip_bad=True)

    lines = {normalise(line) for line in content.splitlines()}
    assert prompts.prompts
    assert lines.isdisjoint(texts(prompts))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("Prompt\tCategory\nthree stones\n", "a.txt:2: fields: 1, where the header has 2"),
        ("id\tsentence\n1\ta cat\n2\ta dog\n", "found 'id, sentence'"),
        ("1\ta cat\n2\ta dog\n", "its lines are rows of a table, parted by '\\\\t'"),
        ("image,caption\n1.jpg,a cat\n2.jpg,a dog\n", "--prompt-column 'caption'"),
        ("id,utterance\n1,a cat\n2,a dog\n", "found 'id, utterance'"),
        ("0|a cat\n1|a dog\n2|a fox\n", "parted by '|'"),
        ("prompt\na cat\na dog\n", "a.txt:1: expected a prompt, found the header 'prompt'"),
        ('"Prompts"\na cat\n', "call the file .csv"),
        ("| prompt | n |\n|--------|:-:|\n| a cat  | 1 |\n", "a Markdown table"),
        ('{"caption": "a cat"}\n', "--prompt-column 'caption'"),
        ('[{"prompt": "a cat"},\n', "malformed JSON"),
        ('["a cat", "a dog"]\n["a fox", "a hen"]\n', "a.txt:2: malformed JSON at column 1"),
        ("a cat\n".encode("utf-16"), "UTF-16; save it as UTF-8"),
        (LFS_POINTER, "a pointer of Git LFS; fetch the file itself: git lfs pull"),
        ("/annex/objects/SHA256E-s9--0c1.txt\n", "a pointer of git-annex"),
        ("<!DOCTYPE html>\n<html><body>Not found</body></html>\n", "a web page"),
        ("\ufeff\r\n<HTML lang=en>\n", "a web page"),
        ('<?xml version="1.0"?>\n<Error><Code>NoSuchKey</Code></Error>', "a web page"),
        ("404: Not Found", "a web page"),
        ("%PDF-1.7\n", "a PDF"),
        ("{\\rtf1\\ansi a cat}\n", "rich text; save it as plain text"),
        ("caption\na cat\na dog\n", "found the header 'caption'; take it away, or call the file"),
        ('\n"Text"\na cat\n', "and add --prompt-column text"),
        (FLICKR, "found 'comment, comment_number, image_name'"),
        ("1,a red kite, high above\n2,two dogs\n", "found row numbers before them"),
        ("id,caption\n1,a red kite, high above\n2,two dogs\n", "found row numbers"),
        ("0; a cat; asleep\n1; a dog\n2; a fox\n", "found row numbers"),
        ("image,words\n1.jpg,a cat, asleep\nb/2.png,two dogs\n", "found names of pictures"),
        (b"PK\x03\x04 and so on", "a spreadsheet or a zip archive"),
        (gzip.compress(gzip.compress(b"a cat\n", mtime=0), mtime=0), "packed twice"),
    ],
)
def test_what_is_no_list_of_lines_is_refused(tmp_path: Path, content: str | bytes, reason: str):
    body = content if isinstance(content, bytes) else content.encode()

    assert reason.replace("\\\\", "\\") in refusal(tmp_path, "a.txt", body)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "array.json", "a.parquet", "a.tsv"])
@pytest.mark.parametrize("content", [LFS_POINTER, "<!doctype html>\n<html>\n"])
def test_what_was_never_fetched_is_told_by_what_it_is_under_any_name(
    tmp_path: Path, name: str, content: str
):
    assert "expected prompts, found a " in refusal(tmp_path, name, content.encode())


@pytest.mark.parametrize("name", ["a.csv", "a.txt"])
@pytest.mark.parametrize("header", ["id, prompt", "id,prompt", '"id", "prompt"', "id, Prompt"])
def test_a_space_behind_the_comma_is_of_no_column(tmp_path: Path, name: str, header: str):
    content = f'{header}\n1, "a boat, red"\n2, "a ""red"" sign"\n3, a dog\n'.encode()

    prompts = read(tmp_path, name, content).prompts

    assert [prompt.text for prompt in prompts] == ["a boat, red", 'a "red" sign', "a dog"]
    assert [prompt.metadata for prompt in prompts] == [{"id": id} for id in "123"]


def test_a_published_table_of_captions_is_read_with_its_column(tmp_path: Path):
    for name in ("results.csv", "results.txt"):
        prompts = read(tmp_path, name, FLICKR.encode(), prompt_column="comment")

        assert texts(prompts) == ["Two men, outside .", "A dog runs ."]
        assert prompts.prompts[1].metadata == {"image_name": "1.jpg", "comment_number": "1"}


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt"])
@pytest.mark.parametrize("dropped", [frozenset[str](), frozenset({""})])
def test_columns_with_neither_a_name_nor_a_value_are_none(
    tmp_path: Path, name: str, dropped: frozenset[str]
):
    content = "prompt,style,, ,\na cat,ink,,,\na dog,oil, ,,\n"
    body = content.replace(",", "\t" if name == "a.tsv" else ",").encode()

    prompts = read(tmp_path, name, body, dropped_columns=dropped).prompts

    assert [prompt.metadata for prompt in prompts] == [{"style": "ink"}, {"style": "oil"}]


def test_a_value_without_a_name_travels_and_two_are_refused(tmp_path: Path):
    numbered = read(tmp_path, "a.csv", b",prompt,\n0,a cat,\n1,a dog,\n").prompts

    assert [prompt.metadata for prompt in numbered] == [{"": "0"}, {"": "1"}]
    assert (
        "found 2 called ''; rename them, or leave them out with --drop-columns '\"\"'"
        in refusal(tmp_path, "b.csv", b",prompt,\n,a cat,\n1,a dog,x\n")
    )


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt"])
def test_a_header_in_the_middle_of_a_table_is_no_prompt(tmp_path: Path, name: str):
    sign = "\t" if name == "a.tsv" else ","
    content = "prompt,style\na cat,ink\nprompt,style\na dog,oil\n".replace(",", sign).encode()

    assert f"{name}:3: the header again" in refusal(tmp_path, name, content)
    prompts = read_prompts([write(tmp_path, name, content)], skip_bad=True)
    assert texts(prompts) == ["a cat", "a dog"]


# Columns


@pytest.mark.parametrize(
    ("header", "chosen"),
    [
        ("prompt,Prompt", 0),
        ("Prompt,prompts", 0),
        ("PROMPT ,x", 0),
        ("x,Prompts", 1),
        ("Prompt,PROMPT", None),
        ("prompts,Prompts", None),
        ("caption,x", None),
    ],
)
def test_the_obvious_column_is_taken_if_it_is_one(tmp_path: Path, header: str, chosen: int | None):
    content = f"{header}\nfirst,second\n".encode()

    if chosen is None:
        assert "--prompt-column" in refusal(tmp_path, "a.csv", content)
    else:
        assert texts(read(tmp_path, "a.csv", content)) == [["first", "second"][chosen]]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "array.json", "a.parquet", "table.txt"])
def test_a_column_can_be_named_and_a_missing_one_lists_those_there_are(tmp_path: Path, name: str):
    content = WRITERS[name]([{"caption": "a boat", "alt": "b"}, {"caption": "stones", "alt": "c"}])

    named = read(tmp_path, name, content, prompt_column="alt")
    missing = refusal(tmp_path, name, content, prompt_column="title")
    unnamed = refusal(tmp_path, name, content)

    assert texts(named) == ["b", "c"]
    assert named.prompts[0].metadata == {"caption": "a boat"}
    assert "expected one `title` column, found 'alt, caption'" in missing
    assert "--prompt-column 'caption'" in unnamed


def test_json_lines_may_differ_in_their_columns_and_the_whole_file_decides(tmp_path: Path):
    content = b'{"Prompt": "a", "id": 1}\n{"id": 2}\n{"prompt": "b"}\n'

    prompts = read_prompts([write(tmp_path, "a.jsonl", content)], skip_bad=True)

    assert texts(prompts) == ["b"]
    assert [reject.reason for reject in prompts.rejects] == ["no `prompt`"] * 2


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "array.json", "a.parquet"])
def test_dropped_columns_do_not_travel(tmp_path: Path, name: str):
    dropped = read(tmp_path, name, WRITERS[name](ROWS), dropped_columns=frozenset({"style"}))
    mistyped = refusal(tmp_path, name, WRITERS[name](ROWS), dropped_columns=frozenset({"stile"}))
    needed = refusal(tmp_path, name, WRITERS[name](ROWS), dropped_columns=frozenset({"prompt"}))

    assert [prompt.metadata for prompt in dropped.prompts] == [
        {"note": row["note"]} for row in ROWS
    ]
    assert "--drop-columns names 'stile'" in mistyped
    assert "holds the prompts" in needed


def test_a_value_that_json_cannot_hold_can_be_dropped_with_its_column(tmp_path: Path):
    table = as_parquet([{"prompt": "a", "score": float("nan")}])

    assert "--drop-columns" in refusal(tmp_path, "a.parquet", table)
    assert read(tmp_path, "a.parquet", table, dropped_columns=frozenset({"score"})).prompts


def test_a_date_that_python_cannot_hold_can_be_dropped_with_its_column(tmp_path: Path):
    table = pa.table({"prompt": ["a"], "at": pa.array([2**55], pa.timestamp("ms"))})
    pq.write_table(table, tmp_path / "a.parquet")
    body = (tmp_path / "a.parquet").read_bytes()

    assert "column 'at'" in refusal(tmp_path, "a.parquet", body)
    assert read(tmp_path, "a.parquet", body, dropped_columns=frozenset({"at"})).prompts


@pytest.mark.parametrize("has_statistics", [True, False])
@pytest.mark.parametrize(
    "image",
    [
        pa.array([None, b"\x89PNG"], pa.binary()),
        pa.array([b"a", b"b"], pa.large_binary()),
        pa.array([b"ab", None], pa.binary(2)),
        pa.array([b"a", b"b"], pa.binary_view()),
        pa.array([{"bytes": b"a", "path": "x"}, None]),
        pa.array([[b"a"], []], pa.list_(pa.binary())),
        pa.array([[("a", b"b")], []], pa.map_(pa.string(), pa.binary())),
        pa.array([[{"bytes": None}], [{"bytes": b"b"}]]),
        pa.array([b"a", b"b"], pa.binary()).dictionary_encode(),
    ],
    ids=lambda image: str(image.type),
)
def test_columns_of_bytes_stay_behind_and_cost_no_prompt(
    tmp_path: Path, image: pa.Array, has_statistics: bool
):
    table = pa.table({"image": image, "prompt": ["a boat", "stones"], "likes": [3, 5]})
    pq.write_table(table, tmp_path / "a.parquet", write_statistics=has_statistics)

    prompts = read_prompts([str(tmp_path / "a.parquet")])

    assert [(prompt.text, prompt.metadata) for prompt in prompts.prompts] == [
        ("a boat", {"likes": 3}),
        ("stones", {"likes": 5}),
    ]
    assert prompts.left_behind == ("image",)


@pytest.mark.parametrize("has_statistics", [True, False])
def test_a_column_for_bytes_that_has_none_travels(tmp_path: Path, has_statistics: bool):
    image = pa.array(
        [{"bytes": None, "path": "x.png"}],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    table = pa.table({"image": image, "prompt": ["a boat"]})
    pq.write_table(table, tmp_path / "a.parquet", write_statistics=has_statistics)

    prompts = read_prompts([str(tmp_path / "a.parquet")])

    assert prompts.left_behind == ()
    assert prompts.prompts[0].metadata == {"image": {"bytes": None, "path": "x.png"}}


# Options


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "array.json", "a.parquet", "a.tsv"])
def test_a_prompt_of_several_lines_is_folded_if_asked_for(tmp_path: Path, name: str):
    rows = [{"prompt": "a red\r\n cube\x0bon\na table", "note": "x\ny"}]
    content = WRITERS[name](rows)

    folded = read(tmp_path, name, content, fold_newlines=True)
    refused = refusal(tmp_path, name, content)

    assert texts(folded) == ["a red cube on a table"]
    assert folded.prompts[0].metadata == {"note": "x\ny"}
    assert "U+000D in the prompt" in refused
    assert "--fold-newlines" in refused


def test_folding_mends_no_other_control_character_and_joins_no_lines_of_text(tmp_path: Path):
    escape = refusal(tmp_path, "a.json", b'["a \\u001b[2J"]', fold_newlines=True)
    old_mac = refusal(tmp_path, "a.txt", b"a red cube\rtwo birds\r", fold_newlines=True)

    assert "U+001B" in escape
    assert "--fold" not in escape
    assert "U+000D" in old_mac


def test_a_trial_takes_the_first_distinct_prompts(tmp_path: Path):
    path = write(tmp_path, "a.txt", b"a\na\nb\nc\nb\n")

    trial = read_prompts([path], first=2)

    assert texts(trial) == ["a", "b"]
    assert (trial.num_distinct, trial.num_duplicates) == (3, 2)
    assert read_prompts([path]).num_distinct is None


def test_a_folder_that_looks_like_a_glob_is_found(tmp_path: Path):
    (tmp_path / "set [1]").mkdir()
    (tmp_path / "set [1]" / "a.txt").write_text("a red cube")

    assert texts(read_prompts([str(tmp_path / "set [1]" / "*.txt")])) == ["a red cube"]


# Malformed


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", b"prompt,x\na,1\nb\nc,1,2\n", "a.csv:3: fields: 1, where the header has 2"),
        ("a.csv", b"prompt,x\na,1\nc, d,1\n", "a field that holds ',' has to be quoted"),
        ("a.csv", b"prompt\na red kite, high\n", "a.csv:2: fields: 2, where the header has 1"),
        ("a.csv", b'prompt,x\na,1\n"b" c,2\n', "a.csv:3: malformed CSV: ',' expected after"),
        ("a.csv", b'prompt,x\n"a,1\nb,2\n', "a.csv:2: malformed CSV: a quote opens a field"),
        ("a.csv", b"prompt,x\ra,1\rb,2\r", "a carriage return by itself"),
        ("a.csv", b"prompt,x\na\0,1\n", "a.csv:2: a NUL byte"),
        ("a.csv", b"prompt,x\na,caf\xe9\n", "a.csv:2: bytes that are not UTF-8"),
        ("a.csv", b"prompt,caf\xe9\na,b\n", "a.csv:1: the header holds bytes that are not UTF-8"),
        ("a.csv", b"prompt,x\n,1\n", "a.csv:2: the prompt is empty"),
        ("a.csv", b"prompt,x\na,1\n\nb,2\n", "a.csv:3: the row is empty"),
        ("a.csv", b"prompt,x,x\na,1,2\n", "a.csv:1: expected columns that differ, found 2"),
        ("a.csv", b"a red cube\ntwo birds\n", "expected one `prompt` column, found 'a red cube'"),
        ("a.tsv", b"prompt\tx\na\t1\t2\n", "a.tsv:2: fields: 3, where the header has 2"),
        ("a.tsv", b'prompt\tx\n"a\tb\n', None),
        ("a.json", b'[{"prompt": "a"},\n {"prompt" "b"}]', "a.json:2: malformed JSON at column 12"),
        ("a.json", b'[{"prompt": "a"}\n', "a.json:2: malformed JSON at column 1: expected ','"),
        ("a.json", b'["a",\n"b"]\n"c"', "a.json:3: malformed JSON at column 1: expected nothing"),
        ("a.json", b'["a", 7]', "a.json:2: expected a JSON object, found int"),
        ("a.json", b'["caf\xe9",\n"a"]', "a.json:1: not UTF-8 at byte 6"),
        ("a.json", b'{\n "prompts": ["a"]\n}\n', "found one object over several lines"),
        ("a.json", b'[{"prompt": ' + b"[" * 5000 + b"\n]}]", "a.json:1: malformed JSON"),
        ("a.json", b"[]", "expected at least one prompt"),
        (
            "a.csv.gz",
            gzip.compress(b"prompt\na red cube\n", mtime=0)[:-9],
            "cannot be read: Truncated",
        ),
        ("a.txt.zst", zstd(b"a red cube\n" * 99)[:-2], "cannot be read: Truncated"),
        ("a.csv.gz", gzip.compress(as_parquet(ROWS), mtime=0), "packed Parquet; unpack it"),
        ("a.parquet", as_json_lines(ROWS), "a.parquet: unreadable Parquet after row 0"),
    ],
)
def test_malformed_input_is_one_error_that_says_where_and_why(
    tmp_path: Path, name: str, content: bytes, reason: str | None
):
    if reason is None:
        assert texts(read(tmp_path, name, content)) == ['"a']
    else:
        message = refusal(tmp_path, name, content)
        assert reason in message
        assert all(line.isprintable() for line in message.splitlines())


def test_a_line_without_end_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(prompt_lines, "MAX_LINE_BYTES", 100)
    bomb = gzip.compress(b"a red cube\n" + b"0" * 10**6, mtime=0)

    assert "a.txt.gz:2: expected a line of at most" in refusal(tmp_path, "a.txt.gz", bomb)


def test_an_array_too_large_to_be_held_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pipeline.plan.prompt_arrays.MAX_ARRAY_BYTES", 10)

    assert "write it as JSON Lines" in refusal(tmp_path, "a.json", b'["a red cube"]')
