"""The gallery's page as people use it: by mouse, by keyboard, on a phone, in the dark."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import NUM_PROMPTS, NUM_ROLLOUTS, Watched
from tests.pipeline.view.gallery.reading import grid_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
ALL = NUM_PROMPTS * NUM_ROLLOUTS


def count(page: "Page") -> int:
    """How many traces the filters leave."""
    return int(page.inner_text("#count").partition(" of ")[0].replace(",", ""))


def wait_for_text(page: "Page", selector: str, text: str) -> None:
    """As `Page.wait_for_function`, which a page's policy may forbid: it evaluates in the page."""
    page.locator(selector, has_text=text).wait_for()


def first_id(page: "Page") -> str:
    return page.get_attribute(".card >> nth=0", "href") or ""


# Filters and orders


def test_it_opens_with_all_traces_in_pages(desk: Watched, gallery: Path):
    page = desk.open(gallery)

    assert count(page) == ALL
    assert page.locator(".card").count() == 72
    page.click("#after")
    assert page.locator(".card").count() == ALL - 72
    assert page.inner_text("#page") == "2 / 2"
    assert page.is_disabled("#after")


def test_it_filters_by_words_and_buttons(desk: Watched, gallery: Path):
    grid = grid_of(gallery)
    page = desk.open(gallery)

    page.fill("#text", "NUMBER 7")
    assert count(page) == sum("number 7" in prompt for prompt in grid["prompt"])
    page.fill("#text", "")
    page.locator("#facet-verdict label", has_text="revise").click()
    assert count(page) == grid["verdict"].count("revise")
    page.locator("#facet-verdict label", has_text="accept").click()
    assert count(page) == sum(verdict in ("revise", "accept") for verdict in grid["verdict"])
    page.locator("#facet-status label", has_text="dead").click()
    assert count(page) == sum(
        status == "dead" and verdict in ("revise", "accept")
        for status, verdict in zip(grid["status"], grid["verdict"], strict=True)
    )
    page.click("text=Show all again")
    wait_for_text(page, "#count", f"{ALL} of")


def test_it_filters_by_histograms_and_numbers(desk: Watched, gallery: Path):
    scores = [score for score in grid_of(gallery)["score"] if score is not None]
    page = desk.open(gallery)
    bars = page.locator("#histogram-score .bars button")

    bars.nth(8).click()  # 40 to 45
    assert count(page) == sum(40 <= score < 45 for score in scores)
    bars.nth(9).click(modifiers=["Shift"])
    assert count(page) == sum(40 <= score < 50 for score in scores)
    page.click("text=Show all again")
    page.fill("#histogram-score input >> nth=0", "90")
    page.press("#histogram-score input >> nth=0", "Enter")
    assert count(page) == sum(score >= 90 for score in scores)
    bars.nth(19).click()  # the last bin holds its upper edge
    assert count(page) == sum(score >= 95 for score in scores)
    bars.nth(19).click()  # again: no bound any more
    assert count(page) == ALL


def test_it_orders(desk: Watched, gallery: Path):
    grid = grid_of(gallery)
    page = desk.open(gallery)

    page.select_option("#sort", "score|down")

    shown = [link.get_attribute("href") for link in page.locator(".card").all()]
    scores = [grid["score"][grid["trace_id"].index((href or "")[1:])] for href in shown]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) > 3


def test_critic_and_judge_are_set_against_each_other(desk: Watched, gallery: Path):
    page = desk.open(gallery)
    cell = page.locator("#matrix button:not([disabled])").first
    expected = int((cell.get_attribute("aria-label") or "").rpartition(": ")[2])

    cell.click()

    assert count(page) == expected > 0
    page.select_option("#sort", "disagreement|down")
    assert page.locator(".card").count() == min(expected, 72)


# One trace


def test_a_trace_opens_and_the_keys_go_on(desk: Watched, gallery: Path):
    page = desk.open(gallery)
    second = page.get_attribute(".card >> nth=1", "href") or ""

    page.locator(".card").first.click()
    page.wait_for_selector(".frame .picture[role=img]")
    assert page.inner_text("#strip-place") == f"1 of {ALL}"
    page.keyboard.press("ArrowRight")
    page.wait_for_url(f"**{second}")
    wait_for_text(page, "#strip-place", "2 of")
    page.keyboard.press("k")
    wait_for_text(page, "#strip-place", "1 of")
    page.keyboard.press("Escape")
    page.wait_for_selector("#strip", state="hidden")
    assert "#" not in page.url
    assert page.evaluate("document.activeElement.getAttribute('href')") == first_id(page)


def test_a_link_opens_its_trace(desk: Watched, gallery: Path):
    grid = grid_of(gallery)
    trace_id = grid["trace_id"][-1]

    page = desk.open(gallery, f"#{trace_id}")

    page.wait_for_selector("#strip-body")
    assert trace_id in page.inner_text("#strip-body")
    assert page.inner_text("#strip-prompt") == grid["prompt"][-1]
    page.go_back()


def test_the_keyboard_finds_and_opens(desk: Watched, gallery: Path):
    page = desk.open(gallery)

    page.keyboard.press("/")
    page.keyboard.type("number 3")
    page.locator("#traces").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.className") == "card"
    page.keyboard.press("Enter")
    page.wait_for_selector(".frame")
    assert "number 3" in page.inner_text("#strip-prompt")


def test_it_shows_a_drawing_beside_its_revision(desk: Watched, gallery: Path):
    page = desk.open(gallery)
    page.locator("#facet-revised label", has_text="drawn again").click()

    page.locator(".card").first.click()
    page.wait_for_selector(".frame.replaced")

    left, right = (
        page.locator(selector).first.bounding_box()
        for selector in (".frame.replaced .picture", ".frame.revision .picture")
    )
    assert left
    assert right
    assert left["y"] == right["y"]
    assert 0 < right["x"] - left["x"] - left["width"] < 40
    assert page.inner_text(".frame.replaced .badge.revise") == "revise"


def test_each_picture_has_a_name_for_who_cannot_see_it(desk: Watched, gallery: Path):
    page = desk.open(gallery)
    page.locator(".card").nth(3).click()
    page.wait_for_selector(".frame .picture")

    assert page.get_by_role("img", name="canvas after region 1").count() > 0
    assert page.get_by_role("button", name="Next trace").count() == 1
    assert page.get_by_role("status").count() == 1
    assert page.locator("img:not([alt]), [role=img]:not([aria-label])").count() == 0


# Side by side


def test_the_best_and_the_worst_of_a_prompt_stand_side_by_side(desk: Watched, gallery: Path):
    page = desk.open(gallery)
    page.select_option("#sort", "score|down")

    page.locator("#views label", has_text="Best and worst").click()

    pair = page.locator(".pair").first
    assert pair.locator(".card").count() == 2
    grid = grid_of(gallery)
    best, worst = (
        grid["score"][grid["trace_id"].index((card.get_attribute("href") or "")[1:])]
        for card in pair.locator(".card").all()
    )
    assert best > worst
    assert f"best and worst of {NUM_ROLLOUTS}" in pair.inner_text()


def test_two_runs_stand_side_by_side(desk: Watched, both: Path):
    page = desk.open(both)
    assert page.locator("#facet-run").count() == 1

    page.locator("#views label", has_text="Side by side").click()

    names = page.locator(".pair").first.locator(".badges > :first-child").all_inner_texts()
    assert names == ["first", "second"]
    hrefs = [card.get_attribute("href") for card in page.locator(".pair >> nth=0 >> .card").all()]
    assert len({(href or "").partition("-")[2] for href in hrefs}) == 1


# Where it is looked at


def test_nothing_is_wider_than_a_phone(browser: "Browser", gallery: Path):
    phone = {"width": 375, "height": 740}
    with browser.new_context(viewport=phone, has_touch=True) as context:
        watched = Watched(context, gallery.parents[1])
        page = watched.open(gallery)
        wide = "document.documentElement.scrollWidth > innerWidth"
        assert not page.evaluate(wide)
        page.locator("summary", has_text="Filters").tap()
        assert page.is_visible("#text")
        assert not page.evaluate(wide)
        page.locator(".card").first.tap()
        page.wait_for_selector(".frame")
        assert not page.evaluate("document.getElementById('strip').scrollWidth > innerWidth")
        assert watched.said == []


def test_it_is_dark_where_one_likes_it_so(browser: "Browser", gallery: Path):
    shades = {}
    for scheme in ("light", "dark"):
        with browser.new_context(color_scheme=scheme) as context:
            page = Watched(context, gallery.parents[1]).open(gallery)
            look = "['backgroundColor', 'color'].map(name => getComputedStyle(document.body)[name])"
            shades[scheme] = [
                sum(map(int, colour.strip("rgba()").split(", ")[:3]))
                for colour in page.evaluate(look)
            ]

    assert shades["light"][0] > 600 > 300 > shades["light"][1]
    assert shades["dark"][1] > 600 > 300 > shades["dark"][0]


def test_it_is_the_same_over_http(browser: "Browser", gallery: Path):
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(gallery)))
    Thread(target=server.serve_forever, daemon=True).start()
    home = f"http://127.0.0.1:{server.server_port}/"
    try:
        with browser.new_context() as context:
            page, said, asked = context.new_page(), [], []
            page.on("console", lambda message: said.append(message.text))
            page.on("request", lambda request: asked.append(request.url))
            page.goto(f"{home}index.html")
            page.wait_for_selector(".card")
            page.locator(".card").first.click()
            page.wait_for_selector(".frame .picture[role=img]")
            assert said == []
            assert all(url.startswith(home) for url in asked)
    finally:
        server.shutdown()
        server.server_close()
