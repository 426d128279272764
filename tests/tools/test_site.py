"""The site: it builds without a warning, and its command blocks are those that were run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.places import ROOT
from tools.site import blocks, screenshots
from tools.site.notebooks import as_markdown

PAGE = """
Text.

```sh
echo one
```

<!-- short: echo two -->
```sh
echo many
```

<!-- not run: it waits -->
```python
while True: pass
```

```text
output
```
"""


def test_blocks_of_a_page() -> None:
    first, second, third = blocks.blocks(PAGE)
    assert (first.script, first.not_run) == ("echo one\n", None)
    assert (second.text, second.script) == ("echo many\n", "echo two")
    assert third.not_run == "it waits"


def test_a_block_that_fails_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(blocks, "DOCS", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("```sh\ntrue\n```\n\n```python\nraise SystemExit(3)\n```\n\n```sh\ntrue\n```\n")
    entry = blocks.run_page(page)
    assert (entry["ok"], entry["blocks"]) == (False, 2)
    assert "SystemExit(3)" in capsys.readouterr().err


def test_every_page_is_as_it_was_run() -> None:
    assert blocks.stale() == []


def test_a_changed_page_is_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "DOCS", tmp_path)
    monkeypatch.setattr(blocks, "RECORD", tmp_path / "blocks.json")
    (tmp_path / "how-to").mkdir()
    page = tmp_path / "how-to" / "a.md"
    page.write_text("```sh\ntrue\n```\n")
    assert "was never run" in blocks.stale()[0]
    (tmp_path / "blocks.json").write_text(json.dumps({"how-to/a.md": blocks.run_page(page)}))
    assert blocks.stale() == []
    page.write_text("Other words.\n\n```sh\ntrue\n```\n")
    assert blocks.stale() == []
    page.write_text("```sh\ntrue --more\n```\n")
    assert "was changed since it was run" in blocks.stale()[0]


def test_a_notebook_as_a_page(tmp_path: Path) -> None:
    output = {"output_type": "display_data", "data": {"image/png": "iVBORw0KGgo="}}
    cells = [
        {"cell_type": "markdown", "source": ["# Title"]},
        {
            "cell_type": "code",
            "source": ["1 + 1"],
            "outputs": [{"output_type": "stream", "text": ["2\n"]}, output],
        },
    ]
    path = tmp_path / "n.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    text, pictures = as_markdown(path)
    assert "# Title" in text
    assert "```text\n2\n```" in text
    assert pictures == {"n_1_1.png": b"\x89PNG\r\n\x1a\n"}
    assert "![what the cell drew](n_1_1.png)" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in blocks.pages() if page.suffix == ".md"], ids=blocks.name_of
)
def test_the_first_block_of_a_page_runs(page: Path) -> None:
    entry = blocks.run_page(page, first_only=True)
    assert entry["ok"]


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Offline: mkdocs asks nothing of another machine; a broken link or anchor is a warning, and that an error."""
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("index.html", "tutorials/caffe.html", "reference/fields.html", "reference/command.html"):
        assert (tmp_path / "site" / name).is_file()


def test_the_record_of_the_pictures_names_folders_alone() -> None:
    made = screenshots.command(Path("/a/b/digits"), Path("c/iris"), Path("/d/site"))
    assert made == "python -m tools.site.screenshots runs/digits runs/iris --site site"
    assert screenshots.command(Path("digits"), None, None) == "python -m tools.site.screenshots runs/digits"
    kept = json.loads(screenshots.RECORD.read_text(encoding="utf-8"))["command"]
    assert kept == made.replace("runs/digits", "runs/ht_cac_digits")
