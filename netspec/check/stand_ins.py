"""Inputs in place of layers that feed a net and cannot be made on this machine."""

from __future__ import annotations

import dataclasses

from netspec.check.report import Report
from netspec.errors import Problem, SpecError
from netspec.layers.basic.noise import INPUT
from netspec.layers.traits import Lack
from netspec.net.graph import kind_of, unknown_type
from netspec.schema import spec


def with_stand_ins(net_spec: spec.NetSpec, report: Report) -> tuple[spec.NetSpec, list[Problem]]:
    """(the net with inputs in place of layers that feed it and cannot be made here, the problems of those layers).

    Python layers are replaced too: reading a net never imports a module. The report lists them as needs.

    A loss whose file of gains is missing weighs all classes equally, and the report warns.
    """
    layers: list[spec.LayerSpec] = []
    problems: list[Problem] = []
    for layer in net_spec.layers:
        kind = kind_of(layer)
        problem = None
        if kind is None and not layer.bottoms:
            problem = unknown_type(layer, len(problems) < SpecError.MOST)
        lack = kind.lacking(layer) if kind is not None and not kind.is_source else None
        if problem is not None:
            problems.append(problem)
        if lack is not None:
            tell(lack, report)
            layer = lack.instead or layer
        unknown = problem is not None or (lack is not None and lack.instead is None)
        if unknown and not layer.bottoms and layer.tops:
            fields = {f.name: getattr(layer, f.name) for f in dataclasses.fields(layer)}
            layer = StandIn(**{**fields, "type": INPUT})
        layers.append(layer)
    return dataclasses.replace(net_spec, layers=tuple(layers)), problems


def tell(lack: Lack, report: Report) -> None:
    """Add to the report, once, a thing that a layer needs and that is not here."""
    text = lack.problem.message.partition("): ")[2]
    if not any(warning.message.endswith(text) for warning in report.warnings):
        report.warnings.append(lack.problem)
    if lack.need not in report.needs:
        report.needs.append(lack.need)


class StandIn(spec.LayerSpec):
    """An input in place of a layer that cannot be made here, with that layer's message."""
