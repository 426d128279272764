"""The `caffe` command on netspec: train, test, time and device_query, with Caffe's flags and log lines."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from netspec import pycaffe
from netspec.errors import NetspecError, did_you_mean
from netspec.pycaffe import glog, parallel
from netspec.pycaffe.flags import GLOG, UsageError, whole_number
from netspec.pycaffe.flags import parse as parse_flags
from netspec.pycaffe.solver import read
from netspec.pycaffe.tools import TOOLS
from netspec.pycaffe.tools import main as run_tool
from netspec.run.averages import Averages
from netspec.run.signals import EFFECTS, Requests
from netspec.schema import Document

SOURCE = "caffe.cpp:1"
USAGE = """usage: caffe <command> <flags>

commands:
  train           train or finetune a model
  test            score a model
  device_query    show GPU diagnostic information
  time            benchmark model execution time

tools, with their own arguments: convert_imageset, convert_mnist_data, convert_cifar_data,
compute_image_mean, extract_features

flags, with one dash or two, as -flag value or -flag=value:
  -solver FILE         the solver definition (train)
  -model FILE          the net (test, time)
  -weights FILE[,...]  weights to start from or to score (train, test); not together with -snapshot
  -snapshot FILE       the solver state from which to resume (train)
  -iterations N        iterations to run, default 50 (test, time)
  -gpu ID[,...]|all    run on a GPU; train: on several, each with the batch of the file
  -phase TRAIN|TEST    phase of the net, default TRAIN (time)
  -level N             level of the net's state
  -stage WORD[,...]    stages of the net's state
  -sigint_effect, -sighup_effect stop|snapshot|none
                       what a signal does; default stop and snapshot (train)
  -log_dir DIR         also write the log to DIR/caffe.INFO
  -minloglevel N       log from level N on: 0 info, 1 warnings, 2 errors
  --allow-python       import and run the Python modules that the net names"""


@dataclass
class Flags:
    """Values of the command line's flags."""

    solver: str = ""
    model: str = ""
    weights: str = ""
    snapshot: str = ""
    iterations: int = 50
    gpu: str = ""
    phase: str = ""
    level: int = 0
    stage: str = ""
    sigint_effect: str = "stop"
    sighup_effect: str = "snapshot"
    log_dir: str = ""
    minloglevel: int = 0

    @property
    def stages(self) -> list[str]:
        return [stage for stage in self.stage.split(",") if stage]


def main(argv: Sequence[str]) -> int:
    """Run `caffe argv...`; gives the exit status: 0, 1 for wrong usage, 2 for an error that the log tells."""
    if argv and argv[0] in TOOLS:
        return run_tool(argv)
    try:
        verb, flags = parse(argv)
    except UsageError as error:
        glog.write(2, str(error), SOURCE)
        return 1
    if verb is None:
        glog.write(2, USAGE, SOURCE)
        return 1
    if importlib.util.find_spec("caffe") is None:
        pycaffe.install()  # Python layers of nets import it
    try:
        if verb == "train" and not parallel.started() and len(several := gpus(flags)) > 1:
            return parallel.start_on(several, argv)
        with logging_to(flags):
            VERBS[verb](flags)
    except NetspecError as error:
        glog.write(2, str(error), SOURCE)
        return 2
    return 0


def parse(argv: Sequence[str]) -> tuple[str | None, Flags]:
    """The verb (None when there is none) and its flags; UsageError for what is neither."""
    if {word.lstrip("-") for word in argv if word.startswith("-")} & {"help", "h"}:
        return None, Flags()
    words, values = parse_flags(argv, asdict(Flags()))
    if len(words) > 1:
        raise UsageError(f"one command at a time; found {words[0]!r} and {words[1]!r}")
    if words and words[0] not in VERBS:
        raise UsageError(f"unknown command {words[0]!r}{did_you_mean(words[0], (*VERBS, *TOOLS))}")
    for name in GLOG:
        del values[name]
    return words[0] if words else None, Flags(**values)


@contextmanager
def logging_to(flags: Flags) -> Iterator[None]:
    """The log with the threshold and the copy that the flags ask for."""
    before = glog.threshold, glog.copy
    glog.threshold = max(glog.threshold, flags.minloglevel)
    try:
        if not flags.log_dir:
            yield
            return
        try:
            Path(flags.log_dir).mkdir(parents=True, exist_ok=True)
            file = (Path(flags.log_dir) / "caffe.INFO").open("w", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"-log_dir {flags.log_dir}: {error.strerror}") from None
        with file:
            glog.copy = file
            yield
    finally:
        glog.threshold, glog.copy = before


def say(text: str) -> None:
    if not parallel.started() or pycaffe.solver_rank() == 0:
        glog.info(text, SOURCE)


def gpus(flags: Flags) -> list[int]:
    """The GPUs that -gpu names; NetspecError when they are not there."""
    there = list(range(torch.cuda.device_count()))
    if flags.gpu == "all":
        return there
    asked = [whole_number("gpu", number) for number in flags.gpu.split(",") if number]
    if missing := [number for number in asked if number not in there]:
        raise NetspecError(f"-gpu {flags.gpu}: there is no GPU {missing[0]} here, found {len(there)}")
    return asked


def choose_device(wanted: Sequence[int]) -> None:
    """Run on the first of these GPUs, or on the CPU when there is none."""
    if not wanted:
        say("Use CPU.")
        pycaffe.set_mode_cpu()
        return
    say(f"Using GPUs {', '.join(map(str, wanted))}")
    for number in wanted:
        say(f"GPU {number}: {torch.cuda.get_device_name(number)}")
    pycaffe.set_device(wanted[0])
    pycaffe.set_mode_gpu()


# The commands


def train(flags: Flags) -> None:
    """Train a net as -solver says."""
    if not flags.solver:
        raise UsageError("Need a solver definition to train: -solver")
    if flags.snapshot and flags.weights:
        raise UsageError("Give a snapshot to resume training or weights to finetune but not both.")
    for name in ("sigint_effect", "sighup_effect"):
        if getattr(flags, name) not in EFFECTS:
            raise UsageError(f"-{name} is one of {', '.join(EFFECTS)}; found {getattr(flags, name)!r}")
    document = read(flags.solver)
    message = document.message
    if flags.level or flags.stages:
        message.train_state.level = flags.level
        message.train_state.stage.extend(flags.stages)
    wanted = gpus(flags)
    if not flags.gpu and message.solver_mode == message.GPU and torch.cuda.is_available():
        wanted = [message.device_id if message.HasField("device_id") else 0]
    choose_device(wanted)
    if parallel.started():
        with parallel.side_by_side():
            solve(flags, document)
    else:
        solve(flags, document)


def solve(flags: Flags, document: Document) -> None:
    """Train the net of a solver's document, alone or beside others."""
    files = flags.weights.split(",") if flags.weights else []
    solver = pycaffe.get_solver(document, [*files, *([flags.snapshot] if flags.snapshot else [])])
    for file in files:
        say(f"Finetuning from {file}")
        solver.net.copy_from(file)
        for net in solver.test_nets:
            net.copy_from(file)
    if flags.snapshot:
        say(f"Resuming from {flags.snapshot}")
        solver.restore(flags.snapshot)
    if parallel.started():
        parallel.Together(solver)
    say("Starting Optimization")
    with Requests(flags.sigint_effect, flags.sighup_effect, repeated=parallel.started()) as requests:
        solver.solve_with(requests)
    say("Optimization Done.")


def test(flags: Flags) -> None:
    """Score -model with -weights over -iterations batches of its data."""
    if not flags.model:
        raise UsageError("Need a model definition to score: -model")
    if not flags.weights:
        raise UsageError("Need model weights to score: -weights")
    choose_device(gpus(flags))
    first, *more = flags.weights.split(",")
    net = pycaffe.Net(flags.model, pycaffe.TEST, flags.level, flags.stages, weights=first)
    for file in more:
        net.copy_from(file)
    say(f"Running for {flags.iterations} iterations.")
    averages, loss = Averages(net._detected()), 0.0
    for i in range(flags.iterations):
        loss += net._forward(0, len(net.layers) - 1)
        net._add_outputs(averages)
        for name, value, _ in pycaffe.Solver.outputs(net, averages.detections):
            say(f"Batch {i}, {name} = {value:.6g}")
    say(f"Loss: {loss / max(1, flags.iterations):.6g}")
    for name, values in averages.means(flags.iterations).items():
        weight = net.blob_loss_weights[name]
        for mean in values.ravel().tolist():
            part = f" (* {weight:.6g} = {weight * mean:.6g} loss)" if weight else ""
            say(f"{name} = {mean:.6g}{part}")
    for name, gathered in averages.detections.items():
        say(f"{name} = {gathered.mean():.6g}")


def measure(flags: Flags) -> None:
    """Time each layer of -model, forward and backward, over -iterations passes."""
    if not flags.model:
        raise UsageError("Need a model definition to time: -model")
    if flags.phase not in ("", "TRAIN", "TEST"):
        raise UsageError(f"-phase is TRAIN or TEST, found {flags.phase!r}")
    phase = pycaffe.TEST if flags.phase == "TEST" else pycaffe.TRAIN
    choose_device(gpus(flags))
    net = pycaffe.Net(flags.model, phase, flags.level, flags.stages)
    last = len(net.layers) - 1
    say("Performing Forward")
    say(f"Initial loss: {net._forward(0, last):.6g}")
    say("Performing Backward")
    net._backward(last, 0)
    say("*** Benchmark begins ***")
    say(f"Testing for {flags.iterations} iterations.")
    times: dict[str, list[float]] = {"forward": [0.0] * (last + 1), "backward": [0.0] * (last + 1)}
    started = perf_counter()
    for i in range(flags.iterations):
        before = perf_counter()
        for k in range(last + 1):
            times["forward"][k] += timed(partial(net._forward, k, k))
        for k in range(last, -1, -1):
            times["backward"][k] += timed(partial(net._backward, k, k))
        say(f"Iteration: {i + 1} forward-backward time: {(perf_counter() - before) * 1e3:.6g} ms.")
    report(net._layer_names, times, flags.iterations, perf_counter() - started)


def timed(call: Callable[[], Any]) -> float:
    """Seconds that a call takes; on a GPU with what it asked for."""
    timer = pycaffe.Timer()
    timer.start()
    call()
    timer.stop()
    return timer.ms / 1e3


def report(names: Sequence[str], times: dict[str, list[float]], iterations: int, total: float) -> None:
    share = 1e3 / max(1, iterations)
    say("Average time per layer: ")
    for k, name in enumerate(names):
        for way, seconds in times.items():
            say(f"{name:>10}\t{way}: {seconds[k] * share:.6g} ms.")
    sums = {way: sum(seconds) * share for way, seconds in times.items()}
    say(f"Average Forward pass: {sums['forward']:.6g} ms.")
    say(f"Average Backward pass: {sums['backward']:.6g} ms.")
    say(f"Average Forward-Backward: {total * share:.6g} ms.")
    say(f"Total Time: {total * 1e3:.6g} ms.")
    say("*** Benchmark ends ***")


def device_query(flags: Flags) -> None:
    """Tell about the GPUs that -gpu names, all by default."""
    say(f"Querying GPUs {flags.gpu or 'all'}")
    numbers = gpus(flags) if flags.gpu else list(range(torch.cuda.device_count()))
    if not numbers:
        say("No GPU here.")
    for number in numbers:
        facts = torch.cuda.get_device_properties(number)
        say(f"Device id:                     {number}")
        say(f"Major revision number:         {facts.major}")
        say(f"Minor revision number:         {facts.minor}")
        say(f"Name:                          {facts.name}")
        say(f"Total global memory:           {facts.total_memory}")
        say(f"Number of multiprocessors:     {facts.multi_processor_count}")


VERBS: dict[str, Callable[[Flags], None]] = {
    "train": train,
    "test": test,
    "device_query": device_query,
    "time": measure,
}
