"""Every exportable layer in ONNX: onnxruntime and the reference evaluator compute what the net computes."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from netspec import schema
from netspec.interchange.onnx import (
    ExportError,
    Outward,
    export_onnx,
    quiet,
    save_program,
    to_onnx,
    translated,
)
from netspec.net.make import make_net
from netspec.net.net import Net
from tests import cases
from tests.cases import Case

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
reference = pytest.importorskip("onnx.reference")

FAMILIES = [module.name for module in pkgutil.iter_modules(cases.__path__)]

WORDLESS = {
    "box_annotator": "aten.searchsorted",
    **dict.fromkeys(("ctc_rows", "ctc_averaged", "ctc_indicators", "ctc_lengths"), "netspec.ctc"),
    "dummy_sparse": "netspec.fill",
    "dummy_xavier": "netspec.fill",
    "dummy_dirichlet": "netspec.fill",
    "dummy_rects": "netspec.fill",
    **dict.fromkeys(("low_rank_nll", "low_rank_nll_mixture"), "aten.linalg_cholesky_ex"),
}
"""Cases that ONNX has no operator for, with ours that lacks one."""

RUNTIME_LACKS = {
    "compact_bilinear_places": "its inverse DFT along a plane's channels differs from the reference's"
}
"""Cases that onnxruntime computes otherwise than onnx's own reference, which agrees with the net."""

REFERENCE_LACKS = {
    "deconvolution_group_dilated": "its ConvTranspose fails with groups and dilations at once",
    "pooling_max_mask": "its MaxPool counts indices in the padded image",
    "pooling_max_wide_pad_mask": "its MaxPool counts indices in the padded image",
    "signed_pooling": "its MaxPool counts indices in the padded image",
    "unpooling_average": "its Pad refuses to crop",
    "unpooling_average_padded": "its Pad refuses to crop",
    **{
        f"multibox_loss_{kind}": "its GatherElements refuses indices longer than the data"
        for kind in (
            "default",
            "center_size",
            "no_mining",
            "hard_example",
            "predicted",
            "box_per_class",
            "refined",
        )
    },
    "roi_pooling": "its GatherElements refuses indices longer than the data",
    "roi_pooling_fine": "its GatherElements refuses indices longer than the data",
}
"""Cases that the reference evaluator gets wrong where onnxruntime does not; a test holds that it still does."""


class Together(nn.Module):
    """Several nets side by side: one export for all of them."""

    def __init__(self, nets: Sequence[Net]):
        super().__init__()
        self.parts = nn.ModuleList(Outward(net) for net in nets)
        self.counts = [len(net.input_names) for net in nets]

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        tops: list[Tensor] = []
        for part, count in zip(self.parts, self.counts, strict=True):
            tops += part(*values[:count])
            values = values[count:]
        return tuple(tops)


def cases_of(family: str) -> list[Case]:
    return list(importlib.import_module(f"tests.cases.{family}").CASES)


def family(name: str) -> list[Case]:
    """The cases of a family that have one right answer and a form in ONNX."""
    return [case for case in cases_of(name) if case.exports and not case.random and case.name not in WORDLESS]


def run_onnx(model: Any, feeds: dict[str, np.ndarray], evaluator: str) -> list[np.ndarray]:
    if evaluator == "reference":
        with quiet(), np.errstate(all="ignore"):
            return list(reference.ReferenceEvaluator(model).run(None, feeds))
    options = runtime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = {one.name for one in session.get_inputs()}
    return list(session.run(None, {name: value for name, value in feeds.items() if name in names}))


Exported = tuple[list[Case], Any, dict[str, np.ndarray], list[list[np.ndarray]]]
"""Cases, their nets as one model, what to feed it, and the outputs of each net."""


def export(chosen: list[Case]) -> Exported:
    nets = [case.net() for case in chosen]
    values = [case.values(net) for case, net in zip(chosen, nets, strict=True)]
    flat = [value.clone() for some in values for value in some]  # cases may have tensors in common
    with torch.no_grad(), quiet():
        program = torch.export.export(Together(nets), tuple(flat))
        wanted = [
            [top.numpy() for top in Outward(case.net())(*some)]
            for case, some in zip(chosen, values, strict=True)
        ]
    names = [f"x{i}" for i in range(len(flat))]
    tops = [f"y{i}" for i in range(sum(map(len, wanted)))]
    model = translated(program, names, tops, 20, lambda target: f"no {target}", optimize=False).model_proto
    return chosen, model, {n: value.numpy() for n, value in zip(names, flat, strict=True)}, wanted


def failures(exported: Exported, evaluator: str) -> list[str]:
    """Cases whose outputs are not the net's."""
    chosen, model, feeds, wanted = exported
    outputs = iter(run_onnx(model, feeds, evaluator))
    wrong = []
    for case, tops in zip(chosen, wanted, strict=True):
        for top in tops:
            computed = np.asarray(next(outputs))
            close = computed.shape == top.shape and np.allclose(computed, top, 1e-4, 1e-5, equal_nan=True)
            wrong += [] if close else [f"{case.name}: {computed.shape} for {top.shape}"]
    return wrong


COMMON = [
    "Convolution",
    "Deconvolution",
    "InnerProduct",
    "Pooling",
    "ReLU",
    "PReLU",
    "Sigmoid",
    "TanH",
    "ELU",
    "BNLL",
    "LRN",
    "BatchNorm",
    "BN",
    "Scale",
    "Eltwise",
    "Concat",
    "Slice",
    "Flatten",
    "Reshape",
    "Permute",
    "Crop",
    "ArgMax",
    "Softmax",
    "SoftmaxWithLoss",
    "Dropout",
    "Power",
    "Interp",
    "Upsample",
    "Normalize",
    "PriorBox",
    "Axpy",
    "Similarity",
    "MEX",
    "Translation",
    "Accuracy",
]
"""Types whose first case is checked in every run; all cases of all types are checked among the slow tests."""


def test_common_layers() -> None:
    first: dict[str, Case] = {}
    for case in (case for name in FAMILIES for case in family(name)):
        if case.name not in REFERENCE_LACKS:
            for layer in schema.parse_net(case.text, case.name).message.layer:
                first.setdefault(layer.type, case)
    exported = export(list({first[kind].name: first[kind] for kind in COMMON}.values()))
    for evaluator in ("onnxruntime", "reference"):
        assert failures(exported, evaluator) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FAMILIES if family(name)])
def test_layers(name: str) -> None:
    exported = export([case for case in family(name) if case.name not in REFERENCE_LACKS])
    assert failures(exported, "reference") == []
    wrong = failures(exported, "onnxruntime")
    assert [one for one in wrong if one.partition(":")[0] not in RUNTIME_LACKS] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in FAMILIES if any(c.name in REFERENCE_LACKS for c in family(n))])
def test_layers_that_the_reference_lacks(name: str) -> None:
    assert (
        failures(export([case for case in family(name) if case.name in REFERENCE_LACKS]), "onnxruntime") == []
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", REFERENCE_LACKS)
def test_the_reference_still_lacks_them(name: str) -> None:
    case = next(case for one in FAMILIES for case in family(one) if case.name == name)
    net = case.net()
    values = case.values(net)
    model = to_onnx(net, values).model_proto
    feeds = {n: value.numpy() for n, value in zip(net.input_names, values, strict=True)}
    with torch.no_grad():
        wanted = Outward(case.net())(*values)
    try:
        outputs = run_onnx(model, feeds, "reference")
    except (ValueError, IndexError):
        return
    pairs = zip(outputs, wanted, strict=True)
    assert not all(np.allclose(a, b.numpy(), 1e-4, 1e-5, equal_nan=True) for a, b in pairs)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if i else ()) for i, n in enumerate(WORDLESS)]
)
def test_what_has_no_form_in_onnx_is_named(name: str) -> None:
    case = next(case for module in FAMILIES for case in cases_of(module) if case.name == name)
    net = case.net()
    with pytest.raises(
        ExportError, match=rf"{name}.prototxt:\d+.*no counterpart of its operator {WORDLESS[name]}"
    ):
        to_onnx(net, case.values(net))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["conv", "lstm", "pooling", "mex", "lrn", "similarity", "batch_norm", "multibox"]
)
def test_optimized(name: str) -> None:
    """What a user gets: the exporter's optimizer has been over it."""
    chosen = [case for module in FAMILIES for case in family(module) if case.name.startswith(name)]
    chosen = [case for case in chosen if case.name not in REFERENCE_LACKS]
    net = chosen[0].net()
    values = chosen[0].values(net)
    model = to_onnx(net, values).model_proto
    feeds = {n: value.numpy() for n, value in zip(net.input_names, values, strict=True)}
    with torch.no_grad():
        wanted = Outward(chosen[0].net())(*values)
    for evaluator in ("onnxruntime", "reference"):
        for ours, theirs in zip(run_onnx(model, feeds, evaluator), wanted, strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), 1e-4, 1e-5, equal_nan=True)


TEXT = """name: "small"
layer { name: "in" type: "Input" top: "add" top: "m" input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 }
  shape { dim: 2 } } }
layer { name: "conv" type: "Convolution" bottom: "add" top: "mul" convolution_param { num_output: 4 kernel_size: 3
  weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "mul" top: "mul" }
layer { name: "pool" type: "Pooling" bottom: "mul" top: "p" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "p" top: "y" inner_product_param { num_output: 5
  weight_filler { type: "xavier" } } }
layer { name: "prob" type: "Softmax" bottom: "y" top: "prob" }
"""


def small() -> Net:
    return make_net(schema.parse_net(TEXT, "small.prototxt"), seed=1)


def test_names_are_the_blobs(tmp_path: Path) -> None:
    export_onnx(small(), tmp_path / "small.onnx")
    model = onnx.load(tmp_path / "small.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [one.name for one in model.graph.input] == ["add", "m"]
    assert [one.name for one in model.graph.output] == ["m_2", "prob"]
    every = to_onnx(small(), every=True).model_proto
    assert [one.name for one in every.graph.output] == ["mul", "mul_2", "p", "y", "prob"]


def test_any_batch() -> None:
    net = small()
    model = to_onnx(net, dynamic_batch=True).model_proto
    x, m = torch.randn(7, 3, 6, 6), torch.zeros(7)
    outputs = run_onnx(model, {"add": x.numpy(), "m": m.numpy()}, "onnxruntime")
    with torch.no_grad():
        np.testing.assert_allclose(outputs[1], net(x, m)[1].numpy(), rtol=1e-5, atol=1e-6)


BATCHES = """name: "fc"
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: {batch} dim: 3 dim: 4 dim: 4 }} }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param {{ num_output: 2 kernel_size: 3 }} }}
layer {{ name: "flat" type: "Reshape" bottom: "conv" top: "flat" reshape_param {{ shape {{ dim: {rows} dim: -1 }} }} }}
layer {{ name: "prob" type: "Softmax" bottom: "flat" top: "prob" }}
"""


def test_any_batch_of_a_net_whose_file_says_one() -> None:
    net = make_net(schema.parse_net(BATCHES.format(batch=1, rows=0), "one.prototxt"), seed=1)
    model = to_onnx(net, dynamic_batch=True).model_proto
    for batch in (1, 5):
        x = torch.randn(batch, 3, 4, 4)
        (outputs,) = run_onnx(model, {"data": x.numpy()}, "onnxruntime")
        with torch.no_grad():
            np.testing.assert_allclose(outputs, net(x)[0].numpy(), rtol=1e-5, atol=1e-6)


def test_a_batch_that_is_written_in_is_named() -> None:
    net = make_net(schema.parse_net(BATCHES.format(batch=10, rows=10), "ten.prototxt"), seed=1)
    with pytest.raises(
        ExportError, match=r"ten.prototxt:5:1: layer 'flat' \(Reshape\): has the batch of 10 written in"
    ):
        to_onnx(net, dynamic_batch=True)


def test_programs_are_saved(tmp_path: Path) -> None:
    net = small()
    save_program(net, tmp_path / "small.pt2")
    with quiet():
        module = torch.export.load(tmp_path / "small.pt2").module()
    x, m = torch.randn(2, 3, 6, 6), torch.zeros(2)
    with torch.no_grad():
        assert torch.equal(module(x, m)[1], net(x, m)[1])


def test_missing_values_stay_missing() -> None:
    text = """layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 1 dim: 4 dim: 4 } } }
    layer { name: "sim" type: "Similarity" bottom: "x" top: "s" similarity_param { num_instances: 3
      ignore_nan_input: true block_param { block_size: 2 stride: 2 } template_filler { type: "gaussian" std: 1 }
      weight_filler { type: "constant" value: 1 } } }
    layer { name: "mex" type: "MEX" bottom: "s" top: "y" mex_param { num_instances: 2
      epsilon_filler { type: "constant" value: 1 } block_param { block_c: 3 block_h: 1 block_w: 1 }
      offsets_filler { type: "gaussian" std: 1 } } }"""
    net = make_net(schema.parse_net(text, "missing.prototxt"), seed=1)
    x = torch.randn(2, 1, 4, 4)
    x[0, 0, :2, :3] = torch.nan
    model = to_onnx(net).model_proto
    with torch.no_grad():
        wanted = net(x)[0].numpy()
    assert np.isfinite(wanted[1]).all()
    for evaluator in ("onnxruntime", "reference"):
        np.testing.assert_allclose(
            run_onnx(model, {"x": x.numpy()}, evaluator)[0], wanted, rtol=1e-4, atol=1e-5
        )


def test_a_layer_that_cannot_be_followed_is_named() -> None:
    case = next(
        case for one in FAMILIES for case in cases_of(one) if not case.exports and "proposal" in case.name
    )
    net = case.net()
    with pytest.raises(ExportError, match=r"\.prototxt:\d+:\d+: layer 'it' \(Proposal\): .*cannot follow"):
        to_onnx(net, case.values(net))
