"""ONNX models become prototxt and caffemodel that compute the same; what has no layer is named with its node."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from typer.testing import CliRunner

from netspec.cli import app
from netspec.errors import NetspecError, SpecError
from netspec.interchange.comparison import open_net
from netspec.interchange.onnx import export_onnx, quiet
from netspec.interchange.onnx_nets import graph
from netspec.interchange.onnx_nets.convert import from_onnx
from netspec.net.make import make_net
from tests.interchange.test_from_torch import Calls, settled
from tests.places import ROOT

RANDOM = np.random.default_rng(4)


def model(
    path: Path,
    nodes: list[Any],
    shape: tuple[Any, ...] = (2, 4, 9, 7),
    opset: int = 17,
    outputs: tuple[str, ...] = ("y",),
    **constants: Any,
) -> Path:
    """A model of one input x."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path = path / "model.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def floats(*shape: int) -> np.ndarray:
    return RANDOM.uniform(0.2, 1, shape).astype(np.float32)


def node(kind: str, inputs: str = "x", output: str = "y", **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), output.split(), name=f"the_{kind}", **attributes)


ONE: dict[str, tuple[Any, dict[str, Any]]] = {
    "conv": (node("Conv", "x w b", pads=[1, 2, 1, 2], strides=[2, 1]), {"w": floats(6, 4, 3, 5), "b": floats(6)}),
    "conv_dilated_group": (node("Conv", "x w", dilations=[2, 1], group=2), {"w": floats(6, 2, 3, 3)}),
    "conv_same_upper": (node("Conv", "x w", auto_pad="SAME_UPPER", strides=[2, 2]), {"w": floats(3, 4, 4, 4)}),
    "conv_same_lower": (node("Conv", "x w", auto_pad="SAME_LOWER"), {"w": floats(3, 4, 2, 2)}),
    "conv_unequal": (node("Conv", "x w", pads=[0, 0, 1, 2]), {"w": floats(3, 4, 3, 3)}),
    "deconv": (
        node("ConvTranspose", "x w b", strides=[2, 2], pads=[1, 1, 1, 1]), {"w": floats(4, 3, 4, 4), "b": floats(3)},
    ),
    "max_pool": (node("MaxPool", kernel_shape=[3, 3], strides=[2, 2]), {}),
    "max_pool_ceil": (node("MaxPool", kernel_shape=[2, 3], strides=[2, 2], ceil_mode=1), {}),
    "max_pool_padded": (node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), {}),
    "average_pool": (node("AveragePool", kernel_shape=[3, 3], strides=[2, 2]), {}),
    "average_pool_counted": (node("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1), {}),
    "global_average": (node("GlobalAveragePool"), {}),
    "global_max": (node("GlobalMaxPool"), {}),
    "batch_norm": (
        node("BatchNormalization", "x s b m v", epsilon=1e-3),
        {"s": floats(4), "b": floats(4), "m": floats(4), "v": floats(4)},
    ),
    "instance_norm": (node("InstanceNormalization", "x s b", epsilon=1e-3), {"s": floats(4), "b": floats(4)}),
    "layer_norm": (node("LayerNormalization", "x s b"), {"s": floats(7), "b": floats(7)}),
    "layer_norm_axes": (node("LayerNormalization", "x s", axis=1), {"s": floats(4, 9, 7)}),
    "argmax": (node("ArgMax", axis=1), {}),
    "argmax_dropped": (node("ArgMax", axis=-1, keepdims=0), {}),
    "selu": (node("Selu"), {}),
    "celu": (node("Celu", alpha=0.5), {}),
    "softsign": (node("Softsign"), {}),
    "reduce_min": (node("ReduceMin", axes=[2, 3]), {}),
    "reduce_l1": (node("ReduceL1", axes=[1, 2, 3]), {}),
    "reduce_l2": (node("ReduceL2", axes=[2, 3]), {}),
    "reduce_square": (node("ReduceSumSquare", axes=[2, 3], keepdims=0), {}),
    "reduce_log_sum_exp": (node("ReduceLogSumExp", axes=[2, 3]), {}),
    "lrn": (node("LRN", size=3, alpha=0.1, beta=0.75, bias=2.0), {}),
    "relu": (node("Relu"), {}),
    "leaky": (node("LeakyRelu", alpha=0.2), {}),
    "prelu": (node("PRelu", "x s"), {"s": floats(4, 1, 1)}),
    "elu": (node("Elu", alpha=0.5), {}),
    "sigmoid": (node("Sigmoid"), {}),
    "tanh": (node("Tanh"), {}),
    "softplus": (node("Softplus"), {}),
    "hard_sigmoid": (node("HardSigmoid", alpha=0.3), {}),
    "hard_swish": (node("HardSwish"), {}),
    "clip": (node("Clip", "x low high"), {"low": np.float32(0), "high": np.float32(0.5)}),
    "abs": (node("Abs"), {}),
    "exp": (node("Exp"), {}),
    "neg": (node("Neg"), {}),
    "power": (node("Pow", "x two"), {"two": np.float32(2)}),
    "add_number": (node("Add", "x a"), {"a": np.float32(1.5)}),
    "add_row": (node("Add", "x a"), {"a": floats(4, 1, 1)}),
    "subtract_from": (node("Sub", "a x"), {"a": np.float32(1)}),
    "multiply_row": (node("Mul", "x a"), {"a": floats(1, 4, 1, 1)}),
    "divide": (node("Div", "x a"), {"a": floats(4, 1, 1)}),
    "softmax": (node("Softmax", axis=1), {}),
    "log_softmax": (node("LogSoftmax", axis=1), {}),
    "transpose": (node("Transpose", perm=[0, 2, 3, 1]), {}),
    "flatten": (node("Flatten"), {}),
    "reshape": (node("Reshape", "x s"), {"s": np.array([0, 2, -1])}),
    "unsqueeze": (node("Unsqueeze", "x a"), {"a": np.array([1])}),
    "slice": (node("Slice", "x from to axis"), {"from": np.array([1]), "to": np.array([3]), "axis": np.array([1])}),
    "slice_to_the_end": (
        node("Slice", "x from to axis"),
        {"from": np.array([-2]), "to": np.array([2**62]), "axis": np.array([2])},
    ),
    "every_other": (
        node("Slice", "x from to axis step"),
        {"from": np.array([1, 0]), "to": np.array([99, 99]), "axis": np.array([2, 3]), "step": np.array([2, 3])},
    ),
    "gather_one": (node("Gather", "x i", axis=1), {"i": np.array(2)}),
    "gather_several": (node("Gather", "x i", axis=1), {"i": np.array([3, 0])}),
    "resize_nearest": (
        node("Resize", "x r s", mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        {"r": np.zeros(0, np.float32), "s": np.array([1, 1, 2, 2], np.float32)},
    ),
    "resize_halves": (
        node("Resize", "x r s", mode="nearest"),
        {"r": np.zeros(0, np.float32), "s": np.array([1, 1, 3, 2], np.float32)},
    ),
    "gather_of_constants": (
        node("Gather", "t i", "a"), {"t": floats(3, 4, 1, 1), "i": np.array(-2)},
    ),
    "gather_of_constants_axis": (
        node("Gather", "t i", "a", axis=2), {"t": floats(4, 1, 3, 1), "i": np.array(-1)},
    ),
    "gather_of_constants_table": (
        node("Gather", "t i", "a", axis=1), {"t": floats(4, 3), "i": np.array([[-1]])},
    ),
    "product": (node("ReduceProd", "t", "a", axes=[1]), {"t": floats(4, 3, 1)}),
    "product_flat": (node("ReduceProd", "t", "a", axes=[-1, 0], keepdims=0), {"t": floats(2, 7, 3)}),
    "resize_corners": (
        node("Resize", "x r f s", mode="linear", coordinate_transformation_mode="align_corners"),
        {"r": np.zeros(0, np.float32), "f": np.zeros(0, np.float32), "s": np.array([2, 4, 17, 13])},
    ),
    "depth_to_space": (node("DepthToSpace", blocksize=2), {}),
    "depth_to_space_crd": (node("DepthToSpace", blocksize=2, mode="CRD"), {}),
    "reduce_mean": (node("ReduceMean", axes=[2, 3]), {}),
    "reduce_sum": (node("ReduceSum", "x a", keepdims=0), {"a": np.array([1, 2, 3])}),
    "reduce_max": (node("ReduceMax", axes=[2, 3]), {}),
    "dropout": (node("Dropout"), {}),
    "tile": (node("Tile", "x n"), {"n": np.array([1, 2, 1, 1])}),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE)
def test_one_node(name: str, tmp_path: Path) -> None:
    made, constants = ONE[name]
    added = [helper.make_node("Add", ["x", "a"], ["y"])] if "a" in made.output else []
    nodes = [made, *added, helper.make_node("Identity", ["y"], ["z"])]
    converted = from_onnx(model(tmp_path, nodes, outputs=("z",), **constants))
    assert converted.report.rows or name == "dropout", "nothing was compared"
    assert converted.report.largest < 1e-4, str(converted.report)


def test_the_page_lists_every_operator() -> None:
    page = (ROOT / "docs" / "exchange.md").read_text()
    table = page[page.index("| ONNX | ") : page.index("Nodes of other types")]
    assert set(
        re.findall(r"`(\w+)`", "\n".join(row.split("|")[1] for row in table.splitlines() if "|" in row))
    ) == set(graph.OPERATORS) | {"Shape", "Size"}


def test_many_places_in_a_few_runs(tmp_path: Path) -> None:
    made = node("Gather", "x i", axis=1)
    converted = from_onnx(model(tmp_path, [made], (1, 300, 1, 1), i=np.r_[150:300, 0:150]))
    assert converted.report.equal, str(converted.report)
    with pytest.raises(SpecError, match=r"the_Gather.*takes 300 runs of places, more than 256"):
        from_onnx(model(tmp_path, [made], (1, 300, 1, 1), i=np.arange(300)[::-1].copy()))


def test_space_to_depth_is_one_convolution(tmp_path: Path) -> None:
    converted = from_onnx(model(tmp_path, [node("SpaceToDepth", blocksize=2)], (1, 3, 8, 6)))
    assert [layer.type for layer in converted.message.layer] == ["Input", "Convolution"]
    assert converted.report.largest < 1e-6


def test_shapes_are_worked_out_of_the_graph(tmp_path: Path) -> None:
    """What exporters make of x.view(x.shape[0], -1): Shape, Gather, Unsqueeze, Concat, Reshape."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Constant", [], ["zero"], value_int=0),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "axes"], ["row"]),
        helper.make_node("Concat", ["row", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["y"], name="flat"),
    ]
    converted = from_onnx(model(tmp_path, nodes, axes=np.array([0]), rest=np.array([-1])))
    assert [layer.type for layer in converted.message.layer] == ["Input", "Reshape"]
    assert converted.outputs == ("y",)


def test_names_are_those_of_nodes_and_outputs(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="/stem/conv/Conv"),
        helper.make_node("Relu", ["a"], ["scores"], name="/stem/act/Relu"),
    ]
    converted = from_onnx(model(tmp_path, nodes, outputs=("scores",), w=floats(2, 4, 1, 1)))
    assert [layer.name for layer in converted.message.layer] == ["x", "stem_conv_Conv", "stem_act_Relu"]
    assert converted.outputs == ("scores",)


WRONG: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "unknown": (
        [node("LSTM", "x w r", hidden_size=2)], {"w": floats(1, 8, 4), "r": floats(1, 8, 2)},
        "the_LSTM.*Caffe has no layer for it",
    ),
    "reflect": (
        [node("Pad", "x p", mode="reflect")], {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])}, "the_Pad.*mode 'reflect'",
    ),
    "two blobs": ([node("MatMul", "x x")], {}, "the_MatMul.*product of two blobs"),
    "domain": (
        [helper.make_node("Fancy", ["x"], ["y"], name="it", domain="com.other")], {}, "it.*of the set 'com.other'",
    ),
    "bomb": (
        [node("ConstantOfShape", "s", "b"), node("Add", "x b")], {"s": np.array([2**20, 2**20])},
        "ConstantOfShape.*would make",
    ),
    "range": (
        [node("Range", "a b c", "r"), node("Add", "x r")],
        {"a": np.int64(0), "b": np.int64(2**40), "c": np.int64(1)}, "Range.*would make",
    ),
    "depth block": ([node("DepthToSpace", blocksize=30000)], {}, "DepthToSpace.*blocksize 30000"),
    "space block": ([node("SpaceToDepth", blocksize=30000)], {}, "SpaceToDepth.*blocksize 30000"),
    "no block": ([node("SpaceToDepth", blocksize=0)], {}, "SpaceToDepth.*blocksize 0"),
    "prelu": ([node("PRelu", "x s")], {"s": floats(4)}, "the_PRelu.*slopes of shape"),
    "gather": ([node("Gather", "x i", axis=1)], {"i": np.arange(5000) // 3 % 4}, "the_Gather.*more than 4096 places"),
    "gather_outside": ([node("Gather", "x i", axis=1)], {"i": np.array([4])}, "the_Gather.*place 4 of 4"),
    "resize_ceil": (
        [node("Resize", "x r s", mode="nearest", nearest_mode="ceil")],
        {"r": np.zeros(0, np.float32), "s": np.array([1, 1, 2, 2], np.float32)}, "the_Resize.*'ceil'.*'half_pixel'",
    ),
    "resize_corners": (
        [node("Resize", "x r s", mode="nearest", coordinate_transformation_mode="align_corners")],
        {"r": np.zeros(0, np.float32), "s": np.array([1, 1, 2, 2], np.float32)}, "the_Resize.*'align_corners'",
    ),
    "resize_fraction": (
        [node("Resize", "x r s", mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")],
        {"r": np.zeros(0, np.float32), "s": np.array([1, 1, 2.1, 2.1], np.float32)}, "the_Resize.*scale",
    ),
    "whole numbers": ([node("Cast", to=TensorProto.INT64)], {}, "the_Cast.*whole numbers"),
    "no maker": ([node("Relu", "nothing")], {}, "the_Relu.*reads 'nothing'"),
    "sizes": ([node("Conv", "x w")], {"w": floats(2, 3, 1, 1)}, "the_Conv"),
    "resize": (
        [node("Resize", "x r s", mode="cubic")],
        {"r": np.zeros(0, np.float32), "s": np.array([1, 1, 2, 2], np.float32)}, "the_Resize.*mode 'cubic'",
    ),
}  # fmt: skip


DOUBLING = [node("Concat", f"c{i} c{i}", f"c{i + 1}", axis=0) for i in range(12)]
LARGE: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "Conv": ([node("Conv", "x w", pads=[99, 99, 99, 99])], {"w": floats(2, 4, 1, 1)}),
    "ConvTranspose": ([node("ConvTranspose", "x w", strides=[99, 99])], {"w": floats(4, 2, 1, 1)}),
    "Concat": ([*DOUBLING, node("Add", "x c12")], {"c0": floats(1)}),
    "MatMul": ([node("MatMul", "a b", "c"), node("Add", "x c")], {"a": floats(99, 1), "b": floats(1, 99)}),
    "Mul": ([node("Mul", "a b", "c"), node("Add", "x c")], {"a": floats(99, 1), "b": floats(1, 99)}),
    "Gather": ([node("Gather", "a b", "c"), node("Add", "x c")], {"a": floats(1, 99), "b": np.zeros(99, np.int64)}),
}  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_no_node_makes_more_values_than_a_tensor_may_hold(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "MOST_VALUES", 4000)
    nodes, constants = LARGE[name]
    with pytest.raises(SpecError, match=f"the_{name}.*would make [0-9]+ values"):
        from_onnx(model(tmp_path, nodes, **constants))


def test_a_graph_whose_values_do_not_fit_together_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of 40 values is small enough by itself."""
    names = ["x", *(f"v{i}" for i in range(39)), "y"]
    nodes = [
        helper.make_node("Relu", [a], [b], name=f"r{i}") for i, (a, b) in enumerate(itertools.pairwise(names))
    ]
    each = 4 * 2 * 4 * 9 * 7
    monkeypatch.setattr(graph, "available_bytes", lambda device: 4 * 30 * each)
    with pytest.raises(
        SpecError, match=r"node 'r30' \(Relu\): is where the values of the graph need .* --shape"
    ):
        from_onnx(model(tmp_path, nodes))
    monkeypatch.setattr(graph, "available_bytes", lambda device: 4 * 40 * each)
    assert from_onnx(model(tmp_path, nodes)).report.equal


@pytest.mark.parametrize("name", WRONG)
def test_what_has_no_layer_is_named(name: str, tmp_path: Path) -> None:
    nodes, constants, message = WRONG[name]
    with pytest.raises((SpecError, NetspecError), match=message):
        from_onnx(model(tmp_path, nodes, **constants))


def test_all_of_them_in_one_run(tmp_path: Path) -> None:
    nodes = [
        node("LSTM", "x w w", "a", hidden_size=2),
        node("Pad", "x p", "b", mode="edge"),
        node("Add", "a b"),
    ]
    with pytest.raises(SpecError) as error:
        from_onnx(model(tmp_path, nodes, w=floats(1, 8, 4), p=np.zeros(8, np.int64)))
    assert len(error.value.problems) == 2


def test_open_sizes(tmp_path: Path) -> None:
    path = model(tmp_path, [node("Relu")], ("N", 3, "H", "W"))
    with pytest.raises(NetspecError, match=r"--shape x=1,3,\?,\?"):
        from_onnx(path)
    converted = from_onnx(path, {"x": (2, 3, 8, 8)})
    assert list(converted.message.layer[0].input_param.shape[0].dim) == [2, 3, 8, 8]
    with pytest.raises(NetspecError, match="has no input 'image'; there are x"):
        from_onnx(path, {"image": (2, 3, 8, 8)})


@pytest.mark.parametrize(
    ("location", "length", "message"),
    [
        ("w.bin", "96", None),
        ("../w.bin", "96", "beside the model only"),
        ("/etc/hostname", "4", "beside the model only"),
        ("link.bin", "96", "beside the model only"),
        ("w.bin", "97", "beyond the end"),
        ("w.bin", "-3", "beyond the end"),
        ("none.bin", "96", "beside the model only"),
    ],
)
def test_data_beside_the_model(tmp_path: Path, location: str, length: str, message: str | None) -> None:
    weight = floats(6, 4, 1, 1)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "w.bin").write_bytes(weight.tobytes())
    (tmp_path / "w.bin").write_bytes(weight.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    path = model(folder, [node("Conv", "x w")], w=weight)
    proto = onnx.load_model_from_string(path.read_bytes())
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", length)):
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(proto.SerializeToString())
    if message is None:
        converted = from_onnx(path)
        np.testing.assert_array_equal(converted.arrays[1][0], weight)
        return
    with pytest.raises(NetspecError, match=message):
        from_onnx(path)


def test_damaged_files(tmp_path: Path) -> None:
    path = model(tmp_path, [node("Conv", "x w")], w=floats(6, 4, 1, 1))
    data = path.read_bytes()
    for k in range(0, len(data), 7):
        for changed in (data[:k], data[:k] + bytes([data[k] ^ 0x55]) + data[k + 1 :]):
            path.write_bytes(changed)
            with contextlib.suppress(NetspecError):
                from_onnx(path)


def test_a_net_that_departs_from_its_model_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, target = model(tmp_path, [node("Relu")]), tmp_path / "net.prototxt"
    assert CliRunner().invoke(app, ["convert", str(path), str(target)]).exit_code == 0
    monkeypatch.setitem(graph.OPERATORS, "Relu", lambda c, x: torch.tanh(x))
    result = CliRunner().invoke(app, ["convert", str(path), str(target)])
    assert result.exit_code == 1, result.output
    assert "departs from" in result.output


# Nets of ours, and models as torch writes them


LENET = """name: "lenet"
layer { name: "data" type: "Input" top: "data"
        input_param { shape { dim: 2 dim: 1 dim: 28 dim: 28 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 6 kernel_size: 5 weight_filler { type: "xavier" } } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
        pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layer { name: "conv2" type: "Convolution" bottom: "pool1" top: "conv2"
        convolution_param { num_output: 8 kernel_size: 3 group: 2 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv2" top: "conv2" }
layer { name: "ip1" type: "InnerProduct" bottom: "conv2" top: "ip1"
        inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "prob" type: "Softmax" bottom: "ip1" top: "prob" }"""
RESIDUAL = """name: "residual"
layer { name: "data" type: "Input" top: "data"
        input_param { shape { dim: 1 dim: 3 dim: 15 dim: 15 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 3 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
layer { name: "sum" type: "Eltwise" bottom: "conv" bottom: "data" top: "sum" }
layer { name: "slope" type: "ReLU" bottom: "sum" top: "sum" relu_param { negative_slope: 0.1 } }
layer { name: "up" type: "Deconvolution" bottom: "sum" top: "up"
        convolution_param { num_output: 3 group: 3 kernel_size: 4 stride: 2 pad: 1
                            weight_filler { type: "bilinear" } } }
layer { name: "down" type: "Pooling" bottom: "up" top: "down"
        pooling_param { pool: AVE kernel_size: 2 stride: 2 } }
layer { name: "both" type: "Concat" bottom: "down" bottom: "sum" top: "both" }
layer { name: "order" type: "Permute" bottom: "both" top: "order" permute_param { order: [0, 2, 3, 1] } }
layer { name: "flat" type: "Flatten" bottom: "order" top: "flat" }"""


@pytest.mark.parametrize("text", [LENET, RESIDUAL], ids=["lenet", "residual"])
def test_round_trip(text: str, tmp_path: Path) -> None:
    """Out to ONNX and back: the same outputs, by the weights that went the way."""
    net = make_net(text, "TEST", seed=1)
    export_onnx(net, tmp_path / "net.onnx")
    converted = from_onnx(tmp_path / "net.onnx")
    assert converted.report.largest < 1e-4, str(converted.report)
    x = torch.randn(net.shape("data"))
    with torch.no_grad():
        torch.testing.assert_close(converted.net()(x)[0], net(x)[0], atol=1e-4, rtol=1e-4)


def block(x: Tensor, **parts: nn.Module) -> Tensor:
    y = F.relu(parts["bn1"](parts["conv1"](x)))
    return F.relu(parts["bn2"](parts["conv2"](y)) + parts["short"](x))


def unet(x: Tensor, **parts: nn.Module) -> Tensor:
    a = F.relu(parts["down"](x))
    b = F.relu(parts["middle"](F.max_pool2d(a, 2)))
    return parts["head"](torch.cat((a, parts["up"](b)), 1))


def focus(x: Tensor, **parts: nn.Module) -> Tensor:
    corners = [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]]
    y = F.silu(parts["conv"](torch.cat(corners, 1)))
    y = torch.cat((y, F.max_pool2d(y, 5, 1, 2)), 1)
    y = F.interpolate(y, scale_factor=2.0, mode="nearest")
    n, _, h, w = y.shape
    return parts["head"](y).view(n, 3, 6, h, w).permute(0, 1, 3, 4, 2)


def mobile(x: Tensor, **parts: nn.Module) -> Tensor:
    y = F.relu6(parts["wide"](x))
    y = F.relu6(parts["deep"](y))
    y = parts["narrow"](y) + x
    return parts["classes"](F.adaptive_avg_pool2d(y, 1).flatten(1)).softmax(1)


MODULES: dict[str, Callable[[], nn.Module]] = {
    "residual": lambda: Calls(
        block, conv1=nn.Conv2d(3, 8, 3, 2, 1, bias=False), bn1=nn.BatchNorm2d(8), conv2=nn.Conv2d(8, 8, 3, 1, 1),
        bn2=nn.BatchNorm2d(8), short=nn.Conv2d(3, 8, 1, 2),
    ),
    "mobile": lambda: Calls(
        mobile, wide=nn.Conv2d(3, 12, 1), deep=nn.Conv2d(12, 12, 3, padding=1, groups=12), narrow=nn.Conv2d(12, 3, 1),
        classes=nn.Linear(3, 5),
    ),
    "unet": lambda: Calls(
        unet, down=nn.Conv2d(3, 6, 3, padding=1), middle=nn.Conv2d(6, 8, 3, padding=1),
        up=nn.ConvTranspose2d(8, 6, 2, 2), head=nn.Conv2d(12, 2, 1),
    ),
    "focus": lambda: Calls(focus, conv=nn.Conv2d(12, 8, 3, padding=1), head=nn.Conv2d(16, 18, 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_models_as_torch_writes_them(name: str, tmp_path: Path) -> None:
    module = settled(MODULES[name]()).eval()
    x = torch.randn(1, 3, 16, 16)
    path = tmp_path / "module.onnx"
    with quiet(), torch.no_grad():
        torch.onnx.export(module, (x,), str(path), dynamo=True, verbose=False, external_data=False)
        wanted = module(x)
    target = tmp_path / "net.caffemodel"
    result = CliRunner().invoke(app, ["convert", str(path), str(target)])
    assert result.exit_code == 0, result.output
    assert "agree" in result.output
    net = open_net(target.with_suffix(".prototxt"), target)
    with torch.no_grad():
        (y,) = net(x)
    torch.testing.assert_close(y, wanted, atol=1e-4, rtol=1e-4)


NORMS: dict[str, Callable[[], nn.Module]] = {
    "prelu": lambda: nn.PReLU(6),
    "prelu_shared": nn.PReLU,
    "instance": lambda: nn.InstanceNorm2d(6),
    "instance_affine": lambda: nn.InstanceNorm2d(6, affine=True),
    "instance_tracked": lambda: nn.InstanceNorm2d(6, affine=True, track_running_stats=True),
    "group": lambda: nn.GroupNorm(3, 6),
    "layer": lambda: nn.LayerNorm([6, 5, 4]),
    "mish": nn.Mish,
    "selu": nn.SELU,
    "softsign": nn.Softsign,
}


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("exporter", ["dynamo", "script"])
@pytest.mark.parametrize("name", NORMS)
def test_parts_as_both_exporters_of_torch_write_them(
    name: str, exporter: str, batch: int, tmp_path: Path
) -> None:
    module = settled(NORMS[name]()).eval()
    with torch.no_grad():
        for value in module.parameters():
            value.uniform_(0.2, 1)
    x, path = torch.randn(batch, 6, 5, 4), tmp_path / "module.onnx"
    more = {"external_data": False} if exporter == "dynamo" else {}
    with quiet(), torch.no_grad():
        torch.onnx.export(module, (x,), str(path), dynamo=exporter == "dynamo", verbose=False, **more)
        wanted = module(x)
    converted = from_onnx(path)
    assert converted.report.largest < 1e-4, str(converted.report)
    with torch.no_grad():
        torch.testing.assert_close(converted.net()(x)[0], wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("flags", "written"), [([], "round_mode: FLOOR"), (["--fork"], "ceil_mode: false")])
def test_pooling_is_written_for_who_reads_it(flags: list[str], written: str, tmp_path: Path) -> None:
    path = model(tmp_path, [node("MaxPool", kernel_shape=[2, 2], strides=[2, 2])])
    target = tmp_path / "net.prototxt"
    result = CliRunner().invoke(app, ["convert", str(path), str(target), *flags])
    assert result.exit_code == 0, result.output
    assert written in target.read_text()
