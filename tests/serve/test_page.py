"""The page: its size, and what a person does on it, in headless Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources

import pytest

from tools.site.browser import Browser, Page, program

needs_browser = pytest.mark.skipif(program() is None, reason="no Chromium is installed")
QUIET = "state.about && !state.asked"


def test_page_is_small_and_names_no_other_machine() -> None:
    folder = resources.files("netspec.serve") / "page"
    contents = [file.read_bytes() for file in folder.iterdir()]
    assert sum(map(len, contents)) <= 150_000
    for content in contents:
        text = content.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text
        assert "https://" not in text


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as made:
        yield made


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    with browser.page(390, 844) as made:
        made.goto(f"http://{address}/")
        made.wait(f'{QUIET} && document.querySelectorAll("#pictures canvas").length == 6')
        yield made
        assert made.errors == []
        assert made.outside() == []


@needs_browser
@pytest.mark.slow
def test_hiding_pixels_changes_what_is_seen(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate("document.querySelectorAll('#bars .bar').length") == 10
    assert "64 of 64" in page.evaluate("$('facts').textContent").replace("\u2009", " ")
    page.evaluate("document.querySelector('[value=hide]').click()")
    page.drag("#board", [(0.2, 0.2), (0.8, 0.2)])
    page.wait(f"{QUIET} && state.best")
    seen = page.evaluate("state.seen.filter(Boolean).length")
    assert 0 < seen < 64
    assert f"{seen} of 64" in page.evaluate("$('facts').textContent")
    best = page.evaluate("state.best")
    rows = [best["row"] * best["size"] + i for i in range(best["size"])]
    columns = [best["column"] * best["size"] + i for i in range(best["size"])]
    hidden = page.evaluate("state.seen.map((one, i) => one ? -1 : i).filter((i) => i >= 0)")
    assert any(8 * r + c in hidden for r in rows for c in columns)
    page.evaluate("document.getElementById('revealall').click()")
    page.wait(f"{QUIET} && state.best === null && state.seen.every(Boolean)")


@needs_browser
@pytest.mark.slow
def test_tree_and_keyboard_and_refusals(page: Page) -> None:
    page.evaluate("growTree()")
    page.wait("!$('tree').hidden && $('tree').naturalWidth > 100")
    page.evaluate("$('blank').click()")
    page.wait(f"{QUIET} && state.values.every((one) => one === 0)")
    page.evaluate("$('board').focus()")
    for key in ("ArrowLeft", " "):
        page.call("Input.dispatchKeyEvent", type="keyDown", key=key)
    page.wait(f"{QUIET} && state.values.some((one) => one > 0)")
    page.evaluate("state.about.input = 'nothing'; changed()")
    page.wait("$('state').classList.contains('bad')")
    assert "no input 'nothing'" in page.evaluate("$('state').textContent")
    page.errors.clear()  # the browser names each answer of 400 in its console


@needs_browser
@pytest.mark.slow
def test_a_classifier_without_missing_values_hides_the_brushes(browser: Browser, address: str) -> None:
    with browser.page(1200, 800, dark=True) as page:
        page.goto(f"http://{address}/?model=plain")
        page.wait(f"{QUIET} && document.querySelectorAll('#bars .bar').length == 3")
        assert page.evaluate("[...document.querySelectorAll('[data-missing]')].every((one) => one.hidden)")
        assert page.errors == []
