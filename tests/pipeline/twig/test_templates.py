from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.plan.packs import bundled_packs, load_pack
from pipeline.twig.reflections import read_reflection
from pipeline.twig.schedules import read_schedule
from pipeline.twig.templates import PLACEHOLDERS, TemplatePack, read_pack
from schemas.errors import InputError
from schemas.geometry import Geometry
from schemas.trace import Verdict

# Those that a run can be asked in: a caption is thought of alone, and nothing is judged.
OF_RUNS = [name for name in bundled_packs() if name != "caption"]
# The toy was trained on its short questions: it knows the form without being told.
SPOKEN = [name for name in OF_RUNS if name != "toy"]

QUESTIONS = {
    "think_first": "What is in the {region_name} of {prompt}?",
    "think_next": "After {previous}, what is in the {region_name} of {prompt}?",
    "reflect": "Is {thought} what the {region_name} shows?",
}
VALUES = {
    "prompt": "a red cube",
    "previous": "a pale sky",
    "thought": "a red cube on grass",
    "region_name": "middle third",
    "region_number": 2,
    "num_regions": 3,
}


def pack_of(**questions: str) -> TemplatePack:
    """A pack with these questions instead of, or beside, the plain ones."""
    return TemplatePack(name="small", digest="none", questions=QUESTIONS | questions)


def rendered(body: str, **values: object) -> str:
    """What becomes of a text that may use every placeholder of a reflection."""
    return pack_of(reflect=body).render("reflect", VALUES | values)


def pack_text(*, head: str = 'name = "small"', tail: str = "", **questions: str) -> str:
    """A pack as a file would hold it."""
    lines = [f"{key} = '''{body}'''" for key, body in (QUESTIONS | questions).items()]
    return "\n".join([head, "[questions]", *lines, tail])


def refusal(text: str) -> str:
    with pytest.raises(InputError, match=r"template pack some/pack\.toml") as caught:
        read_pack(text, origin="some/pack.toml")
    return str(caught.value)


# Filling in


def test_placeholders_are_filled_with_values():
    body = "{region_name} ({region_number} of {num_regions}) of {prompt}: {previous}, {thought}"

    assert rendered(body) == (
        "middle third (2 of 3) of a red cube: a pale sky, a red cube on grass"
    )


@pytest.mark.parametrize(
    ("body", "kept", "dropped"),
    [
        ('[[Before: "{previous}". ]]Now?', 'Before: "a pale sky". Now?', "Now?"),
        ("Now[[, after {previous}]]?", "Now, after a pale sky?", "Now?"),
        ("[[After {previous}]]", "After a pale sky", ""),
        ("[[After\n{previous}\n]]Now?", "After\na pale sky\nNow?", "Now?"),
        ("[[{thought} after {previous}]]!", "a red cube on grass after a pale sky!", "!"),
        ("[[{previous}, ]][[{thought}]]", "a pale sky, a red cube on grass", "a red cube on grass"),
        ("[[Look. ]]Now?", "Look. Now?", "Look. Now?"),
        ("[[[{previous}]]]", "[a pale sky]", "[]"),
        ("[[{{{previous}}}]]", "{a pale sky}", ""),
    ],
)
def test_an_optional_part_goes_when_a_placeholder_in_it_is_empty(
    body: str, kept: str, dropped: str
):
    assert rendered(body) == kept
    assert rendered(body, previous="") == dropped


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("{{prompt}}", "{prompt}"),
        ("{{{prompt}}}", "{a red cube}"),
        ("[[[[0-100]]]]", "[[0-100]]"),
        ("[0-100]", "[0-100]"),
        ("[[[[{previous}]]]]", "[[]]"),
        ("[[{thought} ]]]]]]!", "a red cube on grass ]]!"),
    ],
)
def test_doubled_characters_mean_themselves(body: str, expected: str):
    assert rendered(body, previous="") == expected


@given(st.text(st.characters(exclude_categories=["C"]), min_size=1).filter(str.strip))
def test_any_wording_can_be_written_by_doubling(wording: str):
    doubled = wording
    for mark in ("{", "}", "[[", "]]"):
        doubled = doubled.replace(mark, 2 * mark)

    assert rendered(doubled) == wording


@pytest.mark.parametrize(
    "prompt",
    [
        "{thought}",
        "{",
        "}}",
        "{0.__class__}",
        "[[x]]",
        "[[{previous}]]",
        "]]",
        "[[[[",
        "\0 and \1",
        "%s $x \\n",
        "two\nlines",
    ],
)
def test_values_are_never_read_as_templates(prompt: str):
    assert rendered("Of {prompt}: [[{prompt}]]", prompt=prompt) == f"Of {prompt}: {prompt}"


@given(st.text(), st.text(min_size=1), st.text())
def test_any_values_stand_in_the_question_as_they_are(prompt: str, previous: str, thought: str):
    values = {"prompt": prompt, "previous": previous, "thought": thought}

    assert rendered("{prompt}|[[{previous}]]|{thought}", **values) == "|".join(values.values())


def test_line_breaks_around_a_question_are_no_part_of_it():
    assert rendered("\n\nIs it {thought}?\n") == "Is it a red cube on grass?"


def test_regions_are_called_by_the_names_of_the_pack_or_else_by_number():
    text = pack_text(tail='[region_names]\n2 = ["upper half", "lower half"]')
    pack = read_pack(text, origin="small")

    assert [pack.region_name(region, 2) for region in (0, 1)] == ["upper half", "lower half"]
    assert [pack.region_name(region, 3) for region in (0, 2)] == ["band 1 of 3", "band 3 of 3"]


# What is refused


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name = ", "cannot be read"),
        ("", "questions"),
        (pack_text(head=""), "name"),
        (pack_text(head='name = "small"\ncolour = "red"'), "colour"),
        (pack_text(head='name = "small"\ndigest = "0123"'), "digest"),
        (pack_text(head='name = ["small"]'), "name"),
        (pack_text(think_before="Go on."), 'unknown question "think_before"'),
        (pack_text(think_first=""), 'question "think_first" is empty'),
        (pack_text(ask_again=" \n "), 'question "ask_again" is empty'),
        (pack_text(think_first="{previous}"), 'think_first" has no placeholder {previous}'),
        (pack_text(ask_again="{prompt}"), "has no placeholder {prompt} (it has: none)"),
        (pack_text(schedule="{colour}"), "has no placeholder {colour} (it has: num_regions, num_"),
        (pack_text(reflect="[[{colour}]]"), "has no placeholder {colour}"),
        (pack_text(tail='[region_names]\n3 = ["top", "bottom"]'), "2 names for 3 regions"),
        (pack_text(tail='[region_names]\nthree = ["a", "b", "c"]'), "region_names.three"),
    ],
)
def test_a_pack_that_cannot_be_used_is_refused_with_the_reason(text: str, reason: str):
    assert reason in refusal(text)


@pytest.mark.parametrize("question", ["think_first", "think_next"])
def test_a_pack_without_a_needed_question_is_refused(question: str):
    questions = {key: body for key, body in QUESTIONS.items() if key != question}
    lines = [f"{key} = '{body}'" for key, body in questions.items()]

    message = refusal("\n".join(['name = "small"', "[questions]", *lines]))

    assert f'question "{question}" is missing' in message


@pytest.mark.parametrize(
    "body",
    [
        "{prompt.__class__}",
        "{prompt[0]}",
        "{prompt!r}",
        "{prompt:>100000000}",
        "{prompt:{prompt}}",
        "{}",
        "{0}",
        "{ prompt }",
        "{prompt",
        "prompt}",
        "{prompt!}",
        "{[[prompt]]}",
        "{[[{prompt}]]",
    ],
)
def test_braces_hold_nothing_but_plain_names(body: str):
    assert 'question "reflect": ' in refusal(pack_text(reflect=body))


def test_one_refusal_names_every_problem():
    message = refusal(pack_text(think_first="", reflect="{colour}", other="Go on."))

    assert 'question "think_first" is empty' in message
    assert "has no placeholder {colour}" in message
    assert 'unknown question "other"' in message


# Digests and files


def test_the_digest_changes_with_the_text_alone():
    text = pack_text()

    assert read_pack(text, origin="a").digest == read_pack(text, origin="b").digest
    assert read_pack(text + "\n# a remark", origin="a").digest != read_pack(text, origin="a").digest


def test_a_pack_is_found_by_its_path(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text(pack_text(reflect="Is this a caf\u00e9?"), encoding="utf-8")

    pack = load_pack(str(path))

    assert pack.name == "small"
    assert pack.render("reflect", VALUES) == "Is this a caf\u00e9?"


def test_an_unknown_pack_is_refused_with_those_that_are_there(tmp_path: Path):
    for name in ("defualt", str(tmp_path / "none.toml"), str(tmp_path), ""):
        with pytest.raises(InputError, match=r"no template pack .*one of: .*default"):
            load_pack(name)


# The bundled packs


@pytest.mark.parametrize("name", bundled_packs())
def test_a_bundled_pack_goes_by_the_name_in_it(name: str):
    assert load_pack(name).name == name


@pytest.mark.parametrize("name", OF_RUNS)
def test_a_bundled_pack_has_a_wording_for_every_setting(name: str):
    pack = load_pack(name)

    assert set(pack.questions) >= set(PLACEHOLDERS) - {"reflect_first"}
    assert set(pack.region_names) >= {1, 2, 3, 4}


@pytest.mark.parametrize("name", SPOKEN)
@pytest.mark.parametrize(
    ("question", "objects"),
    [
        ("think_first", ["a red cube", "middle third"]),
        ("think_next", ["a red cube", "middle third", "a pale sky"]),
        ("reflect", ["a red cube", "middle third", "a pale sky", "a red cube on grass"]),
    ],
)
def test_a_bundled_question_mentions_all_that_its_answer_depends_on(
    name: str, question: str, objects: list[str]
):
    asked = load_pack(name).render(question, VALUES)

    assert all(value in asked for value in objects)


@pytest.mark.parametrize("name", OF_RUNS)
def test_a_bundled_critique_of_the_first_region_quotes_no_empty_thought(name: str):
    pack = load_pack(name)
    question = "reflect_first" if "reflect_first" in pack.questions else "reflect"

    assert '""' not in pack.render(question, VALUES | {"previous": ""})


@pytest.mark.parametrize("question", ["reflect", "ask_again"])
@pytest.mark.parametrize("name", SPOKEN)
def test_a_bundled_pack_asks_for_the_form_that_is_read(name: str, question: str):
    asked = load_pack(name).render(question, VALUES)
    form = asked[asked.rindex("SCORE:") :]
    answer = form.replace(form.splitlines()[0], "SCORE: 40")

    assert "IMPROVED_DESCRIPTION:" in form
    assert read_reflection(answer, theta=90).verdict is Verdict.REVISE
    assert read_reflection(form, theta=90).verdict is Verdict.UNPARSEABLE


@pytest.mark.parametrize("name", OF_RUNS)
def test_a_bundled_pack_asks_for_bands_in_the_form_that_is_read(name: str):
    values = {"prompt": "a red cube", "num_regions": 3, "num_rows": 24}
    asked = load_pack(name).render("schedule", values)
    geometry = Geometry(image_size=384, rows=24, columns=24, num_codes=16)
    label = asked[asked.rindex("BANDS:") :].split()[0]

    assert "a red cube" in asked
    assert read_schedule(f"{label} 30 40 30", geometry, 3).source == "adaptive"
    assert read_schedule(asked, geometry, 3).source == "fallback"
