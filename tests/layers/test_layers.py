"""Every layer type, every case: shapes, gradients, compilation, export."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

from netspec import schema
from netspec.layers import registry
from netspec.net.make import make_net
from netspec.net.net import Net
from tests.cases import Case, all_cases

CASES = all_cases()
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def make(case: Case) -> Net:
    document = schema.parse_net(case.text, f"{case.name}.prototxt")
    return make_net(document, case.phase, seed=1)


def inputs(case: Case, net: Net, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [
        case.inputs[name].to(dtype)
        if name in case.inputs
        else torch.randn(net.shape(name), generator=generator).to(dtype)
        for name in net.input_names
    ]


def run(net: Net, values: list[Tensor]) -> tuple[Tensor, ...]:
    torch.manual_seed(3)
    return net(*values)


def test_every_type_has_a_case() -> None:
    covered = {layer.type for case in CASES for layer in schema.parse_net(case.text, case.name).message.layer}
    sources = {name for name, kind in registry.items() if kind.is_source}
    assert set(registry) - covered - sources == set()


def test_names_of_cases_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


@each_case
def test_shapes_and_dtype(case: Case) -> None:
    net = make(case)
    values = net.slots(*inputs(case, net))
    for slot, value in values.items():
        assert tuple(value.shape) == net.shapes[slot], net.graph.name(slot)
        assert value.dtype == torch.float32


@each_case
def test_bottoms_and_blobs_are_left_alone(case: Case) -> None:
    net = make(case)
    given = inputs(case, net)
    copies = [value.clone() for value in given]
    run(net, given)
    for value, copy in zip(given, copies, strict=True):
        assert torch.equal(value.nan_to_num(), copy.nan_to_num())


@each_case
def test_gradients(case: Case) -> None:
    if case.random or case.gradient == ():
        pytest.skip("no gradient to check")
    net = make(case).double()
    values = inputs(case, net, torch.float64)
    names = (
        case.gradient if case.gradient is not None else [n for n in net.input_names if n not in case.inputs]
    )
    wanted = [
        value.requires_grad_(name in names) for name, value in zip(net.input_names, values, strict=True)
    ]
    parameters = [param.value for param in net.params if param.lr_mult != 0]
    for parameter in parameters:
        parameter.requires_grad_(True)

    def tops(*changed: Tensor) -> tuple[Tensor, ...]:
        state = dict(zip(parameter_names(net, parameters), changed[len(wanted) :], strict=True))
        found = torch.func.functional_call(net, state, changed[: len(wanted)], tie_weights=True)
        return tuple(top for top in found if top.requires_grad)

    assert torch.autograd.gradcheck(tops, (*wanted, *parameters), atol=case.atol, rtol=1e-4)


def parameter_names(net: Net, parameters: list[torch.nn.Parameter]) -> list[str]:
    names = {id(value): name for name, value in net.named_parameters()}
    return [names[id(parameter)] for parameter in parameters]


@each_case
def test_compiled_equals_eager(case: Case) -> None:
    if not case.compiles:
        pytest.skip("runs eagerly by its nature")
    net = make(case)
    values = inputs(case, net)
    torch.compiler.reset()
    eager = functools.partial(torch.compile, backend="aot_eager", fullgraph=True)
    compiled = eager(net)
    torch.manual_seed(3)
    tops = compiled(*values)
    if case.random:
        assert [top.shape for top in tops] == [top.shape for top in run(net, values)]
        return
    for ours, theirs in zip(tops, run(make(case), values), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, equal_nan=True)


@each_case
def test_exports(case: Case) -> None:
    if not case.exports:
        pytest.skip("not exportable by its nature")
    net = make(case)
    values = inputs(case, net)
    with torch.no_grad():
        program = torch.export.export(net, tuple(values)).module()
        exported = program(*values)
        if not case.random:
            for ours, theirs in zip(exported, run(make(case), values), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, equal_nan=True)
