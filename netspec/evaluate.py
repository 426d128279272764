"""Test a net: its outputs averaged over batches of its data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from netspec import data, experiment, schema, snapshot, spec
from netspec.errors import SpecError
from netspec.experiment import Experiment
from netspec.graph import compile
from netspec.interchange import load_weights
from netspec.net import build
from netspec.runs import plain
from netspec.spec import TEST, NetSpec
from netspec.train import average, choose_device

BATCHES = 50
"""Batches of a test where neither the solver nor the user says how many, as in `caffe test`."""


def evaluate(
    source: str | Path,
    weights: str | Path | None = None,
    *,
    iterations: int | None = None,
    stages: Sequence[str] = (),
    device: str | None = None,
    seed: int = 1,
) -> list[dict[str, Any]]:
    """Outputs of each test net, averaged over `iterations` batches (default the solver's test_iter, else 50).

    source: a run folder (its nets, and its newest good snapshot unless `weights` is given), a solver, or a net, which
    is tested in phase TEST with `stages`.
    Raises SpecError when a net of the source needs weights and there are none.
    """
    path = Path(source)
    if path.is_dir():
        weights = weights or snapshot.newest(path)[0].path
        path = path / "solver.prototxt"
    document = schema.read(path)
    if document.kind == "solver":
        plan: Experiment | None = experiment.load(document)
        specs = [(test.spec, iterations or test.iterations) for test in plan.tests] if plan else []
        chosen = choose_device(document.message, device)
    else:
        specs = [(spec.net(document, TEST, stages), iterations or BATCHES)]
        chosen = choose_device(schema.SolverParameter(), device or "cpu")
    if not specs:
        raise SpecError(f"{path}: names no test net (test_iter and test_interval)")
    values: Any = None
    if weights is not None:
        given = Path(weights)
        values = snapshot.load_pair(given).weights if given.name.endswith(snapshot.STATE) else given
    return [_test(one, count, values, str(weights), chosen, seed) for one, count in specs]


def _test(
    net_spec: NetSpec, batches: int, weights: Any, source: str, device: torch.device, seed: int
) -> dict[str, Any]:
    net = build(compile(net_spec), seed=seed, device=device)
    if isinstance(weights, Path):
        load_weights(net, weights)
    elif weights is not None:
        net.load_weights(weights, source)
    elif net.params:
        raise SpecError(f"{net_spec.file}: the net has weights to learn; give --weights")
    torch.manual_seed(seed)
    feeder = data.feeder(net, seed, device=device)
    try:
        return dict(plain(average(net, feeder, batches)))
    finally:
        feeder.close()
