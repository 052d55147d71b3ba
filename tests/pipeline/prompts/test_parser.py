"""The parser on labelled prompts, on other languages, and on whatever one may type."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.prompts.lexicon import lexicon
from pipeline.prompts.parser import Unread, parse
from schemas.specs import Category, PromptSpec, RelationKind
from tests.parser import labelled, quality, relations


def read(prompt: str) -> PromptSpec:
    spec = parse(prompt).spec
    assert spec is not None, prompt
    return spec


@pytest.mark.parametrize(
    ("kind", "precision", "recall"),
    [
        ("objects", 0.96, 0.97),
        ("attributes", 0.96, 0.96),
        ("counts", 1.0, 1.0),
        ("relations", 0.88, 0.90),
    ],
)
def test_it_finds_what_a_reader_finds(kind: str, precision: float, recall: float):
    cases = labelled()
    assert len(cases) >= 60
    found = quality(cases, kind)

    assert found.precision >= precision
    assert found.recall >= recall


@pytest.mark.parametrize("category", Category)
def test_no_category_is_read_badly(category: Category):
    cases = [case for case in labelled() if case.category == category]
    assert cases
    found = quality(cases, "objects")

    assert min(found) >= 0.9


# What it refuses


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("一只红色的猫坐在蓝色的桌子上", Unread.SCRIPT),
        ("красная кошка на синем столе", Unread.SCRIPT),
        ("Eine rote Katze auf einem blauen Tisch", Unread.LANGUAGE),
        ("Hund links neben Fahrrad", Unread.LANGUAGE),
        ("un gato rojo junto a una mesa azul", Unread.LANGUAGE),
        ("un chat rouge sur une table bleue", Unread.LANGUAGE),
        ("a red 猫 on a table", Unread.SCRIPT),
        ("a r\u0435d cat", Unread.SCRIPT),  # a Cyrillic e
        ("ein red car", Unread.LANGUAGE),
        ("قطة حمراء", Unread.SCRIPT),
        ("zorblax quuxly frimble", Unread.LANGUAGE),
        ("a feeling of freedom", Unread.NO_OBJECT),
        ("!!! ...", Unread.NO_OBJECT),
        ("", Unread.NO_OBJECT),
        ("a cat and a dog and " * 200, Unread.LENGTH),
    ],
)
def test_what_is_no_english_prompt_has_no_spec_and_a_reason(prompt: str, reason: Unread):
    found = parse(prompt)

    assert found.spec is None
    assert found.unread is reason


@pytest.mark.parametrize(
    "prompt", ["a piñata in a café", "a red cat \U0001f408", "2 dogs & a cat", "RED CAT"]
)
def test_accents_emoji_and_digits_are_no_other_language(prompt: str):
    assert parse(prompt).spec is not None


def test_no_word_counts_for_english_and_against_it():
    words = lexicon()

    assert not [word for word in words.foreign if words.knows(word)]


# Single rules


@pytest.mark.parametrize(
    ("prompt", "phrases"),
    [
        ("a photo of a red book", ["red book"]),
        ("a blue orange and an orange apple", ["blue orange", "orange apple"]),
        ("the striped black and white cat", ["striped black and white cat"]),
        ("a delicious pizza", ["pizza"]),
        ("two pairs of wooden shoes", ["wooden shoe"]),
        ("a triangular slice of pizza", ["triangular slice of pizza"]),
        ("the cat is black", ["black cat"]),
        ("a woman in pink", ["pink woman"]),
        ("there is a red square next to an orange", ["red square", "orange"]),
        ("a mint green mug", ["mint green mug"]),
        ("a glass jar holding seven daisies", ["glass jar", "daisy"]),
        ("three penguins, each one wearing a scarf", ["penguin", "scarf"]),
        ("a wooden bowl of purple plums", ["wooden bowl", "purple plum"]),
        ("a box with an oval top", ["box", "oval top"]),
        ("fog at the top", ["fog"]),
        ("a sweet potato and hot dogs", ["sweet potato", "hot dog"]),
        ("a dining table and a cutting board", ["dining table", "cutting board"]),
        ("women, children and mice", ["woman", "child", "mouse"]),
        ("The rubber gloves rest on the wooden shelf.", ["rubber glove", "wooden shelf"]),
    ],
)
def test_a_detector_is_asked_for_what_can_be_seen(prompt: str, phrases: list[str]):
    assert list(read(prompt).detector_phrases) == phrases


@pytest.mark.parametrize(
    ("phrase", "name", "kind"),
    [
        ("on the left of", "left of", RelationKind.SPATIAL_2D),
        ("to the right of", "right of", RelationKind.SPATIAL_2D),
        ("on the top of", "above", RelationKind.SPATIAL_2D),
        ("on the bottom of", "below", RelationKind.SPATIAL_2D),
        ("on side of", "next to", RelationKind.SPATIAL_2D),
        ("near", "near", RelationKind.SPATIAL_2D),
        ("in front of", "in front of", RelationKind.SPATIAL_3D),
        ("behind", "behind", RelationKind.SPATIAL_3D),
        ("hidden by", "hidden by", RelationKind.SPATIAL_3D),
        ("is sitting on", "on", RelationKind.SPATIAL_2D),
        ("is chasing", "chase", RelationKind.NON_SPATIAL),
        ("is looking at", "look at", RelationKind.NON_SPATIAL),
    ],
)
def test_a_relation_has_one_name_and_a_kind(phrase: str, name: str, kind: RelationKind):
    (relation,) = read(f"a dog {phrase} a turtle").relations

    assert (relation.relation, relation.kind) == (name, kind)
    assert (relation.subject, relation.object) == (0, 1)


def test_an_owner_does_not_do_what_its_tail_does():
    assert relations(read("the dog's tail is touching a cat")) == [("tail", "touch", "cat")]
    assert relations(read("a woman is rubbing a dog's belly and smiling")) == [
        ("woman", "rub", "dog"),
        ("woman", "rub", "belly"),
        ("woman", "smile", "-"),
    ]


def test_an_article_counts_only_beside_numbers():
    assert [thing.count for thing in read("two dogs and a cat").objects] == [2, 1]
    assert [thing.count for thing in read("a dog and a cat").objects] == [None, None]


@pytest.mark.parametrize(
    ("prompt", "category"),
    [
        ("a red cup and a blue book", Category.COLOR),
        ("a round cup and a square book", Category.SHAPE),
        ("a wooden cup and a leather book", Category.TEXTURE),
        ("a cup on the left of a book", Category.SPATIAL),
        ("a cup behind a book", Category.SPATIAL_3D),
        ("three cups", Category.NUMERACY),
        ("a red cup on top of a wooden book", Category.COMPLEX),
        ("a dog is barking", Category.NON_SPATIAL),
        ("a cup and a book", Category.OBJECT),
    ],
)
def test_the_category_is_guessed_where_nobody_knows_it(prompt: str, category: Category):
    assert read(prompt).category is category
    assert parse(prompt, Category.COMPLEX).spec.category is Category.COMPLEX  # type: ignore[union-attr]


# Whatever one may type

VOCABULARY = sorted(
    lexicon().nouns
    | lexicon().verbs.keys()
    | lexicon().attributes.keys()
    | lexicon().function_words
    | {",", ".", "'s", "-", "4", "zorblax"}
)


@given(st.lists(st.sampled_from(VOCABULARY), max_size=25))
def test_any_order_of_words_is_read_or_refused(words: list[str]):
    found = parse(" ".join(words))

    assert (found.spec is None) == (found.unread is not None)
    if found.spec:
        assert PromptSpec.from_json(found.spec.to_json()) == found.spec


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str):
    found = parse(text)

    assert (found.spec is None) == (found.unread is not None)


@given(st.sampled_from([case.prompt for case in labelled()]), st.sampled_from("  \t!."))
def test_case_and_outer_white_space_change_nothing(prompt: str, mark: str):
    assert parse(f" {prompt.upper()}{mark}").spec == parse(prompt).spec


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a man in a blue shirt beside a horse", {"man in shirt", "man next to horse"}),
        ("a cat with green eyes in a box", {"cat with eye", "cat in box"}),
        ("a dog with a hat on its head", {"dog with hat", "hat on head"}),
        ("a girl in a boat next to a dock", {"girl in boat", "boat next to dock"}),
    ],
)
def test_what_is_worn_stands_where_its_wearer_stands(prompt: str, expected: set[str]):
    spec = read(prompt)
    names = [shown.noun for shown in spec.objects]

    assert expected == {
        f"{names[relation.subject]} {relation.relation} {names[relation.object]}"
        for relation in spec.relations
        if relation.object is not None
    }


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("two cats, one black and one white", [("cat", 2, [])]),
        ("two dogs: one is sleeping and one is eating", [("dog", 2, [])]),
        (
            "two cats, one tall and one short, and a red ball",
            [("cat", 2, []), ("ball", 1, ["red"])],
        ),
        ("a red car and two blue ones", [("car", 1, ["red"]), ("car", 2, ["blue"])]),
        ("a 1960s kitchen", [("kitchen", None, ["1960s"])]),
        ("a 19th century ship", [("ship", None, ["19th-century"])]),
        ("a triceratops", [("triceratops", None, [])]),
        ("a thraxops and two walruses", [("thraxops", 1, []), ("walrus", 2, [])]),
    ],
)
def test_what_is_said_of_one_of_them_of_a_time_and_of_unknown_words(
    prompt: str, expected: list[tuple[str, int | None, list[str]]]
):
    shown = [
        (each.noun, each.count, [attribute.value for attribute in each.attributes])
        for each in read(prompt).objects
    ]

    assert shown == expected
    assert not read(prompt).relations
