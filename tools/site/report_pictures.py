"""Photograph a report of runs in headless Chromium, in light, in dark and 390 pixels wide.

    python -m tools.site.report_pictures docs/results/sweep_report.html

Pictures lie beside the page: sweep_report_light.png and so on. Fails where the console has an error, or a request
leaves the page.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from PIL import Image

from tools.site.browser import Browser
from tools.site.screenshots import SIZES, files

HEIGHT = 3200
"""Pixels of a picture: all charts, without the pictures of the net behind them."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    given = parser.parse_args()
    wrong = []
    with Browser() as browser, files(given.page.parent) as address:
        for word, (width, _, dark) in SIZES.items():
            with browser.page(width, HEIGHT, dark) as page:
                page.goto(f"{address}/{given.page.name}")
                page.wait("document.readyState == 'complete'")
                time.sleep(1.0)  # for charts to be drawn
                picture = page.screenshot(given.page.with_name(f"{given.page.stem}_{word}.png"), whole=False)
                wide = page.evaluate("document.documentElement.scrollWidth") > width
                wrong += [
                    *page.errors,
                    *page.outside(),
                    *([f"{picture}: wider than its window"] if wide else []),
                ]
                with Image.open(picture) as taken:
                    taken.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(picture, optimize=True)
                print(picture)
    if wrong:
        print("\n".join(map(str, wrong)), file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
