"""Trainer: the loop over iterations, with its tests, snapshots, and checks of what is not finite."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import netspec
from netspec import data
from netspec.data import Feeder
from netspec.data.draws import derive
from netspec.data.writing.sinks import Sinks, refuse_shared_files, writing
from netspec.errors import SpecError, one_line
from netspec.interchange import snapshot_files
from netspec.interchange.solverstate import SolverState
from netspec.interchange.weights import Weights, take_weights
from netspec.layers import ranks
from netspec.layers.base import LOOK_EVERY
from netspec.net import checkpointing
from netspec.net.classes import check_labels
from netspec.net.compiling import compile_net
from netspec.net.devices import choose_device
from netspec.net.make import make_net
from netspec.net.net import Net, explained
from netspec.net.precision import tf32
from netspec.net.random_state import random_state
from netspec.run import spread, threads, watch
from netspec.run.captured import Captured, hindrance
from netspec.run.experiment import Experiment
from netspec.run.folder import Folder, new_folder, plain, refuse_taken
from netspec.run.initialise import initialise
from netspec.run.options import Options
from netspec.run.progress import Progress
from netspec.run.recording import commit_of, data_facts
from netspec.run.resume import begin
from netspec.run.settings import settings_shown
from netspec.run.settling import settle
from netspec.run.shard import Sharded
from netspec.run.shard import refuse as refuse_cut
from netspec.run.sight import Labels
from netspec.run.signals import Requests
from netspec.run.snapshot import Checkpoint
from netspec.run.stopping import Best, Stopping
from netspec.run.tests import TestNets
from netspec.run.tracking import Tracking
from netspec.run.watch import Alarm, Diverged
from netspec.schema.spec import TRAIN, NetSpec
from netspec.solver import Solver, history_of, solver_of

COMPILE_FROM = 2000
"""Iterations from which compiling (half a minute or more) pays."""

LABELS_FOR = 100
"""Iterations in which labels are counted, and checked against the number of classes before the pass."""


@dataclass
class Run:
    """What `fit` leaves behind.

    >>> from pathlib import Path
    >>> import netspec
    >>> _ = Path("line.prototxt").write_text('''
    ...     layer { name: "x" type: "DummyData" top: "x" top: "t" dummy_data_param {
    ...       shape { dim: 4 dim: 3 } shape { dim: 4 dim: 1 } data_filler { type: "gaussian" } } }
    ...     layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 1 } }
    ...     layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }''')
    >>> _ = Path("line_solver.prototxt").write_text(
    ...     'net: "line.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 3')
    >>> run = netspec.fit("line_solver.prototxt", progress=False, iterations=1)
    >>> sorted(path.name for path in run.folder.glob("*.prototxt"))
    ['net.prototxt', 'solver.prototxt']
    """

    folder: Path
    net: Net
    tests: list[Net]
    solver: Solver
    results: list[dict[str, Any]] = field(default_factory=list)
    """Outputs of the last test, a dict per test net."""
    seconds: float = 0.0
    """Time of training, resumed parts included."""
    interrupted: bool = False
    ended: str = ""
    """The rule of `early_stop` that ended the run before max_iter, in words."""
    best: dict[str, Any] | None = None
    """With `keep_best`: iteration and value of the best weights, and `results`, the outputs of each test net
    with them.
    """

    @property
    def iteration(self) -> int:
        """Updates done."""
        return self.solver.iteration

    def _repr_html_(self) -> str:
        from netspec.run.showing import as_html

        return as_html(self)


class Trainer:
    """One run: its nets, data, solver and folder, and the loop over iterations."""

    def __init__(
        self,
        plan: Experiment,
        options: Options,
        requests: Requests,
    ):
        self.plan, self.message, self.options, self.requests = plan, plan.solver, options, requests
        if self.message.max_iter <= 0:
            raise SpecError(
                f"the solver needs max_iter > 0, found {self.message.max_iter}", plan.at("max_iter")
            )
        specs = {id(test.spec): test.spec for test in plan.tests}
        refuse_shared_files((plan.train, *specs.values()))
        self.told = settle((plan.train, *specs.values()), options.given)
        self.ranks = ranks.current()
        self.device = choose_device(self.message, options.device)
        self.beginning = begin(options.resume, options.seed, self.message)
        self.seed = spread.from_lead(self.beginning.seed)
        self.threads = torch.get_num_threads()
        torch.manual_seed(self.seed)
        self.refuse_spread(specs.values())
        self.net = make_net(
            self.fitted(spread.divided(plan.train, self.ranks.parts)),
            seed=self.seed,
            device=self.device,
            history=history_of(self.message.type),
        )
        # Equal test nets are one: each test begins at the same place in the data anyway.
        distinct = {
            key: make_net(one, seed=self.seed, device=self.device, share=self.net)
            for key, one in specs.items()
        }
        tests = [distinct[id(test.spec)] for test in plan.tests]
        self.distinct = [self.net, *distinct.values()]
        self.feeders: list[Feeder] = []
        self.feeder = self.open(self.net)
        self.sinks = Sinks(self.net, call=explained)
        batches = [test.iterations for test in plan.tests]
        fed = {key: self.open(net) for key, net in distinct.items()}
        feeders = [fed[id(test.spec)] for test in plan.tests]
        self.tests = TestNets(tests, feeders, batches, self.seed, self.message)
        self.solver = solver_of(self.message.type)(self.net, self.message, at=plan.at)
        self.averaging: spread.Averaging | None = None
        self.sharded: Sharded | None = None
        self.captured: Captured | None = None
        if options.shard:
            if self.ranks.world == 1:
                raise SpecError("--shard: cuts weights among several processes; start them with torchrun")
            if not self.ranks.whole:
                raise SpecError("--shard: goes with a batch that the processes share; leave out --local")
            refuse_cut(self.message, self.net, plan.at)
        self.checkpoint = Checkpoint(self.net, tests, self.solver, self.feeder, self.device)
        self.alarm = Alarm(self.net, self.device, self.message.early_stop.nan)
        self.labels = Labels(self.net)
        self.own = self.beginning.own_folder(options.out)
        if self.own is None and options.out is not None and self.ranks.leads:
            refuse_taken(Path(options.out))
        self.progress = Progress(self.message.max_iter, quiet=not (options.progress and self.ranks.leads))
        self.tracking: Tracking | None = None
        self.stopping = Stopping(self.message)
        self.stopping.check(tests, plan.at)
        if self.message.keep_best:
            Best(self.message, Path()).aim.check(tests, plan.at, "keep_best")
        self.losses: deque[Any] = deque(maxlen=max(1, self.message.average_loss))
        self.seconds = 0.0
        self.compiled = False
        self.net.short_products = self.message.precision == self.message.BF16
        self.results: list[dict[str, Any]] = []

    def open(self, net: Net) -> Feeder:
        mine = {step.layer.name for step in net.graph.steps}
        given = {name: source for name, source in self.options.given.items() if name in mine}
        feeder = data.feeder(net, self.seed, device=self.device, given=given)
        if net.graph.spec.phase == TRAIN and self.ranks.world > 1:
            feeder.deal(self.ranks.rank, self.ranks.world, strided=not self.ranks.whole)
        self.feeders.append(feeder)
        return feeder

    def fitted(self, spec: NetSpec) -> NetSpec:
        """The training net with layers that are computed again, where `--memory` asks for it."""
        if not self.options.memory:
            return spec
        shaped = make_net(spec, device="meta")
        most = checkpointing.bytes_of(self.options.memory)
        return checkpointing.fitted(shaped.graph, shaped.shapes, most) or spec

    def refuse_spread(self, tests: Iterable[NetSpec]) -> None:
        """Refuse what several processes cannot do together."""
        if self.ranks.world == 1:
            return
        if self.options.given:
            raise SpecError("several processes cannot share sources of a program; use data layers")
        if self.message.debug_info:
            raise SpecError(
                "debug_info looks inside of one process; run it in one", self.plan.at("debug_info")
            )
        for spec in (self.plan.train, *tests):
            for layer in writing(spec):
                raise SpecError([layer.problem("writes what one process sees; leave it out of several")])

    def close(self) -> None:
        """Let data go."""
        torch.set_num_threads(self.threads)
        for feeder in self.feeders:
            feeder.close()
        self.sinks.close()
        if hasattr(self, "folder"):
            self.folder.lock.release()
        if self.tracking is not None:
            self.tracking.close()

    def discard(self) -> None:
        """Remove the folder of a run that came to nothing before it was described."""
        folder = getattr(self, "folder", None)
        if self.own is None and isinstance(folder, Folder):
            folder.discard()

    # Before the first iteration

    def prepare(self, weights: Sequence[Weights]) -> None:
        """Set the weights (from the snapshot, given, or fitted to data), clip them to their bounds, and compile the
        step.
        """
        self.choose_threads()
        start = self.beginning
        if self.ranks.world > 1:
            facts = json.dumps(data_facts(self.distinct, self.feeders))
            spread.refuse_different({**self.plan.texts(), "data": facts, "netspec": netspec.__version__})
        for reason in start.refused:
            self.progress.line(f"passed over: {reason}")
        if start.saved is not None:
            self.restore(start.saved)
        elif start.foreign is not None:
            self.take_up(start.foreign, weights)
        loaded = set() if start.resumes else {name for one in weights for name in self.load(one)}
        self.take_folder()
        fitted: list[str] = []
        if not start.resumes:
            fitted = initialise(
                self.net,
                self.feeder.next,
                seed=self.seed,
                skip={name.rpartition("/")[0].partition("#")[0] for name in loaded},
                progress=self.progress.line,
            )
        self.solver.clip()
        if self.ranks.split:
            begun = self.feeder.state()
            spread.refuse_looks_across(self.net, self.feeder.next())
            self.feeder.load_state(begun)
        if self.wants_compile():
            self.compile()
        if self.options.shard:
            self.shard()
        alone = (
            self.options.shard or self.message.type == "EM"
        )  # both average what they learn from themselves
        self.averaging = spread.Averaging(
            self.net, self.device, changing=self.solver.hold, averages=not alone
        )
        if self.message.cuda_graph:
            self.capture()
        if not self.ranks.whole:  # each process draws for its own batch
            torch.manual_seed(derive(self.seed, "rank", self.ranks.rank, self.solver.iteration) % 2**63)
        notes = [*self.told, *(note for feeder in self.feeders for note in feeder.notes)]
        warnings = [str(problem) for problem in self.plan.warnings]
        if lack := self.lacks_loss():
            warnings.append(lack)
        if self.ranks.world > 1:
            notes.append(self.meaning())
            self.progress.line(notes[-1])
        for warning in warnings:
            self.progress.warn(warning)
        notes += warnings
        if (
            isinstance(self.folder, Folder)
            and start.picked
            and self.own
            and (aside := self.folder.set_aside(self.solver.iteration))
        ):
            notes.append(f"what was beyond iteration {self.solver.iteration} is another branch now: {aside}")
            self.progress.line(notes[-1])
        if isinstance(self.folder, Folder):
            self.describe(self.folder, notes)
        self.stopping.replay(self.folder.metrics.read())
        self.best = Best(self.message, self.folder.path, writes=self.ranks.leads)
        if refused := self.best.resume(self.solver.iteration):
            self.progress.line(refused)
        if fitted and self.message.snapshot:  # what took time before the first iteration is not done twice
            self.save()

    def capture(self) -> None:
        """Record the step as a CUDA graph; where it cannot be, stay without and say why."""
        reason = hindrance(self.message, self.device, self.ranks.world, bool(self.sinks))
        if not reason and self.solver.schedule.observes:
            reason = "the learning rate goes by the loss"
        begun, self.captured = self.feeder.state(), None
        if not reason:
            try:
                self.captured = Captured(self.net, self.solver, self.feeder.next(), self.device)
            except RuntimeError as error:  # whatever a layer does that a graph cannot hold
                reason = one_line(error)
            self.feeder.load_state(begun)
        self.progress.line(f"no CUDA graph: {reason}" if reason else "the step is one CUDA graph")

    def shard(self) -> None:
        """Cut the learned weights among the processes."""
        tests = self.distinct[1:]
        self.sharded = Sharded(self.net, tests, self.solver, self.device)
        self.tests.alike()
        self.progress.line(f"learned weights and their history are cut into {self.ranks.world} parts")

    def take_folder(self) -> None:
        """Make the run folder, or take it up again: the first process for all."""
        facts: tuple[Path, list[dict[str, Any]]] = Path(), []
        if self.ranks.leads:
            self.folder: Folder | spread.Follower = Folder(
                self.own or new_folder(self.plan.stem, self.options.out)
            )
            facts = self.folder.path, self.folder.metrics.read()  # a folder that is held is let go by `close`
        path, lines = spread.from_lead(facts)
        if not self.ranks.leads:
            self.folder = spread.Follower(
                path, [line for line in lines if line["iteration"] < self.solver.iteration]
            )

    def meaning(self) -> str:
        """What several processes make of batch and learning rate, in words."""
        slot = self.net.graph.inputs[0] if self.net.graph.inputs else 0
        own, world = (self.net.shapes[slot] or (1,))[0], self.ranks.world
        effective = own * world * self.message.iter_size
        each = "a part of the files' batch" if self.ranks.whole else "the files' batch"
        often = f" times iter_size {self.message.iter_size}" if self.message.iter_size > 1 else ""
        return (
            f"{world} processes, each with {each} ({own} images){often}: {effective} images in an update; "
            f"learning rates as written; batch statistics {'of all' if self.ranks.whole else 'of each'} processes"
        ).replace("of each processes", "of each process")

    def describe(self, folder: Folder, notes: Sequence[str]) -> None:
        """Write what is run, forget metrics of iterations to come, and tell trackers."""
        folder.describe(
            self.plan,
            {
                "file": self.plan.file,
                "seed": self.seed,
                "device": str(self.device),
                "iteration": self.solver.iteration,
                "compiled": self.compiled,
                "parameters": sum(param.value.numel() for param in self.net.params),
                "settings": self.plan.settings,
                "data": data_facts(self.distinct, self.feeders),
                "commit": commit_of(self.plan.file),
                "notes": list(notes),
                **({"processes": self.ranks.world} if self.ranks.world > 1 else {}),
            },
        )
        if damaged := folder.metrics.rewind(self.solver.iteration):
            self.progress.line(f"{folder.metrics.path}: {damaged} damaged lines are left out")
        if self.options.track:
            config = {"file": self.plan.file, "seed": self.seed, **settings_shown(self.message)}
            self.tracking = Tracking(self.options.track, folder.path, config)
            folder.metrics.listeners.append(self.tracking.line)

    def choose_threads(self) -> None:
        """Compute with as many threads as `threads.choose` says, until `close`."""
        saved = self.beginning.saved
        if self.device.type != "cpu":
            return
        before = saved.info.get("threads") if saved is not None else None
        sound = isinstance(before, int) and 0 < before <= threads.MOST
        number, why = threads.choose(before if sound else None)
        torch.set_num_threads(number)
        if why:
            self.told.append(why)
            self.progress.line(why)

    def lacks_loss(self) -> str:
        """Why the net would learn nothing, in words; "" where gradients reach a weight."""
        name = repr(self.net.graph.spec.name or self.plan.stem)
        if not self.net.graph.losses:
            return f"net {name} has no loss (no layer with a loss_weight other than 0): nothing is learnt"
        if self.net.params and not any(param.value.requires_grad for param in self.net.params):
            return f"no weight of net {name} reaches a loss with an lr_mult other than 0: nothing is learnt"
        return ""

    def load(self, weights: Weights) -> list[str]:
        """Copy weights into the training net and the test nets; returns the names of the training net's blobs that the
        weights have.
        """
        taken = take_weights(self.net, weights, need="any")
        for i in {i for i, _, _ in self.checkpoint.own_of_tests()}:
            take_weights(self.tests.nets[i], weights, need="none")
        names = [param.name for param in self.net.params if param.name not in taken.missing]
        self.progress.line(
            f"{taken.source}: {len(names)} blobs taken, {len(taken.missing)} of ours not there"
        )
        return names

    def wants_compile(self) -> bool:
        """Whether to compile: as asked; else as before where the run is resumed; else by the number of iterations."""
        compiled = self.options.compiled
        if self.options.shard:
            return False
        if self.beginning.saved is not None:
            before = bool(self.beginning.saved.info["compiled"])
            if compiled not in (None, before):
                changed = "was compiled, now is not" if before else "was not compiled, now is"
                self.progress.line(f"the step {changed}: equal to rounding, not to the bit")
            return before if compiled is None else compiled
        if compiled is not None:
            return compiled
        long = self.message.max_iter >= COMPILE_FROM and self.message.type != "EM"
        return bool(self.message.compile and long and not self.message.debug_info)

    def compile(self) -> None:
        """Compile the nets and the update; where the training net cannot be compiled, keep the uncompiled one and say
        why.
        """
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
            if self.beginning.saved is not None:
                self.progress.line(
                    "the run so far was compiled: what follows is equal to rounding, not to the bit"
                )
            return
        self.compiled = True
        if self.beginning.saved is not None:  # as at the look before the snapshot, not as at the snapshot
            self.net.recall(self.beginning.saved.info.get("noted", {}))
        self.solver.compile()
        for i in self.tests.compile():
            self.progress.line(f"test net {i} not compiled")
        self.progress.line(f"compiled in {time.monotonic() - started:.0f} s")

    # The loop

    def train(self) -> Run:
        """Iterate up to max_iter, or until a signal or a rule stops the run."""
        m, stop, tested = self.message, False, -1
        self.progress.done = self.progress.first = self.solver.iteration
        started, before = time.monotonic(), self.seconds
        self.requests.patient = True
        short = tf32(self.device) if self.message.precision == self.message.TF32 else nullcontext()
        with self.progress, short:
            while self.solver.iteration < m.max_iter and not stop and not self.stopping.over():
                t = self.solver.iteration
                if m.test_interval and t % m.test_interval == 0 and (t > 0 or m.test_initialization):
                    self.test()
                    tested = t
                    if self.stopping.over():
                        break
                self.iterate(t)
                self.seconds = before + time.monotonic() - started
                self.progress.advance(t + 1)
                wanted, stop = spread.any_of(*self.requests.take())
                if wanted or stop or (m.snapshot and (t + 1) % m.snapshot == 0):
                    self.save()
            self.alarm.check(self.solver.iteration - 1)
            if not stop:
                saved = m.snapshot and self.solver.iteration % m.snapshot == 0
                if m.snapshot_after_train and not saved and self.solver.iteration > self.progress.first:
                    self.save()
                if tested != self.solver.iteration:
                    self.test()
        if self.sharded:
            self.join()
        ended = "" if stop or self.solver.iteration >= m.max_iter else self.stopping.reason
        best = None if stop else self.test_best()
        if self.tracking is not None:
            self.tracking.samples(self.tests.nets, self.solver.iteration)
        self.draw()
        word = "stopped" if stop else f"ended, as {ended}," if ended else "done"
        self.progress.line(f"{word} at iteration {self.solver.iteration}, files in {self.folder.path}")
        return Run(
            self.folder.path,
            self.net,
            self.tests.nets,
            self.solver,
            self.results,
            self.seconds,
            stop,
            ended,
            best,
        )

    def join(self) -> None:
        """Make net and test nets whole again, on the host."""
        assert self.sharded is not None  # narrows the type
        with self.sharded.whole():
            weights = {name: value.clone() for name, value in self.net.weights().items()}
        self.sharded = None
        self.net = make_net(self.plan.train, seed=self.seed)
        self.net.load_weights(weights)
        whole = {
            id(net): make_net(net.graph.spec, seed=self.seed, share=self.net) for net in self.distinct[1:]
        }
        self.tests.nets = [whole[id(net)] for net in self.tests.nets]

    def test_best(self) -> dict[str, Any] | None:
        """Test the weights that `keep_best` kept; the net keeps its own."""
        spread.from_lead(None)  # what the first process wrote is there now
        kept = self.best.weights()
        if not kept:
            return None
        own = {name: value.clone() for name, value in self.net.weights().items()}
        self.net.load_weights(kept, str(self.best.path))
        try:
            results = list(self.tests.run(self.device))
        finally:
            self.net.load_weights(own, "the run's own weights")
        aim = self.best.aim
        self.folder.metrics.write(
            "best", self.solver.iteration, of=aim.at, output=aim.output, results=results
        )
        self.progress.line(f"best {aim.output} {aim.best:.6g} at iteration {aim.at}: {self.best.path}")
        return {"iteration": aim.at, "output": aim.output, "value": aim.best, "results": results}

    def iterate(self, t: int) -> None:
        """One iteration: forward and backward iter_size times, then the update."""
        if t % LOOK_EVERY == 0 and (self.compiled or self.captured is not None):
            noted = self.net.noted()
            self.net.look()
            if self.captured is not None and self.net.noted() != noted:
                self.capture()
        shown = self.shows(t)
        loss = torch.zeros((), device=self.device)
        rate = self.solver.rate()
        for i in range(self.message.iter_size):
            batch = self.feeder.next()
            if t < LABELS_FOR:
                self.labels.look(batch)
                check_labels(self.net, batch if t else self.feeder.whole(batch))
            before = random_state(self.device)
            if self.message.debug_info:
                seen = watch.walk(self.net, batch)
                part = seen.loss
                outputs = {self.net.graph.name(slot): seen.slots[slot] for slot in self.net.graph.outputs}
                self.sinks.record(seen.slots)
                for line in watch.statistics(seen, t):
                    self.progress.line(line)
            else:
                part, outputs = self.passed(batch, last=i == self.message.iter_size - 1)
            part = ranks.mean(part.detach())
            loss += part
            self.alarm.look(t, part, batch, before)
        if self.message.debug_info:
            spread.average_gradients(self.net)
        loss = loss / self.message.iter_size
        self.losses.append(float(loss) if self.device.type == "cpu" else loss)
        if self.solver.schedule.observes:
            self.solver.observe(self.smoothed())
            rate = self.solver.rate()
        if shown:
            self.display(t, rate, outputs)
        if self.captured is None:
            self.solver.step(self.sharded.gradients() if self.sharded else None)
        if t + 1 == min(LABELS_FOR, self.message.max_iter):
            for text in self.labels.all_missing():
                self.progress.warn(f"in the first {t + 1} iterations nothing was learnt from labels: {text}")

    def passed(self, batch: Sequence[Tensor], last: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Objective and outputs of a batch, forward and backward; with the `last` the processes average gradients."""
        stage = self.solver.counted()
        if self.captured is not None:
            part, tops = self.captured(batch)
            return part, self.net.outputs(tops)
        if self.sinks or self.averaging is None:
            tops = self.walk(batch)
            part = self.net.objective(tops, stage)
            if part.requires_grad:
                part.backward()  # type: ignore[no-untyped-call]
        else:
            with self.averaging.holding(last):
                part, tops = self.walk(batch, stage)
                if part.requires_grad:
                    part.backward()
        return part, self.net.outputs(tops)

    def walk(self, batch: Sequence[Tensor], stage: str | None = None) -> tuple[Any, ...]:
        """The tops for a batch, or (objective, tops). Where compiled code fails, the layers run uncompiled, so that the
        error names its layer.
        """
        try:
            if self.sinks or self.averaging is None:
                return self.net.run(self.sinks, *batch) if self.sinks else self.net(*batch)
            return self.averaging(stage, *batch)
        except (IndexError, RuntimeError):
            if self.compiled:
                with torch.no_grad():
                    self.net.run(explained, *batch)
            raise

    def shows(self, t: int) -> bool:
        """Whether iteration t is displayed and recorded."""
        every = self.message.display or max(1, self.message.max_iter // 100)
        return bool(t % every == 0)

    def display(self, t: int, rate: float, outputs: Mapping[str, Tensor]) -> None:
        self.alarm.check(t)
        loss = self.smoothed()
        values = plain({k: ranks.mean(v.float()) if v.numel() == 1 else v for k, v in outputs.items()})
        norms = watch.gradient_norms(self.net, self.message.iter_size) if self.message.gradient_norms else {}
        self.folder.metrics.write(
            "train", t, lr=rate, loss=loss, outputs=values, seconds=round(self.seconds, 3), **norms
        )
        self.stopping.displayed(t, loss)
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

    # Tests and snapshots

    def test(self) -> None:
        """Average the outputs of every test net; data order and random numbers of training stay."""
        started = time.monotonic()
        self.alarm.check(self.solver.iteration)
        self.results = []
        for i, outputs in enumerate(self.tested()):
            self.results.append(outputs)
            self.folder.metrics.write(
                "test", self.solver.iteration, net=i, outputs=outputs, seconds=round(self.seconds, 3)
            )
            self.progress.show({k: v for k, v in outputs.items() if "accuracy" in k and isinstance(v, float)})
            name = f"test net {i}" if len(self.tests.nets) > 1 else "test"
            self.progress.line(f"{name} at iteration {self.solver.iteration}{listed(outputs, False)}")
        if len(self.results) > self.stopping.aim.net:
            self.stopping.tested(self.solver.iteration, self.results[self.stopping.aim.net])
        if self.tracking is not None:
            self.tracking.filters(self.net, self.solver.iteration)
        if self.message.keep_best and not watch.unsound(self.net):
            self.best.tested(self.solver.iteration, self.results, self.net.weights)
        self.progress.idle += time.monotonic() - started

    def tested(self) -> Iterator[dict[str, Any]]:
        """The outputs of each test net. A snapshot is saved before a test that is not finite stops the run."""
        try:
            yield from self.tests.run(self.device)
        except Diverged:
            if self.solver.iteration > self.progress.first and not watch.unsound(self.net):
                self.save()
            raise

    def save(self) -> None:
        """Write a snapshot; a net that is not finite is not saved."""
        started = time.monotonic()
        self.alarm.check(self.solver.iteration)
        bad = watch.unsound(self.net)
        if self.sharded:  # each process looks at its parts
            bad = [name for names in spread.from_all(bad) for name in names]
        if bad:
            text = (
                f"parameter {bad[0]} is not finite after iteration {self.solver.iteration}; no snapshot taken"
            )
            if self.alarm.on:
                raise Diverged(text)
            self.progress.line(text)
            return
        with self.sharded.whole() if self.sharded else nullcontext():
            if self.ranks.leads:
                self.write()
        self.progress.idle += time.monotonic() - started

    def write(self) -> None:
        """The files of a snapshot."""
        m = self.message
        path = self.checkpoint.save(
            self.folder.snapshots,
            snapshot_files.stem_of(m.snapshot_prefix, self.solver.iteration),
            {
                "net": self.plan.train.name,
                "seed": self.seed,
                "compiled": self.compiled,
                "noted": self.net.noted(),
                "seconds": self.seconds,
                "losses": [float(loss) for loss in self.losses],
                "written": self.sinks.state(),
            },
        )
        if m.HasField("snapshot_format"):
            self.checkpoint.save_for_caffe(path, hdf5=m.snapshot_format == m.HDF5)
        self.progress.line(f"snapshot {path}")

    def take_up(self, state: SolverState, weights: Sequence[Weights]) -> None:
        """Continue where Caffe stopped: take its weights (or the given ones), its history, and the next batch of the
        same data.
        """
        for one in weights or [state.weights()]:
            self.load(one)
        batches = self.checkpoint.take_up(state)
        self.progress.line(f"resumed from {state.file}, data from batch {batches} on")

    def restore(self, saved: snapshot_files.Snapshot) -> None:
        """Restore a snapshot, and print what will differ from the first run."""
        for warning in self.checkpoint.restore(saved):
            self.progress.line(warning)
        self.losses.extend(saved.info["losses"])
        self.seconds = float(saved.info["seconds"])
        self.progress.line(f"resumed from {saved.path}")
        for problem in self.sinks.load_state(saved.info.get("written", [])):
            self.progress.line(problem)
        for change in self.beginning.changes(self.message):
            self.progress.line(f"{change}: not the run that was stopped")
        if self.own and self.message.HasField("snapshot_format") and self.ranks.leads:
            hdf5 = self.message.snapshot_format == self.message.HDF5
            for name in self.checkpoint.save_for_caffe(saved.path, hdf5, missing=True):
                self.progress.line(f"{name}: was missing, is written now")

    def draw(self) -> None:
        """The loss plot of the run folder."""
        from netspec.draw import curves

        if self.ranks.leads and self.folder.metrics.read():
            curves(self.folder.metrics.path, self.folder.path / "loss.png")


def listed(outputs: Mapping[str, Any], hide_loss: bool) -> str:
    """`, accuracy 0.98, loss 0.07` of the outputs that are single numbers."""
    shown = {name: math.nan if value is None else value for name, value in outputs.items()}
    shown = {name: value for name, value in shown.items() if isinstance(value, int | float)}
    if hide_loss:
        shown.pop("loss", None)
    return "".join(f", {name} {value:.6g}" for name, value in shown.items())
