"""Debian's Chromium, driven by Playwright, and galleries to drive it through."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.store.open import open_store
from pipeline.view.gallery.write import Gallery, write_gallery
from pipeline.view.runs import choose, view_run
from schemas.config import Pictures
from tests.pipeline.conftest import score
from tests.support import SMALL, fake_config, fake_method, plan_run, run_all

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

NUM_PROMPTS, NUM_ROLLOUTS = 40, 3


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    """Fails without Playwright (`make test-browser` brings it) and without Chromium."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    assert chromium, "there is no chromium: apt-get install chromium"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


class Watched:
    """A page of which all that it says and asks for is kept."""

    def __init__(self, context: "BrowserContext", folder: Path) -> None:
        self.page: Page = context.new_page()
        self.said: list[str] = []
        self.foreign: list[str] = []
        home = folder.as_uri()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on(
            "request",
            lambda request: request.url.startswith(home) or self.foreign.append(request.url),
        )
        self.page.on("dialog", lambda dialog: self.said.append(f"dialog: {dialog.message}"))

    def open(self, folder: Path, fragment: str = "") -> "Page":
        self.page.goto(f"{(folder / 'index.html').as_uri()}{fragment}")
        self.page.wait_for_selector(".card, .nothing")
        return self.page


def grow(folder: Path, *, seed: int = 0, dead_share: float = 0.05) -> str:
    store = open_store(str(folder))
    fake = SMALL.model_copy(update={"dead_share": dead_share, "unparseable_share": 0.1})
    config = fake_config(fake_method(fake, seed=seed, pictures=Pictures.NONE))
    manifest = plan_run(store, NUM_PROMPTS, config, rollouts_per_record=NUM_ROLLOUTS)
    run_all(store, manifest, attempt=2)
    score(store, "critiques", "tokens")
    return store.url


def write(urls: list[str], out: Path) -> Path:
    runs = [view_run(url) for url in urls]
    gallery = Gallery(
        title="a run of the fake",
        about="for tests",
        runs=tuple(runs),
        names=tuple(Path(url).name for url in urls),
        chosen=choose(runs),
        are_beside=len(runs) > 1,
    )
    write_gallery(gallery, open_store(str(out)))
    return out


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 traces of 40 prompts, some dead, with scores."""
    folder = tmp_path_factory.mktemp("gallery")
    return write([grow(folder / "run")], folder / "out")


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of the same prompts, side by side."""
    folder = tmp_path_factory.mktemp("both")
    urls = [grow(folder / "first"), grow(folder / "second", seed=1)]
    return write(urls, folder / "out")


@pytest.fixture
def desk(browser: "Browser", gallery: Path) -> "Iterator[Watched]":
    """A page on a desk; in the end nothing was said on its console, and nothing left it."""
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        watched = Watched(context, gallery.parents[1])
        yield watched
        assert watched.said == []
        assert watched.foreign == []


def facts_of(out: Path) -> dict[str, list[float | str | None]]:
    """The columns of the grid."""
    from tests.pipeline.view.gallery.reading import grid_of

    return json.loads(json.dumps(grid_of(out)))
