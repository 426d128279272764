"""Run a trained net over batches of its data: its outputs averaged, or its blobs written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from netspec import data, schema
from netspec.data import Feeder
from netspec.data.writing.features import write_features
from netspec.errors import DataError, SpecError, did_you_mean
from netspec.interchange import snapshot_files
from netspec.interchange.dialects import told
from netspec.interchange.weights import take_weights
from netspec.layers import ranks
from netspec.net import reading
from netspec.net.make import make_net
from netspec.net.net import Net
from netspec.run import experiment
from netspec.run.experiment import Experiment
from netspec.run.fit import average, choose_device
from netspec.run.folder import plain
from netspec.run.progress import Progress
from netspec.run.spread import InTurn
from netspec.schema import spec
from netspec.schema.spec import TEST, NetSpec

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
    is tested in phase TEST. stages: those of the net's state, beside those that a solver names.
    Raises SpecError when a net of the source needs weights and there are none.
    """
    averages = []
    wanted = tests_of(Path(source), weights, stages, device)
    for net_spec, batches in wanted.nets:
        with fed(net_spec, wanted, seed) as (net, feeder):
            averages.append(dict(plain(average(net, feeder, iterations or batches, wanted.solver))))
    return averages


def extract(
    source: str | Path,
    target: Path,
    blobs: Sequence[str],
    weights: str | Path | None = None,
    *,
    batches: int,
    backend: str = "LMDB",
    places: Sequence[Path] | None = None,
    stages: Sequence[str] = (),
    device: str | None = None,
    seed: int = 1,
) -> int:
    """Write blobs of a net (the first test net of a run folder or solver) over `batches` batches of its data.

    target, backend, places: see `netspec.data.writing.features`. Gives the number of rows.
    Raises SpecError when the net needs weights and there are none, DataError when it has no such blob.
    """
    wanted = tests_of(Path(source), weights, stages, device)
    with fed(wanted.nets[0][0], wanted, seed) as (net, feeder):
        for name in blobs:
            if net.graph.find(name) is None:
                known = dict.fromkeys(net.graph.name(slot) for slot in range(len(net.graph.slots)))
                hint = did_you_mean(name, known, f"it has {', '.join(known)}")
                raise DataError(f"{source}: the net has no blob {name!r}{hint}")
        if ranks.current().world == 1:
            return write_features(net, feeder, blobs, batches, target, backend, places)
        turns = InTurn(net, feeder, blobs, batches)
        if ranks.current().leads:
            return write_features(turns, turns, blobs, batches, target, backend, places)
        return sum(len(values[blobs[0]]) for values in turns.coming)


@dataclass
class Wanted:
    """Nets, the number of batches that a test of each takes, their weights, and the device."""

    nets: list[tuple[NetSpec, int]]
    weights: Any
    """A file, blobs by name, or None."""
    file: str
    """Where the weights come from."""
    device: torch.device
    solver: Any = None
    """The SolverParameter, None for a net alone."""


def tests_of(path: Path, weights: str | Path | None, stages: Sequence[str], device: str | None) -> Wanted:
    """The test nets of a run folder, a solver or a net file."""
    if path.is_dir():
        weights = weights or snapshot_files.newest_aloud(path).path
        path = path / "solver.prototxt"
    document = reading.read(path)
    plan: Experiment | None = None
    if document.kind == "solver":
        plan = experiment.load(document, stages=stages)
        specs = [(test.spec, test.iterations) for test in plan.tests] if plan else []
        chosen = choose_device(document.message, device)
    else:
        specs = [(spec.net(document, TEST, stages), BATCHES)]
        chosen = choose_device(schema.SolverParameter(), device)
    if not specs:
        raise SpecError(f"{path}: names no test net (test_iter and test_interval)")
    values: Any = None
    if weights is not None:
        given = Path(weights)
        values = (
            snapshot_files.load_pair(given).weights if given.name.endswith(snapshot_files.STATE) else given
        )
    return Wanted(specs, values, str(weights), chosen, plan.solver if plan else None)


@contextmanager
def fed(net_spec: NetSpec, wanted: Wanted, seed: int) -> Iterator[tuple[Net, Feeder]]:
    """The net with its weights, and the feeder of its data."""
    if wanted.weights is not None:
        net_spec = told(net_spec, wanted.weights)
    net = make_net(net_spec, seed=seed, device=wanted.device)
    if wanted.weights is not None:
        missing = take_weights(net, wanted.weights, need="any" if net.params else "none").missing
        if missing:
            rest = f" and {len(missing) - 1} more of the net" if len(missing) > 1 else " of the net"
            Progress(0).warn(f"{wanted.file}: has no blob {missing[0]!r}{rest}: as the fillers make it")
    elif net.params:
        raise SpecError(f"{net_spec.file}: the net has weights to learn; give --weights")
    torch.manual_seed(seed)
    feeder = data.feeder(net, seed, device=wanted.device)
    try:
        yield net, feeder
    finally:
        feeder.close()
