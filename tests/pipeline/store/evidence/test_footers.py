"""What footers and page indexes say that is not so is found, whatever pyarrow would make of it."""

import io
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.store.evidence.footers import footer_problems
from pipeline.store.evidence.thrift import read_struct
from pipeline.store.traces import UNREADABLE

TABLE = pa.table(
    {
        "status": [None if row % 7 == 0 else f"state {row // 40}" for row in range(400)],
        "number": list(range(400)),
        "lists": [[row, row + 1] if row % 3 else [] for row in range(400)],
        "nothing": pa.nulls(400, pa.string()),
    }
)


def written(**options: object) -> bytes:
    """A file of two row groups, of several pages each."""
    sink = io.BytesIO()
    pq.write_table(
        TABLE, sink, row_group_size=200, write_page_index=True, write_batch_size=50,
        data_page_size=128, **options,
    )  # fmt: skip
    return sink.getvalue()


def problems(body: bytes) -> list[str]:
    return list(footer_problems(io.BytesIO(body)))


@pytest.mark.parametrize("use_dictionary", [True, False])
@pytest.mark.parametrize("compression", ["zstd", "none"])
def test_a_whole_file_has_no_problems(use_dictionary: bool, compression: str):
    assert problems(written(use_dictionary=use_dictionary, compression=compression)) == []
    assert problems(written(write_statistics=False)) == []


def test_an_empty_file_has_no_problems():
    sink = io.BytesIO()
    pq.write_table(TABLE.slice(0, 0), sink, write_page_index=True)

    assert problems(sink.getvalue()) == []


def test_a_least_value_that_is_another_is_found_wherever_it_is_said():
    body = written(use_dictionary=False, compression="none")
    last = pq.read_metadata(io.BytesIO(body)).row_group(1).column(3)
    pages_end = last.data_page_offset + last.total_compressed_size
    said = [at for at in range(pages_end, len(body)) if body[at:].startswith(b"state 0")]

    found = [problems(body[:at] + b"state 1" + body[at + 7 :]) for at in said]

    assert found
    assert all(found), found
    assert any("of page" in problem for each in found for problem in each)


@settings(deadline=None, max_examples=60)  # each reads a file
@given(st.data())
def test_no_flip_in_a_footer_ends_the_process(data: st.DataObject):
    """An exception of C++ that nothing catches would."""
    body = written(compression="none")
    _look_at_flip(body, data.draw(st.sampled_from(_footer_of(body))), data.draw(st.integers(0, 7)))


def test_any_byte_of_a_footer_may_have_another_second_bit():
    """That of a list's length among them: a column then has no name."""
    body = written(compression="none")
    for at in _footer_of(body):
        _look_at_flip(body, at, bit=1)


def _footer_of(body: bytes) -> range:
    length = int.from_bytes(body[-8:-4], "little")
    return range(len(body) - 8 - length, len(body) - 8)


def _look_at_flip(body: bytes, at: int, bit: int) -> None:
    flipped = body[:at] + bytes([body[at] ^ 1 << bit]) + body[at + 1 :]
    with suppress(*UNREADABLE):
        list(footer_problems(io.BytesIO(flipped)))


@given(st.binary(max_size=200))
def test_bytes_that_are_no_struct_are_a_value_error_and_nothing_else(data: bytes):
    with suppress(ValueError):
        read_struct(data)


def test_structs_within_structs_end():
    with pytest.raises(ValueError, match="without end"):
        read_struct(b"\x1c" * 1000)
