import gzip
import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from pipeline.plan.prompt_files import PromptSet, read_prompts
from schemas.errors import InputError
from schemas.ids import normalise, record_id
from schemas.prompts import Reject

EXAMPLES = Path(__file__).parents[3] / "examples" / "prompts.txt"


def write_json_lines(path: Path, rows: Sequence[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def write_parquet(path: Path, columns: dict[str, Any]) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


def texts(prompts: PromptSet) -> list[str]:
    return [prompt.text for prompt in prompts.prompts]


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_prompts([str(path)])
    return str(caught.value)


# What is read


def test_a_text_file_holds_a_prompt_a_line(tmp_path: Path):
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"\xef\xbb\xbfa red cube\r\n  two\tbirds \r\nun caf\xc3\xa9")

    prompts = read_prompts([str(path)])

    assert texts(prompts) == ["a red cube", "two birds", "un caf\u00e9"]
    assert [prompt.line for prompt in prompts.prompts] == [1, 2, 3]
    assert {prompt.source for prompt in prompts.prompts} == {str(path)}
    assert prompts.rejects == []


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\r\n \t\r\n\r\n"])
def test_blank_lines_at_the_very_end_are_no_prompts(tmp_path: Path, end: str):
    path = tmp_path / "prompts.txt"
    path.write_bytes(f"a red cube\ntwo birds{end}".encode())

    assert texts(read_prompts([str(path)])) == ["a red cube", "two birds"]


def test_json_lines_carry_every_other_column_as_metadata(tmp_path: Path):
    extra = {"nouns": ["cube"], "info": {"n": 1, "score": 0.5, "ok": True, "none": None}}
    path = write_json_lines(tmp_path / "a.jsonl", [{"prompt": "a red cube"} | extra])

    (prompt,) = read_prompts([path]).prompts

    assert prompt.metadata == extra


def test_parquet_columns_become_json(tmp_path: Path):
    noon = datetime(2026, 1, 2, 12, tzinfo=UTC)
    path = write_parquet(
        tmp_path / "a.parquet",
        {
            "prompt": ["a red cube"],
            "nested": [{"nouns": ["cube"], "count": 1}],
            "pairs": pa.array([[("size", 3)]], pa.map_(pa.string(), pa.int64())),
            "at": pa.array([noon], pa.timestamp("us", "UTC")),
            "day": [noon.date()],
            "price": [Decimal("1.50")],
            "lasts": pa.array([timedelta(minutes=90)], pa.duration("us")),
            "none": pa.array([None], pa.binary()),
        },
    )

    (prompt,) = read_prompts([path]).prompts

    assert prompt.metadata == {
        "nested": {"nouns": ["cube"], "count": 1},
        "pairs": [["size", 3]],
        "at": "2026-01-02T12:00:00+00:00",
        "day": "2026-01-02",
        "price": "1.50",
        "lasts": "1:30:00",
        "none": None,
    }
    assert json.loads(json.dumps(prompt.metadata, allow_nan=False)) == prompt.metadata


def test_parquet_rows_are_numbered_across_row_groups(tmp_path: Path):
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"prompt": [f"{n} cubes" for n in range(3000)]}), path, row_group_size=7
    )

    prompts = read_prompts([str(path)]).prompts

    assert [(prompt.text, prompt.line) for prompt in prompts] == [
        (f"{n} cubes", n + 1) for n in range(3000)
    ]


def test_exact_duplicates_are_dropped_and_counted_across_files(tmp_path: Path):
    first = write_json_lines(
        tmp_path / "a.jsonl",
        [
            {"prompt": "a red cube", "category": "first"},
            {"prompt": " a  red\tcube", "category": "second"},
        ],
    )
    (tmp_path / "b.txt").write_text("a red cube\nA red cube\na red cube.\n")

    prompts = read_prompts([first, str(tmp_path / "b.txt")])

    assert texts(prompts) == ["a red cube", "A red cube", "a red cube."]
    assert prompts.num_duplicates == 2
    assert prompts.prompts[0].metadata == {"category": "first"}


@given(lines=st.lists(st.binary(max_size=6).map(lambda line: line.replace(b"\n", b"") + b".\n")))
def test_every_line_is_kept_or_counted(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
):
    path = tmp_path_factory.mktemp("any") / "a.txt"
    path.write_bytes(b"a red cube\n" + b"".join(lines))

    prompts = read_prompts([str(path)], skip_bad=True)

    num_kept, num_rejects = len(prompts.prompts), len(prompts.rejects)
    assert num_kept + prompts.num_duplicates + num_rejects == len(lines) + 1
    assert len({record_id(text) for text in texts(prompts)}) == num_kept
    assert texts(prompts) == [normalise(text) for text in texts(prompts)]


def test_sources_keep_their_order_and_globs_are_sorted(tmp_path: Path):
    for name in ["b1.txt", "a.txt", "b2.TXT", "b[3].txt"]:
        (tmp_path / name).write_text(name)
    (tmp_path / "b9.txt").mkdir()

    prompts = read_prompts([str(tmp_path / pattern) for pattern in ("b[3].txt", "b?.*", "a.txt")])

    assert texts(prompts) == ["b[3].txt", "b1.txt", "b2.TXT", "a.txt"]


def test_the_examples_are_32_plain_prompts_that_differ():
    prompts = read_prompts([str(EXAMPLES)])

    assert len(prompts.prompts) == 32
    assert prompts.num_duplicates == 0
    assert EXAMPLES.read_bytes().isascii()


# What is refused


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"a caf\xe9", "not UTF-8 at byte 6"),
        (b"a \x00 cube", "U+0000"),
        (b"a \x1b[31mred\x1b[0m cube", "U+001B"),
        (b"two\rlines", "U+000D"),
        ("a \u009b31m cube".encode(), "U+009B"),
        (b"", "the prompt is empty"),
        (b" \t ", "the prompt is empty"),
    ],
)
def test_a_bad_line_of_text_is_refused(tmp_path: Path, line: bytes, reason: str):
    message = refusal(tmp_path / "a.txt", b"a red cube\n" + line + b"\ntwo birds\n")

    assert f"a.txt:2: {reason}" in message
    assert "--skip-bad" in message


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"prompt": "a red cube"', "malformed JSON at column 24"),
        ("[" * 100_000, "malformed JSON"),
        ('{"prompt": "a", "size": ' + "1" * 10_000 + "}", "malformed JSON"),
        ('["a red cube"]', "expected a JSON object, found list"),
        ('{"text": "a red cube"}', "no `prompt`"),
        ('{"prompt": null}', "the prompt is no string but NoneType"),
        ('{"prompt": 7}', "the prompt is no string but int"),
        ('{"prompt": "two\\nlines"}', "U+000A"),
        ('{"prompt": "half a pair \\ud83d"}', "U+D83D"),
        ('{"prompt": "a", "score": NaN}', "column 'score' holds what JSON cannot: nan"),
        ('{"prompt": "a", "score": [1e999]}', "column 'score' holds what JSON cannot: inf"),
        ('{"prompt": "a", "tag": {"\\ud83d": 1}}', "column 'tag' holds what JSON cannot: half"),
        ('{"prompt": "a", "tag": ' + "[" * 700 + "]" * 700 + "}", "column 'tag' holds what JSON"),
    ],
)
def test_a_bad_json_line_is_refused(tmp_path: Path, line: str, reason: str):
    message = refusal(tmp_path / "a.jsonl", b'{"prompt": "two birds"}\n' + line.encode())

    assert f"a.jsonl:2: {reason}" in message


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"prompt": ["a", None]}, "the prompt is no string but NoneType"),
        ({"prompt": ["a", "b"], "score": [0.0, float("-inf")]}, "column 'score' holds"),
    ],
)
def test_a_bad_parquet_row_is_refused(tmp_path: Path, columns: dict[str, Any], reason: str):
    path = write_parquet(tmp_path / "a.parquet", columns)

    with pytest.raises(InputError, match=r"a\.parquet:2: ") as caught:
        read_prompts([path])
    assert reason in str(caught.value)


def test_a_prompt_beyond_the_limit_is_refused_with_the_limits_reason(tmp_path: Path):
    (tmp_path / "a.txt").write_text("a cube\na  red\tcube\n")

    def limit(prompt: str) -> str | None:
        return "10 tokens, at most 8" if len(prompt) == len("a red cube") else None

    with pytest.raises(InputError, match=r"a\.txt:2: 10 tokens, at most 8: 'a  red"):
        read_prompts([str(tmp_path / "a.txt")], limit=limit)


def test_one_error_lists_the_first_ten_bad_lines_of_all_files_and_counts_them(tmp_path: Path):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("\n" * 6 + "a red cube")

    with pytest.raises(InputError) as caught:
        read_prompts([str(tmp_path / "*.txt")])

    header, *listed, more, _ = str(caught.value).splitlines()
    assert "12" in header
    assert [line.partition(": ")[0][-7:] for line in listed] == [
        *(f"a.txt:{line}" for line in range(1, 7)),
        *(f"b.txt:{line}" for line in range(1, 5)),
    ]
    assert more == "  and 2 more"


def test_hostile_text_is_shown_escaped_and_cut(tmp_path: Path):
    hostile = "\x1b[2J\u202e\u0007" + "\x00" * 10_000
    message = refusal(tmp_path / "a.txt", hostile.encode())

    assert message.replace("\n", "").isprintable()
    assert "'\\x1b[2J\\u202e" in message
    assert max(map(len, message.splitlines())) < 200 + len(str(tmp_path))


def test_bad_lines_can_be_skipped_and_are_returned_as_found(tmp_path: Path):
    text, rows, table = (tmp_path / f"a.{kind}" for kind in ("txt", "jsonl", "parquet"))
    text.write_bytes(b"a red cube\na caf\xe9\n")
    rows.write_text('{"prompt": "two birds"}\n{"prompt": 7}\n')
    write_parquet(table, {"prompt": ["a house", "a\nb", None]})

    prompts = read_prompts([str(text), str(rows), str(table)], skip_bad=True)

    assert texts(prompts) == ["a red cube", "two birds", "a house"]
    assert [(reject.source, reject.line, reject.text) for reject in prompts.rejects] == [
        (str(text), 2, "a caf\\xe9"),
        (str(rows), 2, '{"prompt": 7}'),
        (str(table), 2, "a\nb"),
        (str(table), 3, "None"),
    ]
    assert isinstance(prompts.rejects[0], Reject)
    assert prompts.rejects[0].reason.startswith("not UTF-8")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"a \x00 cube\n"])
def test_a_plan_without_any_prompt_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "a.txt").write_bytes(content)

    with pytest.raises(InputError, match="expected at least one prompt"):
        read_prompts([str(tmp_path / "a.txt")], skip_bad=True)


def test_no_sources_are_refused():
    with pytest.raises(InputError, match="expected at least one prompt"):
        read_prompts([])


@pytest.mark.parametrize("source", ["none.txt", "*.jsonl", "folder", "file\0.txt", "s3://bucket"])
def test_a_source_that_matches_no_file_is_refused(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()

    with pytest.raises(InputError, match="nothing matches"):
        read_prompts([source])


@pytest.mark.parametrize("name", ["b.xlsx", "b.parquet.gz", "b.csv.bz2", "b.gz", "b"])
def test_an_unknown_extension_is_refused_before_anything_is_read(tmp_path: Path, name: str):
    (tmp_path / "a.txt").write_bytes(b"\xff")
    (tmp_path / name).write_text("prompt\na red cube\n")

    with pytest.raises(
        InputError, match=rf"{re.escape(name)}: expected one of \.txt, \.csv, .*zst"
    ):
        read_prompts([str(tmp_path / "*")])


def test_a_file_without_a_prompt_column_is_refused_even_when_bad_lines_are_skipped(tmp_path: Path):
    (tmp_path / "good.txt").write_text("a red cube\n")
    rows = write_json_lines(tmp_path / "a.jsonl", [{"text": "a", "id": 1}, {"text": "b"}])
    table = write_parquet(tmp_path / "a.parquet", {"text": ["a"], "id": [1]})

    for path in (rows, table):
        with pytest.raises(InputError, match="expected one `prompt` column, found 'id, text'"):
            read_prompts([str(tmp_path / "good.txt"), path], skip_bad=True)


def test_two_prompt_columns_are_refused(tmp_path: Path):
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["prompt", "prompt"])
    pq.write_table(table, tmp_path / "a.parquet")

    with pytest.raises(InputError, match="expected one `prompt` column, found 'prompt, prompt'"):
        read_prompts([str(tmp_path / "a.parquet")])


def test_parquet_cut_short_is_refused_even_when_bad_lines_are_skipped(tmp_path: Path):
    path = Path(write_parquet(tmp_path / "a.parquet", {"prompt": ["a red cube"]}))
    path.write_bytes(path.read_bytes()[:-20])

    with pytest.raises(InputError, match=r"a\.parquet: unreadable Parquet after row 0"):
        read_prompts([str(path)], skip_bad=True)


def test_parquet_text_that_is_not_utf8_is_refused_with_the_rows_before_it(tmp_path: Path):
    values = pa.array([b"a red cube", b"a caf\xe9"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), len(values), values.buffers())
    pq.write_table(pa.table({"prompt": text}), tmp_path / "a.parquet")

    with pytest.raises(InputError, match=r"unreadable Parquet after row 0: .*utf-8"):
        read_prompts([str(tmp_path / "a.parquet")])


def test_parquet_whose_bytes_are_not_what_its_checksums_say_is_refused(tmp_path: Path):
    path, table = tmp_path / "a.parquet", pa.table({"prompt": ["a red cube", "a red cone"]})
    pq.write_table(
        table,
        path,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
    )
    path.write_bytes(path.read_bytes().replace(b"a red cube", b"a red tube", 1))

    with pytest.raises(InputError, match=r"unreadable Parquet after row 0: .*checksum"):
        read_prompts([str(path)], skip_bad=True)


def test_a_file_that_goes_away_before_it_is_read_is_refused(tmp_path: Path):
    (tmp_path / "a.txt").write_text("a red cube\n")
    (tmp_path / "b.txt").write_text("two birds\n")

    def limit(prompt: str) -> None:
        (tmp_path / "b.txt").unlink()

    with pytest.raises(InputError, match=r"b\.txt cannot be read: .*No such file"):
        read_prompts([str(tmp_path / "*.txt")], limit=limit)


# From S3


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "an-access-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-key")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    bucket = boto3.resource("s3", endpoint_url=s3_endpoint).create_bucket(Bucket="prompts")
    yield bucket
    bucket.objects.delete()
    bucket.delete()


def test_objects_and_globs_over_one_folder_are_read_from_s3(bucket: Any, tmp_path: Path):
    table = Path(write_parquet(tmp_path / "a.parquet", {"prompt": ["a house"], "id": [1]}))
    bucket.put_object(Key="top.txt", Body=b"a red cube\ntwo birds")
    bucket.put_object(Key="set/b.jsonl", Body=b'{"prompt": "a tree", "id": 2}\n')
    bucket.put_object(Key="set/a.parquet", Body=table.read_bytes())
    bucket.put_object(Key="set/readme.md", Body=b"no prompts")
    bucket.put_object(Key="set/deeper/c.jsonl", Body=b'{"prompt": "not in this folder"}')

    prompts = read_prompts(["s3://prompts/set/*.[jp]*", "s3://prompts/top.txt"])

    assert [(prompt.text, prompt.source) for prompt in prompts.prompts] == [
        ("a house", "s3://prompts/set/a.parquet"),
        ("a tree", "s3://prompts/set/b.jsonl"),
        ("a red cube", "s3://prompts/top.txt"),
        ("two birds", "s3://prompts/top.txt"),
    ]
    assert [prompt.metadata for prompt in prompts.prompts] == [{"id": 1}, {"id": 2}, {}, {}]


@pytest.mark.parametrize("name", ["list [1].txt", "what?.txt", "all*.txt", "[a-z].txt"])
def test_a_key_that_looks_like_a_glob_is_found_before_what_it_matches(bucket: Any, name: str):
    bucket.put_object(Key=f"set/{name}", Body=b"a red cube")
    bucket.put_object(Key="set/list 1.txt", Body=b"two birds")
    bucket.put_object(Key="set/whats.txt", Body=b"two birds")
    bucket.put_object(Key="set/allofit.txt", Body=b"two birds")
    bucket.put_object(Key="set/a.txt", Body=b"two birds")

    (prompt,) = read_prompts([f"s3://prompts/set/{name}"]).prompts

    assert (prompt.text, prompt.source) == ("a red cube", f"s3://prompts/set/{name}")


def test_a_packed_table_is_read_from_s3(bucket: Any):
    body = gzip.compress(b"Prompts,Category\nA red car.,Colors\n")
    bucket.put_object(Key="set/DrawBench.csv.gz", Body=body)

    (prompt,) = read_prompts(["s3://prompts/set/*.gz"]).prompts

    assert (prompt.text, prompt.metadata) == ("A red car.", {"Category": "Colors"})


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("s3://prompts/none.txt", "cannot be read"),
        ("s3://prompts/a\\b.txt", "cannot be read"),
        ("s3://prompts/none/*.txt", "nothing matches"),
        ("s3://prompts/a\\[1].txt", "nothing matches"),
        ("s3://prompts/folder/", "nothing matches"),
    ],
)
def test_an_object_that_is_not_there_is_refused(bucket: Any, source: str, reason: str):
    with pytest.raises(InputError, match=reason):
        read_prompts([source])


def test_a_bad_line_of_an_object_is_refused_with_its_url(bucket: Any):
    bucket.put_object(Key="a.txt", Body=b"a red cube\n\ntwo birds")

    with pytest.raises(InputError, match=r"s3://prompts/a\.txt:2: the prompt is empty"):
        read_prompts(["s3://prompts/a.txt"])
