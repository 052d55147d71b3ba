"""Damaged prompt files of every form: refused in one sentence, and never a prompt of our making."""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.plan.prompt_files import read_prompts
from pipeline.plan.prompt_rows import ReadOptions
from schemas.errors import InputError
from schemas.ids import normalise
from tests.pipeline.plan.test_prompt_forms import ROWS, WRITERS


@st.composite
def damaged(draw: Callable[..., Any], content: bytes) -> bytes:
    """The content with some bytes changed, taken out, put in, or cut off."""
    body = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(body)))
        stop = min(len(body), start + draw(st.integers(0, 3)))
        sign = st.sampled_from([*b'"\t,;|\n\r[]{}:\\\0 a\xff\xef'])
        body[start:stop] = bytes(draw(st.lists(sign | st.integers(0, 255), max_size=3)))
    return bytes(body[: draw(st.integers(0, 2 * len(body)))])


def strings_in(value: Any) -> Iterator[str]:
    """Every string within a value of JSON."""
    match value:
        case str():
            yield value
        case list():
            for item in value:
                yield from strings_in(item)
        case dict():
            for item in value.values():
                yield from strings_in(item)


def holds(content: bytes, prompt: str) -> bool:
    """Whether a text holds a prompt: as a value of its JSON, or word by word as it stands."""
    text = content.decode("utf-8", "replace")
    values: list[Any] = []
    for part in (text.removeprefix("\ufeff"), *text.split("\n")):
        try:
            values.append(json.loads(part.removeprefix("\ufeff")))
        except (ValueError, RecursionError):
            continue
    if any(normalise(string) == prompt for string in strings_in(values)):
        return True
    plain = normalise(text.replace("\ufeff", " "))
    words = prompt.replace("\ufeff", " ").split()
    return all(word in plain or word.replace('"', '""') in plain for word in words)


def contents(content: bytes) -> Iterator[bytes]:
    """The texts that a file may be, unpacked by other means than ours."""
    yield content
    with suppress(OSError, EOFError, zlib.error):
        yield gzip.decompress(content)
    with suppress(OSError):
        yield pa.input_stream(pa.BufferReader(content), compression="zstd").read()


def outcome(path: Path, **how: Any) -> list[str] | str:
    """The prompts of a file, or the one message that refuses it."""
    try:
        return [prompt.text for prompt in read_prompts([str(path)], **how).prompts]
    except InputError as error:
        return str(error)


@pytest.mark.parametrize("name", [name for name in WRITERS if "parquet" not in name])
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)
@given(data=st.data())
def test_damage_is_refused_in_one_sentence_or_leaves_prompts_of_the_file(
    tmp_path: Path, name: str, data: st.DataObject
):
    content = data.draw(damaged(WRITERS[name](ROWS)))
    path = tmp_path / name
    path.write_bytes(content)

    for skip_bad, folds in ((False, False), (True, False), (True, True)):
        read = outcome(path, skip_bad=skip_bad, options=ReadOptions(fold_newlines=folds))
        if isinstance(read, str):
            assert name in read
            assert all(line.isprintable() for line in read.splitlines())
        else:
            for prompt in read:
                assert any(holds(text, prompt) for text in contents(content)), prompt


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None
)
@given(data=st.data())
def test_damaged_parquet_is_refused_or_read_as_parquet_reads_it(
    tmp_path: Path, data: st.DataObject
):
    path = tmp_path / "a.parquet"
    path.write_bytes(data.draw(damaged(WRITERS["a.parquet"](ROWS))))

    read = outcome(path, skip_bad=True)

    if isinstance(read, str):
        assert "a.parquet" in read
    else:
        strings = {normalise(string) for string in strings_in(pq.read_table(path).to_pylist())}
        assert set(read) <= strings
