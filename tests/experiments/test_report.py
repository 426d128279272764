"""The report: what it holds, that nothing of a run can break it, and in Chromium that it draws and asks for nothing."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from netspec import fit
from netspec.cli import app
from netspec.draw import grid
from netspec.errors import NetspecError
from netspec.experiments.curves import joined
from netspec.experiments.report import report
from tests.experiments.folders import write_run
from tests.run.test_recording import LINEAR
from tools.site.browser import Browser, Page, program

LIMIT = 200 * 1024
"""Bytes of a page without its data."""
TABLE = {
    "methods": {
        name: {
            "right": {"clean": 99 - k, "iid:0.5": 90 - 5 * k},
            "images": 100,
            "repeats": {"clean": 1, "iid:0.5": 1},
        }
        for k, name in enumerate(("ours", "knn <5>"))
    }
}


def data_of(page: Path) -> dict[str, Any]:
    text = page.read_text(encoding="utf-8")
    (script,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    data: dict[str, Any] = json.loads(script)
    return data


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    rng = random.Random(0)
    for i in range(14):
        rate = 10 ** rng.uniform(-3, -1)
        value = 0.9 + 0.1 * math.log10(rate) + rng.gauss(0, 0.001)
        values = {"base_lr": rate, "keep": rng.random(), "kind": rng.choice(["a", "b"]), "same": 3}
        write_run(tmp_path / "sweep" / f"p_{i}", (0.1, value), values=values, base_lr=rate, seed=i)
    (tmp_path / "sweep" / "missing.json").write_text(json.dumps(TABLE))
    return tmp_path / "sweep"


def test_a_sweep_on_a_page(sweep: Path) -> None:
    page = report([sweep])
    assert page == sweep / "report.html"
    data = data_of(page)
    assert [run["name"] for run in data["runs"]] == sorted(f"p_{i}" for i in range(14))
    assert data["columns"] == ["base_lr", "keep", "kind"]  # what differs, and nothing else
    assert data["metric"] == "accuracy"
    assert {curve["name"] for curve in data["curves"]} >= {"training loss", "test accuracy", "test loss"}
    assert data["importance"][0][0] == "base_lr"
    assert sum(share for _, share in data["importance"]) == pytest.approx(1, abs=0.01)
    assert data["missing"][0]["cells"]["ours"]["iid:0.5"][0] == 90
    for run in data["runs"]:
        assert "--set base_lr=" in run["again"]
    best = max(data["runs"], key=lambda run: run["outputs"][data["outputs"].index("accuracy")])
    assert data["detail"]["name"] == best["name"]


def test_the_page_without_its_data_is_small(sweep: Path) -> None:
    page = report([sweep]).read_text(encoding="utf-8")
    data = re.findall(r'id="data">(.*?)</script>', page, re.S)[0]
    assert len(page.encode()) - len(data.encode()) <= LIMIT


def test_a_second_path_is_never_the_output(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b", base_lr=0.5)
    before = {path: path.read_bytes() for path in b.iterdir()}
    result = CliRunner().invoke(app, ["report", str(a), str(b), "--no-test"])
    assert result.exit_code == 0, result.output
    assert {path: path.read_bytes() for path in b.iterdir()} == before
    assert [run["name"] for run in data_of(tmp_path / "report.html")["runs"]] == ["a", "b"]
    for second in ("page.html", "none"):
        result = CliRunner().invoke(app, ["report", str(a), str(tmp_path / second)])
        assert result.exit_code != 0
        assert not (tmp_path / second).exists()
    with pytest.raises(NetspecError, match=r"a report is an \.html file"):
        report([a], tmp_path / "page.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NetspecError, match="holds no run"):
        report([tmp_path / "empty"])


def test_the_plans_metric_ranks(sweep: Path) -> None:
    for run in sweep.glob("p_*"):
        point = json.loads((run / "point.json").read_text())
        (run / "point.json").write_text(json.dumps({**point, "metric": {"output": "loss", "mode": "max"}}))
    data = data_of(report([sweep], test=False))
    assert (data["metric"], data["lower"]) == ("loss", False)


def test_links_and_large_files_stay_out(tmp_path: Path) -> None:
    run, picture = write_run(tmp_path / "run"), b"\x89PNG secret"
    (tmp_path / "secret").write_text("SECRET")
    (tmp_path / "secret.png").write_bytes(picture)
    (run / "x.prototxt").symlink_to(tmp_path / "secret")
    (run / "x.png").symlink_to(tmp_path / "secret.png")
    with open(run / "large.png", "wb") as file:
        file.write(picture)
        file.truncate(1 << 40)
    (run / "small.png").write_bytes(picture)
    page = report([run])
    assert "SECRET" not in page.read_text()
    assert [one["name"] for one in data_of(page)["detail"]["pictures"]] == ["small"]
    (run / "x.prototxt").unlink()
    (run / "run.json").unlink()
    (tmp_path / "secret").write_text('{"device": "SECRET"}')
    (run / "run.json").symlink_to(tmp_path / "secret")
    assert "SECRET" not in report([run]).read_text()


def test_peaks_are_kept_where_points_are_left_out() -> None:
    rng = random.Random(3)
    series = [[(i, rng.random()) for i in range(10_000)] for _ in range(3)]
    series[1][5432] = (5432, 99.0)
    series[2][1234] = (1234, -99.0)
    curves = joined(series, 600)
    assert len(curves["x"]) == 600
    for row, points in zip(curves["y"], series, strict=True):
        values = [value for value in row if value is not None]
        assert (min(values), max(values)) == pytest.approx(
            (min(y for _, y in points), max(y for _, y in points)), rel=1e-4
        )
    at = curves["x"][curves["y"][1].index(99.0)]
    assert abs(at - 5432) <= 10_000 / 300
    step = 10_000 / 300
    for k, (low, high) in enumerate(zip(curves["y"][0][::2], curves["y"][0][1::2], strict=True)):
        inside = [y for x, y in series[0] if k == min(299, int(x / step))]
        assert sorted((low, high)) == pytest.approx([min(inside), max(inside)], rel=1e-4)


def test_few_points_are_kept_as_they_are() -> None:
    curves = joined([[(0, 1.0), (10, math.nan), (20, 3.0)], [(10, 2.0)], []])
    assert curves == {"x": [0, 10, 20], "y": [[1.0, None, 3.0], [None, 2.0, None], [None, None, None]]}


class Scripts(HTMLParser):
    """The elements of a page that run or lead somewhere."""

    def __init__(self, text: str):
        super().__init__()
        self.scripts, self.links, self.last = 0, list[str](), ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        assert not any(name.startswith("on") for name, _ in attrs)


HOSTILE = '</script><script>document.title="taken"</script><img src=x onerror=alert(1)>'


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Two runs whose every text wants to be markup."""
    for i, name in enumerate(("<b>a", "b&amp;")):
        facts = {
            "notes": [HOSTILE],
            "file": HOSTILE,
            "versions": {HOSTILE: HOSTILE},
            "data": [{"layer": HOSTILE}],
        }
        write_run(
            tmp_path / "runs" / name, (0.5,), facts=facts, values={HOSTILE: f"{HOSTILE}{i}"}, status=HOSTILE
        )
        line = {"kind": "test", "iteration": 5, "net": 0, "outputs": {HOSTILE: 0.5, "x": None}}
        with open(tmp_path / "runs" / name / "metrics.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")
        net = f'name: "{HOSTILE}"'.replace('"taken"', "taken")
        (tmp_path / "runs" / name / "net.prototxt").write_text(net)
        (tmp_path / "runs" / name / "x.png").write_bytes(b"<svg onload=alert(1)>")
    return tmp_path / "runs"


def test_texts_of_runs_stay_texts(hostile: Path) -> None:
    text = report([hostile]).read_text(encoding="utf-8")
    scripts = Scripts(text)
    assert scripts.scripts == 3
    assert scripts.links == ["data:,", "#main"]
    assert data_of(hostile / "report.html")["detail"]["pictures"] == []


# In Chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if program() is None:
        pytest.skip("no Chromium here")
    with Browser() as window:
        yield window


def opened(page: Page, path: Path) -> None:
    page.goto(path.as_uri())
    page.wait("window.netspecReady > 0")


def sound(page: Page, path: Path) -> None:
    """Nothing was complained of, nothing was asked for, nothing is wider than the window."""
    assert page.errors == []
    assert page.requests == [path.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (390, False), (390, True)])
def test_every_part_is_drawn(browser: Browser, sweep: Path, width: int, dark: bool) -> None:
    path = report([sweep])
    with browser.page(width, 844, dark) as page:
        opened(page, path)
        heads = page.evaluate("[...document.querySelectorAll('h2')].map(h => h.textContent)")
        for part in (
            "Runs",
            "Curves",
            "Time against accuracy",
            "Importance of settings",
            "Parallel coordinates",
        ):
            assert part in heads
        assert any(head.startswith("Net of ") for head in heads)
        assert page.evaluate("document.querySelectorAll('#curves canvas').length") == 2
        assert page.evaluate("document.querySelectorAll('#missing canvas').length") == 1
        assert page.evaluate("document.querySelectorAll('#pareto circle').length") == 14
        assert page.evaluate("document.querySelectorAll('#parallel path.line').length") == 14
        assert page.evaluate("document.querySelectorAll('#net .node').length") == 2
        drawn = """[...document.querySelectorAll('#curves canvas')].every(c => {
            const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
            const seen = new Set();
            for (let i = 0; i < d.length; i += 4) if (d[i + 3] > 200) seen.add(d[i] + ',' + d[i + 1]);
            return seen.size > 8; })"""
        page.wait(drawn)
        sound(page, path)


def press(page: Page, key: str) -> None:
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)


def test_filter_sort_brush_and_keys(browser: Browser, sweep: Path) -> None:
    path = report([sweep])
    rows = "[...document.querySelectorAll('#runs tbody tr')].filter(r => !r.hidden)"
    column = "[...document.querySelectorAll('#runs thead th')].findIndex(h => h.textContent == '{}')"
    values = "%s.map(r => +r.cells[%s].textContent)" % (rows, column.format("accuracy"))  # noqa: UP031
    with browser.page(1200, 900) as page:
        opened(page, path)
        shown = page.evaluate(values)
        assert shown == sorted(shown, reverse=True)
        buttons = "[...document.querySelectorAll('#runs button')]"
        page.evaluate(buttons + ".find(b => b.textContent == 'accuracy').click()")
        assert page.evaluate(values) == sorted(shown)
        assert page.evaluate("document.querySelectorAll('[aria-sort=ascending]').length") == 1
        limit = sorted(shown)[6]
        page.evaluate(f"document.getElementById('filter').value = 'accuracy>{limit} kind=a'")
        page.evaluate("document.getElementById('filter').dispatchEvent(new Event('input'))")
        kinds = [run["values"][2] for run in data_of(path)["runs"]]
        accuracies = [run["outputs"][0] for run in data_of(path)["runs"]]
        left = sum(kind == "a" and value > limit for kind, value in zip(kinds, accuracies, strict=True))
        page.wait(f"{rows}.length == {left}")
        assert page.evaluate("document.querySelectorAll('#pareto circle').length") == left
        assert page.evaluate("document.querySelectorAll('#parallel path.dim').length") == 14 - left
        page.evaluate(buttons + ".find(b => b.textContent == 'Show all').click()")
        assert page.evaluate(f"{rows}.length") == 14
        page.evaluate(f"{rows}[0].focus()")
        press(page, "ArrowDown")
        press(page, "Enter")
        assert page.evaluate(f"{rows}[1].getAttribute('aria-selected')") == "true"
        assert page.evaluate("document.querySelectorAll('#parallel path.hot').length") == 1
        assert "--set base_lr=" in page.evaluate("document.querySelector('#runs .again pre').textContent")
        page.evaluate("document.querySelector('#curves .plot').focus()")
        press(page, "ArrowRight")
        assert "iteration 0: 2" in page.evaluate("document.getElementById('tip').textContent")
        press(page, "ArrowRight")
        assert "iteration 5: 1" in page.evaluate("document.getElementById('tip').textContent")
        page.evaluate("document.querySelector('#net .node').focus()")
        press(page, "ArrowDown")
        assert "num_output: 4" in page.evaluate("document.querySelector('#net pre').textContent")
        page.evaluate("document.querySelector('#parallel').scrollIntoView({block: 'center'})")
        axis = "document.querySelector('#parallel .touch').getBoundingClientRect()"
        box = page.evaluate(f"(b => [b.left, b.top, b.height])({axis})")
        for kind, share in (("mousePressed", 0.5), ("mouseMoved", 0.2), ("mouseReleased", -0.1)):
            at = {"x": box[0] + 12, "y": box[1] + 8 + share * box[2]}
            page.call("Input.dispatchMouseEvent", type=kind, button="left", buttons=1, clickCount=1, **at)
        page.wait(f"{rows}.length < 14")
        assert page.evaluate("document.querySelectorAll('#parallel .brush').length") == 1
        sound(page, path)


def test_scores_that_differ_by_a_last_digit(browser: Browser, tmp_path: Path) -> None:
    """No step of an axis is too small to move on."""
    for i, score in enumerate((0.9, math.nextafter(0.9, 1))):
        write_run(tmp_path / "runs" / f"p_{i}", (score,), values={"keep": 0.5 + i / 4, "width": 2 + i})
    path = report([tmp_path / "runs"])
    with browser.page(1200, 900) as page:
        opened(page, path)
        assert page.evaluate("document.querySelectorAll('#pareto circle').length") == 2
        assert 2 <= page.evaluate("document.querySelectorAll('#pareto .gridline').length") <= 24
        sound(page, path)


def test_the_pointer_reads_a_curve(browser: Browser, tmp_path: Path) -> None:
    path = report([write_run(tmp_path / "run")])
    with browser.page(1200, 900) as page:
        opened(page, path)
        page.evaluate("document.querySelector('#curves').scrollIntoView()")
        curve = "document.querySelector('#curves .u-over').getBoundingClientRect()"
        left, top, width, height = page.evaluate(f"(b => [b.left, b.top, b.width, b.height])({curve})")
        for share in (0.4, 2 / 3):  # iterations 0, 5, 10 and 15 are shown
            at = {"x": left + share * width, "y": top + height / 2}
            page.call("Input.dispatchMouseEvent", type="mouseMoved", **at)
        page.wait("!document.getElementById('tip').hidden")
        assert page.evaluate("document.getElementById('tip').textContent") == "iteration 10: 0.66667"
        sound(page, path)


def test_a_trained_run_has_histograms_and_a_confusion_matrix(tmp_path: Path, browser: Browser) -> None:
    (tmp_path / "linear_solver.prototxt").write_text(LINEAR)
    run = fit(tmp_path / "linear_solver.prototxt", out=tmp_path / "run", progress=False)
    grid(torch.rand(4, 5, 5), tmp_path / "run" / "samples.png")
    path = report([run.folder])
    detail = data_of(path)["detail"]
    (matrix,) = detail["confusion"]
    assert sum(map(sum, matrix["counts"])) == 100
    assert matrix["accuracy"] == pytest.approx(run.results[0]["accuracy"])
    nodes = {node["name"]: node for node in detail["net"]["nodes"]}
    weights = run.net.weights()["ip/0"]
    shown = nodes["ip"]["blobs"][0]
    assert sum(shown["counts"]) == weights.numel()
    assert (shown["low"], shown["high"]) == pytest.approx(
        (float(weights.min()), float(weights.max())), rel=1e-3
    )
    assert sum(nodes["ip"]["values"][0]["counts"]) == 500  # ten scores of 50 images
    assert "num_output: 10" in nodes["ip"]["text"]
    with browser.page(1200, 900) as page:
        opened(page, path)
        assert page.evaluate("document.querySelectorAll('#confusion td').length") == 110
        assert page.evaluate("document.querySelector('#pictures img').naturalWidth") > 0
        page.evaluate("document.querySelectorAll('#net .node')[1].dispatchEvent(new Event('click'))")
        assert page.evaluate("document.querySelectorAll('#net .histo svg').length") == 3
        assert page.errors == []
        assert [url for url in page.requests if not url.startswith("data:image/png")] == [path.as_uri()]


def test_hostile_texts_in_the_browser(browser: Browser, hostile: Path) -> None:
    path = report([hostile])
    with browser.page() as page:
        opened(page, path)
        sound(page, path)
        assert page.evaluate("document.title") != "taken"
        assert page.evaluate("document.querySelectorAll('img').length") == 0
        assert HOSTILE in page.evaluate("document.body.textContent")
