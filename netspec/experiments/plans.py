"""Plans: which runs an experiment has, in a file of YAML, or of the SimNets fork's JSON with comments.

    name: ht_small                      # the sweep's folder is runs/ht_small
    template: ht_cac.prototmp           # values are variables of a template; or
    file: nets/lenet_solver.prototxt    # values are settings, as behind --set
    search: grid                        # grid, random, tpe, halving, hyperband
    points: 24                          # at most so many; needed but for grid
    metric: accuracy                    # output of the first test net; {output:, net:, mode: min} says more
    values:
      base_lr: {logspace: [0.003, 0.03], count: 3}
      states: [[8, 16], [16, 32]]
      dropout: {uniform: [0, 0.5], when: {model: cnn}}
    groups: [{search: grid, values: {...}}, {search: random, values: {...}}]   # in place of values: their product
    seeds: 3                            # each point once per seed; a list names them
    set: {max_iter: 1000, snapshot: 200}
    stop: {nan: true, delta: 1e-6, plateau: 500, patience: 10}
    weights: ../init/*.safetensors
    limits: {seconds: 600, memory: 4}   # per run; memory in GB
    keep: last                          # snapshots of a finished run: last, best, all or none
    stages: [{name: init, ...}, {name: train, after: init, ...}, {name: test, after: train, task: test, ...}]

A stage has the keys of the plan; those that it leaves out are the plan's. A stage `after` another runs once per run of
that stage and per point of its own, with the values of both, from the weights of that run; values, groups and seeds of
the plan itself are those of the stages that come after none.

hyper_train.py's plans: name is the folder, the template is net.prototmp beside the plan, `weights_file` a pattern in
the folder; templates get `name`, `caffe_random_seed` and `run_idx_1`, `run_idx_2` ..., as those of other plans do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netspec.errors import SpecError
from netspec.experiments.parameters import Parameter
from netspec.experiments.values import unread

SEARCHES = ("grid", "random", "tpe", "halving", "hyperband")
ADAPTIVE = SEARCHES[2:]
KEEP = ("last", "best", "all", "none")
TASKS = ("train", "test")
STOPS = ("nan", "delta", "plateau", "patience", "window")


@dataclass(frozen=True)
class Metric:
    """The figure to compare runs by: an output of a test net, and which way is better."""

    output: str = "accuracy"
    net: int = 0
    mode: str = "max"

    @property
    def sign(self) -> int:
        """1 where more is better, else -1."""
        return 1 if self.mode == "max" else -1


@dataclass(frozen=True)
class Stop:
    """The rules by which a run ends early."""

    nan: bool = True
    """Stop where loss or gradients are not finite."""
    delta: float | None = None
    """Stop where the loss falls by less than this share per iteration, by the medians of the two halves of all
    displays.
    """
    plateau: int = 0
    """Stop where the displayed loss has had no new low for so many iterations; 0: never."""
    patience: int = 0
    """Stop where the metric has had no new best for so many tests; 0: never."""
    window: int = 10
    """Number of tests in the moving average of the results table."""


@dataclass(frozen=True)
class Group:
    """Parameters that are searched together."""

    search: str
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True)
class Stage:
    """Runs of one kind."""

    name: str
    template: Path | None
    file: Path | None
    groups: tuple[Group, ...]
    seeds: tuple[int, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    stop: Stop = Stop()
    weights: str = ""
    after: str = ""
    task: str = "train"
    iterations: int | None = None
    """Batches of a test."""

    @property
    def source(self) -> Path:
        """The file that its runs are made from."""
        path = self.template or self.file
        if path is None:
            raise SpecError(f"stage {self.name!r} names no template and no file")
        return path


@dataclass(frozen=True)
class Plan:
    """A plan as read."""

    file: str
    name: str
    folder: Path
    stages: tuple[Stage, ...]
    metric: Metric = Metric()
    points: int | None = None
    seed: int = 0
    """Seed of everything that the plan draws."""
    limits: Mapping[str, float] = field(default_factory=dict)
    keep: str = "last"
    engine: str | None = None
    original: bool = False
    """Whether it is a plan of hyper_train.py."""

    def notes(self) -> list[str]:
        """Values that a stage's template never reads, so that runs that differ in them alone are the same."""
        if self.original or self.engine:
            return []
        deciding = {
            name
            for stage in self.stages
            for group in stage.groups
            for parameter in group.parameters
            for name, _ in parameter.when
        }
        return [
            f"{self.file}: value {name!r} is not read by {stage.template}{hint}; a field of the solver goes under set"
            for stage in self.stages
            if stage.template is not None
            for name, hint in unread(
                stage.template, dict.fromkeys(p.name for group in stage.groups for p in group.parameters)
            )
            if name not in deciding
        ]

    @property
    def search(self) -> str:
        """The search of its first stage where that is adaptive, else "grid"."""
        searches = [
            group.search for stage in self.stages for group in stage.groups if group.search in ADAPTIVE
        ]
        return searches[0] if searches else "grid"
