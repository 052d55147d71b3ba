"""Settings of scorers: how they are written, and what they make of a version."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.scoring.settings import (
    ScorerRequest,
    ScorerSettings,
    parse_request,
    read_scorer_tables,
    requests_for,
)
from schemas.errors import InputError
from schemas.json_values import JsonValue

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
WORDS = st.text(st.characters(blacklist_categories=("Cs",)), max_size=12)
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
).filter(lambda value: "Infinity" not in repr(value) and "inf" not in repr(value))


@given(NAMES, st.dictionaries(NAMES, VALUES, max_size=4))
def test_what_is_written_out_is_read_back(name: str, settings: dict[str, JsonValue]):
    request = ScorerRequest(name=name, settings=settings)

    assert parse_request(str(request)) == request


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("hps", {}),
        ("hps[]", {}),
        ("hps[dtype=float32]", {"dtype": "float32"}),
        ("hps[ dtype = float32 , size=16,]", {"dtype": "float32", "size": 16}),
        ('vqa[question="Is it a cat, or not? [yes]",half=true]', {"half": True}),
        ("x[model=owner/name@main, edges=[1, 2], by={a = 1}]", {"edges": [1, 2], "by": {"a": 1}}),
    ],
)
def test_settings_are_pairs_of_a_name_and_a_value(text: str, settings: dict[str, JsonValue]):
    assert settings.items() <= parse_request(text).settings.items()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("hps[", "is no scorer"),
        ("hps]a=1[", "is no scorer"),
        ("hps[dtype]", "'dtype' is no setting; expected key=value"),
        ("hps[a=1,a=2]", "sets a twice"),
        ('hps[a="b]', "not closed"),
        ("hps[a=[1]", "not closed"),
        ("hps[=1]", "is no setting"),
    ],
)
def test_what_is_no_setting_is_refused(text: str, complaint: str):
    with pytest.raises(InputError, match=complaint):
        parse_request(text)


@given(st.text(max_size=40))
def test_any_text_is_a_request_or_one_sentence(text: str):
    with suppress(InputError):
        request = parse_request(text)
        assert request.name
        assert parse_request(str(request)) == request


class Sizes(ScorerSettings):
    NOT_COMPARED = frozenset({"batch_size"})

    side: int = 4
    words: tuple[str, ...] = ()
    batch_size: int = 8


class MoreSizes(Sizes):
    colour: str = "any"  # a setting that came later


def test_only_what_changes_a_score_and_differs_from_its_default_is_in_the_digest():
    assert Sizes().digest == Sizes(batch_size=1).digest == MoreSizes().digest
    assert Sizes(side=5).digest == MoreSizes(side=5).digest
    digests = {Sizes().digest, Sizes(side=5).digest, Sizes(words=("a",)).digest}
    assert len(digests) == 3
    assert all(len(digest) == 8 for digest in digests)


def test_a_table_of_a_file_holds_where_the_command_line_says_nothing(tmp_path: Path):
    path = tmp_path / "judges.toml"
    path.write_text('[scorers.hps]\ndtype = "bfloat16"\nside = 3\n[scorers."mine:Own"]\n')

    assert list(read_scorer_tables(str(path))) == ["hps", "mine:Own"]
    assert list(map(str, requests_for([], str(path)))) == [
        'hps[dtype="bfloat16",side=3]',
        "mine:Own",
    ]
    assert list(map(str, requests_for(["hps@1[side=4]", "toy"], str(path)))) == [
        'hps@1[dtype="bfloat16",side=4]',
        "toy",
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", r"no \[scorers.NAME\] table"),
        ("scorers = 3", r"no \[scorers.NAME\] table"),
        ("[scorers]\nhps = 3", r"scorers.hps is no table"),
        ("[scorers.hps", "cannot be read"),
    ],
)
def test_a_file_that_is_no_list_of_scorers_is_refused(tmp_path: Path, text: str, complaint: str):
    (tmp_path / "judges.toml").write_text(text)
    with pytest.raises(InputError, match=complaint):
        requests_for([], str(tmp_path / "judges.toml"))
    with pytest.raises(InputError, match="cannot be read"):
        requests_for([], str(tmp_path / "nowhere.toml"))
    with pytest.raises(InputError, match="name a scorer"):
        requests_for([], None)
