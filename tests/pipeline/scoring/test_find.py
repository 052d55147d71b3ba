"""Scorers of one's own: found where they are, and told in a sentence what is wrong with them."""

import itertools
from pathlib import Path

import pytest

from pipeline.scoring.find import SCORERS, find_scorer
from pipeline.scoring.scorers import id_of, settings_of
from pipeline.scoring.settings import ScorerSettings
from schemas.errors import InputError

OWN = """
from coppice import Score, ScorerSettings

class Settings(ScorerSettings):
    least: int = 3
    words: tuple[str, ...] = ()

class Own:
    name, version = "own", "1"
    subjects = frozenset({{"trace"}})
    needs_pictures = False
    columns = {{"value": "float32", "why": "string", "seen": "boxes"}}
    def score(self, batch):
        return [Score(value=None) for _ in batch]
    {members}
"""
_NUMBERS = itertools.count()


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write a module with a scorer into the working directory; what it is called."""
    monkeypatch.chdir(tmp_path)

    def write(members: str = "", text: str = OWN) -> str:
        module = f"own_scorer_{next(_NUMBERS)}"
        (tmp_path / f"{module}.py").write_text(text.format(members=members))
        return f"{module}:Own"

    return write


def test_a_module_is_found_in_the_working_directory(own):
    assert str(id_of(find_scorer(own()))) == "own@1"


def test_a_constructor_takes_settings_that_become_part_of_the_version(own):
    path = own("def __init__(self, *, least: int = 3, word='x'): self.least = least")
    by_default, as_told = find_scorer(path), find_scorer(f"{path}[least=3,word=x]")
    other = find_scorer(f"{path}[least=4]")

    assert id_of(by_default) == id_of(as_told) != id_of(other)
    assert id_of(other).version.startswith("1-")
    assert other.least == 4
    assert settings_of(other).told == {"least": 4}


def test_a_class_of_settings_is_given_as_a_whole(own):
    path = own("Settings = Settings\n    def __init__(self, settings): self.settings = settings")
    scorer = find_scorer(path, {"words": ["a", "b"]})

    assert isinstance(settings_of(scorer), ScorerSettings)
    assert scorer.settings.words == ("a", "b")
    assert id_of(scorer) == id_of(find_scorer(f'{path}[words=["a","b"]]'))


def test_settings_are_pinned_once_and_not_where_scores_are_made(own):
    path = own(
        "class Settings(ScorerSettings):\n"
        "        at: str = 'main'\n"
        "        def pinned(self): return self.model_copy(update={'at': self.at + '!'})\n"
        "    def __init__(self, settings): self.settings = settings"
    )
    pinned = find_scorer(path)

    assert pinned.settings.at == "main!"
    again = find_scorer(path, pinned.settings.model_dump(mode="json"), is_pinned=True)
    assert id_of(again) == id_of(pinned)


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ('columns = {"value": "float"}', "kind 'float', which there is not; the kinds are: float"),
        ('columns = {"value": "string"}', "the score itself"),
        ('columns = {"value": float}', "kind <class 'float'>"),
        ('columns = {"trace_id": "float32"}', "keep for the key"),
        ('columns = {"": "float32"}', "is called ''"),
        ("columns = ['value']", "should be a dict"),
        ("columns = {}", "should be a dict"),
        ("subjects = 'trace'", "should be a set of: trace, think, draw, reflect"),
        ("subjects = {'traces'}", "should be a set of"),
        ("subjects = None", "should be a set of"),
        ("subjects = set()", "should be a set of"),
        ("version = 1", "its version is 1, and should be text"),
        ("name = 'My Scorer'", "small letters"),
        ("needs_pictures = None", "not True or False"),
        ("score = 3", "its score is no method"),
        ("def __init__(self): raise KeyError('weights')", "cannot be made: KeyError: 'weights'"),
        ("def __init__(self, path): pass", "path: Field required"),
        ("def __init__(self, least: int = 'x', /): pass", "by position"),
        ("Settings = dict", "is no ScorerSettings"),
    ],
)
def test_what_is_wrong_with_a_class_is_one_sentence(own, members: str, complaint: str):
    path = own(members)
    with pytest.raises(InputError) as caught:
        find_scorer(path)

    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("import nothing_that_is_there", "No module named 'nothing_that_is_there'"),
        ("class Own", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError: division by zero (own_scorer"),
        ("raise SystemExit(0)", "SystemExit: 0 (own_scorer"),
        ("import sys; sys.exit('done')", "SystemExit: done (own_scorer"),
        ("class Other: pass", "has no attribute 'Own'"),
        ("Own = 3", "lacks name"),
    ],
)
def test_a_module_that_does_not_load_is_one_sentence(own, text: str, complaint: str):
    with pytest.raises(InputError, match=r"cannot be loaded|is no scorer") as caught:
        find_scorer(own(text=text))

    assert complaint in str(caught.value)


def test_a_constructor_that_ends_the_process_is_one_sentence(own):
    with pytest.raises(InputError, match=r"cannot be made: SystemExit: 3 \(own_scorer"):
        find_scorer(own("def __init__(self): raise SystemExit(3)"))


@pytest.mark.parametrize("name", ["toy", "hps", "trace", "event", "judge"])
def test_a_name_that_means_something_else_is_refused(own, name: str):
    with pytest.raises(InputError, match=f"calls itself '{name}'"):
        find_scorer(own(f"name = {name!r}"))


def test_a_bundled_scorer_may_be_named_by_its_path():
    assert str(id_of(find_scorer(SCORERS["tokens"]))) == str(id_of(find_scorer("tokens")))


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("least=many", "least: Input should be a valid integer"),
        ("most=3", "most: Extra inputs are not permitted (found 3); it has: least"),
    ],
)
def test_settings_that_a_scorer_does_not_take_are_refused(own, given: str, complaint: str):
    path = own("def __init__(self, least: int = 3): pass")
    with pytest.raises(InputError) as caught:
        find_scorer(f"{path}[{given}]")

    assert complaint in str(caught.value)
    with pytest.raises(InputError, match="has no settings, and was given least"):
        find_scorer("tokens[least=3]")
