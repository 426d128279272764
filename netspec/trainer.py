"""Trainer: the loop over iterations, with its tests, snapshots, and checks of what is not finite."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from netspec import data, schema, snapshot, watch
from netspec.compiled import compile_net
from netspec.data import Feeder, Source
from netspec.data.sinks import Sinks
from netspec.errors import NetspecError, SnapshotError, SpecError
from netspec.experiment import Experiment
from netspec.graph import compile
from netspec.interchange import load_weights, save_weights
from netspec.interchange.solverstate import (
    SUFFIXES,
    SolverState,
    read_solverstate,
    to_state_dict,
    write_solverstate,
)
from netspec.net import Net, build, explained
from netspec.overrides import changes
from netspec.progress import Progress
from netspec.runs import Folder, new_folder, plain
from netspec.signals import Requests
from netspec.solver import Solver, history_of
from netspec.state import random_state, run_folder_of, separated, set_random_state, taken
from netspec.unsupervised import initialise
from netspec.watch import Diverged

COMPILE_FROM = 2000
"""Iterations from which compiling (half a minute or more) pays."""

Weights = str | Path | Mapping[str, Tensor]


@dataclass
class Run:
    """What `fit` leaves behind."""

    folder: Path
    net: Net
    tests: list[Net]
    solver: Solver
    results: list[dict[str, Any]] = field(default_factory=list)
    """Outputs of the last test, a dict a test net."""
    seconds: float = 0.0
    """Time of training, resumed parts included."""
    interrupted: bool = False

    @property
    def iteration(self) -> int:
        """Updates done."""
        return self.solver.iteration


def choose_device(solver: Any, device: str | torch.device | None) -> torch.device:
    """The device asked for, else the solver's: a GPU where there is one, unless solver_mode is CPU."""
    if device is not None:
        try:
            chosen = torch.device(device)
        except RuntimeError:
            raise NetspecError(f"device {device}: is none; give cpu, cuda or cuda:N") from None
        if chosen.type == "meta":
            raise NetspecError(f"device {device}: holds no numbers; give cpu, cuda or cuda:N")
        there = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if chosen.type == "cuda" and (chosen.index or 0) >= there:
            found = f"only {there}" if there else "no CUDA device"
            raise NetspecError(f"device {device}: there is {found} here")
        return chosen
    if solver.solver_mode == solver.GPU and torch.cuda.is_available():
        return torch.device("cuda", solver.device_id if solver.device_id < torch.cuda.device_count() else 0)
    return torch.device("cpu")


class Trainer:
    """One run: its nets, data, solver and folder, and the loop over iterations."""

    def __init__(
        self,
        plan: Experiment,
        device: str | torch.device | None,
        seed: int | None,
        out: str | Path | None,
        resume: str | Path | None,
        progress: bool,
        given: Mapping[str, Source],
        requests: Requests,
    ):
        self.plan, self.message, self.given, self.requests = plan, plan.solver, given, requests
        if self.message.max_iter <= 0:
            raise SpecError(
                f"the solver needs max_iter > 0, found {self.message.max_iter}", plan.at("max_iter")
            )
        self.device = choose_device(self.message, device)
        self.resumed: snapshot.Snapshot | None = None
        self.refused: list[str] = []
        self.foreign: SolverState | None = None
        """State of a solver of Caffe's own, where the run goes on from one."""
        if resume is not None and str(resume).endswith(SUFFIXES):
            self.foreign = read_solverstate(resume)
        elif resume is not None:
            self.resumed, self.refused = snapshot.newest(Path(resume))
        self.seed = self.choose_seed(seed)
        torch.manual_seed(self.seed)
        self.net = build(
            compile(plan.train), seed=self.seed, device=self.device, history=history_of(self.message.type)
        )
        self.tests = [
            build(compile(test.spec), seed=self.seed, device=self.device, share=self.net)
            for test in plan.tests
        ]
        self.feeders: list[Feeder] = []
        self.feeder = self.open(self.net)
        self.sinks = Sinks(self.net, call=explained)
        self.test_feeders = [self.open(net) for net in self.tests]
        self.test_starts = [feeder.state() for feeder in self.test_feeders]
        self.solver = Solver(self.net, self.message, at=plan.at)
        own = run_folder_of(self.resumed.path) if self.resumed is not None else None
        goes_on = own is not None and (out is None or Path(out).resolve() == own.resolve())
        self.folder = Folder(own if own is not None and goes_on else new_folder(plan.stem, out))
        self.progress = Progress(self.message.max_iter, quiet=not progress)
        self.losses: deque[Any] = deque(maxlen=max(1, self.message.average_loss))
        self.seconds = 0.0
        self.compiled = False
        self.results: list[dict[str, Any]] = []
        self.bad_iteration = torch.full((), -1, device=self.device)
        """On a GPU: the first iteration whose loss or gradients were not finite, -1 while there is none."""
        self.last: tuple[Sequence[Tensor], list[Tensor]] = ((), [])
        """On a GPU: the last batch, and the random state before it."""

    def open(self, net: Net) -> Feeder:
        mine = {step.layer.name for step in net.graph.steps}
        feeder = data.feeder(
            net, self.seed, device=self.device, given={k: v for k, v in self.given.items() if k in mine}
        )
        self.feeders.append(feeder)
        return feeder

    def close(self) -> None:
        """Let data go."""
        for feeder in self.feeders:
            feeder.close()
        self.sinks.close()

    def choose_seed(self, seed: int | None) -> int:
        if self.resumed is not None:
            return int(self.resumed.info["seed"])
        if seed is None and self.message.random_seed >= 0:
            seed = self.message.random_seed
        return torch.seed() % 2**31 if seed is None else seed

    # Before the first iteration

    def prepare(self, weights: Sequence[Weights], compiled: bool | None) -> None:
        """Weights: from the snapshot, or given, or fitted to data; then the bounds, and the compiled step."""
        for reason in self.refused:
            self.progress.line(f"passed over: {reason}")
        if self.resumed is not None:
            self.restore(self.resumed)
        elif self.foreign is not None:
            self.take_up(self.foreign, weights)
        else:
            loaded = {name for one in weights for name in self.load(one)}
            initialise(
                self.net,
                self.feeder.next,
                seed=self.seed,
                skip={name.rpartition("/")[0].partition("#")[0] for name in loaded},
                progress=self.progress.line,
            )
        self.solver.clip()
        wanted = self.wants_compile(compiled)
        if wanted:
            self.compile()
        self.folder.describe(
            self.plan,
            {
                "file": self.plan.file,
                "seed": self.seed,
                "device": str(self.device),
                "iteration": self.solver.iteration,
                "compiled": self.compiled,
                "parameters": sum(param.value.numel() for param in self.net.params),
                "notes": [note for feeder in self.feeders for note in feeder.notes],
            },
        )
        self.folder.metrics.rewind(self.solver.iteration)

    def load(self, weights: Weights) -> list[str]:
        """Copy weights in; gives the names of our blobs that were found."""
        if isinstance(weights, Mapping):
            source = "the given weights"
            missing, unused = self.net.load_weights(weights, source)
        else:
            source = str(weights)
            missing, unused = load_weights(self.net, weights)
        found = [param.name for param in self.net.params if param.name not in missing]
        self.progress.line(f"{source}: {len(found)} blobs taken, {len(missing)} of ours not there")
        if not found:
            raise SnapshotError(
                f"{source}: has no blob of this net; its first is {next(iter(unused), 'none')!r}"
            )
        return found

    def wants_compile(self, compiled: bool | None) -> bool:
        """The run's own choice when it is resumed; else as asked, or by length."""
        if self.resumed is not None:
            return bool(self.resumed.info["compiled"])
        if compiled is not None:
            return compiled
        long = self.message.max_iter >= COMPILE_FROM
        return bool(self.message.compile and long and not self.message.debug_info)

    def compile(self) -> None:
        """Compile nets and update; where the training net cannot be, stay with the plain one and say why."""
        if self.sinks:
            self.progress.line("not compiled, running layer by layer: HDF5Output writes in every iteration")
            return
        self.progress.line("compiling the training step")
        started = time.monotonic()
        start = self.feeder.state()
        reason = compile_net(self.net, self.feeder.next())
        self.feeder.load_state(start)
        if reason is not None:
            self.progress.line(f"not compiled, running layer by layer: {reason}")
            if self.resumed is not None:
                self.progress.line(
                    "the run so far was compiled: what follows is equal to rounding, not to the bit"
                )
            return
        self.compiled = True
        self.solver.compile()
        for net, feeder, first in zip(self.tests, self.test_feeders, self.test_starts, strict=True):
            if compile_net(net, feeder.next()) is not None:
                self.progress.line("test net not compiled")
            feeder.load_state(first)
        self.progress.line(f"compiled in {time.monotonic() - started:.0f} s")

    # The loop

    def train(self) -> Run:
        """Iterate to max_iter or until a signal says stop."""
        m, stop = self.message, False
        self.progress.done = self.progress.first = self.solver.iteration
        started, before = time.monotonic(), self.seconds
        self.requests.patient = True
        with self.progress:
            while self.solver.iteration < m.max_iter and not stop:
                t = self.solver.iteration
                if m.test_interval and t % m.test_interval == 0 and (t > 0 or m.test_initialization):
                    self.test()
                self.iterate(t)
                self.seconds = before + time.monotonic() - started
                self.progress.advance(t + 1)
                wanted, stop = self.requests.take()
                if wanted or stop or (m.snapshot and (t + 1) % m.snapshot == 0):
                    self.save()
            self.check(self.solver.iteration - 1)
            if not stop:
                saved = m.snapshot and m.max_iter % m.snapshot == 0
                if m.snapshot_after_train and not saved and self.solver.iteration > self.progress.first:
                    self.save()
                self.test()
        self.draw()
        word = "stopped" if stop else "done"
        self.progress.line(f"{word} at iteration {self.solver.iteration}, files in {self.folder.path}")
        return Run(self.folder.path, self.net, self.tests, self.solver, self.results, self.seconds, stop)

    def iterate(self, t: int) -> None:
        """One iteration: forward and backward iter_size times, then the update."""
        rate = self.solver.rate()
        shown = self.shows(t)
        loss = torch.zeros((), device=self.device)
        for _ in range(self.message.iter_size):
            batch = self.feeder.next()
            before = random_state(self.device)
            if self.message.debug_info:
                seen = watch.walk(self.net, batch)
                part = seen.loss
                outputs = {self.net.graph.name(slot): seen.slots[slot] for slot in self.net.graph.outputs}
                self.sinks.record(seen.slots)
                for line in watch.statistics(seen, t):
                    self.progress.line(line)
            else:
                tops = self.net.run(self.sinks, *batch) if self.sinks else self.net(*batch)
                part, outputs = self.net.objective(tops), self.net.outputs(tops)
                if part.requires_grad:
                    part.backward()  # type: ignore[no-untyped-call]
            loss += part.detach()
            self.watch(t, part.detach(), batch, before)
        loss = loss / self.message.iter_size
        self.losses.append(float(loss) if self.device.type == "cpu" else loss)
        if shown:
            self.display(t, rate, outputs)
        self.solver.step()

    def shows(self, t: int) -> bool:
        """Whether iteration t is displayed and recorded."""
        every = self.message.display or max(1, self.message.max_iter // 100)
        return bool(t % every == 0)

    def display(self, t: int, rate: float, outputs: Mapping[str, Tensor]) -> None:
        self.check(t)
        loss = self.smoothed()
        values = plain(outputs)
        self.folder.metrics.write(
            "train", t, lr=rate, loss=loss, outputs=values, seconds=round(self.seconds, 3)
        )
        self.progress.show({"loss": loss})
        if self.message.display and self.progress.plain:
            speed = self.progress.speed()
            several = len(self.net.graph.losses) > 1
            self.progress.line(
                f"iteration {t}/{self.message.max_iter}{f' ({speed})' if speed else ''}: "
                f"{'total ' if several else ''}loss {loss:.6g}, lr {rate:.4g}{listed(values, not several)}"
            )

    def smoothed(self) -> float:
        """Mean loss of the last `average_loss` iterations."""
        return sum(float(loss) for loss in self.losses) / len(self.losses)

    # Not finite

    def watch(self, t: int, loss: Tensor, batch: Sequence[Tensor], before: list[Tensor]) -> None:
        """Check loss and gradients: at once on a CPU; on a GPU note the first bad iteration."""
        gradients = [param.value.grad for param in self.net.params if param.value.grad is not None]
        if self.device.type == "cpu":
            total = float(loss) + sum(float(gradient.sum()) for gradient in gradients)
            if not math.isfinite(total) and not all(watch.finite(value) for value in (loss, *gradients)):
                self.diverged(t, batch, before)
            return
        largest = torch._foreach_norm(gradients, math.inf) if gradients else ()
        measure = torch.stack([loss.abs(), *largest]).amax()
        bad = torch.where((self.bad_iteration < 0) & ~measure.isfinite(), t, self.bad_iteration)
        self.bad_iteration.copy_(bad)
        self.last = (batch, before)

    def check(self, t: int) -> None:
        """On a GPU: wait for the iterations so far, and stop when one was not finite."""
        if self.device.type != "cpu" and (bad := int(self.bad_iteration)) >= 0:
            self.diverged(bad, *self.last, later=t - bad)

    def diverged(self, t: int, batch: Sequence[Tensor], before: list[Tensor], later: int = 0) -> None:
        after = random_state(self.device)
        set_random_state(self.device, before)
        reason = watch.blame(self.net, batch)
        set_random_state(self.device, after)
        where = f"iteration {t}" + (f" (traced {later} iterations later)" if later else "")
        raise Diverged(f"loss or gradient is not finite in {where}: {reason}")

    # Tests

    def test(self) -> None:
        """Average the outputs of every test net; data order and random numbers of training stay."""
        started = time.monotonic()
        after = random_state(self.device)
        self.check(self.solver.iteration)
        self.results = []
        for i, net in enumerate(self.tests):
            torch.manual_seed(self.seed + i)
            self.test_feeders[i].load_state(self.test_starts[i])
            outputs = plain(average(net, self.test_feeders[i], self.plan.tests[i].iterations))
            self.results.append(outputs)
            self.folder.metrics.write(
                "test", self.solver.iteration, net=i, outputs=outputs, seconds=round(self.seconds, 3)
            )
            self.progress.show({k: v for k, v in outputs.items() if "accuracy" in k and isinstance(v, float)})
            name = f"test net {i}" if len(self.tests) > 1 else "test"
            self.progress.line(f"{name} at iteration {self.solver.iteration}{listed(outputs, False)}")
        set_random_state(self.device, after)
        self.progress.idle += time.monotonic() - started

    # Snapshots

    def save(self) -> None:
        """Write a snapshot; a net that is not finite is not saved."""
        started = time.monotonic()
        self.check(self.solver.iteration)
        if bad := watch.unsound(self.net):
            done = self.solver.iteration
            raise Diverged(f"parameter {bad[0]} is not finite after iteration {done}; no snapshot taken")
        tensors, numbers = separated({"solver": self.solver.state_dict(), "data": self.feeder.state()})
        for name, value in zip(("cpu", "cuda"), random_state(self.device), strict=False):
            tensors[f"random/{name}"] = value
        tensors |= {f"buffer/{name}": value for name, value in self.net.named_buffers()}
        prefix = Path(self.message.snapshot_prefix).name
        path = snapshot.save_pair(
            self.folder.snapshots,
            f"{prefix}_iter_{self.solver.iteration}" if prefix else f"iter_{self.solver.iteration}",
            self.net.weights(),
            tensors,
            {
                "iteration": self.solver.iteration,
                "net": self.plan.train.name,
                "type": self.message.type,
                "seed": self.seed,
                "compiled": self.compiled,
                "threads": torch.get_num_threads(),
                "device": self.device.type,
                "torch": torch.__version__,
                "seconds": self.seconds,
                "losses": [float(loss) for loss in self.losses],
                "numbers": numbers,
            },
        )
        if self.message.HasField("snapshot_format"):
            self.save_for_caffe(path)
        self.progress.line(f"snapshot {path}")
        self.progress.idle += time.monotonic() - started

    def save_for_caffe(self, ours: Path) -> None:
        """The same snapshot as Caffe's two files, beside ours; a solver asks for it by snapshot_format."""
        m = self.message
        ending = ".h5" if m.snapshot_format == m.HDF5 else ""
        stem = str(ours).removesuffix(snapshot.STATE)
        save_weights(self.net, f"{stem}.caffemodel{ending}")
        write_solverstate(self.solver, f"{stem}.solverstate{ending}", f"{stem}.caffemodel{ending}")

    def take_up(self, state: SolverState, weights: Sequence[Weights]) -> None:
        """Go on where a solver of Caffe's own stopped: its weights (or those given), its history, the batch
        that came next in the same data.
        """
        for one in weights or [state.weights()]:
            self.load(one)
        self.solver.load_state_dict(to_state_dict(state, self.solver), state.file)
        batches = state.iteration * self.message.iter_size
        self.feeder.skip(batches)
        self.progress.line(f"resumed from {state.file}, data from batch {batches} on")

    def restore(self, saved: snapshot.Snapshot) -> None:
        """Take up a snapshot: weights, solver, data, random numbers."""
        missing, _ = self.net.load_weights(saved.weights, str(saved.path))
        if missing:
            raise SnapshotError(f"{saved.path}: its weights lack {missing[0]!r}")
        info = saved.info
        solver = taken("solver", saved)
        self.solver.load_state_dict(solver, str(saved.path))
        self.feeder.load_state(taken("data", saved))
        buffers = dict(self.net.named_buffers())
        for name, value in saved.tensors.items():
            if name.startswith("buffer/") and (own := buffers.get(name.removeprefix("buffer/"))) is not None:
                own.copy_(value)
        kinds = ["cpu"] + (["cuda"] if self.device.type == "cuda" and "random/cuda" in saved.tensors else [])
        set_random_state(self.device, [saved.tensors[f"random/{kind}"] for kind in kinds])
        self.losses.extend(info["losses"])
        self.seconds = float(info["seconds"])
        now = {"threads": torch.get_num_threads(), "device": self.device.type, "torch": torch.__version__}
        for fact, current in now.items():
            if info[fact] != current:
                self.progress.line(
                    f"{fact} was {info[fact]}, now {current}: equal to rounding, not to the bit"
                )
        self.progress.line(f"resumed from {saved.path}")
        before = run_folder_of(saved.path) / "solver.prototxt"
        if before.is_file():
            for change in changes(schema.read_solver(before).message, self.message):
                self.progress.line(f"{change}: not the run that was stopped")

    def draw(self) -> None:
        """The loss plot of the run folder."""
        from netspec.draw import curves

        if self.folder.metrics.read():
            curves(self.folder.metrics.path, self.folder.path / "loss.png")


def average(net: Net, feeder: Feeder, batches: int) -> dict[str, Tensor]:
    """Outputs of `net`, each averaged over so many batches; its HDF5Output layers write anew what they get."""
    sums: dict[str, Tensor] = {}
    with torch.no_grad(), Sinks(net, call=explained) as sinks:
        for _ in range(batches):
            batch = feeder.next()
            tops = net.run(sinks, *batch) if sinks else net(*batch)
            for name, value in net.outputs(tops).items():
                sums[name] = sums[name] + value if name in sums else value.clone()
    return {name: value / batches for name, value in sums.items()}


def listed(outputs: Mapping[str, Any], hide_loss: bool) -> str:
    """`, accuracy 0.98, loss 0.07` of the outputs that are single numbers."""
    shown = {name: value for name, value in outputs.items() if isinstance(value, int | float)}
    if hide_loss:
        shown.pop("loss", None)
    return "".join(f", {name} {value:.6g}" for name, value in shown.items())
