"""Reading of prototxt: values, places, and the complaint about each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from netspec import schema
from netspec.errors import SpecError

NET = """name: "small"  # a comment
layer {
  name: 'data' type: "Input" top: "data"
  input_param { shape: { dim: [1, 3, 0x8, 010] } }
}
layer <
  name: "conv" "1"; type: "Convolution", bottom: "data" top: "c\\x6fnv1"
  param { lr_mult: 1 } param { lr_mult: -2.5e-1 decay_mult: 0 };
  convolution_param: {
    num_output: 4 kernel_size: 3 bias_term: 0
    weight_filler { type: "gaussian" std: .01 mean: - 1. max: 1f }
  }
>
layer { name: "pool" type: "Pooling" pooling_param { pool: 1 engine: CAFFE }
  propagate_down: [true, False, t] }
layer { name: "sim" type: "Similarity" similarity_param { block_param { out_of_bounds_value: -INF } } }
layer { name: "mex" type: "MEX" mex_param { epsilon_filler { value: Infinity min: nan max: -nan } } }
"""


def test_values_of_every_notation() -> None:
    document = schema.parse_net(NET)
    layers = document.message.layer
    assert list(layers[0].input_param.shape[0].dim) == [1, 3, 8, 8]
    conv = layers[1]
    assert (conv.name, conv.top[0], conv.param[1].lr_mult) == ("conv1", "conv1", -0.25)
    assert conv.convolution_param.bias_term is False
    filler = conv.convolution_param.weight_filler
    assert (filler.mean, filler.max, round(filler.std, 9)) == (-1.0, 1.0, 0.01)
    assert layers[2].pooling_param.pool == 1
    assert list(layers[2].propagate_down) == [True, False, True]
    assert layers[3].similarity_param.block_param.out_of_bounds_value == float("-inf")
    epsilon = layers[4].mex_param.epsilon_filler
    assert epsilon.value == float("inf")
    assert epsilon.min != epsilon.min
    assert epsilon.max != epsilon.max


def test_place_of_every_field() -> None:
    document = schema.parse_net(NET, "net.prototxt")
    assert str(document.at("layer", 1)) == "net.prototxt:6:1"
    assert str(document.at("layer", 1, "param", 1, "decay_mult")) == "net.prototxt:8:49"
    assert str(document.at("layer", 1, "convolution_param", 0, "num_output", 0)) == "net.prototxt:10:5"
    assert str(document.at("layer", 0, "input_param", "shape", 0, "dim", 2)) == "net.prototxt:4:38"
    # A field that was not given, and one that does not exist: the message around it.
    assert str(document.at("layer", 1, "convolution_param", "pad", 0)) == "net.prototxt:9:3"
    assert str(document.at("layer", 99, "name")) == "net.prototxt:1:1"


MISTAKES = [
    ("inputs: 3", "1:1", "unknown field 'inputs' in the net; did you mean 'input'?"),
    (
        'layer {\n name: "c" type: "Convolution"\n convolution_param { num_outptu: 3 }\n}',
        "3:22",
        "layer 'c' (Convolution): unknown field 'num_outptu' in convolution_param; "
        "did you mean 'num_output'?",
    ),
    (
        'layer { pooling_param { pool: MAXX } name: "p" }',
        "1:31",
        "layer 'p': field 'pool' expects one of MAX, AVE, STOCHASTIC, SUM, PROD, found MAXX; "
        "did you mean MAX?",
    ),
    ('layer { pooling_param { pool: "MAX" } }', "1:31", 'expects MAX without quotes, found "MAX"'),
    ("layer { pooling_param { pool: 9 } }", "1:31", "expects one of MAX"),
    ("layer { lr_mult: 3 }", "1:9", "unknown field 'lr_mult' in layer; it belongs in param"),
    (
        "layer { relu_param { bottom: 'x' } }",
        "1:22",
        "in relu_param; it belongs to 'layer', outside of 'relu_param'",
    ),
    ("layer { pooling_param { kernel_size: 20.0 } }", "1:38", "expects an integer, found 20.0; write 20"),
    ("layer { pooling_param { kernel_size: 1e3 } }", "1:38", "expects an integer, found 1e3; write 1000"),
    ("layer { pooling_param { kernel_size: -3 } }", "1:38", "from 0 to 4294967295 (uint32), found -3"),
    ("layer { pooling_param { kernel_size: 4294967296 } }", "1:38", "from 0 to 4294967295"),
    ("layer { pooling_param { kernel_size: 08 } }", "1:38", "expects an integer, found 08"),
    (
        "layer { pooling_param { kernel_size { } } }",
        "1:25",
        "'kernel_size' takes an integer, found a message",
    ),
    ("layer { pooling_param: 3 }", "1:24", "'pooling_param' takes a message in braces, found 3"),
    ("layer { param { lr_mult: 010 } }", "1:26", "a leading 0 means octal"),
    ("layer { param { lr_mult: one } }", "1:26", "expects a number, found one"),
    ("force_backward: TRUE", "1:17", "expects true or false, found TRUE; write true"),
    ("force_backward: 2", "1:17", "expects true or false, found 2"),
    ("layer { type: ReLU }", "1:15", 'expects a string in quotes, found ReLU; write "ReLU"'),
    ("name: 7", "1:7", "expects a string in quotes, found 7"),
    ('name: "a" name: "b"', "1:11", "field 'name' is given twice (first in line 1), but takes one value"),
    ("state { } state { }", "1:11", "field 'state' is given twice"),
    ("layer { clip_param { min: 1 } }", "1:9", "clip_param needs a field 'max'"),
    ('name: ["a"]', "1:1", "'name' takes one value, found a list"),
    ('name "a"', "1:1", "':' is missing after 'name'"),
    ("layer {\n bottom: 'x'\n", "1:1", "'layer {' is never closed"),
    ("layer { } }", "1:11", "expected a field name, found '}'"),
    ("layer { >", "1:9", "expected a field name or the '}' of 'layer' (line 1), found '>'"),
    ("name:", "1:6", "expected a value for 'name', found the end of the file"),
    ("input: [1 2]", "1:11", "expected ',' or ']', found '2'"),
    ('name: "abc\nlayer { }', "1:7", "this string has no closing quote on its line"),
    ("// net\nname: 'a'", "1:1", "a comment begins with '#'"),
    ("input_dim: 10layer", "1:12", "'10layer' is not a number; a space may be missing after it"),
    ("name: @", "1:7", "unexpected character '@'"),
    ("name: 'C:\\data'", "1:7", "is not an escape; write a backslash as"),
    ("name: '\\377'", "1:7", "expects a string in UTF-8"),
    (
        'layer { name: "a"\n convolution_param { pad: 1 }\nlayer { name: "b" }\n',
        "3:1",
        "layer 'a': unknown field 'layer' in layer; is a '}' missing before it? 'layer' is open since line 1",
    ),
]


@pytest.mark.parametrize(("text", "place", "complaint"), MISTAKES, ids=[case[0][:40] for case in MISTAKES])
def test_a_mistake_is_named_with_its_place(text: str, place: str, complaint: str) -> None:
    with pytest.raises(SpecError) as raised:
        schema.parse_net(text, "f")
    messages = [str(problem) for problem in raised.value.problems]
    assert any(line.startswith(f"f:{place}: ") and complaint in line for line in messages), messages


def test_all_mistakes_of_a_file_at_once_in_their_order() -> None:
    with pytest.raises(SpecError) as raised:
        schema.parse_net("nam: 1\nforce_backward: 3\nlayer { tpye: 'a' }\nname: 3")
    assert [problem.position.line for problem in raised.value.problems if problem.position] == [1, 2, 3, 4]


def test_v0_and_v1_layers_are_named_by_their_own_fields() -> None:
    with pytest.raises(SpecError, match=r"layer 'c1' \(conv\): unknown field 'kernelsiz'"):
        schema.parse_net('layers { layer { name: "c1" type: "conv" kernelsiz: 3 } bottom: "d" }')
    with pytest.raises(SpecError, match=r"layer 'c1' \(CONVOLUTION\): unknown field 'blob_lr'"):
        schema.parse_net('layers { name: "c1" type: CONVOLUTION blob_lr: 3 }')


FORK = """layer {
  name: "x" type: "Strange" strange_param { a: 1 b { c: [1, 2] d <e: "f"> } }
  pooling_param { pool: L2 stride: 2 }
  list: [{ a: 1 }, { b: 2 }]
  [some.extension] { a: 1 }
}
quantise: true
layers_extra: -3.5
"""


def test_unknown_fields_are_kept_and_reported() -> None:
    document = schema.parse_net(FORK, "fork", unknown="keep")
    assert document.message.layer[0].pooling_param.stride == 2
    assert not document.message.layer[0].pooling_param.HasField("pool")
    unknown = [(field.name, field.owner, field.position.line, field.value) for field in document.unknown]
    assert unknown == [
        ("strange_param", "LayerParameter", 2, None),
        ("L2", "PoolingParameter", 3, "L2"),
        ("list", "LayerParameter", 4, None),
        ("[some.extension]", "LayerParameter", 5, None),
        ("quantise", "NetParameter", 7, "true"),
        ("layers_extra", "NetParameter", 8, "-3.5"),
    ]
    assert document.unknown[0].layer == "x"
    assert document.unknown[0].layer_type == "Strange"
    assert document.unknown[0].path == ("layer", 0, "strange_param")
    assert document.unknown[1].is_value
    with pytest.raises(SpecError) as raised:
        schema.parse_net(FORK)
    assert len(raised.value.problems) == 6


def test_nesting_is_bounded() -> None:
    for opening in ("x{", "layer{", "x<", "x:[{", "layer{state{"):
        with pytest.raises(SpecError, match=r"nested more than 100 deep|unknown field"):
            schema.parse_net(opening * 200_000)


def test_kind_of_a_file(tmp_path: Path) -> None:
    net, solver = tmp_path / "a.prototxt", tmp_path / "b.prototxt"
    net.write_text('name: "n" layer { name: "a" type: "ReLU" }')
    solver.write_text('net: "a.prototxt" base_lr: 0.1')
    assert schema.read(net).kind == "net"
    assert schema.read(solver).kind == "solver"
    assert schema.read_solver(solver).message.net == "a.prototxt"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "lenet.prototxt").write_text("name: 'a'")
    (tmp_path / "empty").write_text(" # nothing\n")
    (tmp_path / "binary").write_bytes(b"\x0a\x00\x12")
    for name, complaint in [
        ("lnet.prototxt", "no such file; did you mean 'lenet.prototxt'"),
        ("none/a", "nor the directory"),
        ("empty", "is empty"),
        ("binary", "not a text file"),
        (".", "is a directory"),
        ("a\0b", "cannot be read"),
    ]:
        with pytest.raises(SpecError, match=complaint):
            schema.read(tmp_path / name)


def test_encodings_and_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "net"
    for content in (b"# caf\xe9\nname: 'a'", b"\xef\xbb\xbf# bom\r\nname: 'a'\r\n", b"# mac\rname: 'a'\r"):
        path.write_bytes(content)
        document = schema.read_net(path)
        assert document.message.name == "a"
        assert document.at("name").line == 2
