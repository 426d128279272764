"""Solvers, as scripts know them from pycaffe: step, solve, snapshot, restore, and Caffe's log lines."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from netspec import solver
from netspec.interchange import solverstate
from netspec.net import reading
from netspec.pycaffe import debug, mode
from netspec.pycaffe.feeds import Data
from netspec.pycaffe.lines import SGD, Log
from netspec.pycaffe.moves import Moves
from netspec.pycaffe.net import Net, check_file
from netspec.run import experiment
from netspec.run.averages import Averages
from netspec.run.experiment import tell
from netspec.run.initialise import initialise
from netspec.run.signals import Requests
from netspec.run.spread import any_of
from netspec.schema import Document


class Solver:
    """Trains `net` as a solver file says, and tests `test_nets`.

        solver = SGDSolver("solver.prototxt")
        solver.step(100)
        solver.net.params["conv1"][0].data

    One step is forward and backward `iter_size` times, the update, then tests, snapshots and log lines when
    they are due.
    """

    type: ClassVar[str | None] = None
    """The update rule, in place of the file's; None for the file's own."""

    def __init__(self, solver_file: str | Path | Document, told_by: Sequence[str] = ()):
        """CaffeError when the file cannot be opened, SpecError for mistakes in it or in its nets.

        told_by: weight files that will be copied in; they tell the fork of layers whose name several forks use.
        """
        document = read(solver_file)
        if self.type is not None:
            document.message.type = self.type
        self._plan = experiment.load(document)
        given = [path.strip() for entry in self._plan.solver.weights for path in entry.split(",")]
        given = [str(experiment.find_file(path, document.file) or path) for path in given]
        tell(self._plan, [*told_by, *given])
        self.param = self._plan.solver
        """The SolverParameter, its nets taken out."""
        if self.param.random_seed >= 0:
            mode.set_random_seed(self.param.random_seed)
        self.net = Net.of(self._plan.train)
        self.test_nets = [Net.of(test.spec, self.net) for test in self._plan.tests]
        for net in self.test_nets:
            net.debug(self.param.debug_info)
        self.net._running.to(mode.device())
        self._core = solver.Solver(self.net._running.synced(), self.param, at=self._plan.at)
        self._core.rule = self._moves = Moves(self._core.rule)
        self._requests: Requests | None = None
        self._stopped = False
        self._restored = False
        self._on_start: list[Callable[[], Any]] = []
        self._on_gradients: list[Callable[[], Any]] = []
        self._losses: deque[float] = deque(maxlen=max(1, self.param.average_loss))
        self._log = Log(self.param.display)
        for path in given:
            self.net.copy_from(path)

    @property
    def iter(self) -> int:
        """Updates done."""
        return self._core.iteration

    @property
    def lr(self) -> float:
        """The learning rate of the coming update."""
        return self._core.rate()

    @property
    def smoothed_loss(self) -> float:
        """Mean loss of the last `average_loss` iterations."""
        return sum(self._losses) / max(1, len(self._losses))

    def add_callback(
        self, on_start: Callable[[], Any], on_gradients_ready: Callable[[], Any] | None = None
    ) -> None:
        """Call the first before each iteration, the second before each update. One object alone, as an NCCL,
        is called before each update.
        """
        if on_gradients_ready is None:
            self._on_gradients.append(on_start)
            return
        self._on_start.append(on_start)
        self._on_gradients.append(on_gradients_ready)

    # Training

    def solve(self, resume_file: str | Path | None = None) -> None:
        """Train to max_iter, from a solver state if one is given, with a last snapshot and test."""
        self._log.line(f"Solving {self.net.name}")
        self._log.line(f"Learning Rate Policy: {self.param.lr_policy}")
        if resume_file:
            self._log.line(f"Restoring previous solver status from {resume_file}")
            self.restore(resume_file)
        if not self._restored and self.iter == 0:
            initialise(self.net._running.synced(), self._batch, progress=self._log.line)
            self.net._running.changed()
        self._core.clip()
        self.net._running.changed()
        self.step(self.param.max_iter - self.iter)
        every = self.param.snapshot
        if self.param.snapshot_after_train and (not every or self.iter % every):
            self.snapshot()
        if self._stopped:
            self._log.line("Optimization stopped early.")
            return
        if self.param.display and self.iter % self.param.display == 0:
            self._average(self.net._forward(0, len(self.net.layers) - 1))
            self._log.line(f"Iteration {self.iter}, loss = {self.smoothed_loss:.6g}")
        if self.param.test_interval and self.iter % self.param.test_interval == 0:
            self._test_all()
        self._log.line("Optimization Done.")

    def solve_with(self, requests: Requests) -> None:
        """`solve`, heeding requests to stop or to take a snapshot after each iteration."""
        self._requests = requests
        try:
            self.solve()
        finally:
            self._requests = None

    def step(self, iters: int) -> None:
        """Train for so many iterations."""
        self._losses.clear()
        self._log.start(self.iter)
        for _ in range(iters):
            self._iterate()
            wanted = self._requests.take() if self._requests else (False, False)
            snapshot, self._stopped = any_of(*wanted)
            if snapshot or (self.param.snapshot and self.iter % self.param.snapshot == 0):
                self.snapshot()
            if self._stopped:
                break

    def _iterate(self) -> None:
        """One iteration: test if due, gradients, log, update."""
        m, now = self.param, self.iter
        self.net.clear_param_diffs()
        if m.test_interval and now % m.test_interval == 0 and (now > 0 or m.test_initialization):
            self._test_all()
        for call in self._on_start:
            call()
        shown = bool(m.display and now % m.display == 0)
        self.net.debug(shown and m.debug_info)
        loss, last = 0.0, len(self.net.layers) - 1
        for _ in range(m.iter_size):
            loss += self.net._forward(0, last)
            self.net._backward(last, 0)
            if shown and m.debug_info:
                debug.total(self.net._running.diffs.values(), self.net._running.device)
        self._average(loss / m.iter_size)
        self._core.observe(self.smoothed_loss)
        if shown:
            self._log.iteration(now, self.smoothed_loss, self.outputs(self.net), self.lr)
        for call in self._on_gradients:
            call()
        self.apply_update()

    def _average(self, loss: float) -> None:
        self._losses.append(loss)

    def apply_update(self) -> None:
        """Change the parameters by their diffs, as one iteration does; counts as an iteration.

        Afterwards the diffs hold what was subtracted.
        """
        running = self.net._running
        running.to(mode.device())
        running.synced()
        gradients: list[Tensor | None] = []
        for param in self._core.params:
            blob = running.diffs[id(param.value)]
            gradients.append(None if blob._gradient is None else blob.gradient.tensor(running.device))
        for slot in self._core.history:
            slot[:] = [value.to(running.device) for value in slot]
        self._core._zeros.clear()
        self._core.step(gradients)
        for param in self._core.params:
            blob = running.diffs[id(param.value)]
            if param.lr_mult:
                blob.gradient.put(self._moves.made.pop(id(param.value)).neg_())
            elif blob._gradient is not None:
                blob.gradient.clear()
        running.changed()

    def _batch(self) -> tuple[Tensor, ...]:
        """The next batch of the training net's data, one tensor for each of its inputs."""
        running = self.net._running
        for step in running.steps:
            if isinstance(step.feed, Data):
                step.feed.forward(step.tops)
        return tuple(running.slots[slot].values.tensor(running.device) for slot in running.core.graph.inputs)

    # Testing

    @staticmethod
    def outputs(net: Net, without: Collection[str] = ()) -> Iterator[tuple[str, float, float]]:
        """(name, value, loss weight) of each value among the net's outputs."""
        weights = net.blob_loss_weights
        for name in net.outputs:
            if name in without:
                continue
            for value in net.blobs[name].data.ravel():
                yield name, float(value), weights[name]

    def _test_all(self) -> None:
        if mode.solver_rank():
            return  # of several solvers the first one tests
        for i, (net, plan) in enumerate(zip(self.test_nets, self._plan.tests, strict=True)):
            self._test(i, net, plan.iterations)

    def _test(self, number: int, net: Net, batches: int) -> None:
        """Average a test net's outputs over its batches, and log them; those of DetectionEvaluate layers become
        the mean average precision.
        """
        self._log.line(f"Iteration {self.iter}, Testing net (#{number})")
        averages, loss = Averages(net._detected(), self.param), 0.0
        with torch.no_grad():
            for _ in range(batches):
                loss += net._forward(0, len(net.layers) - 1)
                net._add_outputs(averages)
        if self.param.test_compute_loss:
            self._log.line(f"Test loss: {loss / batches:.6g}")
        weights = net.blob_loss_weights
        means = [
            (name, mean, weights[name])
            for name, values in averages.means(batches).items()
            for mean in values.ravel().tolist()
        ]
        for name, gathered in averages.detections.items():
            if self.param.show_per_class_result:
                for label, precision in gathered.by_label().items():
                    self._log.line(f"class{label}: {precision:.6g}")
            means.append((name, gathered.mean(), 0.0))
        order = {name: i for i, name in enumerate(net.outputs)}
        self._log.outputs("Test", sorted(means, key=lambda output: order[output[0]]))

    # State

    def snapshot(self) -> None:
        """Write weights and state to `<snapshot_prefix>_iter_<iteration>`; of several solvers the first one does."""
        if mode.solver_rank():
            return
        hdf5 = self.param.snapshot_format == self.param.HDF5
        ending, kind = (".h5", "HDF5") if hdf5 else ("", "binary proto")
        stem = f"{self._prefix()}_iter_{self.iter}"
        weights, state = f"{stem}.caffemodel{ending}", f"{stem}.solverstate{ending}"
        self._log.line(f"Snapshotting to {kind} file {weights}")
        (self.net.save_hdf5 if hdf5 else self.net.save)(weights)
        self._log.line(f"Snapshotting solver state to {kind} file {state}", SGD)
        solverstate.write_solverstate(self._core, state, weights)

    def _prefix(self) -> str:
        """snapshot_prefix; where it is not given or a folder, the solver file's own name (in that folder)."""
        given, own = self.param.snapshot_prefix, Path(self._plan.file).with_suffix("")
        if not given:
            return str(own)
        return str(Path(given) / own.name) if Path(given).is_dir() else str(given)

    def restore(self, state_file: str | Path) -> None:
        """Continue from a solver state: iteration, history, weights; SnapshotError if it belongs to another net."""
        state = solverstate.read_solverstate(check_file(state_file))
        self._core.load_state_dict(solverstate.to_state_dict(state, self._core), str(state_file))
        if state.learned_net:
            self.net.copy_from(state.weights())
        self._restored = True

    def share_weights(self, net: Net) -> None:
        """Let `net` use the training net's parameters."""
        net.share_with(self.net)


class SGDSolver(Solver):
    """Stochastic gradient descent with momentum."""

    type = "SGD"


class NesterovSolver(Solver):
    """Nesterov's accelerated gradient."""

    type = "Nesterov"


class AdaGradSolver(Solver):
    """AdaGrad (Duchi et al. 2011)."""

    type = "AdaGrad"


class RMSPropSolver(Solver):
    """RMSProp (Tieleman and Hinton 2012)."""

    type = "RMSProp"


class AdaDeltaSolver(Solver):
    """AdaDelta (Zeiler 2012)."""

    type = "AdaDelta"


class AdamSolver(Solver):
    """Adam (Kingma and Ba 2015)."""

    type = "Adam"


def read(solver_file: str | Path | Document) -> Document:
    """The solver file; CaffeError when it cannot be opened."""
    if isinstance(solver_file, Document):
        return solver_file
    return reading.read(check_file(solver_file), "solver")


def get_solver(solver_file: str | Path | Document, told_by: Sequence[str] = ()) -> Solver:
    """The solver of the type that the file names; `told_by` as for Solver."""
    kinds = {kind.type: kind for kind in Solver.__subclasses__()}
    document = read(solver_file)
    return kinds.get(document.message.type, Solver)(document, told_by)
