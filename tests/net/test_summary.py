"""The summary against oracles: torch's flop counter, and gradients for the receptive fields."""

from __future__ import annotations

from io import StringIO

import pytest
import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from netspec import schema
from netspec.net import net, summary
from netspec.net.graph import compile
from netspec.net.net import Net
from netspec.schema import spec

DATA = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 4 dim: 31 dim: 29 } } }\n'
CHAIN = (
    DATA
    + """
layer { name: "c1" type: "Convolution" bottom: "x" top: "c1"
  convolution_param { num_output: 6 kernel_size: 3 stride: 2 pad: 1 group: 2
  weight_filler { type: "xavier" } } }
layer { name: "r1" type: "ReLU" bottom: "c1" top: "c1" }
layer { name: "p1" type: "Pooling" bottom: "c1" top: "p1"
  pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layer { name: "c2" type: "Convolution" bottom: "p1" top: "c2"
  convolution_param { num_output: 5 kernel_h: 3 kernel_w: 1 dilation: 2 bias_term: false
  weight_filler { type: "xavier" } } }
"""
)


def built(text: str, seed: int = 1) -> Net:
    return net.build(compile(spec.net(schema.parse_net(text))), seed=seed)


def by_name(made: Net) -> dict[str, summary.Row]:
    return {row.name: row for row in summary.rows(made)}


def counted(made: Net) -> int:
    """Multiply-adds that torch itself counts in a forward pass."""
    inputs = [torch.randn(made.shapes[slot]) for slot in made.graph.inputs]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        made(*inputs)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize(
    "layer",
    [
        """type: "Convolution" convolution_param { num_output: 6 kernel_size: 3 stride: 2 pad: 1 }""",
        """type: "Convolution" convolution_param { num_output: 3 kernel_h: 5 kernel_w: 2 dilation: 2 }""",
        """type: "Deconvolution" convolution_param { num_output: 3 kernel_size: 4 stride: 2 pad: 1 }""",
        """type: "InnerProduct" inner_product_param { num_output: 7 }""",
        """type: "InnerProduct" inner_product_param { num_output: 7 axis: 2 transpose: true }""",
    ],
)
def test_multiply_adds_are_those_that_torch_counts(layer: str) -> None:
    made = built(f'{DATA} layer {{ name: "y" bottom: "x" top: "y" {layer} }}')
    assert by_name(made)["y"].multiply_adds == counted(made)


def test_multiply_adds_of_the_other_families() -> None:
    made = built(
        DATA
        + """
    layer { name: "s" type: "Similarity" bottom: "x" top: "s"
      similarity_param { num_instances: 5 block_param { block_size: 2 stride: 2 } } }
    layer { name: "m" type: "MEX" bottom: "s" top: "m" mex_param { num_instances: 3
      block_param { block_size: 1 } epsilon_filler { type: "constant" value: 1 } } }
    layer { name: "b" type: "BatchNorm" bottom: "m" top: "m" }
    layer { name: "e" type: "Eltwise" bottom: "m" bottom: "m" bottom: "m" top: "e"
      eltwise_param { operation: PROD } }
    layer { name: "max" type: "Eltwise" bottom: "m" bottom: "e" top: "max" eltwise_param { operation: MAX } }
    layer { name: "lrn" type: "LRN" bottom: "max" top: "lrn" lrn_param { local_size: 3 } }
    """
    )
    positions = 2 * 15 * 14
    expected = {
        "x": 0,
        "s": positions * 5 * 16 * 2,
        "m": positions * 3 * 5,
        "b": positions * 3,
        "e": positions * 3 * 2,
        "max": 0,
        "lrn": positions * 3 * 3,
    }
    assert {name: row.multiply_adds for name, row in by_name(made).items()} == expected


def test_shapes_parameters_and_memory() -> None:
    rows = by_name(built(CHAIN))
    assert rows["c1"].bottoms == ((2, 4, 31, 29),)
    assert rows["c1"].tops == ((2, 6, 16, 15),)
    assert rows["c1"].parameters == 6 * 2 * 9 + 6
    assert rows["c1"].activation_bytes == 4 * 2 * 6 * 16 * 15
    assert rows["r1"].activation_bytes == 0


def test_shared_weights_are_counted_once() -> None:
    layer = (
        'type: "InnerProduct" bottom: "x" param { name: "w" } '
        "inner_product_param { num_output: 2 bias_term: false }"
    )
    made = built(f'{DATA} layer {{ name: "a" top: "a" {layer} }} layer {{ name: "b" top: "b" {layer} }}')
    rows = by_name(made)
    weights = 2 * 4 * 31 * 29
    assert (rows["a"].parameters, rows["a"].shared) == (weights, 0)
    assert (rows["b"].parameters, rows["b"].shared) == (0, weights)
    assert summary.total(made, list(rows.values())).parameters == weights


@pytest.mark.parametrize("name", ["c1", "p1", "c2"])
def test_receptive_fields_are_where_the_gradient_reaches(name: str) -> None:
    made = built(CHAIN)
    for param in made.params:
        param.value.data.fill_(1.0)
    x = torch.ones(made.shapes[0], requires_grad=True)
    top = made.blobs(x, until=name)[name]
    reached = []
    for shift in (0, 1):
        h, w = top.shape[2] // 2 + shift, top.shape[3] // 2 + shift
        (gradient,) = torch.autograd.grad(top[0, :, h, w].sum(), x, retain_graph=True)
        rows, columns = gradient[0].abs().sum(0).nonzero(as_tuple=True)
        reached.append((rows.min().item(), rows.max().item(), columns.min().item(), columns.max().item()))
    first, second = reached
    field = by_name(made)[name].field
    assert field is not None
    assert field.size[0] == first[1] - first[0] + 1
    assert field.size[1] == first[3] - first[2] + 1
    assert field.stride == (second[0] - first[0], second[2] - first[2])


def test_receptive_fields_end_where_they_have_no_meaning() -> None:
    made = built(
        CHAIN
        + """
    layer { name: "noise" type: "DummyData" top: "n"
      dummy_data_param { shape { dim: 2 dim: 5 dim: 4 dim: 7 } } }
    layer { name: "sum" type: "Eltwise" bottom: "c2" bottom: "n" top: "sum" }
    layer { name: "up" type: "Deconvolution" bottom: "sum" top: "up"
      convolution_param { num_output: 5 kernel_size: 4 stride: 2 pad: 1 } }
    layer { name: "ip" type: "InnerProduct" bottom: "up" top: "ip" inner_product_param { num_output: 2 } }
    """
    )
    rows = by_name(made)
    assert rows["noise"].field == summary.NOTHING
    assert rows["sum"].field == rows["c2"].field
    assert rows["up"].field == summary.Field((23 + 4, 7 + 4), (2, 2))
    assert rows["ip"].field is None


def test_the_table_shows_everything_at_any_width() -> None:
    made = built(CHAIN)
    for width in (70, 100, 200):
        console = Console(width=width, record=True, file=StringIO())
        console.print(summary.table(made))
        text = console.export_text()
        assert "…" not in text
        assert "total" in text
    assert "2×4×31×29" in text
    assert "a batch of 2" in text


def test_names_are_no_markup() -> None:
    made = built('layer { name: "[red]x[/red]" type: "Input" top: "x" input_param { shape { dim: 2 } } }')
    console = Console(width=100, record=True, file=StringIO())
    console.print(summary.table(made))
    assert "[red]x[/red]" in console.export_text()


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0"), (999, "999"), (1000, "1 k"), (1_234_567, "1.23 M"), (999_999, "1 M"), (123_456, "123 k")],
)
def test_counts_have_three_digits(n: int, text: str) -> None:
    assert summary.count(n) == text


def test_sizes_are_in_powers_of_1024() -> None:
    assert [summary.size(n) for n in (12, 1024, 3 * 2**20)] == ["12 B", "1 KiB", "3 MiB"]


def test_a_correlation_counts_its_products_and_sees_as_far_as_it_moves() -> None:
    """FlowNetC's: 441 displacements of 48 x 64 maps with 256 channels, up to 20 pixels to each side."""
    maps = "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" '
        "input_param { shape { dim: 1 dim: 256 dim: 48 dim: 64 } } }\n"
        for name in "ab"
    )
    text = maps + (
        'layer { name: "c" type: "Correlation" bottom: "a" bottom: "b" top: "c" correlation_param '
        "{ pad: 20 kernel_size: 1 max_displacement: 20 stride_1: 1 stride_2: 2 } }"
    )
    made = net.build(compile(spec.net(schema.parse_net(text))), device="meta")
    row = by_name(made)["c"]
    assert row.tops == ((1, 441, 48, 64),)
    assert row.multiply_adds == 441 * 48 * 64 * 256
    assert row.field == summary.Field((41, 41), (1, 1))
    assert row.field.first == (0, 0)
    assert summary.cells(row)[4:8] == ["347 M", "5.17 MiB", "41", "1"]


@pytest.mark.parametrize(
    "layer",
    [
        'type: "Convolution" convolution_param { num_output: 2 kernel_h: 5 kernel_w: 2 stride: 2 pad: 1 }',
        'type: "Pooling" pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 round_mode: FLOOR }',
        'type: "Deconvolution" convolution_param { num_output: 2 kernel_size: 4 stride: 2 pad: 1 }',
        'type: "Deconvolution" convolution_param { num_output: 2 kernel_size: 2 stride: 2 }',
        'type: "LRN" lrn_param { local_size: 3 norm_region: WITHIN_CHANNEL }',
        'type: "Local" local_param { num_output: 2 kernel_size: 3 stride: 2 pad: 1 }',
        'type: "UnPooling" unpooling_param { unpool: AVE kernel_size: 2 stride: 2 }',
        'type: "Upsample" upsample_param { scale: 3 }',
        'type: "Unpooling" unpool_param { mode: REPEAT kernel_size: 2 }',
        'bottom: "like" type: "Crop" crop_param { offset: 3 offset: 5 }',
    ],
)
def test_fields_are_where_the_gradient_reaches_of_other_layers(layer: str) -> None:
    like = 'layer { name: "l" type: "Input" top: "like" input_param { shape { dim: 2 dim: 4 dim: 9 dim: 8 } } }\n'
    made = built(f'{DATA}{like if "like" in layer else ""}layer {{ name: "y" bottom: "x" {layer} top: "y" }}')
    for param in made.params:
        param.value.data.fill_(1.0)
    field = by_name(made)["y"].field
    assert field is not None
    inputs = [torch.rand(made.shapes[slot]) for slot in made.graph.inputs]
    x = inputs[0].requires_grad_()
    top = made.blobs(*inputs, until="y")["y"]
    h, w = top.shape[2] // 2, top.shape[3] // 2
    edges = []
    for down, right in ((0, 0), (1, 0), (2, 0), (3, 0), (0, 1), (0, 2), (0, 3)):
        (gradient,) = torch.autograd.grad(top[0, :, h + down, w + right].sum(), x, retain_graph=True)
        rows, columns = gradient[0].abs().sum(0).nonzero(as_tuple=True)
        edges.append([(int(a.min()), int(a.max())) for a in (rows, columns)])
    for axis, _place in ((0, h), (1, w)):
        low, high = edges[0][axis]
        assert field.size[axis] in (
            high - low + 1,
            high - low + 2,
        )  # a map grown by fractions sees one more or less
        far = edges[3 if axis == 0 else 6][axis]
        assert abs((sum(far) - low - high) / 2 - 3 * field.stride[axis]) < 1
        assert abs(field.at((h, w))[axis] - (low + high) / 2) <= 0.5


def test_what_comes_first_agrees_with_the_maps_of_coordinates_of_pycaffe() -> None:
    from netspec.pycaffe import coord_map
    from netspec.pycaffe.net_spec import NetSpec, layers

    n = NetSpec()
    n.data = layers.Input(input_param={"shape": {"dim": [1, 3, 64, 64]}})
    n.conv = layers.Convolution(n.data, num_output=4, kernel_size=5, pad=30, stride=2)
    n.pool = layers.Pooling(n.conv, pool=0, kernel_size=3, stride=2)
    n.up = layers.Deconvolution(n.pool, convolution_param={"num_output": 2, "kernel_size": 7, "stride": 4})
    n.out = coord_map.crop(n.up, n.data)
    field = by_name(built(str(n.to_proto())))["out"].field
    _, a, b = coord_map.coord_map_from_to(n.up, n.data)
    (offset,) = set(n.out.fn.params["crop_param"]["offset"])
    assert field is not None
    assert field.stride == (a, a) == (1, 1)
    assert field.first == (b + offset, b + offset) == (0, 0)
