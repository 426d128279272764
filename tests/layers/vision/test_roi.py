"""Pooling of regions against loops written out."""

from __future__ import annotations

from math import ceil, floor

import pytest
import torch
from torch import Tensor

from netspec import schema
from netspec.errors import SpecError
from netspec.layers.vision import largest_places, roi
from netspec.net.make import make_net
from netspec.net.net import Net
from tests.cases.roi import REGIONS


def net(kind: str, channels: int, param: str, regions: str = "dim: 5 dim: 5") -> Net:
    """One layer on a map of 2 x channels x 9 x 7 and regions."""
    text = (
        'layer { name: "in" type: "Input" top: "x" top: "r" input_param { '
        f"shape {{ dim: 2 dim: {channels} dim: 9 dim: 7 }} shape {{ {regions} }} }} }}\n"
        f'layer {{ name: "p" type: "{kind}" bottom: "x" bottom: "r" top: "y" {param} }}'
    )
    return make_net(schema.parse_net(text, "r.prototxt"), "TRAIN", seed=1)


def c_round(x: float) -> int:
    return floor(x + 0.5) if x >= 0 else ceil(x - 0.5)


def clip(n: float, size: int) -> int:
    return min(max(int(n), 0), size)


def max_by_loops(x: Tensor, rows: int, columns: int, scale: float) -> tuple[Tensor, Tensor]:
    """Tops of ROIPooling, and the gradient of their sum (to the first maximum)."""
    top, gradient = torch.zeros(len(REGIONS), x.shape[1], rows, columns), torch.zeros_like(x)
    for r, (image, *corners) in enumerate(REGIONS.tolist()):
        x1, y1, x2, y2 = (c_round(c * scale) for c in corners)
        height, width = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
        for i in range(rows):
            for j in range(columns):
                hs = range(clip(i * height // rows + y1, 9), clip(-((-(i + 1) * height) // rows) + y1, 9))
                ws = range(clip(j * width // columns + x1, 7), clip(-((-(j + 1) * width) // columns) + x1, 7))
                cells = [(h, w) for h in hs for w in ws]
                for c in range(x.shape[1]):
                    if cells:
                        best = max(
                            cells, key=lambda at: (float(x[int(image), c, at[0], at[1]]), -at[0], -at[1])
                        )
                        top[r, c, i, j] = x[int(image), c, best[0], best[1]]
                        gradient[int(image), c, best[0], best[1]] += 1
    return top, gradient


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 2), (7, 7), (4, 9)])
def test_roi_pooling_equals_loops(rows: int, columns: int) -> None:
    param = f"roi_pooling_param {{ pooled_h: {rows} pooled_w: {columns} spatial_scale: 0.5 }}"
    made = net("ROIPooling", 2, param)
    x = torch.randint(-3, 3, (2, 2, 9, 7)).float().requires_grad_(True)
    (top,) = made(x, REGIONS)
    wanted, gradient = max_by_loops(x.detach(), rows, columns, 0.5)
    assert torch.equal(top, wanted)
    assert torch.equal(torch.autograd.grad(top.sum(), x)[0], gradient)


def test_roi_pooling_takes_no_more_memory_than_its_blobs() -> None:
    param = "roi_pooling_param { pooled_h: 7 pooled_w: 7 spatial_scale: 1 }"
    text = (
        'layer { name: "in" type: "Input" top: "x" top: "r" input_param { '
        "shape { dim: 1 dim: 4 dim: 300 dim: 300 } shape { dim: 2 dim: 5 } } }\n"
        f'layer {{ name: "p" type: "ROIPooling" bottom: "x" bottom: "r" top: "y" {param} }}'
    )
    made = make_net(schema.parse_net(text, "r.prototxt"), "TRAIN", seed=1)
    x = torch.randn(1, 4, 300, 300)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as seen:
        made(x, torch.tensor([[0.0, 0.0, 0.0, 299.0, 299.0], [0.0, 10.0, 20.0, 30.0, 40.0]]))
    assert max(event.cpu_memory_usage for event in seen.events()) < 4 * x.numel() * x.element_size()


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 2), (7, 7)])
def test_roi_places_by_tables_are_those_by_search(
    rows: int, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(largest_places, "MOST_BYTES", 1)
    x = torch.randint(-3, 3, (2, 3, 9, 7)).float()
    layer = net("ROIPooling", 3, f"roi_pooling_param {{ pooled_h: {rows} pooled_w: {columns} }}").made[1]
    assert isinstance(layer, roi.ROIPooling)
    image, *ends = layer.regions(REGIONS)
    down, right = (
        layer.span(*end, n, size) for end, n, size in zip(ends, (rows, columns), (9, 7), strict=True)
    )
    full = ~(down.empty()[:, :, None] | right.empty()[:, None, :])
    cells = (image, *down, *right)
    searched, tables = largest_places.places_by_search(x, *cells), largest_places.places_by_tables(x, *cells)
    assert full.any()
    assert torch.equal(searched[full], tables[full])
    assert torch.equal(tables, largest_places.in_parts(x, *cells))


def test_psroi_pooling_equals_loops() -> None:
    g, outputs, scale = 3, 2, 0.5
    made = net("PSROIPooling", 18, "psroi_pooling_param { output_dim: 2 group_size: 3 spatial_scale: 0.5 }")
    x = torch.randn(2, 18, 9, 7)
    wanted = torch.zeros(len(REGIONS), outputs, g, g)
    for r, (image, *corners) in enumerate(REGIONS.tolist()):
        x1, y1, x2, y2 = (c_round(c) for c in corners)
        top, left = y1 * scale, x1 * scale
        step = max((y2 + 1) * scale - top, 0.1) / g, max((x2 + 1) * scale - left, 0.1) / g
        for i in range(g):
            for j in range(g):
                hs = slice(clip(floor(i * step[0] + top), 9), clip(ceil((i + 1) * step[0] + top), 9))
                ws = slice(clip(floor(j * step[1] + left), 7), clip(ceil((j + 1) * step[1] + left), 7))
                for k in range(outputs):
                    cells = x[int(image), (k * g + i) * g + j, hs, ws]
                    wanted[r, k, i, j] = cells.mean() if cells.numel() else 0
    torch.testing.assert_close(made(x, REGIONS)[0], wanted)


def sample(plane: Tensor, y: float, x: float) -> float:
    """Bilinear interpolation, 0 beyond one pixel outside."""
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0.0), height - 1), min(max(x, 0.0), width - 1)
    h, w = int(y), int(x)
    below, right = min(h + 1, height - 1), min(w + 1, width - 1)
    top = plane[h, w] * (1 - (x - w)) + plane[h, right] * (x - w)
    bottom = plane[below, w] * (1 - (x - w)) + plane[below, right] * (x - w)
    return float(top * (1 - (y - h)) + bottom * (y - h))


@pytest.mark.parametrize(("samples", "beyond"), [(1, 0), (2, 0), (3, 1)])
def test_roi_align_equals_loops(samples: int, beyond: int) -> None:
    param = f"pooled_h: 3 pooled_w: 2 spatial_scale: 0.5 sampling_ratio: {samples} roi_end_mode: {beyond}"
    made = net("ROIAlign", 2, f"roi_align_param {{ {param} }}")
    x = torch.randn(2, 2, 9, 7)
    wanted = torch.zeros(len(REGIONS), 2, 3, 2)
    for r, (image, x1, y1, x2, y2) in enumerate(REGIONS.tolist()):
        top, left = y1 * 0.5, x1 * 0.5
        step = max((y2 + beyond) * 0.5 - top, 1.0) / 3, max((x2 + beyond) * 0.5 - left, 1.0) / 2
        for c in range(2):
            for i in range(3):
                for j in range(2):
                    sampled = [
                        sample(x[int(image), c], top + (i + p) * step[0], left + (j + q) * step[1])
                        for p in ((a + 0.5) / samples for a in range(samples))
                        for q in ((b + 0.5) / samples for b in range(samples))
                    ]
                    wanted[r, c, i, j] = sum(sampled) / len(sampled)
    torch.testing.assert_close(made(x, REGIONS)[0], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "param", "regions", "text"),
    [
        ("ROIPooling", "roi_pooling_param { pooled_h: 2 }", "dim: 5 dim: 5", "needs pooled_w > 0"),
        (
            "ROIPooling",
            "roi_pooling_param { pooled_h: 2 pooled_w: 2 }",
            "dim: 5 dim: 3",
            "needs regions (R, 5)",
        ),
        (
            "PSROIPooling",
            "psroi_pooling_param { output_dim: 2 group_size: 2 spatial_scale: 1 }",
            "dim: 5 dim: 5",
            "needs output_dim group_size^2 = 8 channels",
        ),
        (
            "ROIAlign",
            "roi_align_param { pooled_h: 2 pooled_w: 2 sampling_ratio: -1 }",
            "dim: 5 dim: 5",
            "needs a fixed sampling_ratio > 0, found -1",
        ),
    ],
)
def test_contradictions_are_refused(kind: str, param: str, regions: str, text: str) -> None:
    with pytest.raises(SpecError) as caught:
        net(kind, 3, param, regions)
    assert text in str(caught.value)
    assert "r.prototxt:2:" in str(caught.value)
