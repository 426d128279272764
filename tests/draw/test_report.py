"""The HTML report: one file, complete, with everything from outside escaped."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from netspec import draw, schema
from netspec.net import net
from netspec.net.graph import compile
from netspec.schema import spec

TEXT = """
name: "<script>alert(1)</script>"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 8 dim: 12 } } }
layer { name: "ip <b>" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 10 } }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [{"kind": "test", "iteration": 0, "net": 0, "outputs": {"accuracy <i>": 0.5}}]
    lines += [{"kind": "train", "iteration": t, "loss": 1 / (t + 1), "lr": 0.1} for t in range(5)]  # type: ignore[dict-item]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    facts = {"seed": 7, "notes": ["stand-in: <digits> & more"], "versions": {"torch": "2"}, "resumed": [{}]}
    (tmp_path / "run.json").write_text(json.dumps(facts))
    (tmp_path / "solver.prototxt").write_text('net: "</pre><script>x</script>"')
    draw.grid(torch.rand(4, 5, 5), tmp_path / "samples.png")
    draw.grid(torch.rand(4, 5, 5), tmp_path / "loss.png")
    return tmp_path


class Outline(HTMLParser):
    """Tags, text and addresses of a page; complains about tags that do not close."""

    EMPTY = frozenset({"meta", "img", "br", "use", "path", "rect", "link", "image"})

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.EMPTY:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.EMPTY:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_report_holds_everything_in_one_file(folder: Path) -> None:
    made = net.build(compile(spec.net(schema.parse_net(TEXT))), device="meta")
    path = draw.report(folder, net=made, use_dot=False)
    assert path == folder / "report.html"
    page = Outline(path.read_text())
    assert page.open == []
    text = "".join(page.words)
    for word in (
        "stand-in: <digits> & more",
        "accuracy <i>",
        "ip <b>",
        "130",
        "8×10",
        "last loss",
        "</pre><script>",
    ):
        assert word in text
    assert page.tags.count("img") == 1
    assert page.tags.count("svg") == 2
    assert "script" not in page.tags
    assert all(link.startswith(("data:", "#")) for link in page.links)


def test_a_bare_folder_gives_a_short_report(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(TEXT)
    page = Outline(draw.report(tmp_path, tmp_path / "deep" / "r.html").read_text())
    assert "svg" not in page.tags
    assert "InnerProduct" in "".join(page.words)


def test_a_net_that_does_not_compile_is_drawn_but_not_tabulated(folder: Path) -> None:
    strange = spec.net(schema.parse_net('layer { name: "q" type: "Quux" top: "q" }'))
    text = draw.report(folder, net=strange, use_dot=False).read_text()
    assert "Quux" in text
    assert ">Layers<" not in text


def test_folders_that_hold_no_run_are_told(tmp_path: Path) -> None:
    with pytest.raises(draw.DrawError, match="no such run folder"):
        draw.report(tmp_path / "none")
    with pytest.raises(draw.DrawError, match="holds no run"):
        draw.report(tmp_path)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(draw.DrawError, match=re.escape("must hold one JSON object")):
        draw.report(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(draw.DrawError, match="not JSON"):
        draw.report(tmp_path)
