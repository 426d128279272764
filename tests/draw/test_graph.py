"""Drawing of nets: what is folded, linked and written; the geometry; odd names; with and without dot."""

from __future__ import annotations

import shutil
import subprocess
import sys
from itertools import combinations, pairwise
from pathlib import Path
from random import Random
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netspec import draw, schema
from netspec.draw import dot, plain
from netspec.draw.layout import Item, _crossings, layered
from netspec.draw.picture import Picture, listed, picture
from netspec.draw.scene import Curve, Rect, Scene, Text, svg
from netspec.draw.text import visible, width, wrap
from netspec.net import net
from netspec.net.graph import Graph, compile
from netspec.net.net import Net
from netspec.schema import spec

SVG = "{http://www.w3.org/2000/svg}"

TEXT = """
name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 8 dim: 3 dim: 12 dim: 12 } } }
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 8 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 4 kernel_h: 3 kernel_w: 5 stride: 1 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pooled"
  pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "a" type: "InnerProduct" bottom: "pooled" top: "a" param { name: "w" } param { name: "b" }
  inner_product_param { num_output: 10 } }
layer { name: "c" type: "InnerProduct" bottom: "pooled" top: "c" param { name: "w" } param { name: "b" }
  inner_product_param { num_output: 10 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "a" bottom: "label" top: "loss" loss_weight: 0.25 }
"""


def compiled(text: str, phase: str = "TRAIN") -> Graph:
    return compile(spec.net(schema.parse_net(text), phase))


def built(text: str) -> Net:
    return net.build(compiled(text), device="meta")


@pytest.fixture(scope="module")
def small() -> Picture:
    return picture(built(TEXT))


def named(drawn: Picture, name: str) -> int:
    return next(i for i, box in enumerate(drawn.boxes) if any(part.name == name for part in box.parts))


def label(drawn: Picture, tail: str, head: str) -> tuple[str, ...]:
    ends = named(drawn, tail), named(drawn, head)
    return next(link.label for link in drawn.links if (link.tail, link.head) == ends)


def test_in_place_layer_is_folded_into_its_producer(small: Picture) -> None:
    box = small.boxes[named(small, "relu1")]
    assert [part.name for part in box.parts] == ["conv1", "relu1"]
    assert box.parts[1].in_place
    assert label(small, "relu1", "pool1") == ("8×4×10×8",)


def test_in_place_layer_stays_apart_when_another_layer_reads_the_blob_before_it() -> None:
    drawn = picture(
        compiled(
            """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
            layer { name: "early" type: "InnerProduct" bottom: "x" top: "y"
              inner_product_param { num_output: 2 } }
            layer { name: "relu" type: "ReLU" bottom: "x" top: "x" }
            layer { name: "late" type: "InnerProduct" bottom: "x" top: "z"
              inner_product_param { num_output: 2 } }"""
        )
    )
    assert len(drawn.boxes[named(drawn, "relu")].parts) == 1
    assert "in place" in drawn.boxes[named(drawn, "relu")].parts[0].marks
    assert {(link.tail, link.head) for link in drawn.links} >= {
        (named(drawn, "x"), named(drawn, "early")),
        (named(drawn, "x"), named(drawn, "relu")),
        (named(drawn, "relu"), named(drawn, "late")),
    }


def test_edges_carry_the_shape_and_the_name_where_it_is_not_the_makers(small: Picture) -> None:
    assert label(small, "data", "conv1") == ("8×3×12×12",)
    assert label(small, "pool1", "a") == ("pooled", "8×4×5×4")


def test_options_are_short_and_the_ones_that_define_the_layer_come_first(small: Picture) -> None:
    assert small.boxes[named(small, "conv1")].parts[0].options == ("num output 4", "kernel 3×5", "stride 1")
    assert small.boxes[named(small, "pool1")].parts[0].options == ("MAX", "kernel 2", "stride 2")


def test_losses_outputs_and_shared_weights_are_marked(small: Picture) -> None:
    assert small.boxes[named(small, "loss")].parts[0].marks == ("loss weight 0.25",)
    assert small.boxes[named(small, "a")].parts[0].marks == ("shares b, w",)
    assert small.shared == [(named(small, "a"), named(small, "c"), "w, b")]
    assert [box.output for box in small.boxes if box.output] == ["c"]
    assert small.families == ["data", "convolution, linear", "pooling", "pointwise", "loss"]


def test_a_graph_without_shapes_and_a_spec_that_does_not_compile_are_drawn() -> None:
    assert label(picture(compiled(TEXT)), "data", "conv1") == ()
    strange = spec.net(schema.parse_net('layer { name: "q" type: "Quux" bottom: "nowhere" top: "q" }'))
    drawn = picture(strange)
    assert drawn.boxes[0].parts[0].type == "Quux"
    assert drawn.boxes[1].output == "q"


# Geometry of our own layout


def boxes_of(scene: Scene) -> list[Rect]:
    return [item for item in scene.items if isinstance(item, Rect) and item.radius == 7.0]


def labels_of(scene: Scene) -> list[Rect]:
    return [
        item for item in scene.items if isinstance(item, Rect) and item.fill == "#ffffff" and not item.radius
    ]


def overlap(a: Rect, b: Rect) -> bool:
    return a.x < b.x + b.w and b.x < a.x + a.w and a.y < b.y + b.h and b.y < a.y + a.h


@pytest.mark.parametrize("rankdir", ["TB", "BT", "LR", "RL"])
def test_boxes_and_labels_neither_overlap_nor_leave_the_page(small: Picture, rankdir: str) -> None:
    scene = plain.scene_of(small, rankdir)
    solid = boxes_of(scene) + labels_of(scene)
    assert len(boxes_of(scene)) == 7
    assert not any(overlap(a, b) for a, b in combinations(solid, 2))
    assert all(
        r.x >= 0 and r.x + r.w <= scene.width and r.y >= 0 and r.y + r.h <= scene.height for r in solid
    )
    for text in (item for item in scene.items if isinstance(item, Text)):
        w = width(text.text, text.size, text.bold)
        left = text.x if text.anchor == "start" else text.x - w / 2
        assert left >= 0
        assert left + w <= scene.width


def test_data_flows_in_the_direction_asked_for(small: Picture) -> None:
    for rankdir, axis, sign in (("TB", "y", 1), ("BT", "y", -1), ("LR", "x", 1), ("RL", "x", -1)):
        texts = {t.text: t for t in plain.scene_of(small, rankdir).items if isinstance(t, Text)}
        assert sign * (getattr(texts["SoftmaxWithLoss"], axis) - getattr(texts["Convolution"], axis)) > 0


@st.composite
def dags(drawing: st.DrawFn) -> tuple[list[tuple[float, float]], list[tuple[int, int]]]:
    n = drawing(st.integers(0, 14))
    sizes = drawing(st.lists(st.tuples(st.floats(1, 200), st.floats(1, 80)), min_size=n, max_size=n))
    pairs = [(a, b) for a in range(n) for b in range(a + 1, n)]
    return sizes, drawing(st.lists(st.sampled_from(pairs), max_size=25)) if pairs else []


@settings(max_examples=150, deadline=None)
@given(dags())
def test_layout_of_any_acyclic_graph_keeps_distances_and_directions(
    dag: tuple[list[tuple[float, float]], list[tuple[int, int]]],
) -> None:
    sizes, edges = dag
    placed = layered(sizes, edges, gap=16.0)
    for (tail, head), chain in zip(edges, placed.chains, strict=True):
        assert (chain[0], chain[-1]) == (tail, head)
        ranks = [placed.items[i].rank for i in chain]
        assert ranks == list(range(ranks[0], ranks[-1] + 1))
    by_rank: dict[int, list[int]] = {}
    for i, item in enumerate(placed.items):
        by_rank.setdefault(item.rank, []).append(i)
    for row in by_rank.values():
        row.sort(key=lambda i: placed.items[i].x)
        for a, b in pairwise(row):
            room = placed.items[b].x - placed.items[a].x
            assert room >= (placed.items[a].width + placed.items[b].width) / 2 + 16.0 - 1e-6
    assert all(
        item.x - item.width / 2 >= -1e-6 and item.x + item.width / 2 <= placed.width + 1e-6
        for item in placed.items
    )


def test_an_alternating_ladder_is_laid_out_without_crossings() -> None:
    edges = [(0, 3), (1, 2), (2, 5), (3, 4)]  # two chains, listed crosswise
    placed = layered([(10.0, 10.0)] * 6, edges)
    x = [item.x for item in placed.items]
    assert (x[0] < x[1]) == (x[3] < x[2]) == (x[4] < x[5])


@pytest.mark.parametrize("seed", range(5))
def test_crossings_are_those_of_every_pair_of_edges(seed: int) -> None:
    random = Random(seed)
    rows = [[0, 1, 2, 3], [4, 5, 6, 7, 8], [9, 10, 11]]
    for row in rows:
        random.shuffle(row)
    items = [Item(i, 0, 1.0) for i in range(12)]
    edges = []
    for upper, lower in pairwise(rows):
        for i in upper:
            items[i].below = random.sample(lower, random.randint(0, len(lower)))
            edges += [(upper.index(i), lower.index(j), lower) for j in items[i].below]
    expected = sum(
        one[2] is other[2] and (one[0] - other[0]) * (one[1] - other[1]) < 0
        for one, other in combinations(edges, 2)
    )
    assert _crossings(items, rows) == expected


def test_deep_nets_are_no_problem_for_the_layout() -> None:
    n = 3000
    placed = layered([(50.0, 20.0)] * n, [(i, i + 1) for i in range(n - 1)], sweeps=2)
    assert max(item.rank for item in placed.items) == n - 1
    assert len({round(item.x, 6) for item in placed.items}) == 1


# Text


def test_measured_widths_are_no_smaller_than_the_fonts() -> None:
    font_manager = pytest.importorskip("matplotlib.font_manager")
    ImageFont = pytest.importorskip("PIL.ImageFont")
    for bold in (False, True):
        path = font_manager.findfont(
            font_manager.FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")
        )
        font = ImageFont.truetype(path, 200)
        for text in (
            "conv1/7x7_s2",
            "SoftmaxWithLoss",
            "inception_4a/relu_5x5_reduce",
            "num output 64, stride 2",
        ):
            assert width(text, 200, bold) >= 0.985 * font.getlength(text)


@given(st.text(max_size=80), st.integers(4, 30))
def test_wrapping_loses_nothing(text: str, most: int) -> None:
    lines = wrap(text, most)
    assert "".join(lines) == text
    assert all(len(line) <= most for line in lines)


def test_lists_are_wrapped_between_words() -> None:
    assert listed(["num output 20", "kernel 5", "stride 1", "no bias"]) == [
        "num output 20, kernel 5, stride 1,",
        "no bias",
    ]


ODD = [
    '"quoted"',
    "back\\slash \\N \\G \\l",
    "<b>&amp;</b>",
    "два ☃ 層",
    "line\nbreak\ttab",
    "]]>--",
    "$x^2$ {a|b}",
    "%",
    "",
]


def odd_net() -> Graph:
    layers = ['layer { name: "in" type: "Input" top: "top0" input_param { shape { dim: 2 dim: 3 } } }']
    for i, name in enumerate(ODD):
        raw = "".join(f"\\{byte:03o}" for byte in name.encode())
        layers.append(
            f'layer {{ name: "{raw}" type: "InnerProduct" bottom: "top{i}" top: "top{i + 1}" '
            f'param {{ name: "{raw}" }} inner_product_param {{ num_output: 2 }} }}'
        )
    return compiled("\n".join(layers))


def test_odd_names_survive_in_our_svg() -> None:
    scene = plain.scene_of(picture(odd_net()))
    root = ElementTree.fromstring(svg(scene))
    shown = [node.text or "" for node in root.iter(f"{SVG}text")]
    for name in ODD:
        assert visible(name) in shown or not name
    assert "(no name)" in shown


def test_odd_names_are_escaped_in_the_source() -> None:
    text = dot.source(picture(odd_net()))
    assert "&lt;b&gt;&amp;amp;&lt;/b&gt;" in text
    assert "&#92;&#92;N" in text
    assert "\\N" not in text


def test_control_characters_become_visible() -> None:
    assert visible("a\nb\x00\u202e") == "a\\nb\\x00\\u202e"


# Files


@pytest.mark.parametrize(
    ("suffix", "head"), [(".svg", b"<svg"), (".png", b"\x89PNG"), (".pdf", b"%PDF"), (".gv", b"// ")]
)
def test_every_format_is_written_without_dot(tmp_path: Path, suffix: str, head: bytes) -> None:
    drawn = draw.graph(odd_net(), tmp_path / "new" / f"net{suffix}", use_dot=False)
    assert drawn.paths[0].read_bytes().startswith(head)
    assert all(path.exists() for path in drawn.paths)


def test_a_missing_dot_is_told_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    drawn = draw.graph(built(TEXT), tmp_path / "net.svg")
    assert [path.name for path in drawn.paths] == ["net.svg", "net.gv"]
    assert len(drawn.notes) == 1
    assert "apt-get install graphviz" in drawn.notes[0]
    with pytest.raises(draw.DrawError, match="apt-get install graphviz"):
        draw.graph(built(TEXT), tmp_path / "net.svg", use_dot=True)


def test_wrong_suffix_and_rankdir_are_refused(tmp_path: Path) -> None:
    with pytest.raises(draw.DrawError, match="jpg"):
        draw.graph(compiled(TEXT), tmp_path / "net.jpg")
    with pytest.raises(draw.DrawError, match="TB, BT, LR, RL"):
        draw.graph(compiled(TEXT), tmp_path / "net.svg", rankdir="UP")


def test_a_page_size_is_kept(tmp_path: Path) -> None:
    draw.graph(compiled(TEXT), tmp_path / "net.svg", page=(3.0, 2.0), use_dot=False)
    root = ElementTree.parse(tmp_path / "net.svg").getroot()
    assert float(root.attrib["width"][:-2]) <= 216.1
    assert float(root.attrib["height"][:-2]) <= 144.1


def test_svg_needs_no_matplotlib(tmp_path: Path) -> None:
    code = (
        "import sys; from netspec import draw, schema; from netspec.schema import spec; "
        's = spec.net(schema.parse_net(\'layer { name: "x" type: "Quux" top: "x" }\')); '
        "draw.graph(s, sys.argv[1], use_dot=False); assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "net.svg")], check=True)


def test_pictures_are_reproducible(small: Picture) -> None:
    assert svg(plain.scene_of(small)) == svg(plain.scene_of(picture(built(TEXT))))


def test_arrows_enter_boxes(small: Picture) -> None:
    scene = plain.scene_of(small)
    tips = [item.pieces[-1][2] for item in scene.items if isinstance(item, Curve) and item.arrow]
    assert len(tips) == 7
    entering = [
        (x, y) for x, y in tips for r in boxes_of(scene) if abs(y - r.y) < 0.5 and r.x <= x <= r.x + r.w
    ]
    assert len(entering) == 6  # the seventh leads to the output, which has no frame


@pytest.mark.dot
@pytest.mark.skipif(not shutil.which("dot"), reason="needs the dot program")
@pytest.mark.parametrize("rankdir", ["TB", "LR"])
@pytest.mark.parametrize(("suffix", "head"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_dot_draws_odd_names(tmp_path: Path, rankdir: str, suffix: str, head: bytes) -> None:
    drawn = draw.graph(odd_net(), tmp_path / f"net.{suffix}", rankdir=rankdir, use_dot=True)
    assert drawn.notes == ()
    written = drawn.paths[0].read_bytes()
    assert written.startswith(head)
    if suffix == "svg":
        shown = "\n".join(node.text or "" for node in ElementTree.fromstring(written).iter(f"{SVG}text"))
        for name in ODD:
            assert visible(name).replace(" ", "\u00a0") in shown.replace(" ", "\u00a0")
