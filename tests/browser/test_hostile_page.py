"""Whatever prompts, thoughts, critiques, metadata and recipes say, a page shows it as text."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import coppice
from pipeline.select.selection import open_curation
from pipeline.sets.write import write_set
from pipeline.store.open import open_store
from pipeline.store.runs import open_run
from pipeline.twig.requests import Request, Text
from pipeline.view.gallery.write import Gallery, write_gallery
from pipeline.view.runs import choose
from pipeline.view.sets import ViewedSet, view
from pipeline.view.text import visible
from schemas.config import Pictures
from schemas.errors import RecordFailure, RolloutError
from schemas.recipes import Recipe
from schemas.trace import Role
from tests.browser.conftest import Watched
from tests.support import at_work, attempt_at, fake_config, fake_method, plan_run, replace_object

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

RIGHT_TO_LEFT = "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd"
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</script><svg/onload=alert(1)>",
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "[link](javascript:alert(1)) <a href='javascript:alert(1)'>here</a>",
    "{{7*7}} ${alert(1)} <%= 1 %>",
    "url(https://example.com/x.png) @import 'https://example.com/x.css'",
    "https://example.com/?&lt;&amp;&#60;",
    f"{RIGHT_TO_LEFT} \u202egnp.exe\u2066\u200f",
    "\U0001f469\u200d\U0001f680 \U0001f3f3\ufe0f \u2028 \u0000 \x1b[31m",
)
ALL = " | ".join(HOSTILE)
LONG = "x" * 10_000
METADATA = json.dumps({"__proto__": ALL, "category": f"<b>{ALL}", ALL: ALL, "long": LONG})


def answer(request: Request) -> str | RolloutError | None:
    """All that a model says is hostile, and one rollout dies with hostile words."""
    if not isinstance(request, Text) or request.role is Role.SCHEDULE:
        return None
    if "dead" in repr(request.messages):
        return RecordFailure(ALL, reason="scripted")
    if request.role is Role.REFLECT:
        return f"SCORE: 40\nIMPROVED_DESCRIPTION: {ALL}"
    return f"{ALL} {LONG}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    store = open_store(str(tmp_path_factory.mktemp("hostile") / "<b>run"))
    prompts = [f"{word} {''.join(c for c in ALL if c.isprintable())}" for word in ("cat", "dead")]
    manifest = plan_run(store, prompts, fake_config(fake_method(pictures=Pictures.ALL)))
    with at_work(store, manifest, script=answer) as worker:
        worker.run_shard(attempt_at(0, 2))
    rows = {"metadata": METADATA, "prompt": f"{ALL} {LONG}"}
    replace_object(store, 0, rows=lambda old: [row | rows for row in old])
    return store.url


@pytest.fixture(scope="module")
def page(
    browser: "Browser", run: str, tmp_path_factory: pytest.TempPathFactory
) -> "Iterator[Page]":
    """The gallery of a set of that run, with the first trace open, on a phone."""
    recipe = Recipe(name=ALL, pictures="tokens")
    folder = tmp_path_factory.mktemp("set")
    write_set(open_curation([open_run(run)], recipe, Path()), open_store(str(folder / "set")))
    viewed = view(str(folder / "set"), [run])
    assert isinstance(viewed, ViewedSet)
    gallery = Gallery(
        title=ALL,
        about=recipe.name,
        runs=viewed.runs,
        names=(ALL,),
        chosen=choose(viewed.runs),
        is_set=True,
    )
    write_gallery(gallery, open_store(str(folder / "out")))
    with browser.new_context(viewport={"width": 390, "height": 800}) as context:
        watched = Watched(context, folder / "out")
        page = watched.open(folder / "out")
        page.evaluate("document.getElementById('side').open = true")
        page.locator(".card").first.click()
        page.wait_for_selector(".frame")
        for summary in page.locator("#strip-body summary").all():
            summary.click()
        yield page
        assert watched.said == []
        assert watched.foreign == []


def shown(page: "Page", selector: str) -> str:
    return str(page.evaluate(f"document.querySelector('{selector}').textContent"))


@pytest.mark.parametrize(
    "selector",
    ["#strip-prompt", ".thought", ".better", ".said pre", ".facts dl"],
)
def test_it_is_text_where_a_trace_is_shown(page: "Page", selector: str):
    text = shown(page, selector)

    # Thoughts are single lines: what is white space to Python is a space in them.
    for hostile in HOSTILE[:-1]:
        assert visible(hostile) in text, hostile


@pytest.mark.parametrize("selector", ["#title", "#about"])
def test_it_is_text_in_titles_and_names_of_recipes(page: "Page", selector: str):
    assert shown(page, selector) == visible(ALL)


def test_long_texts_are_there_whole_and_nothing_is_wider_than_the_page(page: "Page"):
    assert LONG in shown(page, "#strip-prompt")
    assert LONG in shown(page, ".facts")
    assert page.evaluate("document.getElementById('strip').scrollWidth <= innerWidth")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_it_made_no_elements_and_no_links(page: "Page"):
    made = page.evaluate(
        "[...document.querySelectorAll('img, svg, iframe, script:not([src]), [onerror], [onload], "
        '[onmouseover], a:not([href^="#"])\')].map(e => e.outerHTML)'
    )

    assert made == []
    assert page.evaluate("({}).category === undefined")  # __proto__ was a name


def test_the_policy_forbids_what_would_have_to_slip_through(browser: "Browser", page: "Page"):
    other = browser.new_page()  # whose console says that something was blocked
    other.goto(page.url)
    blocked = other.evaluate(
        """() => {
          const results = [];
          for (const html of ["<img src=x onerror=alert(1)>", "<b>bold</b>"]) {
            try { document.body.innerHTML += html; results.push("taken"); }
            catch (error) { results.push(error.name); }
          }
          const script = document.createElement("script");
          try { script.src = "https://example.com/x.js"; results.push("taken"); }
          catch (error) { results.push(error.name); }
          return results;
        }"""
    )
    other.close()

    assert blocked == ["TypeError"] * 3


def test_a_notebook_shows_it_as_text(browser: "Browser", run: str, tmp_path: Path):
    traces = coppice.open(run).traces()
    html = traces._repr_html_()
    (tmp_path / "index.html").write_text(f"<!doctype html><meta charset=utf-8>{html}")
    with browser.new_context() as context:
        watched = Watched(context, tmp_path)
        watched.page.goto((tmp_path / "index.html").as_uri())
        text = watched.page.inner_text("body")
        for hostile in HOSTILE[:9]:
            assert hostile in text
        assert "\\u202egnp.exe" in text
        elements = "[...document.querySelectorAll('body *')].map(e => e.tagName)"
        assert set(watched.page.evaluate(elements)) <= {"DIV", "P", "B", "BR", "SPAN", "IMG", "HR"}
        attributes = "[...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames())"
        assert set(watched.page.evaluate(attributes)) <= {"charset", "style", "dir", "alt", "src"}
        sources = watched.page.evaluate("[...document.images].map(e => e.src.slice(0, 11))")
        assert set(sources) == {"data:image/"}
        assert watched.said == []
        assert [url for url in watched.foreign if not url.startswith("data:")] == []
