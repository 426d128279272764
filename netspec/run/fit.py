"""fit: train what a solver file describes, with tests, snapshots and exact resumption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from netspec.data import Source
from netspec.errors import NetspecError, SpecError
from netspec.interchange.snapshot_files import states, weights_file
from netspec.interchange.solverstate import SUFFIXES
from netspec.interchange.weights import Weights, kind_of
from netspec.layers import ranks
from netspec.net.allocator import keep_freed_memory
from netspec.net.devices import choose_device
from netspec.run import experiment, tracking
from netspec.run.experiment import Experiment, tell
from netspec.run.folder import METRICS, new_folder
from netspec.run.options import Options
from netspec.run.progress import Progress
from netspec.run.signals import Requests
from netspec.run.spread import from_lead, joined, own_device
from netspec.run.tests import average
from netspec.run.trainer import Run, Trainer
from netspec.run.watch import Diverged
from netspec.schema import Document

__all__ = ["Diverged", "Run", "average", "choose_device", "fit"]


def fit(
    source: str | Path | Document | Experiment,
    *,
    weights: Weights | Sequence[Weights] | None = None,
    resume: str | Path | None = None,
    device: str | torch.device | None = None,
    seed: int | None = None,
    iterations: int | None = None,
    overrides: Mapping[str, str] | Sequence[str] = (),
    out: str | Path | None = None,
    progress: bool = True,
    compiled: bool | None = None,
    given: Mapping[str, Source] | None = None,
    sigint: str = "stop",
    sighup: str = "snapshot",
    track: Sequence[str] = (),
    memory: str = "",
    shard: bool = False,
    spread: str = "",
) -> Run:
    """Train; gives the run with its nets. Files go to `out`, or to a new folder runs/<name of the file>.

    source: a solver file, or a net file with <stem>_solver.prototxt beside it.
    weights: weight files, run folders, or blobs by name, copied before the start into layers of equal name, also of
    test nets.
    resume: a run folder (its newest good snapshot) or a state file; the run continues with its seed as if it had never
    stopped.
    Snapshots in the folder that are newer than the one resumed are moved to abandoned/<n> in it. A .solverstate of
    Caffe (.solverstate.h5) brings the weights that it names, which lie where it says or beside it.
    device: by default the GPU where there is one and solver_mode is not CPU.
    seed: of fillers, data order and masks; by default the solver's random_seed, or a new one.
    iterations: in place of max_iter. overrides: `field=value` settings, see netspec.run.settings.
    compiled: whether to compile the step; by default from 2000 iterations on, if the solver allows.
    given: sources by layer name, for Input layers or in place of data layers.
    track: "tensorboard", or modules that speak wandb's API (trackio, wandb), which get metrics and pictures as well.
    sigint, sighup: what the signals do, "stop" (after a snapshot), "snapshot" or "none"; SIGTERM as SIGINT.
    memory: such as "4G": what the blobs of a step may take; layers are computed again in backward until they fit.
    shard: cut learned weights and their history among the processes, layer by layer gathered as they are used.
    spread: "whole" or "local" where torchrun started this process beside others: whether they have parts of the files'
    batch, or each the files' batch (docs/how-to/several-processes.md).
    Where a solver names another as `pretraining`, that one runs first, into the folder pretraining inside the run's
    own, and the solver starts from its weights unless `weights` are given; overrides and iterations apply to the solver
    alone.
    Raises SpecError, DataError, SnapshotError, or Diverged when loss or gradients stop being finite.

    >>> from pathlib import Path
    >>> import netspec
    >>> _ = Path("line.prototxt").write_text('''
    ...     layer { name: "x" type: "DummyData" top: "x" top: "t" dummy_data_param {
    ...       shape { dim: 4 dim: 3 } shape { dim: 4 dim: 1 } data_filler { type: "gaussian" } } }
    ...     layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 1 } }
    ...     layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }''')
    >>> _ = Path("line_solver.prototxt").write_text(
    ...     'net: "line.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 3')
    >>> run = netspec.fit("line_solver.prototxt", progress=False)
    >>> run.folder.name, run.solver.iteration
    ('line', 3)
    """
    keep_freed_memory()
    if spread:
        return fit_spread(spread, {**locals()})
    plan = source if isinstance(source, Experiment) else experiment.load(source, overrides)
    if iterations is not None:
        plan.solver.max_iter = iterations
    tracking.require(track)
    options = Options(
        device,
        seed,
        out,
        resume,
        progress,
        compiled,
        given or {},
        sigint,
        sighup,
        tuple(track),
        memory,
        shard,
    )
    if plan.solver.pretraining and weights is None and not begun(resume):
        first = pretrain(plan, options)
        both = first.folder.parent
        if first.interrupted:
            Progress(0, quiet=not progress).line(
                f"this run, and the one after it, go on with --resume {both}"
            )
            return first
        if resume is not None and ranks.current().leads:  # of a second run, killed before its first snapshot
            (both / METRICS).unlink(missing_ok=True)
        options = replace(options, resume=None, out=both)
        weights = first.net.weights()
    return run(plan, options, chosen(plan, weights, options.resume))


def fit_spread(meaning: str, how: dict[str, Any]) -> Run:
    """`fit` with these arguments, beside the other processes that torchrun started."""
    source, overrides = how.pop("source"), how.pop("overrides")
    how.pop("spread")
    plan = source if isinstance(source, Experiment) else experiment.load(source, overrides)
    how["device"] = own_device(how["device"], plan.solver)
    with joined(meaning, how["device"]):
        return fit(plan, **how)


def run(plan: Experiment, options: Options, weights: Sequence[Weights]) -> Run:
    """One run of a plan, from weights that are known to be there; pretraining is done."""
    tell(plan, weights if options.resume is None else [*weights, options.resume])
    several = ranks.current().world > 1
    with Requests(options.sigint, options.sighup, patient=False, repeated=several) as requests:
        trainer = trainer_of(plan.solver.type)(plan, options, requests)
        try:
            try:
                trainer.prepare(weights)
            except BaseException:
                trainer.discard()
                raise
            return trainer.train()
        finally:
            trainer.close()


def chosen(
    plan: Experiment, weights: Weights | Sequence[Weights] | None, resume: str | Path | None
) -> list[Weights]:
    """The weights to start from: the given ones, else those that the solver names; each file must exist.

    A resumed run keeps its own weights, as in Caffe, where a restored state comes after the solver's `weights`.
    """
    if weights is not None and resume is not None and not str(resume).endswith(SUFFIXES):
        raise NetspecError(f"{resume}: a resumed run has its weights; give either a snapshot or weights")
    sources: list[Weights]
    if weights is None:
        named = [path for entry in plan.solver.weights for path in entry.split(",")] if resume is None else []
        sources = [experiment.find_file(path, plan.file) or path for path in named]
    else:
        sources = [weights] if isinstance(weights, str | Path | Mapping) else list(weights)
    for one in sources:
        if not isinstance(one, Mapping):
            kind_of(weights_file(Path(one)))  # a name that is wrong is said before any data is fetched
    return sources


def begun(resume: str | Path | None) -> bool:
    """Whether `resume` is a state of the run itself, and not of the pretraining before it."""
    return resume is not None and (not Path(resume).is_dir() or bool(states(Path(resume))))


def pretrain(plan: Experiment, options: Options) -> Run:
    """Run the pretraining of a plan, in a folder inside the plan's own; it is resumed together with the plan."""
    source = experiment.find_file(plan.solver.pretraining, plan.file)
    if source is None:
        raise SpecError(f"pretraining {plan.solver.pretraining!r}: no such file", plan.at("pretraining"))
    refuse_circle(plan, source)
    if options.resume is not None:
        return again(source, replace(options, resume=Path(options.resume) / "pretraining", out=None))
    folder = from_lead(new_folder(plan.stem, options.out) if ranks.current().leads else Path())
    try:
        return again(source, replace(options, out=folder / "pretraining"))
    except BaseException:
        with suppress(OSError):  # holds something: then it stays
            folder.rmdir()
        raise


def again(source: Path, options: Options) -> Run:
    """`fit` for another file with the same options."""
    return fit(source, **{entry.name: getattr(options, entry.name) for entry in fields(options)})


def refuse_circle(plan: Experiment, source: Path) -> None:
    """Raise SpecError where the chain of pretrainings from `source` leads back to the plan."""
    seen, before = {Path(plan.file).resolve()}, source
    while before.resolve() not in seen:
        seen.add(before.resolve())
        earlier = experiment.load(before)
        file = earlier.solver.pretraining and experiment.find_file(earlier.solver.pretraining, earlier.file)
        if not file:
            return
        before = file
    text = f"pretraining {plan.solver.pretraining!r}: leads back to {before.name}"
    raise SpecError(text, plan.at("pretraining"))


def trainer_of(kind: str) -> type[Trainer]:
    """The trainer of a solver type: "HardEM" has its own; all others follow gradients."""
    if kind == "HardEM":
        from netspec.run.hard_em import HardEMTrainer

        return HardEMTrainer
    return Trainer
