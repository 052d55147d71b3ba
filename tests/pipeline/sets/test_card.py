"""The card: whatever a recipe is called, the hub reads its name back."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from huggingface_hub import DatasetCard
from markdown_it import MarkdownIt

from pipeline.select.selection import open_curation
from pipeline.sets.adding import add_exports
from pipeline.sets.card import front_matter
from pipeline.sets.write import write_set
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.runs import open_run
from schemas.recipes import Recipe
from schemas.sets import StreamFiles
from tests.support import plan_run, replace_object, run_all

FILES = {
    key: StreamFiles(num_rows=1, files=(f"{key}-00000.parquet",))
    for key in (
        *("exports/trl/train/part", "sft/draw_1/train", "sft/draw_1/validation"),
        "sft/think_2/train",
    )
}
HOSTILE = [
    "TWIG: small [v1]",
    "it's a \"quoted\" 'name'",
    "two\nlines",
    "small\n---\nlicense: mit",
    "---\n# Free",
    "---",
    "...",
    "# no comment",
    "- an item",
    "{a: b}",
    "[a, b]",
    "yes",
    "null",
    "1e3",
    "2026-01-01",
    " spaces around ",
    "tab\tand\r\nreturn",
    "\U0001f333 \u6a39 tree",
    "\x1b[31mred\x00\x07 \x85\u2028\ufeff",
    "!!python/object/apply:os.system [id]",
    "*alias &anchor %directive @at `tick` | > ?",
    "many words " * 50,
    "",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_is_read_back_as_it_is(name: str):
    text = f"{front_matter(name, FILES)}\n\n# the rest\n"
    card = DatasetCard(text)
    block, rest = text.removeprefix("---\n").split("\n---\n")

    assert card.data.pretty_name == yaml.safe_load(block)["pretty_name"] == name
    assert card.data.license == "other"
    assert card.text == rest == "\n# the rest\n"


def test_a_card_has_a_config_a_task_and_none_for_exports():
    data = DatasetCard(f"{front_matter('some', FILES)}\n").data

    draw, think = data["configs"]
    assert [file["split"] for file in draw["data_files"]] == ["train", "validation"]
    assert draw["data_files"][1]["path"] == "sft/draw_1/validation-*.parquet"
    assert (draw["config_name"], think["config_name"]) == ("draw_1", "think_2")


@pytest.mark.parametrize("name", ["TWIG: small [v1]", "small\n---\nlicense: mit\n# Free"])
def test_the_card_of_a_set_says_its_name_on_one_line(fake_run: Store, tmp_path: Path, name: str):
    curation = open_curation([open_run(fake_run.url)], Recipe(name=name), tmp_path)
    write_set(curation, open_store(str(tmp_path / "out")))
    card = DatasetCard.load(tmp_path / "out" / "README.md")

    assert card.data.pretty_name == name
    assert card.data.license == "other"
    assert card.text.lstrip().partition("\n")[0] == f"# {' '.join(name.split())}"


HOSTILE_LINES = ["x\n```\n<img src=x onerror=alert(1)>\n\n## Licences\n\nMIT\n```", "\x1b[31m`````"]


@pytest.mark.parametrize("category", HOSTILE_LINES)
def test_what_prompts_say_stays_in_its_block(tmp_path: Path, category: str):
    run = open_store(str(tmp_path / "run"))
    run_all(run, plan_run(run, 3))
    metadata = json.dumps({"category": category})
    replace_object(run, 0, rows=lambda rows: [row | {"metadata": metadata} for row in rows])
    curation = open_curation([open_run(run.url)], Recipe(name="some", pictures="tokens"), tmp_path)
    write_set(curation, open_store(str(tmp_path / "out")))

    text = (tmp_path / "out" / "README.md").read_text()

    assert "By category: " in text
    assert not [char for char in text if not char.isprintable() and char != "\n"]
    tokens = MarkdownIt().parse(text.split("\n---\n", 1)[1])
    headings = [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]
    assert [name for name in headings if name.startswith("Licences")] == [
        "Licences and restrictions"
    ]
    assert not [token for token in tokens if token.type == "html_block"]


def test_words_of_a_recipe_stay_beside_exports(tmp_path: Path, fake_run: Store):
    about = "Mine.\n\n## Exports\n\nPublished for verl.\n\n## Where it comes from\n\nHere."
    out = open_store(str(tmp_path / "out"))
    curation = open_curation([open_run(fake_run.url)], Recipe(name="some", about=about), tmp_path)
    write_set(curation, out)
    add_exports(out, ["trl"], [], [])
    add_exports(out, ["verl"], [], [])

    text = (tmp_path / "out" / "README.md").read_text()

    assert about in text
    assert text.count("## Exports") == 2
    assert text.count("- `trl`, version") == text.count("- `verl`, version") == 1
    for heading in ("Rows", "Funnel", "Scorers"):
        assert text.count(f"\n## {heading}\n") == 1
