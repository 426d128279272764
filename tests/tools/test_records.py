"""Every number in a table of docs/results stands in that page's record."""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from netspec.lab import Table
from tests.places import ROOT
from tools.results import drmm, fig4, imputers, latent_models, misconv, sweep_page, table1, tables, thesis
from tools.results.reproduction import Results

RESULTS = ROOT / "docs/results"
PAGES = sorted(page.name for page in RESULTS.glob("*.md"))
NUMBER = re.compile(r"(?<![\w.,/-])[-−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?(?![\w/])")
YEAR = re.compile("(19|20)[0-9][0-9]")
PUBLISHED = {
    "cp_cac_mnist": ("fig3",),
    "density": ("density",),
    "dlvm": ("uci",),
    "drmm": ("drmm", "drmm_table5", "drmm_cifar10"),
    "fig3": ("fig3",),
    "ht_cac_mnist": ("fig3",),
    "table1": ("table1",),
}
"""Page: the tables of published.json that stand beside its own figures."""


REPORTS = {
    "imputers.md": imputers.report,
    "latent_models.md": latent_models.report,
    "misconv.md": misconv.report,
    "thesis.md": thesis.report,
}


def values(node: Any) -> Iterator[float]:
    """All numbers of a JSON value, in its texts and keys too; of [right, images] also the share."""
    if isinstance(node, bool) or node is None:
        return
    if isinstance(node, int | float):
        yield float(node)
    elif isinstance(node, str):
        yield from (number(text) for text in NUMBER.findall(node))
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from values(key)
            yield from values(value)
    else:
        if len(node) == 2 and all(type(one) is int for one in node) and 0 <= node[0] <= node[1] > 0:
            yield node[0] / node[1]
        for one in node:
            yield from values(one)


def number(text: str) -> float:
    return float(text.replace("−", "-").replace(",", ""))


def read(path: Path) -> Any:
    text = path.read_text()
    return (
        json.loads(text)
        if path.suffix == ".json"
        else [json.loads(line) for line in text.splitlines() if line]
    )


def records(page: str) -> list[Path]:
    """The JSON files of a page: those with its name, in its folder, or that it names."""
    stem = page.removesuffix(".md")
    named = re.findall(r"[\w/]+\.jsonl?\b", (RESULTS / page).read_text())
    ours = [RESULTS / name.removeprefix("docs/results/") for name in named]
    ours += [*RESULTS.glob(f"{stem}*.json*"), *RESULTS.glob(f"{stem}/*.json*")]
    if page == "README.md":
        ours += RESULTS.glob("**/*.json*")
    return sorted({path for path in ours if path.is_file()})


def rebuilt(page: str, folder: Path) -> str:
    """The text of a page that its own script makes from the record alone."""
    record = folder / page.replace(".md", ".json")
    shutil.copy(RESULTS / record.name, record)
    results = Results(record, read(record)["settings"])
    if page == "tables.md":
        options = argparse.Namespace(out=record, **results.settings)
        return tables.report(options, results).read_text()
    return REPORTS[page](record, results).read_text()


def derived(page: str) -> str:
    """What a page computes from its records before it prints it, as text."""
    if page == "table1.md":
        return table1.table(read(RESULTS / "table1.json")["results"])
    if page in ("speech.md", "ht_cac_mnist.md", "cp_cac_mnist.md"):
        return Table.from_json(read(RESULTS / page.replace(".md", ".json"))).markdown()
    if page == "fig4.md":
        every = [fig4.rows(record)[0] for record in fig4.records()]
        ours = Table({name: row for table in every for name, row in table.cells.items()})
        rows = {name: ours.accuracy(name) for name in ours.cells}
        gaps = fig4.against(ours.cells.get(fig4.OURS, {}), rows.get(fig4.CNN, {}))
        return ours.markdown() + gaps
    if page == "density.md":
        ideas = read(RESULTS / "density_ideas.json")
        against = [value - ideas["all of it"] for value in ideas.values() if isinstance(value, float)]
        return " ".join(f"{value:.4f}" for value in against)
    if page == "sweep.md":
        return " ".join(f"{100 * median(sweep_page.values(read(path))):.2f}" for path in records(page))
    return ""


def pool(page: str) -> set[float]:
    """What a number of the page may be: a value of its records, as it is or in per cent, or derived from them."""
    known = {value for path in records(page) for value in values(read(path))}
    published = read(RESULTS / "published.json")
    for table in PUBLISHED.get(page.removesuffix(".md"), ()):
        known |= set(values(published[table]["rows"]))
    known |= set(values(derived(page)))
    return known | {100 * value for value in known} | {100 - 100 * value for value in known}


def numbers(page: str) -> Iterator[tuple[int, str]]:
    """(line, number) of table cells but row names: those with decimals, or of four digits and more but years."""
    for place, line in enumerate((RESULTS / page).read_text().splitlines(), 1):
        if line.startswith("|") and set(line) - set("|-: "):
            for cell in line.strip().strip("|").split("|")[1:]:
                shown = re.sub(r"`[^`]*`|\]\([^)]*\)", "", cell)
                yield from (
                    (place, text)
                    for text in NUMBER.findall(shown)
                    if "." in text or (number(text) >= 1000 and not YEAR.fullmatch(text))
                )


def stands(text: str, among: set[float]) -> bool:
    """Whether a value rounds to the printed number."""
    wanted = number(text)
    if "e" in text:
        return any(abs(value - wanted) <= 0.06 * abs(wanted) for value in among)
    half = 0.5 * 10 ** -len(text.partition(".")[2]) * (1 + 1e-6) + 1e-12
    return any(abs(value - wanted) <= half for value in among)


@pytest.mark.parametrize("page", [*REPORTS, "tables.md"])
def test_tables_follow_from_the_record(page: str, tmp_path: Path) -> None:
    ours, again = (
        [line for line in text.splitlines() if line.startswith("|")]
        for text in ((RESULTS / page).read_text(), rebuilt(page, tmp_path))
    )
    assert ours == again


@pytest.mark.parametrize("page", [page for page in PAGES if page not in {*REPORTS, "tables.md"}])
def test_numbers_have_records(page: str) -> None:
    among = pool(page)
    strange = [f"{page}:{line}: {text}" for line, text in numbers(page) if not stands(text, among)]
    assert not strange, f"not in {[path.name for path in records(page)]}: {strange}"


def test_invented_number_is_found_out() -> None:
    """The check would see a number that was changed in its third digit."""
    for page in ("fig3.md", "drmm.md", "dlvm.md", "table1.md", "density.md"):
        among = pool(page)
        invented = [f"{k / 10:.1f}" if page != "dlvm.md" else f"{k / 1000:.3f}" for k in range(101, 999, 7)]
        caught = sum(not stands(text, among) for text in invented)
        assert caught >= 0.5 * len(invented), (page, caught, len(invented))


def test_published_rows_of_the_rendering_models_are_all_on_their_page(tmp_path: Path) -> None:
    """The command that writes them leaves the page as it is, and each row of the record is there."""
    copy = tmp_path / "drmm.md"
    shutil.copy(RESULTS / "drmm.md", copy)
    drmm.published(copy)
    assert copy.read_text() == (RESULTS / "drmm.md").read_text()
    record = read(RESULTS / "published.json")
    for table in ("drmm", "drmm_table5"):
        for name in record[table]["rows"]:
            assert f"| {name} |" in copy.read_text(), name


def test_table_1_says_first_where_it_is_below_others() -> None:
    """A net that is told and above, and one that is not told and below at the largest N alone."""
    trial = {
        "images": 1000,
        "HT-CAC": [990] * 7,
        "HT-CAC, not told": [990] * 6 + [700],
        "LP": [900] * 6 + [705],
    }
    said = table1.missed({"0-1/0": trial})
    assert said == (
        "Not told which pixels are deleted, HT-CAC is below the published HT-CAC at N of 150 and our own linear "
        "classifiers at N of 150. Told, it is below none of them."
    )
