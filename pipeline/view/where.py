"""The small language that chooses and orders traces: `score < 60 and revised and toy.value < 1`.

Pure, and never evaluated as code: a text is read by the grammar below, or refused. The same for
`coppice show`, `coppice view` and `coppice.open(...).traces(where=...)`.

    either     = both {"or" both}
    both       = single {"and" single}
    single     = "not" single | "(" either ")" | column [test]
    test       = ("=" | "!=" | "<" | "<=" | ">" | ">=" | "contains") value
               | "in" "(" value {"," value} ")" | "is" ["not"] "null"
    column     = a name, in quotes if it has other letters than names have
    value      = a number, a word, or any text in quotes; a doubled quote stands for one

What is not there (null) is neither above nor below anything, equal or unequal to nothing: a test of
it is unknown, so is the opposite of what is unknown, and a trace is chosen only where the whole
holds. `is null` asks for it. `contains` does not mind case, and all else does.
"""

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, TypeVar

from schemas.errors import InputError

Kind = Literal["number", "text", "flag", "any"]
"""What a column holds; any: numbers in some traces, and text in others."""
Value: TypeAlias = str | float | bool | None
"""What a column says of a trace; None: it does not apply. An int counts as a float, all digits."""
Facts: TypeAlias = Mapping[str, Value]
"""What is known of a trace, by column."""
_Test: TypeAlias = Callable[[Facts], bool | None]

METADATA = "metadata."
"""How the columns begin that are fields of a record's metadata: any name may follow."""

_LONGEST = 10_000  # characters
_DEEPEST = 50  # brackets, or nots, within each other
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<quoted>"(?:[^"]|"")*"|'(?:[^']|'')*')
      | (?P<sign><=|>=|!=|==|[=<>(),])
      | (?P<word>[^\s"'<>=!(),]+)
    )""",
    re.VERBOSE,
)
_RESERVED = frozenset({"and", "or", "not", "in", "is", "contains"})
_ORDERS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_FLAGS = {"true": True, "yes": True, "false": False, "no": False}
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Where:
    """A condition that was read. `columns` are those that it asks for."""

    test: _Test
    columns: frozenset[str] = frozenset()

    def holds(self, facts: Facts) -> bool:
        """Whether a trace of which these are the facts is chosen; a column they lack is null."""
        return self.test(facts) is True


@dataclass(frozen=True, kw_only=True, slots=True)
class SortKey:
    """A column to order by."""

    column: str
    is_descending: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Which traces, and in what order, as it was asked for. Empty: all of them, as they are."""

    where: str = ""
    sort: str = ""
    is_dead: bool = False
    is_revised: bool = False

    @property
    def is_of_all(self) -> bool:
        return self == Choice()

    def read(self, columns: Mapping[str, Kind]) -> tuple[Where, tuple[SortKey, ...]]:
        """What it means where there are these columns. Raises InputError as its parts do."""
        texts = [self.where, "dead" if self.is_dead else "", "revised" if self.is_revised else ""]
        wheres = [parse_where(text, columns) for text in texts if text]
        return all_of(wheres), parse_sort(self.sort, columns) if self.sort else ()


def parse_where(text: str, columns: Mapping[str, Kind]) -> Where:
    """Read a condition on these columns.

    Raises InputError for what the grammar does not hold, a column that is none, with those that
    there are, and for a value that the column cannot have.
    """
    if len(text) > _LONGEST:
        raise InputError(f"a condition of {len(text):,} characters; at most {_LONGEST:,} are read")
    parser = _Parser(text, columns)
    test = parser.either(0)
    parser.expect_end()
    return Where(test=test, columns=frozenset(parser.asked_for))


def all_of(conditions: Iterable[Where]) -> Where:
    """What holds where each of the conditions does."""
    wheres = list(conditions)
    return Where(
        test=_both([where.test for where in wheres]),
        columns=frozenset().union(*(where.columns for where in wheres)),
    )


def parse_sort(text: str, columns: Mapping[str, Kind]) -> tuple[SortKey, ...]:
    """Read an order: columns with commas between them, a minus before one turns it round.

    Raises InputError for a column that is none.
    """
    keys = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name = part.removeprefix("-").strip()
        kind_of(name, columns)
        keys.append(SortKey(column=name, is_descending=part.startswith("-")))
    if not keys:
        raise InputError(
            "an order names at least one column, such as score, or -score for the highest first"
        )
    return tuple(keys)


def in_order(
    items: Iterable[T], keys: Sequence[SortKey], facts_of: Callable[[T], Facts]
) -> list[T]:
    """The items in that order; those without a value last, ties as they came."""
    ordered = list(items)
    for key in reversed(keys):
        valued = [(facts_of(item).get(key.column), item) for item in ordered]
        known = [pair for pair in valued if pair[0] is not None]
        known.sort(key=lambda pair: _rank(pair[0]), reverse=key.is_descending)
        unknown = [item for value, item in valued if value is None]
        ordered = [*(item for _, item in known), *unknown]
    return ordered


def _rank(value: Value) -> tuple[bool, float, str]:
    """Numbers before words, so that a column of both has an order."""
    if isinstance(value, str):
        return True, 0.0, value
    return False, 0.0 if value is None else value, ""


class _Token(NamedTuple):
    text: str
    at: int  # where in the condition it begins
    is_quoted: bool = False

    @property
    def keyword(self) -> str:
        """What it means where it is no value."""
        return "" if self.is_quoted else self.text.lower()


class _Parser:
    """One condition being read, from left to right."""

    def __init__(self, text: str, columns: Mapping[str, Kind]) -> None:
        self._text, self._columns = text, columns
        self._tokens, self._next = _tokens(text), 0
        self.asked_for: set[str] = set()

    def either(self, depth: int) -> _Test:
        tests = [self._both(depth)]
        while self._accept("or"):
            tests.append(self._both(depth))
        return tests[0] if len(tests) == 1 else _either(tests)

    def expect_end(self) -> None:
        if (token := self._peek()) is not None:
            raise self._mistake("and, or, or the end", token)

    def _both(self, depth: int) -> _Test:
        tests = [self._single(depth)]
        while self._accept("and"):
            tests.append(self._single(depth))
        return tests[0] if len(tests) == 1 else _both(tests)

    def _single(self, depth: int) -> _Test:
        if depth > _DEEPEST:
            raise InputError(f"a condition with more than {_DEEPEST} brackets within each other")
        if self._accept("not"):
            return _not(self._single(depth + 1))
        if self._accept("("):
            test = self.either(depth + 1)
            self._expect(")")
            return test
        return self._test()

    def _test(self) -> _Test:
        token = self._take("a column")
        if token.keyword in _RESERVED or (not token.is_quoted and token.text in "=<>!(),"):
            raise self._mistake("a column", token)
        name = token.text
        kind = kind_of(name, self._columns)
        self.asked_for.add(name)
        if self._accept("is"):
            is_wanted = not self._accept("not")
            self._expect("null")
            return lambda facts: (facts.get(name) is None) is is_wanted
        if self._accept("in"):
            return _either([_equals(name, value) for value in self._list(name, kind)])
        if self._accept("contains"):
            return _contains(name, self._take("a text").text)
        for sign in ("=", "==", "!=", *_ORDERS):
            if self._accept(sign):
                return self._compared(name, kind, sign)
        if kind == "flag":
            return _equals(name, True)
        following = self._peek()
        raise self._mistake(f"a test of {name} such as {_example(name, kind)}", following)

    def _compared(self, name: str, kind: Kind, sign: str) -> _Test:
        value = self._value(name, kind)
        if sign == "!=":
            return _not(_equals(name, value))
        if sign in ("=", "=="):
            return _equals(name, value)
        if isinstance(value, str | bool):
            raise InputError(
                f"{name} {sign} {value} compares no numbers; use =, !=, contains or in, or is null"
            )
        return _ordered(name, _ORDERS[sign], value)

    def _list(self, name: str, kind: Kind) -> list[str | float]:
        self._expect("(")
        values = [self._value(name, kind)]
        while self._accept(","):
            values.append(self._value(name, kind))
        self._expect(")")
        return values

    def _value(self, name: str, kind: Kind) -> str | float:
        token = self._take("a value")
        if not token.is_quoted and (token.keyword in _RESERVED or token.text in "=<>!(),"):
            raise self._mistake("a value", token)
        if kind == "text" or (kind == "any" and token.is_quoted):
            return token.text
        if kind == "flag":
            if token.keyword in _FLAGS:
                return _FLAGS[token.keyword]
            raise InputError(f"{name} is yes or no; found {token.text!r}")
        number = _number(token.text)
        if number is None and kind == "number":
            raise InputError(f"{name} holds numbers; found {token.text!r}")
        return token.text if number is None else number

    def _peek(self) -> _Token | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _accept(self, keyword: str) -> bool:
        token = self._peek()
        is_next = token is not None and token.keyword == keyword
        self._next += is_next
        return is_next

    def _expect(self, keyword: str) -> None:
        if not self._accept(keyword):
            raise self._mistake(keyword, self._peek())

    def _take(self, noun: str) -> _Token:
        token = self._peek()
        if token is None:
            raise self._mistake(noun, None)
        self._next += 1
        return token

    def _mistake(self, expected: str, token: _Token | None) -> InputError:
        if token is None:
            return InputError(f"the condition {self._text!r} ends where {expected} was expected")
        before = self._text[: token.at].rstrip() or "the start"
        return InputError(
            f"the condition {self._text!r} has {token.text!r} after {before[-40:]!r}, where "
            f"{expected} was expected"
        )


def _tokens(text: str) -> list[_Token]:
    tokens, position = [], 0
    end = len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            rest = text[position:].strip()
            raise InputError(
                f"the condition {text!r} cannot be read at {rest[:40]!r}; is a quote not closed?"
            )
        kind, position = match.lastgroup or "", match.end()
        word = match[kind]
        if kind == "quoted":
            word = word[1:-1].replace(word[0] * 2, word[0])
        tokens.append(_Token(word, match.start(kind), kind == "quoted"))
    return tokens


def kind_of(name: str, columns: Mapping[str, Kind]) -> Kind:
    """What a column holds. Raises InputError for one that is none, with those that there are."""
    if name in columns:
        return columns[name]
    if name.startswith(METADATA) and name != METADATA:
        return "any"
    near = difflib.get_close_matches(name, columns, n=1)
    raise InputError(
        f"there is no column {name!r}"
        + (f"; did you mean {near[0]}?" if near else ".")
        + f" There are: {', '.join(columns)}; and {METADATA}NAME for a field of a prompt's own"
    )


def _number(text: str) -> float | None:
    for read in (int, float):
        try:
            number = read(text)
        except ValueError:
            continue
        return number if math.isfinite(number) else None
    return None


def _example(name: str, kind: Kind) -> str:
    return f"{name} < 1" if kind == "number" else f"{name} = word"


def _equals(name: str, wanted: str | float) -> _Test:
    def test(facts: Facts) -> bool | None:
        value = facts.get(name)
        if value is None:
            return None
        if isinstance(value, str) and not isinstance(wanted, str):
            return _number(value) == wanted
        return value == wanted

    return test


def _ordered(name: str, order: Callable[[float, float], bool], bound: float) -> _Test:
    def test(facts: Facts) -> bool | None:
        value = facts.get(name)
        return None if value is None or isinstance(value, str) else order(value, bound)

    return test


def _contains(name: str, part: str) -> _Test:
    wanted = part.casefold()

    def test(facts: Facts) -> bool | None:
        value = facts.get(name)
        return None if value is None else wanted in str(value).casefold()

    return test


def _not(test: _Test) -> _Test:
    def opposite(facts: Facts) -> bool | None:
        answer = test(facts)
        return None if answer is None else not answer

    return opposite


def _both(tests: Sequence[_Test]) -> _Test:
    def test(facts: Facts) -> bool | None:
        answers = [test(facts) for test in tests]
        return False if False in answers else None if None in answers else True

    return test


def _either(tests: Sequence[_Test]) -> _Test:
    def test(facts: Facts) -> bool | None:
        answers = [test(facts) for test in tests]
        return True if True in answers else None if None in answers else False

    return test
