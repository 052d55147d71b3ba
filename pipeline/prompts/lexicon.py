"""English words for the prompt parser: what kind of word each is, and its dictionary form.

The lists are the text files in `words/`. They are small on purpose: the parser needs closed classes
and verbs; an unknown word in a noun's place is taken as a noun.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from schemas.specs import AttributeKind, RelationKind

_CLOSED = ("determiners", "pronouns", "auxiliaries", "modals", "conjunctions")
_ATTRIBUTE_FILES = {
    AttributeKind.COLOUR: ("colours",),
    AttributeKind.SHAPE: ("shapes",),
    AttributeKind.TEXTURE: ("textures",),
    AttributeKind.SIZE: ("sizes",),
    AttributeKind.STATE: ("states", "participles"),
    AttributeKind.QUALITY: ("qualities",),
}
_VOWELS = frozenset("aeiou")


@dataclass(frozen=True, kw_only=True, slots=True)
class Preposition:
    """One relation that a phrase can state."""

    name: str
    kind: RelationKind
    inverse: str | None = None  # the same scene told from the other side
    moves: bool = False  # it may tell a way, and no place
    is_agent: bool = False  # after a verb it may tell who does it


@dataclass(frozen=True, kw_only=True, slots=True)
class Lexicon:
    """All words that the parser knows, lower case."""

    attributes: Mapping[str, AttributeKind]
    objects: frozenset[str]  # nouns that a picture can show, singular, the compounds among them
    people: frozenset[str]  # those of the objects that act
    animals: frozenset[str]  # and these
    nouns: frozenset[str]  # the objects, and all others
    compounds: frozenset[str]  # singular, the words with a space between them
    plurals: Mapping[str, str]  # irregular ones
    unchanging: frozenset[str]
    verbs: Mapping[str, str]  # every form, and its bare verb
    place_verbs: frozenset[str]
    done_to: frozenset[str]  # verbs that want an object
    determiners: frozenset[str]
    pronouns: frozenset[str]
    auxiliaries: frozenset[str]
    modals: frozenset[str]
    conjunctions: frozenset[str]
    adverbs: frozenset[str]
    function_words: frozenset[str]  # what only holds a sentence together
    particles: frozenset[str]
    numbers: Mapping[str, int]
    gerunds: frozenset[str]
    partitives: frozenset[str]
    portions: frozenset[str]
    formations: frozenset[str]
    vague: frozenset[str]
    paired: frozenset[str]
    body_parts: frozenset[str]
    worn: frozenset[str]  # clothes, and these
    abstract: frozenset[str]
    foreign: frozenset[str]
    borrowed: frozenset[str]  # whole phrases of other languages that English uses
    prepositions: Mapping[tuple[str, ...], Preposition]  # by the words of the phrase
    inverses: Mapping[str, str]
    negations: frozenset[tuple[str, ...]]  # the words of each phrase
    adverbials: frozenset[tuple[str, ...]]  # the same
    doubts: re.Pattern[str]  # any phrase of `doubts.txt`, in words with spaces between

    def singular(self, word: str) -> str:
        """The dictionary form of a noun; the word itself where no rule fits."""
        if word in self.plurals:
            return self.plurals[word]
        if word in self.unchanging or len(word) < 4 or not word.endswith("s"):
            return word
        if word.endswith(("ss", "us", "is")):
            return word[:-1] if word[:-1] in self.nouns else word  # taxis, menus
        if word.endswith("ies"):
            return word[:-1] if word[:-1] in self.nouns else word[:-3] + "y"
        if word.endswith(("ches", "shes", "sses", "xes", "zzes")):
            return word[:-2]
        if word.endswith("es") and word[:-2] in self.nouns and word[:-1] not in self.nouns:
            return word[:-2]  # walruses, cactuses
        return word[:-1]

    def is_plural(self, word: str) -> bool:
        return self.singular(word) != word or word in self.unchanging

    def is_noun(self, word: str) -> bool:
        return word in self.nouns or self.singular(word) in self.nouns

    def is_abstract(self, word: str) -> bool:
        """No detector could find it. A word that may also be an object is taken as one."""
        forms = {word, self.singular(word)}
        if not forms.isdisjoint(self.objects):
            return False
        is_quality = word.endswith(("ness", "ity", "ism", "ship", "hood"))
        return is_quality or not forms.isdisjoint(self.abstract)

    def acts(self, noun: str) -> bool:
        """Whether it is a person or an animal."""
        heads = {noun, *noun.split()[-1:], self.singular(noun)}
        return not heads.isdisjoint(self.people | self.animals)

    def knows(self, word: str) -> bool:
        """Whether it is a word of these lists, of whatever kind."""
        return (
            self.is_function(word)
            or word in self.attributes
            or word in self.verbs
            or word in self.numbers
            or word in self.gerunds
            or self.is_noun(word)
        )

    def is_function(self, word: str) -> bool:
        """Whether it only holds a sentence together."""
        return word in self.function_words


@cache
def lexicon() -> Lexicon:
    """The shipped word lists, read once."""
    prepositions, inverses = _prepositions()
    people, animals = _word_set("people"), _word_set("animals")
    objects = people | animals | frozenset((*_words("nouns"), *_lines("compounds")))
    abstract, partitives, portions = map(_word_set, ("abstract", "partitives", "portions"))
    adverbs, particles = _word_set("adverbs"), _word_set("particles")
    attributes = _attributes()
    nouns = objects | abstract | partitives | portions
    verbs = _verb_forms()
    closed = {name: _word_set(name) for name in _CLOSED}
    return Lexicon(
        attributes=_degrees(attributes, nouns | verbs.keys()) | attributes,
        objects=objects,
        people=people,
        animals=animals,
        nouns=nouns,
        compounds=frozenset(_lines("compounds")),
        plurals=dict(_pairs("irregular_plurals")),
        unchanging=_word_set("unchanging"),
        verbs=verbs,
        place_verbs=_word_set("verbs_of_place"),
        done_to=_word_set("verbs_done_to"),
        adverbs=adverbs,
        **closed,
        function_words=frozenset().union(*closed.values())
        | adverbs
        | particles
        | {phrase[0] for phrase in prepositions if len(phrase) == 1},
        particles=particles,
        numbers={word: int(value) for word, value in _pairs("numbers")},
        gerunds=_word_set("nominal_gerunds"),
        partitives=partitives,
        portions=portions,
        vague=_word_set("vague"),
        formations=_word_set("formations"),
        paired=_word_set("paired"),
        body_parts=_word_set("body_parts"),
        worn=_word_set("body_parts") | _word_set("clothes"),
        abstract=abstract,
        foreign=_word_set("foreign"),
        borrowed=frozenset(_lines("borrowed")),
        prepositions=prepositions,
        inverses=inverses,
        negations=_phrases("negations"),
        adverbials=_phrases("adverbials"),
        doubts=_pattern("doubts"),
    )


@cache
def lookalikes() -> dict[int, str]:
    """Letters that look like Latin ones, for `str.translate`."""
    latin = tomllib.loads(_read("lookalikes.toml"))
    return {ord(letter): name for name, letters in latin.items() for letter in letters}


def _read(name: str) -> str:
    return files("pipeline.prompts").joinpath("words", name).read_text(encoding="utf-8")


def _lines(name: str) -> Iterator[str]:
    return (line for line in _read(f"{name}.txt").splitlines() if not line.startswith("#"))


def _words(name: str) -> Iterator[str]:
    return (word for line in _lines(name) for word in line.split())


def _word_set(name: str) -> frozenset[str]:
    return frozenset(_words(name))


def _phrases(name: str) -> frozenset[tuple[str, ...]]:
    return frozenset(tuple(line.split()) for line in _lines(name))


def _pattern(name: str) -> re.Pattern[str]:
    """Of phrases in which `*` stands for any letters of a word."""
    phrases = (re.escape(line).replace(r"\*", "[^ ]*") for line in _lines(name))
    return re.compile(f" (?:{'|'.join(phrases)})(?= )")


def _pairs(name: str) -> Iterator[tuple[str, str]]:
    for line in _lines(name):
        first, second = line.split()
        yield first, second


def _prepositions() -> tuple[dict[tuple[str, ...], Preposition], dict[str, str]]:
    phrases: dict[tuple[str, ...], Preposition] = {}
    inverses: dict[str, str] = {}
    for table in tomllib.loads(_read("relations.toml"))["relation"]:
        inverse = table.get("inverse")
        relation = Preposition(
            name=table["name"],
            kind=RelationKind(table["kind"]),
            inverse=inverse,
            moves=table.get("moves", False),
            is_agent=table.get("agent", False),
        )
        phrases |= {tuple(phrase.split()): relation for phrase in table["phrases"]}
        if inverse:
            inverses[relation.name] = inverse
    return phrases, inverses


def _attributes() -> dict[str, AttributeKind]:
    return {
        word: kind
        for kind, names in reversed(_ATTRIBUTE_FILES.items())  # the first kind wins
        for name in names
        for word in _words(name)
    }


def _degrees(attributes: Mapping[str, AttributeKind], others: Set[str]) -> dict[str, AttributeKind]:
    """Taller and tallest, of the short words for size and state that have such forms."""
    kinds = (AttributeKind.SIZE, AttributeKind.STATE)
    degrees: dict[str, AttributeKind] = {}
    for word, kind in attributes.items():
        if kind in kinds and len(word) < 7 and not word.endswith(("ed", "ing", "en")):
            stem = word + word[-1] if _doubles(word) else word.removesuffix("e")
            stem = stem[:-1] + "i" if stem.endswith("y") else stem
            degrees |= {stem + end: kind for end in ("er", "est") if stem + end not in others}
    return degrees


def _verb_forms() -> dict[str, str]:
    irregular = dict(_pairs("irregular_verbs"))
    forms: dict[str, str] = {}
    for verb in (*_words("verbs"), *_words("verbs_of_place"), *irregular.values()):
        forms |= {form: verb for form in _regular_forms(verb)}
    return forms | irregular


def _regular_forms(verb: str) -> Iterator[str]:
    """The bare verb, -s, -ed and -ing. Irregular verbs get a past form nobody writes."""
    yield verb
    if verb.endswith("y") and verb[-2] not in _VOWELS:
        yield from (verb[:-1] + "ies", verb[:-1] + "ied", verb + "ing")
        return
    yield verb + ("es" if verb.endswith(("s", "sh", "ch", "x", "z", "o")) else "s")
    if verb.endswith("ee"):
        yield from (verb + "d", verb + "ing")
    else:
        stem = verb + verb[-1] if _doubles(verb) else verb.removesuffix("e")
        yield from (stem + "ed", stem + "ing")


def _doubles(verb: str) -> bool:
    """Whether the last consonant doubles, as in `hop, hopped`."""
    if len(verb) < 3 or verb[-1] in _VOWELS | frozenset("wxy") or verb[-2] not in _VOWELS:
        return False
    is_short = sum(letter in _VOWELS for letter in verb) == 1
    return is_short or verb in ("begin", "admit", "emit", "propel", "compel")
