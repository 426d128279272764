"""Nets for other readers of Caffe files: what each would reject, by line, and what is written for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from netspec import schema
from netspec.check import check
from netspec.cli import app
from netspec.errors import NetspecError, SpecError
from netspec.interchange import convert, read_net_from_caffe
from netspec.interchange.targets import as_read, rejected, targets
from netspec.layers import registry
from netspec.net.make import make_net

INPUT = (
    'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 4 dim: %d dim: %d } } }\n'
)
POOL = (
    'layer { name: "p" type: "Pooling" bottom: "x" top: "y" pooling_param { kernel_size: 2 stride: 2 %s } }\n'
)


def problems(text: str, reader: str, height: int = 9) -> list[str]:
    net = make_net(schema.parse_net(INPUT % (height, height) + text, "n.prototxt"), "TEST", device="meta")
    return [str(problem) for problem in rejected(net, targets()[reader])]


def written(text: str, reader: str, height: int = 9) -> Any:
    net = make_net(INPUT % (height, height) + text, "TEST", device="meta")
    return as_read(net, targets()[reader])


def test_the_table_knows_types_of_ours_only() -> None:
    for name, target in targets().items():
        assert target.types <= set(registry), name
        assert set(target.rename) <= set(registry), name
        assert set(target.rename.values()) <= target.types, name
        assert not set(target.limits) & target.types, name
        assert target.title, name
        assert target.source, name


@pytest.mark.parametrize(
    ("reader", "own", "floor"),
    [
        ("bvlc", "ceil_mode: false", "round_mode: FLOOR"),
        ("ascend", "ceil_mode: false", "round_mode: FLOOR"),
        ("opencv", "round_mode: FLOOR", "ceil_mode: false"),
    ],
)
def test_pooling_rounds_by_the_readers_own_field(reader: str, own: str, floor: str) -> None:
    for field in (own, floor):
        text = schema.print_text(written(POOL % field, reader))
        assert floor in text
        assert (own in text) == (own == floor)
    for field in ("", "round_mode: CEIL", "ceil_mode: true"):
        text = schema.print_text(written(POOL % field, reader))
        assert "round_mode" not in text
        assert "ceil_mode" not in text


@pytest.mark.parametrize("reader", ["ncnn", "rknn"])
def test_readers_without_it_take_sizes_where_both_agree(reader: str) -> None:
    (problem,) = problems("\n" + POOL % "round_mode: FLOOR", reader)
    assert problem.startswith("n.prototxt:3:")
    assert "always rounds the size of pooled maps up: 5x5 in place of 4x4" in problem
    assert not problems(POOL % "round_mode: FLOOR", reader, 8)
    assert "round_mode" not in schema.print_text(written(POOL % "ceil_mode: false", reader, 8))


@pytest.mark.parametrize(
    ("text", "reader", "reason"),
    [
        ('layer { name: "l" type: "Swish" bottom: "x" top: "y" }', "ncnn",
         "layer 'l' (Swish): ncnn's caffe2ncnn has no layer of this type"),
        ('layer { name: "l" type: "Interp" bottom: "x" top: "y" interp_param { height: 3 width: 3 } }', "bvlc",
         "BVLC Caffe has no layer of this type"),
        (POOL % "pool: STOCHASTIC", "ncnn", "layer 'p' (Pooling): ncnn's caffe2ncnn has no STOCHASTIC"),
        ('layer { name: "c" type: "Concat" bottom: "x" bottom: "x" top: "y" concat_param { axis: 0 } }', "ncnn",
         "has no batch axis: axis 0 cannot be worked along"),
        ('layer { name: "c" type: "Softmax" bottom: "x" top: "y" softmax_param { axis: -4 } }', "ncnn",
         "has no batch axis"),
        ('layer { name: "c" type: "Convolution" bottom: "x" top: "y" convolution_param { num_output: 1 kernel_size: 3 '
         "kernel_size: 5 } }", "ncnn", "reads the first kernel_size only, of [3, 5]; write kernel_size_h"),
        ('layer { name: "c" type: "Permute" bottom: "x" top: "y" permute_param { order: 1 order: 0 order: 2 '
         "order: 3 } }", "ncnn", "order must begin with 0"),
        ('layer { name: "s" type: "ReLU" bottom: "x" top: "y" strict: true }', "bvlc", "does not know the field"),
        ('layer { name: "d" type: "Input" top: "z" input_param { shape { dim: 3 } } }', "ascend",
         "needs four axes of known size at each input, found (3,)"),
    ],
)  # fmt: skip
def test_what_is_rejected_is_named_at_its_place(text: str, reader: str, reason: str) -> None:
    assert any(reason in problem for problem in problems(text, reader)), problems(text, reader)


@pytest.mark.parametrize("outputs", ["num_output: 4", ""])
def test_depthwise_convolutions_become_groups(outputs: str, tmp_path: Path) -> None:
    text = INPUT % (6, 6) + (
        'layer { name: "c" type: "DepthwiseConvolution" bottom: "x" top: "y" convolution_param { '
        f'{outputs} kernel_size: 3 weight_filler {{ type: "xavier" }} }} }}'
    )
    (tmp_path / "n.prototxt").write_text(text)
    net = make_net(text, "TEST", seed=1)
    from netspec.interchange import save_weights

    save_weights(net, tmp_path / "w.caffemodel")
    convert(
        tmp_path / "n.prototxt", tmp_path / "out.caffemodel", weights=tmp_path / "w.caffemodel", reader="bvlc"
    )
    theirs = read_net_from_caffe(tmp_path / "out.prototxt", tmp_path / "out.caffemodel")
    assert '"Convolution"' in (tmp_path / "out.prototxt").read_text()
    x = torch.randn(1, 4, 6, 6)
    theirs.setInput(x.numpy())
    np.testing.assert_allclose(theirs.forward(), net(x)[0].detach().numpy(), atol=1e-6)


def test_the_commands(tmp_path: Path) -> None:
    net = tmp_path / "n.prototxt"
    net.write_text(INPUT % (9, 9) + POOL % "round_mode: FLOOR")
    result = CliRunner().invoke(app, ["check", "--for", "ncnn", str(net)])
    assert result.exit_code == 1
    assert "n.prototxt:2:" in result.output
    assert "always rounds the size" in result.output
    assert CliRunner().invoke(app, ["check", "--for", "opencv", str(net)]).exit_code == 0
    result = CliRunner().invoke(app, ["convert", "--for", "opencv", str(net), str(tmp_path / "o.prototxt")])
    assert result.exit_code == 0, result.output
    assert "ceil_mode: false" in (tmp_path / "o.prototxt").read_text()
    assert not check(tmp_path / "o.prototxt", reader="opencv").problems
    with pytest.raises(SpecError, match="no reader 'opencw'; did you mean 'opencv'"):
        check(net, reader="opencw")
    with pytest.raises(NetspecError, match=r"o.onnx: OpenCV 4 reads a .prototxt"):
        convert(net, tmp_path / "o.onnx", reader="opencv")
    with pytest.raises(SpecError, match="always rounds the size"):
        convert(net, tmp_path / "q.prototxt", reader="ncnn")
    assert not (tmp_path / "q.prototxt").exists()


def test_a_net_beside_the_weights_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "n.prototxt").write_text(INPUT % (9, 9) + POOL % "round_mode: FLOOR")
    with pytest.raises(NetspecError, match="is there already"):
        convert(tmp_path / "n.prototxt", tmp_path / "n.caffemodel", reader="opencv")
    assert "round_mode" in (tmp_path / "n.prototxt").read_text()


# Against OpenCV 4 itself


def opencv() -> Any:
    cv2 = pytest.importorskip("cv2")
    if int(cv2.__version__.partition(".")[0]) != 4:
        pytest.skip("OpenCV 5 has no reader of Caffe files")
    return cv2


def read_by_opencv(cv2: Any, text: str, weights: Path | None = None) -> Any:
    parts = [text.encode(), *([weights.read_bytes()] if weights else [])]
    return cv2.dnn.readNetFromCaffe(*[np.frombuffer(part, np.uint8) for part in parts])


@pytest.mark.slow
def test_opencv_makes_the_types_of_the_table_and_no_others() -> None:
    cv2 = opencv()
    known = set()
    for name in registry:
        text = 'input: "x" input_shape { dim: 1 dim: 2 dim: 4 dim: 4 } '
        try:
            net = read_by_opencv(cv2, f'{text} layer {{ name: "l" type: "{name}" bottom: "x" top: "y" }}')
            net.setInput(np.zeros((1, 2, 4, 4), np.float32))
            net.forward()
        except cv2.error as error:
            if "Can't create layer" in str(error):
                continue
        known.add(name)
    # Of the same name, but other layers (of TensorFlow or ONNX), or read with fields of another name.
    theirs = {"HardSigmoid", "HardSwish", "Selu", "Dequantize", "Translation"}
    assert known - theirs == targets()["opencv"].types - theirs


NETS = {
    "pooling": POOL % "round_mode: FLOOR",
    "average": POOL % "pool: AVE ceil_mode: false pad: 1",
    "up": POOL % "",
    "convolutions": """
layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 8 kernel_size: 3 pad: 1
  weight_filler { type: "xavier" } bias_filler { value: 0.1 } } }
layer { name: "b" type: "BatchNorm" bottom: "c" top: "c" }
layer { name: "s" type: "Scale" bottom: "c" top: "c" scale_param { bias_term: true } }
layer { name: "r" type: "ReLU" bottom: "c" top: "c" }
layer { name: "d" type: "DepthwiseConvolution" bottom: "c" top: "d" convolution_param { num_output: 8 kernel_size: 3
  weight_filler { type: "xavier" } } }
layer { name: "p" type: "Pooling" bottom: "d" top: "p" pooling_param { kernel_size: 2 stride: 2 round_mode: FLOOR } }
layer { name: "i" type: "InnerProduct" bottom: "p" top: "i" inner_product_param { num_output: 5
  weight_filler { type: "xavier" } } }
layer { name: "o" type: "Softmax" bottom: "i" top: "o" }""",
    "phases": """
layer { name: "t" type: "Power" bottom: "x" top: "y" power_param { scale: 2 } include { phase: TRAIN } }
layer { name: "u" type: "Power" bottom: "x" top: "y" power_param { scale: 3 } include { phase: TEST } }""",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_opencv_computes_what_is_written_for_it(name: str, tmp_path: Path) -> None:
    cv2 = opencv()
    (tmp_path / "n.prototxt").write_text(INPUT % (9, 9) + NETS[name])
    convert(tmp_path / "n.prototxt", tmp_path / "out.caffemodel", reader="opencv")
    net = make_net(schema.read_net(tmp_path / "n.prototxt"), "TEST")
    from netspec.interchange import load_weights

    load_weights(net, tmp_path / "out.caffemodel")
    x = np.random.default_rng(1).normal(size=(1, 4, 9, 9)).astype(np.float32)
    theirs = read_by_opencv(cv2, (tmp_path / "out.prototxt").read_text(), tmp_path / "out.caffemodel")
    theirs.setInput(x)
    with torch.no_grad():
        np.testing.assert_allclose(
            theirs.forward(), net(torch.from_numpy(x))[0].numpy(), rtol=1e-4, atol=1e-5
        )


@pytest.mark.slow
def test_opencv_stops_at_what_is_said_to_stop_it() -> None:
    """What the table rejects, OpenCV rejects or computes otherwise."""
    cv2 = opencv()
    x = np.random.default_rng(1).normal(size=(1, 4, 9, 9)).astype(np.float32)
    for text in (POOL % "round_mode: FLOOR", POOL % "pool: STOCHASTIC"):
        with pytest.raises(cv2.error):  # noqa: PT012
            net = read_by_opencv(cv2, INPUT % (9, 9) + text)
            net.setInput(x)
            net.forward()
