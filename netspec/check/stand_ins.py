"""Inputs in place of layers that feed a net and cannot be made on this machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from netspec.check.report import Report
from netspec.errors import Problem, SpecError
from netspec.layers import registry
from netspec.net.graph import unknown_type
from netspec.schema import spec


def with_stand_ins(net_spec: spec.NetSpec, report: Report) -> tuple[spec.NetSpec, list[Problem]]:
    """The net with inputs in place of layers that feed it and cannot be made here; what is wrong with those.

    A Python layer is one of these: its module is never imported to read a net. The report says so as a need.

    A loss whose gains are in a file that is not here is weighed alike for all classes, and the report warns.
    """
    layers, problems = [], []
    for layer in net_spec.layers:
        problem = None
        if layer.type not in registry and not layer.bottoms:
            problem = unknown_type(layer, len(problems) < SpecError.MOST)
        if layer.type == "Python":
            need_module(layer, report)
        gains = layer.message.infogain_loss_param.source
        if layer.type == "InfogainLoss" and len(layer.bottoms) == 2 and gains and not Path(gains).exists():
            warning = layer.problem(f"gains file {gains!r} is not here", "infogain_loss_param", "source")
            if gains not in report.needs:
                report.needs.append(gains)
                report.warnings.append(warning)
            layer = dataclasses.replace(layer, type="SoftmaxWithLoss")
        if problem is not None:
            problems.append(problem)
        if (problem is not None or layer.type == "Python") and not layer.bottoms and layer.tops:
            fields = {f.name: getattr(layer, f.name) for f in dataclasses.fields(layer)}
            layer = StandIn(**{**fields, "type": "Input"})
        layers.append(layer)
    return dataclasses.replace(net_spec, layers=tuple(layers)), problems


def need_module(layer: spec.LayerSpec, report: Report) -> None:
    """Let the report say which module a Python layer runs, and that it was not imported."""
    asked = layer.message.python_param
    warning = not_imported(layer)
    if str(warning) not in map(str, report.warnings):
        report.warnings.append(warning)
    if (module := f"Python module {asked.module}") not in report.needs:
        report.needs.append(module)


def not_imported(layer: spec.LayerSpec) -> Problem:
    """That a Python layer's shapes are unknown, with its module and class."""
    asked = layer.message.python_param
    text = f"runs class {asked.layer!r} of the Python module {asked.module!r}, which is not imported to read a net: "
    return layer.problem(f"{text}its shapes are unknown", "python_param", "module")


class StandIn(spec.LayerSpec):
    """An input in place of a layer that cannot be made here, with that layer's message."""
