"""Names of files that hold any byte: how they are stored, shown and typed."""

import os
import subprocess

import pytest

from pipeline.file_names import check_is_text, quoted, spelt
from schemas.errors import InputError

HOSTILE_NAMES = (
    b"bad\xff.txt",
    b"\xc3\x28 latin",
    b"r\x1b[31mun",
    "r\u202etxt.nur".encode(),
    "tag\U000e0041".encode(),
    b"two\nlines",
    b"it's \\x41 \x07",
)


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_what_is_printed_for_a_shell_is_harmless_and_names_the_same_file(name: bytes) -> None:
    typed = quoted(os.fsdecode(name))

    assert typed.isprintable()
    command = ["bash", "-c", f"printf %s {typed}"]
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    assert subprocess.run(command, capture_output=True, env=environment).stdout == name


@pytest.mark.parametrize("name", ["runs/first", "my run", "caf\u00e9"])
def test_other_names_are_quoted_as_ever_and_only_where_they_must_be(name: str) -> None:
    assert quoted(name) == (f"'{name}'" if name != "runs/first" else name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [(b"bad\xff.txt", r"bad\xff.txt"), ("r\u00e9d\n".encode(), "r\u00e9d\n")],
)
def test_bytes_that_are_not_utf8_are_spelt_and_all_else_stays(name: bytes, expected: str) -> None:
    assert spelt(os.fsdecode(name)) == expected


def test_half_a_pair_of_any_kind_is_spelt() -> None:
    spelt("\ud83d \udfff").encode()
    assert spelt("\ud83d") == r"\ud83d"


def test_a_name_that_must_be_stored_as_it_is_and_cannot_be_is_refused() -> None:
    check_is_text("caf\u00e9", "this folder")
    with pytest.raises(InputError, match=r"name of this folder is not UTF-8 \(r\\xff\)"):
        check_is_text("r\udcff", "this folder")
