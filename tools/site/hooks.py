"""What the site gains while it is built: the reference from code and schema, notebooks as pages, the navigation.

mkdocs calls these functions by their names (mkdocs.yml: hooks).
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # mkdocs loads this file by its path

from tools.site import reference  # noqa: E402
from tools.site.notebooks import as_markdown  # noqa: E402

SECTIONS = {
    "Tutorials": ["tutorials/caffe.md", "tutorials/holes.md", "tutorials/papers.md"],
    "How to": ["how-to/*.md"],
    "Guides": ["missing-data.md", "serving.md", "exchange.md", "pycaffe.md", "*.md"],
    "Notebooks": ["notebooks/*.md"],
    "Reference": ["reference/*.md", "layers.md", "errors/*.md"],
    "Results": ["results/README.md", "results/*.md", "results/*/*.md"],
    "Gallery": ["gallery.md"],
}
"""Pages of each section, in order; a page stands in the first that names it, by its name before by a pattern."""
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are generated."""
    for name, text in reference.pages().items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    for notebook in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        text, pictures = as_markdown(notebook)
        if (source := files.get_file_from_path(f"notebooks/{notebook.name}")) is not None:
            files.remove(source)
        files.append(File.generated(config, f"notebooks/{notebook.stem}.md", content=text))
        for name, raw in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=raw))
    config.nav = navigation([file.src_uri for file in files.documentation_pages()])
    return files


def navigation(pages: list[str]) -> list[Any]:
    """The sections with their pages; what no section names is a guide."""
    left = set(pages) - {"index.md"}
    named = {pattern for patterns in SECTIONS.values() for pattern in patterns if "*" not in pattern}
    sections: list[Any] = [{"Home": "index.md"}]
    for section, patterns in SECTIONS.items():
        chosen: list[str] = []
        for pattern in patterns:
            some = [
                page
                for page in sorted(left)
                if matches(page, pattern) and (page == pattern or page not in named)
            ]
            chosen += some
            left -= set(some)
        if chosen:
            sections.append({section: chosen})
    return sections


def matches(page: str, pattern: str) -> bool:
    """Whether a page is named by a pattern, whose `*` stands for anything but a slash."""
    return re.fullmatch(re.escape(pattern).replace(r"\*", "[^/]*"), page) is not None


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to files of the repository that are no part of the site become their names."""
    here = Path(page.file.src_uri).parent

    def replace(match: re.Match[str]) -> str:
        mark, text, target = match.groups()
        if mark or "://" in target or target.startswith(("#", "mailto:")):
            return match[0]
        path = target.split("#")[0]
        within = Path(*normal(here / path))
        if files.get_file_from_path(within.as_posix()) is not None or within.suffix == ".html":
            return match[0]
        outside = (ROOT / "docs" / here / path).resolve()
        if outside.exists() and ROOT in outside.parents:
            name = outside.relative_to(ROOT).as_posix()
            return f"`{name}`" if text in (name, outside.name, f"`{name}`") else f"{text} (`{name}`)"
        return match[0]  # a broken link stays, and fails the build

    return LINK.sub(replace, markdown)


def normal(path: Path) -> list[str]:
    """The parts of a relative path without `..`."""
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        else:
            parts.append(part)
    return parts or ["."]
