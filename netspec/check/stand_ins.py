"""Inputs in place of layers that feed a net and cannot be made on this machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from netspec.check.report import Report
from netspec.errors import Problem, SpecError
from netspec.layers import registry
from netspec.layers.python_layer import Python
from netspec.net.graph import unknown_type
from netspec.schema import spec


def with_stand_ins(net_spec: spec.NetSpec, report: Report) -> tuple[spec.NetSpec, list[Problem]]:
    """The net with inputs in place of layers that feed it and cannot be made here; what is wrong with those.

    A loss whose gains are in a file that is not here is weighed alike for all classes, and the report warns.
    """
    layers, problems = [], []
    for layer in net_spec.layers:
        problem = cannot_be_made(layer, net_spec.phase)
        gains = layer.message.infogain_loss_param.source
        if layer.type == "InfogainLoss" and len(layer.bottoms) == 2 and gains and not Path(gains).exists():
            warning = layer.problem(f"gains file {gains!r} is not here", "infogain_loss_param", "source")
            if gains not in report.needs:
                report.needs.append(gains)
                report.warnings.append(warning)
            layer = dataclasses.replace(layer, type="SoftmaxWithLoss")
        if problem is not None:
            problems.append(problem)
        if problem is not None and not layer.bottoms and layer.tops:
            fields = {f.name: getattr(layer, f.name) for f in dataclasses.fields(layer)}
            layer = StandIn(**{**fields, "type": "Input"})
        layers.append(layer)
    return dataclasses.replace(net_spec, layers=tuple(layers)), problems


def cannot_be_made(layer: spec.LayerSpec, phase: str) -> Problem | None:
    """What is wrong with a layer whose type or module is not here, where that alone is the mistake."""
    if layer.type not in registry and not layer.bottoms:
        return unknown_type(layer)
    if layer.type == "Python":
        try:
            Python(layer, layer.phase(phase)).make()
        except SpecError as error:
            return error.problems[0]
    return None


class StandIn(spec.LayerSpec):
    """An input in place of a layer that cannot be made here, with that layer's message."""
