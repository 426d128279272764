"""The phases and stages of a net: compiles and shapes each, and tells mistakes of the net from mistakes in one
state.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from itertools import chain, combinations
from typing import Any

from netspec import schema
from netspec.check.report import Report, State, Wanted, problems_of
from netspec.check.shapes import PHASES, check_phase
from netspec.check.stand_ins import with_stand_ins
from netspec.errors import NetspecError, Problem
from netspec.interchange.dialects import common_dialect, told
from netspec.net.graph import compile
from netspec.run.experiment import stages_of
from netspec.schema import spec


def check_net(
    document: schema.Document,
    report: Report,
    wanted: Wanted,
    path: tuple[str | int, ...] = (),
    message: Any = None,
) -> None:
    """Compile and shape every phase that has layers; where no such state is whole, also every stage."""
    root = document.message if message is None else message
    if not root.layer:
        report.problems.append(Problem("the net has no layers", document.at(*path)))
        return
    report.stages = list(dict.fromkeys((*report.stages, *stages_of(root))))
    per_state: dict[State, list[Problem]] = {}
    for phase in phases_of(root):
        check_state(document, report, wanted, path, message, (phase, ()), per_state)
    if per_state and not all(state[0] in report.phases for state in per_state):
        for stage in stages_of(root):
            for phase in PHASES:
                check_state(document, report, wanted, path, message, (phase, (stage,)), per_state)
        check_combinations(document, report, wanted, path, message, per_state)
    asked: dict[State, list[Problem]] = {}
    for state in wanted.states:
        if " ".join((state[0], *state[1])) not in report.phases:
            check_state(document, report, wanted, path, message, state, asked)
    report.problems += dict.fromkeys(problem for problems in asked.values() for problem in problems)
    tops = {top for layer in root.layer for top in layer.top}
    partial = {state: all(made_elsewhere(p, tops) for p in problems) for state, problems in per_state.items()}
    whole = bool(report.phases) or not all(partial.values())
    alone = bool(report.phases) and bool(per_state)
    for state, problems in per_state.items():
        if partial[state] and whole:
            text = f"is not for {in_words(state)}, where {problems[0].message}"
            report.warnings.append(Problem(text, problems[0].position))
            continue
        known = set(map(str, report.problems))
        for problem in problems:
            # A bottom that only this state lacks matters less than a mistake of the net.
            elsewhere = made_elsewhere(problem, tops) and any(
                problem not in other for other in per_state.values()
            )
            if str(problem) not in known and not (whole and elsewhere):
                here = alone and not any(problem in other for key, other in per_state.items() if key != state)
                text = f"in {in_words(state)}: {problem.message}" if here else problem.message
                report.problems.append(Problem(text, problem.position))


def phases_of(net: Any) -> tuple[str, ...]:
    """The phases to check: also RUN, where a rule of the net names it."""
    rules = [rule for layer in net.layer for rule in (*layer.include, *layer.exclude)]
    return (*PHASES, *([spec.RUN] if any(spec.phase_name(rule.phase) == spec.RUN for rule in rules) else []))


COMBINATIONS = 100
"""Most sets of stages that are tried where no single stage is enough."""


def check_combinations(
    document: schema.Document,
    report: Report,
    wanted: Wanted,
    path: tuple[str | int, ...],
    message: Any,
    per_state: dict[State, list[Problem]],
) -> None:
    """For each phase without a whole state yet, find the smallest set of stages that makes the net whole."""
    names = stages_of(document.message if message is None else message)
    sets = [(*names,)] if len(names) > 2 else []
    sets = [*chain.from_iterable(combinations(names, size) for size in (2, 3) if size < len(names)), *sets]
    for phase in PHASES:
        if any(key.split()[0] == phase for key in report.phases) or len(names) < 2:
            continue
        for chosen in (sets or [tuple(names)])[:COMBINATIONS]:
            tried = {state: problems for state, problems in per_state.items() if state[0] == phase}
            check_state(document, report, wanted, path, message, (phase, chosen), tried)
            if " ".join((phase, *chosen)) in report.phases:
                break


def in_words(state: State) -> str:
    phase, names = state
    return f"phase {phase}" + (f" with stage {', '.join(names)}" if names else "")


def check_state(
    document: schema.Document,
    report: Report,
    wanted: Wanted,
    path: tuple[str | int, ...],
    message: Any,
    state: State,
    per_state: dict[State, list[Problem]],
) -> None:
    """Compile and shape the net in one state; its problems go to `per_state`."""
    phase, names = state
    try:
        net_spec = spec.net(document, phase, names, path=path, message=message)
        if names and any(net_spec.layers == spec.net(document, *seen, path=path, message=message).layers
                         for seen in per_state):  # fmt: skip
            return
        if net_spec.layers:
            if wanted.weights is not None:
                net_spec = told(net_spec, wanted.weights)
                root = document.message if message is None else message
                root.dialect = root.dialect or common_dialect(net_spec)
            net_spec, absent = with_stand_ins(net_spec, report)
            if absent:
                per_state[state] = absent
            key = " ".join((phase, *names))
            graph = compile(net_spec)
            report.phases[key] = check_phase(graph, report, wanted, {problem.position for problem in absent})
    except NetspecError as error:
        per_state[state] = per_state.get(state, []) + problems_of(error)


def made_elsewhere(problem: Problem, tops: Collection[str]) -> bool:
    """Whether the problem is a bottom that layers of another phase make: then the file is for that phase alone."""
    match = re.search("bottom '(.*)' is made by no earlier layer", problem.message)
    return match is not None and match[1] in tops
