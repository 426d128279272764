"""Old syntaxes give the layers that Caffe made of them, and their fields keep their places."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from netspec import schema
from netspec.errors import SpecError
from tests.places import VECTORS as GOLDEN


def golden(name: str) -> tuple[str, dict[str, Any]]:
    with np.load(GOLDEN / f"{name}.npz") as archive:
        return str(archive["prototxt"]), json.loads(str(archive["meta"]))


@pytest.mark.parametrize("name", ["bvlc__legacy_v0", "bvlc__legacy_v1", "bvlc__input_fields"])
def test_layers_are_those_of_the_original(name: str) -> None:
    text, meta = golden(name)
    layers = schema.parse_net(text).message.layer
    kept = [layer for layer in layers if not any(rule.phase == 1 for rule in layer.include)]
    assert [[layer.name, layer.type] for layer in kept] == meta["layers"]


def test_v0() -> None:
    text, _ = golden("bvlc__legacy_v0")
    document = schema.parse_net(text, "v0")
    assert document.legacy == ("v0", "input")
    conv = document.message.layer[1]
    assert list(conv.bottom) == ["data"]
    assert (list(conv.convolution_param.pad), list(conv.convolution_param.kernel_size)) == ([2], [3])
    assert [param.lr_mult for param in conv.param] == [1, 2]
    assert str(document.at("layer", 1, "convolution_param", "pad")) == "v0:5:47"
    assert document.at("layer", 1, "bottom", 0).line == 5
    assert document.at("layer", 1, "convolution_param", "kernel_size").line == 6
    assert document.at("layer", 0, "input_param", "shape", 1, "dim", 0).line == 3


def test_v0_data_layer_and_fields_without_meaning() -> None:
    document = schema.parse_net(
        'layers { layer { name: "d" type: "images" source: "list" batchsize: 8 scale: 0.5 meanfile: "m"'
        ' cropsize: 5 mirror: true shuffle_images: true rand_skip: 3 kernelsize: 9 } top: "x" }'
        'layers { layer { name: "w" type: "window_data" det_fg_threshold: 0.25 det_crop_mode: "square" } }'
        'layers { layer { name: "odd" type: "odd" } }'
    )
    data, window, odd = document.message.layer
    assert (data.type, data.image_data_param.batch_size, data.image_data_param.shuffle) == (
        "ImageData",
        8,
        True,
    )
    assert (data.transform_param.scale, data.transform_param.mean_file) == (0.5, "m")
    assert (data.transform_param.crop_size, data.transform_param.mirror) == (5, True)
    assert (window.window_data_param.fg_threshold, window.window_data_param.crop_mode) == (0.25, "square")
    assert odd.type == "odd"


def test_padding_must_feed_a_window() -> None:
    with pytest.raises(
        SpecError, match=r"1:\d+: padding layer 'p' feeds 'r', which is no convolution or pooling"
    ):
        schema.parse_net(
            'layers { layer { name: "p" type: "padding" pad: 1 } bottom: "x" top: "y" }'
            'layers { layer { name: "r" type: "relu" } bottom: "y" top: "y" }'
        )


def test_v1() -> None:
    text, _ = golden("bvlc__legacy_v1")
    document = schema.parse_net(text, "v1")
    conv = document.message.layer[1]
    assert [(param.lr_mult, param.decay_mult) for param in conv.param] == [(1, 1), (2, 0)]
    assert document.at("layer", 1, "param", 1, "decay_mult").line == 5
    assert document.at("layer", 1, "convolution_param", "stride").line == 6
    assert document.message.layer[-1].loss_weight[0] == 0.5
    assert not document.message.layers


def test_v1_names_of_parameters_and_transform() -> None:
    document = schema.parse_net(
        'layers { name: "d" type: DATA data_param { source: "db" scale: 0.25 mean_file: "m" crop_size: 3 '
        "mirror: true } }\n"
        'layers { name: "a" type: INNER_PRODUCT param: "w" param: "b" blob_share_mode: PERMISSIVE }'
    )
    data, inner = document.message.layer
    assert not data.data_param.HasField("scale")
    assert (data.transform_param.scale, data.transform_param.crop_size) == (0.25, 3)
    assert str(document.at("layer", 0, "transform_param", "crop_size")) == "<text>:1:84"
    assert [param.name for param in inner.param] == ["w", "b"]
    assert inner.param[0].share_mode == 1
    assert document.legacy == ("v1", "transform")


def test_every_v1_type_has_a_name_now() -> None:
    from netspec.schema.upgrade import V1_TYPES

    assert set(V1_TYPES) == set(schema.enum("V1LayerParameter.LayerType").values_by_name)


def test_v1_types_of_forks_are_kept_as_written() -> None:
    document = schema.parse_net(
        'layers { name: "a" type: RELU } layers { name: "b" type: TRIPLET_DATA }', unknown="keep"
    )
    assert [layer.type for layer in document.message.layer] == ["ReLU", "TRIPLET_DATA"]


def test_both_syntaxes_in_one_file_are_refused() -> None:
    with pytest.raises(SpecError, match="<text>:2:1: the net has both 'layer' and the older 'layers'"):
        schema.parse_net("layers { type: RELU }\nlayer { }")


INPUTS = [
    ('input: "a"', "input 'a' has no shape"),
    ('input: "a" input: "b" input_dim: [1, 2, 3, 4]', "2 input need 4 input_dim each, found 4"),
    ('input: "a" input_shape { dim: 1 } input_shape { dim: 2 }', "1 input, but 2 input_shape"),
]


@pytest.mark.parametrize(("text", "complaint"), INPUTS)
def test_inputs_whose_shapes_do_not_match(text: str, complaint: str) -> None:
    with pytest.raises(SpecError, match=complaint):
        schema.parse_net(text)


def test_input_layer_comes_first() -> None:
    document = schema.parse_net('layer { name: "r" }\ninput: "x" input: "y"\ninput_dim: [1,2,3,4,5,6,7,8]')
    first = document.message.layer[0]
    assert (first.name, first.type, list(first.top)) == ("input", "Input", ["x", "y"])
    assert [list(shape.dim) for shape in first.input_param.shape] == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert document.message.layer[1].name == "r"
    assert document.at("layer", 0).line == 2
    assert document.at("layer", 1).line == 1
    assert document.at("layer", 0, "input_param", "shape", 1, "dim", 1).line == 3


def test_batch_norm_with_three_param() -> None:
    three = "param { lr_mult: 0 } " * 3
    document = schema.parse_net(f'layer {{ type: "BatchNorm" {three}}} layer {{ type: "Scale" {three}}}')
    assert [len(layer.param) for layer in document.message.layer] == [0, 3]
    assert document.legacy == ("batch_norm",)


def test_solver_type() -> None:
    document = schema.parse_solver('solver_type: RMSPROP\nnet_param { layers { type: TANH name: "t" } }')
    assert document.message.type == "RMSProp"
    assert not document.message.HasField("solver_type")
    assert document.at("type").line == 1
    assert document.message.net_param.layer[0].type == "TanH"
    with pytest.raises(SpecError, match="<text>:2:1: the solver has both 'type' and the older 'solver_type'"):
        schema.parse_solver('type: "SGD"\nsolver_type: SGD')
