"""Photograph the page of `netspec serve` and the site in headless Chromium, and check what they ask for.

    python -m tools.site.screenshots runs/ht_cac_digits [TABLE_RUN] [--site build/site]

Pictures go to docs/pictures, light, dark and 390 pixels wide. docs/pictures/screenshots.json records what was found: no
error in the console, no request to another machine, nothing wider than its window; and the digest of the page's files.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import http.server
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tools.site.browser import Browser, Page

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "pictures"
RECORD = PICTURES / "screenshots.json"
SIZES = {"light": (1200, 800, False), "dark": (1200, 800, True), "phone": (390, 844, False)}
QUIET = "state.about && !state.asked"


def page_digest() -> str:
    """Of the files of the page."""
    files = sorted((ROOT / "netspec" / "serve" / "page").iterdir())
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


@contextmanager
def served(runs: list[Path]) -> Iterator[str]:
    """The address of a server of these run folders."""
    command = [sys.executable, "-m", "netspec", "serve", *map(str, runs), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None  # narrows the type
        line = process.stdout.readline()
        yield "http://" + line.split("http://")[1].split("/")[0]
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def files(folder: Path) -> Iterator[str]:
    """The address of a folder's files."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *values: object) -> None:
            """Says nothing."""

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def play_images(page: Page) -> None:
    """Hide a stroke, ask for the tree."""
    page.wait(f'{QUIET} && document.querySelectorAll("#pictures canvas").length == 6')
    page.evaluate("document.querySelector('[value=hide]').click(); $('size').value = 4")
    page.drag("#board", [(0.1, 0.1), (0.5, 0.15), (0.9, 0.2), (0.9, 0.4), (0.2, 0.35)])
    page.wait(f"{QUIET} && state.best")
    page.evaluate("growTree()")
    page.wait("!$('tree').hidden && $('tree').complete")


def play_table(page: Page) -> None:
    """Empty two cells."""
    page.wait(f'{QUIET} && document.querySelectorAll("#answers tbody tr").length > 1')
    for i in (0, 2):
        page.evaluate(
            f"(c => {{ c.value = ''; c.dispatchEvent(new Event('input')); }})($('cells').elements[{i}])"
        )
    page.wait(QUIET)


def photograph(
    browser: Browser, url: str, name: str, play: Callable[[Page], None] | None
) -> list[dict[str, Any]]:
    """A picture at each size; what each page said and asked for."""
    pictures = []
    for word, (width, height, dark) in SIZES.items():
        with browser.page(width, height, dark) as page:
            page.goto(url)
            if play is not None:
                play(page)
            time.sleep(0.4)  # for transitions to end
            picture = page.screenshot(PICTURES / f"{name}_{word}.png", whole=play is not None)
            pictures.append({
                "picture": picture.name, "console_errors": page.errors, "requests": len(page.requests),
                "requests_to_other_machines": page.outside(),
                "wider_than_window": page.evaluate("document.documentElement.scrollWidth") > width,
            })  # fmt: skip
    return pictures


def command(run: Path, table: Path | None, site: Path | None) -> str:
    """The command line, its folders by name alone, wherever they lay."""
    runs = [f"runs/{folder.name}" for folder in (run, table) if folder]
    return " ".join(["python -m tools.site.screenshots", *runs, *(["--site", site.name] if site else [])])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("run", type=Path, help="of a generative net over images")
    parser.add_argument("table", type=Path, nargs="?", help="of a net over a table")
    parser.add_argument("--site", type=Path, help="the built site")
    options = parser.parse_args()
    shots: list[dict[str, Any]] = []
    with Browser() as browser:
        with served([options.run]) as url:
            shots += photograph(browser, url, "serve", play_images)
        if options.table:
            with served([options.table]) as url:
                shots += photograph(browser, url, "serve_table", play_table)
        if options.site:
            with files(options.site) as url:
                shots += photograph(browser, f"{url}/index.html", "site", None)
                shots += photograph(browser, f"{url}/tutorials/holes.html", "site_tutorial", None)
    record = {
        "command": command(options.run, options.table, options.site),
        "page": page_digest(),
        "pictures": shots,
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    faults = ("console_errors", "requests_to_other_machines", "wider_than_window")
    wrong = [one for one in shots if any(one[fault] for fault in faults)]
    print(json.dumps(wrong or {"pictures": len(shots), "wrong": 0}, indent=1))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
