"""Readings by a model: each claim of it must be in the prompt's own words."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.commands.prompts import PromptsRequest, make_prompt_file
from jobs.commands.terminal import Terminal
from pipeline.prompts.asked import SetAside, is_beyond_the_parser, read_by_model, spec_of_answer
from pipeline.prompts.curated import CuratedPrompt, curate_prompts
from pipeline.prompts.leaks import LeakIndex
from schemas.errors import EndpointAway, InputError
from schemas.prompts import Prompt
from schemas.specs import Confidence, PromptOrigin, PromptSpec, SpecSource
from tests.stand_in_server import MODEL, Asked, Reaction, completion, good_answer, stand_in_server

FRENCH = "deux chats roux assis devant une maison bleue"
READING: dict[str, Any] = {
    "is_sure": True,
    "objects": [
        {
            "words": "chats",
            "noun": "Cat",
            "count": 2,
            "count_words": "deux",
            "attributes": [{"words": "roux", "kind": "colour", "value": "red"}],
        },
        {"words": "maison", "noun": "house", "count": None, "count_words": None, "attributes": []},
    ],
    "relations": [
        {
            "words": "devant",
            "subject": 0,
            "relation": "in front of",
            "object": 1,
            "kind": "3d-spatial",
        }
    ],
}


def curated(text: str) -> CuratedPrompt:
    rows = [Prompt(text=text, metadata={}, source="prompts.txt", line=1)]
    (prompt,) = curate_prompts(rows, LeakIndex([]), drop=()).kept
    return prompt


def read(text: str, reading: Any) -> PromptSpec:
    return spec_of_answer(curated(text), json.dumps(reading), MODEL)


def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    reading: Any = json.loads(json.dumps(READING))
    inner = reading
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return dict(reading)


def test_a_prompt_in_another_language_has_a_spec_in_english():
    spec = read(FRENCH, READING)

    assert spec.detector_phrases == ("red cat", "house")
    assert [shown.count for shown in spec.objects] == [2, None]
    assert (spec.source, spec.confidence) == (SpecSource.MODEL, Confidence.MEDIUM)
    assert MODEL in spec.reason
    assert PromptSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        (("objects", 0, "words"), "chiens", "not in the prompt"),
        (("objects", 0, "words"), "chat", "not in the prompt"),  # a part of a word is no word
        (("objects", 0, "attributes", 0, "words"), "noirs", "not in the prompt"),
        (("objects", 0, "count_words"), "trois", "not in the prompt"),
        (("objects", 0, "count_words"), None, "not in the prompt"),
        (("relations", 0, "words"), "sur", "not in the prompt"),
        (("relations", 0, "object"), 7, "no reading"),
        (("objects",), [], "no reading"),
        (("objects", 0, "attributes", 0, "kind"), "mood", "no reading"),
        (("is_sure",), False, "not sure"),
        (("more",), 1, "no reading"),
    ],
)
def test_a_claim_that_the_prompt_does_not_make_sets_all_aside(
    path: tuple[Any, ...], value: Any, why: str
):
    with pytest.raises(SetAside, match=why):
        read(FRENCH, changed(path, value))


def test_what_is_said_to_be_absent_is_not_asked_for():
    car = {"words": "cars", "noun": "car", "count": None, "count_words": None, "attributes": []}
    street = car | {"words": "street", "noun": "street"}
    reading = {"is_sure": True, "objects": [street, car], "relations": []}

    with pytest.raises(SetAside, match="absent"):
        read("an empty street without any parked cars", reading)
    assert read("an empty street without a soul, and cars", reading).objects


def test_scripts_without_spaces_are_read_too():
    cat = {"words": "\u732b", "noun": "cat", "count": None, "count_words": None, "attributes": []}
    spec = read(
        "\u8d64\u3044\u732b\u304c\u3044\u308b", {"is_sure": True, "objects": [cat], "relations": []}
    )

    assert spec.detector_phrases == ("cat",)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40) | st.integers(0, 372).map(lambda stop: json.dumps(READING)[:stop]))
def test_no_answer_crashes_the_reading(answer: str):
    with pytest.raises(SetAside):
        spec_of_answer(curated(FRENCH), answer, MODEL)


def test_only_what_the_parser_cannot_read_is_asked():
    texts = ["a red cube", FRENCH, "a street without cars", "happiness"]

    assert [is_beyond_the_parser(curated(text)) for text in texts] == [False, True, True, False]


def test_a_reading_that_is_set_aside_leaves_what_the_parser_read():
    rows = [
        Prompt(text=text, metadata={}, source="prompts.txt", line=line)
        for line, text in enumerate([FRENCH, "a street without cars"], start=1)
    ]
    before = curate_prompts(rows, LeakIndex([]), drop=())
    after = read_by_model(before, MODEL, lambda prompts: [None] * len(prompts))

    assert [each.spec for each in after.kept] == [each.spec for each in before.kept]
    assert {each.model_fault for each in after.kept} == {"the endpoint had no answer"}


def make(folder: Path, url: str, *, parse: str | None = "reader") -> str:
    """What `coppice prompts` says of a French prompt and an English one."""
    (folder / "prompts.txt").write_text(f"{FRENCH}\na red cube\n")
    (folder / "ends.toml").write_text(
        f'[method.endpoints.reader]\nmodel = "{MODEL}"\n'
        f'[execution.endpoints.reader]\nurl = "{url}"\npatience_seconds = 0.2\n'
    )
    said = io.StringIO()
    request = PromptsRequest(
        sources=[str(folder / "prompts.txt")],
        out=folder / "out.jsonl",
        against=[],
        keep_leaks="L2,L3",
        hits=None,
        report=folder / "report.json",
        skip_bad=False,
        origin=PromptOrigin(),
        parse=parse,
        config=str(folder / "ends.toml"),
    )
    make_prompt_file(request, Terminal(said))
    return said.getvalue()


def test_the_command_asks_an_endpoint_and_writes_where_a_spec_is_from(tmp_path: Path):
    def react(asked: Asked) -> Reaction:
        is_ours = asked.schema == "prompt_spec"
        return Reaction(body=completion(json.dumps(READING))) if is_ours else good_answer(asked)

    with stand_in_server(react) as server:
        make(tmp_path, server.url)
    french, english = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())

    assert french["prompt_spec"]["source"] == "model"
    assert english["prompt_spec"]["source"] == "parser"
    assert len([asked for asked in server.asked if asked.schema == "prompt_spec"]) == 1


def test_without_its_endpoint_the_command_writes_nothing(tmp_path: Path):
    with stand_in_server() as server:
        url = server.url
    with pytest.raises(EndpointAway):
        make(tmp_path, url)
    with pytest.raises(InputError, match=r"no \[method.endpoints.nobody\]"):
        make(tmp_path, url, parse="nobody")
    assert not (tmp_path / "out.jsonl").exists()
