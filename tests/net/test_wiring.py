"""What a net says of its wiring: mistakes with the nearest name, and what layers cost and see in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from netspec import schema
from netspec.errors import Position, SpecError
from netspec.layers.base import registry
from netspec.layers.traits import Chain, Lack
from netspec.net import reading, summary
from netspec.net.make import make_net
from netspec.schema import spec

INPUT = (
    'layer { name: "x" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 6 } } }\n'
)


def layer(type_: str, rest: str = "", bottoms: tuple[str, ...] = ("data",)) -> str:
    reads = " ".join(f'bottom: "{name}"' for name in bottoms)
    return f'{INPUT}layer {{ name: "y" type: "{type_}" {reads} top: "y" {rest} }}'


def test_an_unknown_bottom_is_told_with_the_nearest_name_and_its_line() -> None:
    with pytest.raises(SpecError) as caught:
        make_net(layer("ReLU", bottoms=("dat",)))
    (problem,) = caught.value.problems
    assert problem.message.endswith("bottom 'dat' is made by no earlier layer; did you mean 'data' (line 1)?")
    with pytest.raises(SpecError) as caught:
        make_net(layer("ReLU", bottoms=("something_else",)))
    assert caught.value.problems[0].message.endswith("is made by no earlier layer")


@pytest.mark.parametrize(
    ("fields", "bottoms", "products"),
    [
        ("", 3, 0),
        ("eltwise_param { coeff: 1 coeff: -1 coeff: 2 }", 3, 3),
        ("eltwise_param { operation: PROD }", 3, 2),
        ("eltwise_param { operation: MAX }", 2, 0),
    ],
)
def test_products_of_eltwise_per_value(fields: str, bottoms: int, products: int) -> None:
    net = make_net(layer("Eltwise", fields, ("data",) * bottoms), device="meta")
    (row,) = [row for row in summary.rows(net) if row.name == "y"]
    assert row.multiply_adds == products * 2 * 3 * 4 * 6


@pytest.mark.parametrize(
    ("name", "nearest", "slip"),
    [
        ("num_ouput", "num_output", True),  # one letter left out
        ("strid", "stride", True),
        ("kernel_sz", "kernel_size", True),
        ("group", "bias_group_term", False),
        ("ab", "a", False),  # too short to be a slip
    ],
)
def test_a_slip_is_told_from_a_field_of_another_fork(name: str, nearest: str, slip: bool) -> None:
    unknown = reading.UnknownField(
        path=("layer", 0, name),
        name=name,
        owner="ConvolutionParameter",
        position=Position("net.prototxt", 1),
        nearest=nearest,
        layer="conv",
        layer_type="Convolution",
        value="1",
    )
    assert reading.is_slip(unknown) is slip


def test_fields_of_leaves_are_their_windows() -> None:
    """Windows of 2 x 3 cells; the axis of channels is no place."""
    leaves = registry["Leaves"]
    text = """
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 1 dim: 4 dim: 6 } } }
        layer { name: "leaf" type: "Leaves" bottom: "x" top: "y" leaves_param { num_instances: 2
          block_param { block_h: 2 block_w: 3 stride_h: 2 stride_w: 3 } distribution { kind: "gaussian" } } }"""
    net = make_net(text, device="meta")
    (made,) = [one for one in net.made if isinstance(one, leaves)]
    below = summary.Field((1, 1), (1, 1))
    field = made.field(below, [net.shape("x")], [net.shape("y")])
    assert field is not None
    assert (field.size, field.stride) == ((2, 3), (2, 3))


def test_labels_from_0_on_are_classes() -> None:
    """0 is a class; below it and from the number of classes on is none, and the count says how many are not."""
    text = """
        layer { name: "x" type: "Input" top: "x" top: "t" input_param { shape { dim: 4 dim: 3 } shape { dim: 4 } } }
        layer { name: "l" type: "SoftmaxWithLoss" bottom: "x" bottom: "t" top: "loss" }"""
    net = make_net(text, "TRAIN")
    net(torch.zeros(4, 3), torch.tensor([0.0, 1.0, 2.0, 0.0]))
    with pytest.raises(
        Exception, match=r"label 3 is outside: there are 3, 0 to 2 \(1 of 4 values are outside\)"
    ):
        net(torch.zeros(4, 3), torch.tensor([0.0, 1.0, 3.0, 0.0]))


def test_layers_that_move_values_have_no_receptive_field() -> None:
    """A value at a place comes from another place."""
    pixels = ",".join(str(i) for i in reversed(range(24)))
    net = make_net(
        layer("Permutation", f'permutation_param {{ type: GEN permute_string: "{pixels}" }}'), device="meta"
    )
    (made,) = net.made[1:]
    below = summary.Field((1, 1), (1, 1))
    assert made.field(below, [net.shape("data")], [net.shape("y")]) is None
    assert registry["Python"].mixes


@pytest.mark.parametrize(
    ("fields", "passes"), [("", True), ("power: 2", False), ("scale: 2", False), ("shift: 1", False)]
)
def test_a_power_that_changes_nothing_passes_a_tree_on(fields: str, passes: bool) -> None:
    net = make_net(layer("Power", f"power_param {{ {fields} }}"), device="meta")
    chain = Chain((0,))
    assert net.made[1].tree_value(1, [chain]) == (chain if passes else None)


def test_a_file_of_gains_that_is_not_here_is_what_a_layer_lacks(tmp_path: Path) -> None:
    def lacking(fields: str, bottoms: tuple[str, ...] = ("data", "label")) -> object:
        text = layer("InfogainLoss", f"infogain_loss_param {{ {fields} }}", bottoms)
        return registry["InfogainLoss"].lacking(spec.net(schema.parse_net(text), "TRAIN").layers[1])

    there = tmp_path / "gains.binaryproto"
    there.write_bytes(b"")
    missing = lacking('source: "no_such_file"')
    assert isinstance(missing, Lack)
    assert missing.need == "no_such_file"
    assert lacking(f'source: "{there}"') is None
    assert lacking("") is None
    assert lacking('source: "no_such_file"', ("data", "label", "gains")) is None
