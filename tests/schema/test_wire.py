"""Binary messages: the numbers of each dialect, round trips, and damaged bytes."""

from __future__ import annotations

import random
from typing import Any

import pytest

from netspec import schema
from netspec.errors import SnapshotError
from netspec.schema.encoded import spans

SIMNETS = """
layer { name: "s" type: "Similarity" similarity_param { num_instances: 3 block_param { block_size: 2 } } }
layer { name: "m" type: "MEX" mex_param { num_instances: 5 } }
layer { name: "n" type: "Noise" noise_param { force_random: true } noise_param { offset_add_mean: true } }
layer { name: "c" type: "Convolution" convolution_param { num_output: 2 }
  blobs { shape { dim: 2 } data: [1, 2] } }
"""
BVLC = """
layer { name: "p" type: "Parameter" parameter_param { shape { dim: 3 } } }
layer { name: "s" type: "Swish" swish_param { beta: 2 } }
layer { name: "c" type: "Clip" clip_param { min: -1 max: 1 } }
"""


def field_numbers(data: bytes) -> list[set[int]]:
    layers = [span for span in spans(data, 0, len(data)) if span.number == 100]
    return [{span.number for span in spans(data, layer.start, layer.end)} for layer in layers]


def test_numbers_on_the_wire_are_those_of_the_dialect() -> None:
    simnets = schema.write_binary_net(schema.parse_net(SIMNETS).message, "simnets")
    assert field_numbers(simnets) == [{1, 2, 145}, {1, 2, 147}, {1, 2, 148}, {1, 2, 7, 106}]
    bvlc = schema.write_binary_net(schema.parse_net(BVLC).message)
    assert field_numbers(bvlc) == [{1, 2, 145}, {1, 2, 147}, {1, 2, 148}]


@pytest.mark.parametrize(("text", "dialect"), [(SIMNETS, "simnets"), (SIMNETS, "bvlc"), (BVLC, "bvlc")])
def test_round_trip(text: str, dialect: Any) -> None:
    message = schema.parse_net(text).message
    data = schema.write_binary_net(message, dialect)
    assert schema.read_binary_net(data) == message
    assert schema.write_binary_net(schema.read_binary_net(data), dialect) == data


def test_what_a_dialect_cannot_hold_is_refused() -> None:
    with pytest.raises(SnapshotError, match="Parameter layer cannot be written in the SimNets dialect"):
        schema.write_binary_net(schema.parse_net(BVLC).message, "simnets")


def test_solver_dialects() -> None:
    simnets = schema.parse_solver("init_test_iter: 3 init_test_interval: 7 base_lr: 0.5").message
    data = schema.write_binary_solver(simnets, "simnets")
    assert {span.number for span in spans(data, 0, len(data))} == {5, 41, 42}
    assert schema.read_binary_solver(data) == simnets
    bvlc = schema.parse_solver('layer_wise_reduce: false weights: "a" weights: "b"').message
    data = schema.write_binary_solver(bvlc)
    assert schema.read_binary_solver(data) == bvlc
    with pytest.raises(SnapshotError):
        schema.write_binary_solver(bvlc, "simnets")
    nested = schema.parse_solver(f"init_test_iter: 9 net_param {{ {SIMNETS} }}").message
    data = schema.write_binary_solver(nested, "simnets")
    assert schema.read_binary_solver(data) == nested


def test_old_binary_nets_are_upgraded() -> None:
    old = schema.NetParameter()
    layer = old.layers.add(name="ip", type=14, blobs_lr=[1, 2])
    layer.blobs.add(num=1, channels=1, height=2, width=1, data=[3, 4])
    new = schema.read_binary_net(old.SerializeToString())
    assert (new.layer[0].name, new.layer[0].type) == ("ip", "InnerProduct")
    assert list(new.layer[0].blobs[0].data) == [3, 4]
    assert schema.read_binary_net(old.SerializeToString(), upgrade=False) == old
    # A weight file may name its inputs without their shapes.
    assert not schema.read_binary_net(schema.NetParameter(input=["data"]).SerializeToString()).layer


def test_fields_of_other_forks_do_not_turn_into_ours() -> None:
    # Number 149 is `sum_loss_param` in the SimNets fork and `upsample_param` in files made by darknet2caffe.
    upsample = schema.LayerParameter(name="u", type="Upsample", upsample_param={"scale": 3})
    raw = upsample.SerializeToString().replace(b"\x92\x47", b"\xaa\x09")
    net = schema.NetParameter().SerializeToString() + b"\xa2\x06" + bytes([len(raw)]) + raw
    layer = schema.read_binary_net(net).layer[0]
    assert layer.upsample_param.scale == 3
    assert not layer.HasField("sum_loss_param")


def test_damaged_bytes_give_a_snapshot_error_or_a_message() -> None:
    data = schema.write_binary_net(schema.parse_net(SIMNETS).message, "simnets")
    chance = random.Random(3)
    refused = 0
    for _ in range(1500):
        mutated = bytearray(data)
        for _ in range(chance.randrange(1, 4)):
            mutated[chance.randrange(len(mutated))] = chance.randrange(256)
        cut = bytes(mutated[: chance.randrange(len(mutated))]) if chance.random() < 0.3 else bytes(mutated)
        try:
            schema.read_binary_net(cut)
        except SnapshotError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    "data",
    [
        b"\xa2\x06\x00" * 1_000_001,
        b"\xa2\x06\xff\xff\xff\x7fabc",
        b"\x0a\x05ab",
        b"\xff" * 30,
        b"\x0b" * 1000,
        b"\xa2\x06\x03\xa2\x06",
    ],
    ids=["many fields", "huge size", "cut string", "endless number", "groups", "cut tag"],
)
def test_hostile_bytes(data: bytes) -> None:
    with pytest.raises(SnapshotError, match=r"weights\.caffemodel"):
        schema.read_binary_net(data, "weights.caffemodel")


def test_strings_that_are_not_utf8() -> None:
    data = schema.NetParameter(name="caf?").SerializeToString().replace(b"?", b"\xe9")
    assert schema.read_binary_net(data).name == "caf?"
    solver = schema.SolverParameter(net_param={"layer": [{"name": "x?"}]}).SerializeToString()
    assert schema.read_binary_solver(solver.replace(b"?", b"\xff")).net_param.layer[0].name == "x?"


def test_other_messages() -> None:
    state = schema.SolverState(iter=7, learned_net="x")
    assert schema.read_binary("SolverState", state.SerializeToString()) == state
    with pytest.raises(SnapshotError, match="not a readable BlobProto"):
        schema.read_binary("BlobProto", b"\x2a\xff")
