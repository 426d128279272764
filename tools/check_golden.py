"""Run golden vectors of the original programs through netspec.

    python tools/check_golden.py DIR [--only TEXT] [--verbose]

prints, for every .npz of DIR, the largest error of outputs, gradients and parameter steps beside its tolerance, then
`N passed, N failed, N unsupported`. Exit status 1 when anything failed. Cases called `hazard_` record accidents of the
originals: they are listed apart and do not count.

Errors are relative to the largest magnitude in the array; NaN and infinities must stand in the same places. Vectors of
the SimNets fork are run with `strict: true`, which asks a layer for the fork's behaviour where it is known to differ.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from netspec import fillers, schema, spec
from netspec.graph import Graph, compile
from netspec.layers import registry
from netspec.net import Net, build
from netspec.solver.policies import LearningRate
from netspec.solver.solver import Solver
from netspec.unsupervised import initialise

Array = NDArray[Any]
FORWARD, GRADIENT, STEPS = 1e-5, 1e-4, 1e-5
"""Tolerances of outputs, gradients, and parameters after solver steps (golden/README.md)."""


@dataclass
class Check:
    """The comparisons of one case."""

    worst: dict[str, tuple[float, float]] = field(default_factory=dict)
    """For each kind of array: (largest error, its tolerance)."""
    failures: list[str] = field(default_factory=list)
    errors: dict[str, float] = field(default_factory=dict)
    """Error of every array."""
    vanishing: set[str] = field(default_factory=set)
    """Arrays that are nothing beside the original's."""
    rounding: dict[str, float] = field(default_factory=dict)
    """For arrays whose original is itself off by rounding: by how much, added to the tolerance."""
    cancelled: set[str] = field(default_factory=set)
    """Gradients that are 0 but for rounding: their scale is that of the case's largest gradient."""

    def compare(
        self, kind: str, name: str, ours: Any, theirs: Array, tolerance: float, scale: float = 0.0
    ) -> None:
        """Record the error of one array, relative to its largest magnitude or to `scale` if that is larger."""
        mine = np.asarray(ours.detach().numpy() if isinstance(ours, torch.Tensor) else ours, dtype=np.float64)
        if mine.size != theirs.size or np.squeeze(mine).shape != np.squeeze(theirs).shape:
            self.failures.append(f"{name}: shape {mine.shape} for {theirs.shape}")
            return
        error = self.errors[name] = relative_error(
            mine.reshape(theirs.shape), theirs.astype(np.float64), scale
        )
        if np.isfinite(theirs).all() and np.abs(mine).max(initial=0) <= 1e-3 * np.abs(theirs).max(initial=0):
            self.vanishing.add(name)
        tolerance += self.rounding.get(name, 0.0)
        if not error <= self.worst.get(kind, (0.0, 0.0))[0]:
            self.worst[kind] = (error, tolerance)
        if not error <= tolerance:
            self.failures.append(f"{name}: error {error:.3g} exceeds {tolerance:g}")

    def require(self, true: bool, message: str) -> None:
        if not true:
            self.failures.append(message)


def relative_error(mine: Array, theirs: Array, scale: float = 0.0) -> float:
    """Largest difference over the largest finite magnitude of `theirs`; infinite where NaN or inf disagree."""
    finite = np.isfinite(theirs)
    if (
        not np.array_equal(mine[~finite], theirs[~finite], equal_nan=True)
        or not np.isfinite(mine[finite]).all()
    ):
        return float("inf")
    if not finite.any():
        return 0.0
    scale = max(scale, float(np.abs(theirs[finite]).max()))
    return float(np.abs(mine[finite] - theirs[finite]).max() / (scale if scale > 1e-30 else 1.0))


class Case:
    """One .npz file: its arrays by prefix, and nets made from its text."""

    def __init__(self, path: Path):
        with np.load(path) as archive:
            self.arrays = {name: archive[name] for name in archive.files}
        self.meta: dict[str, Any] = json.loads(str(self.arrays["meta"]))
        self.kind = str(self.meta.get("kind", "layer"))
        self.name = path.stem
        self.strict = self.meta["engine"] == "simnets"

    def group(self, prefix: str) -> dict[str, Array]:
        """Arrays called prefix/..., without the prefix."""
        return {k[len(prefix) + 1 :]: v for k, v in self.arrays.items() if k.startswith(prefix + "/")}

    def graph(self, phase: str) -> Graph:
        document = schema.parse_net(str(self.arrays["prototxt"]), f"{self.name}.prototxt")
        for layer in document.message.layer:
            layer.strict = self.strict
        return compile(spec.net(document, phase))

    def net(self, phase: str | None = None, input_shapes: Mapping[str, tuple[int, ...]] | None = None) -> Net:
        return build(self.graph(phase or self.meta["phase"]), seed=1, input_shapes=input_shapes)

    def inputs(self) -> dict[str, torch.Tensor]:
        raw = {name: tensor(value) for name, value in self.group("in").items()}
        for name, value in self.group("in_u8").items():
            raw[name] = tensor(pixels(value) if name == "data" else value)
        return raw

    def parameters(self) -> dict[str, torch.Tensor]:
        if "param_recipe" in self.meta:
            return recipe(self.meta)
        return {name: tensor(value) for name, value in self.group("param").items()}


def tensor(value: Array) -> torch.Tensor:
    return torch.from_numpy(np.array(value, dtype=np.float32))


def pixels(value: Array) -> Array:
    """Raw pixels as the experiments scale them, in float32."""
    return (value.astype(np.float32) - np.float32(127.5)) * np.float32(1 / 255)


def recipe(meta: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Parameters that are drawn rather than stored (meta.param_recipe); the digest proves that they are the same."""
    random, found, digest = np.random.RandomState(meta["param_seed"]), {}, hashlib.sha256()
    for key in meta["params"]:
        shape = meta["param_shapes"][key]
        if key == "sim1/0":
            value = random.uniform(-0.5, 0.5, shape)
        elif key == "sim1/1":
            value = np.exp(random.uniform(np.log(2), np.log(50), shape))
        elif key.endswith("/0"):
            value = np.ones(shape)
        elif key.endswith("_mex/1"):
            gamma = random.standard_gamma(1.0, size=shape)
            value = np.log(gamma / gamma.sum(-1, keepdims=True) + 1e-8)
        else:
            value = np.zeros(shape)
        found[key] = value.astype(np.float32)
        digest.update(found[key].tobytes())
    if digest.hexdigest() != meta["param_digest"]:
        warnings.warn("the parameters drawn by the recipe do not have the recorded digest", stacklevel=2)
    return {key: tensor(value) for key, value in found.items()}


def set_parameters(net: Net, values: Mapping[str, torch.Tensor]) -> None:
    """Give every blob its value; values of shared blobs agree, so the order does not matter."""
    with torch.no_grad():
        for step, layer in zip(net.graph.steps, net.made, strict=True):
            for j, blob in enumerate(layer.blobs):
                if (key := f"{step.layer.name}/{j}") in values:
                    blob.copy_(values[key].reshape(blob.shape))


def blob_of(net: Net, key: str) -> torch.nn.Parameter:
    """The parameter '<layer>/<index>'."""
    name, _, index = key.rpartition("/")
    blob: torch.nn.Parameter = net.layer(name).blobs[int(index)]
    return blob


def check_layer(case: Case, check: Check) -> None:
    """One layer or a small net: outputs, gradients of inputs and parameters, parameters changed by the pass.

    Where a gradient misses its tolerance, the float64 run shows how far the original's own float32 rounding took it
    from the exact value; as long as that is rounding (at most twice the tolerance), it is added to the tolerance.
    A gradient that is exactly 0 (terms that cancel) is rounding alone in the original: it counts relative to the
    largest gradient.
    """
    walk_layer(case, check, torch.float32)
    if check.failures:
        exact = Check()
        walk_layer(case, exact, torch.float64)
        check.rounding = {
            name: error
            for name, error in exact.errors.items()
            if name.startswith("d ") and error <= 2 * GRADIENT  # outputs keep their tolerance
        }
        check.cancelled = exact.vanishing
        check.failures.clear()
        check.worst.clear()
        walk_layer(case, check, torch.float32)


def walk_layer(case: Case, check: Check, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    net = case.net()
    set_parameters(net, case.parameters())
    net.to(dtype)
    inputs = {name: value.to(dtype) for name, value in case.inputs().items()}
    # Diffs of blobs in between are recorded too, and these may hang on an input whose own diff is not.
    inner = net.graph.spec.force_backward and bool(case.group("blobdiff"))
    values = [inputs[name].requires_grad_(inner or name in case.group("indiff")) for name in net.input_names]
    for _ in range(case.meta.get("repeat", 1) - 1):
        with torch.no_grad():
            net(*values)
    slots = net.slots(*values)
    newest = {net.graph.name(slot): slot for slot in slots}
    oldest = {net.graph.name(slot): slot for slot in reversed(slots)}
    if "random mask" in case.meta.get("note", ""):
        check_random_mask(case, check, slots, newest)
        return
    for prefix in ("out", "blob"):
        for name, theirs in case.group(prefix).items():
            if name in newest:  # copies that Caffe's Split layers made have no counterpart
                check.compare("output", name, slots[newest[name]], theirs, FORWARD)
    if "total_loss" in case.meta:
        total = sum((weight * slots[slot].sum() for slot, weight in net.graph.losses), torch.zeros(()))
        check.compare(
            "output", "total loss", float(total.detach()), np.array(case.meta["total_loss"]), FORWARD
        )
    targets = upstream(case, net, slots, newest)
    check_gradients(case, check, net, slots, oldest, targets)
    for name, theirs in case.group("param_after").items():
        check.compare("output", f"{name} after", blob_of(net, name), theirs, FORWARD)


def upstream(
    case: Case, net: Net, slots: Mapping[int, torch.Tensor], newest: Mapping[str, int]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(blob, its diff) pairs from which backward starts: the given top diffs, or the loss weights."""
    given = {
        newest[name]: tensor(diff).to(slots[newest[name]].dtype)
        for name, diff in case.group("topdiff").items()
    }
    if not given:
        given = {slot: torch.full_like(slots[slot], weight) for slot, weight in net.graph.losses}
    return [
        (slots[slot], diff.reshape(slots[slot].shape))
        for slot, diff in given.items()
        if slots[slot].requires_grad
    ]


def check_gradients(
    case: Case,
    check: Check,
    net: Net,
    slots: Mapping[int, torch.Tensor],
    oldest: Mapping[str, int],
    targets: list[tuple[torch.Tensor, torch.Tensor]],
) -> None:
    wanted: dict[str, tuple[torch.Tensor, Array]] = {}
    for prefix in ("indiff", "blobdiff"):
        for name, theirs in case.group(prefix).items():
            if name in oldest and name not in case.meta.get("no_gradient_for", ()):
                wanted[f"d {name}"] = (slots[oldest[name]], theirs)
    for name, theirs in case.group("paramdiff").items():
        wanted[f"d {name}"] = (blob_of(net, name), theirs)
    for name, theirs in case.group("paramdiff_val").items():
        wanted[f"d {name}[...]"] = (blob_of(net, name), theirs)
    live = [key for key, (value, _) in wanted.items() if value.requires_grad]
    gradients: dict[str, torch.Tensor | None] = {}
    if targets and live:
        tops, diffs = zip(*targets, strict=True)
        found = torch.autograd.grad(tops, [wanted[key][0] for key in live], diffs, allow_unused=True)
        gradients = dict(zip(live, found, strict=True))
    largest = max(
        (float(np.nan_to_num(np.abs(theirs)).max(initial=0)) for _, theirs in wanted.values()), default=0.0
    )
    for key, (value, theirs) in wanted.items():
        ours = gradients.get(key)
        ours = torch.zeros_like(value) if ours is None else ours
        if key.endswith("[...]"):
            name = key[2:-5]
            check_statistics(check, name, ours, case.group("paramdiff_stats")[name])
            ours = ours.flatten()[torch.from_numpy(case.group("paramdiff_idx")[name].astype(np.int64))]
        check.compare("gradient", key, ours, theirs, GRADIENT, largest if key in check.cancelled else 0.0)


def check_statistics(check: Check, name: str, gradient: torch.Tensor, theirs: Array) -> None:
    """Absolute sum, L2 norm, minimum and maximum of a gradient too large to be stored."""
    g = gradient.double()
    ours = [g.abs().sum(), g.square().sum().sqrt(), g.min(), g.max()]
    for label, mine, stored in zip(("abs sum", "norm", "min", "max"), ours, theirs[1:], strict=True):
        check.compare("gradient", f"d {name} {label}", mine, np.array(stored), GRADIENT)


def check_random_mask(
    case: Case, check: Check, slots: Mapping[int, torch.Tensor], newest: Mapping[str, int]
) -> None:
    """Dropout: every value is dropped or scaled, as often as in the original, and the gradient has the same mask."""
    bottom, top = case.meta["inputs"][0], case.meta["outputs"][0]
    x, y = slots[newest[bottom]], slots[newest[top]]
    theirs = case.group("out")[top]
    kept_theirs = theirs != 0
    scale = float(np.median(theirs[kept_theirs] / case.group("in")[bottom][kept_theirs]))
    kept = (y != 0).detach()
    check.compare("output", "kept values", y[kept], (x[kept] * scale).detach().numpy(), FORWARD)
    spread = 5 * np.sqrt(kept_theirs.mean() * (1 - kept_theirs.mean()) * 2 / kept_theirs.size)
    check.require(abs(float(kept.float().mean()) - kept_theirs.mean()) <= spread, "kept fraction differs")
    topdiff = tensor(case.group("topdiff")[top])
    (gradient,) = torch.autograd.grad(y, x, topdiff)
    check.compare("gradient", f"d {bottom}", gradient, (topdiff * kept * scale).numpy(), GRADIENT)


def check_net_test(case: Case, check: Check) -> None:
    """A TEST net with parameters shared by name: outputs and blobs."""
    values = case.parameters()
    values |= {user: values[owner] for user, owner in case.meta["shared_params"].items()}
    net = case.net()
    set_parameters(net, values)
    inputs = case.inputs()
    with torch.no_grad():
        blobs = net.blobs(*(inputs[name].reshape(net.shape(name)) for name in net.input_names))
    for prefix in ("out", "blob"):
        for name, theirs in case.group(prefix).items():
            if name in blobs:
                check.compare("output", name, blobs[name], theirs, FORWARD)


def make_solver(case: Case, net: Net) -> Solver:
    document = schema.parse_solver(str(case.arrays["solver"]), f"{case.name}_solver.prototxt")
    document.message.strict = case.strict
    return Solver(net, document.message)


def batch_shapes(case: Case) -> dict[str, tuple[int, ...]]:
    return {name: value.shape[1:] for name, value in case.group("batches").items()}


def train_step(case: Case, net: Net, solver: Solver, iteration: int) -> dict[str, torch.Tensor]:
    """iter_size forwards and backwards, then the update; gives the outputs of the last forward."""
    tops: tuple[torch.Tensor, ...] = ()
    iter_size = int(case.meta.get("iter_size", 1))
    for k in range(iteration * iter_size, (iteration + 1) * iter_size):
        batch = {name: value[k % len(value)] for name, value in case.group("batches").items()}
        if batch["data"].dtype == np.uint8:
            batch["data"] = pixels(batch["data"])
        tops = net(*(tensor(batch[name]).reshape(net.shape(name)) for name in net.input_names))
        net.objective(tops).backward()  # type: ignore[no-untyped-call]
    solver.step()
    return net.outputs(tops)


def check_solver(case: Case, check: Check) -> None:
    """20 steps of a solver: every parameter after every step, the losses and the rates."""
    net = case.net("TRAIN", batch_shapes(case))
    steps = case.group("steps")
    set_parameters(net, {name: tensor(values[0]) for name, values in steps.items()})
    solver = make_solver(case, net)
    for t in range(case.meta["steps"]):
        check.compare("rate", f"lr[{t}]", solver.rate(), case.arrays["lr"][t], 1e-6)
        outputs = train_step(case, net, solver, t)
        loss = next(iter(outputs.values()))
        check.compare("step", f"loss[{t}]", loss, case.arrays["loss_last_forward"][t], STEPS)
        for name, values in steps.items():
            check.compare("step", f"{name} after {t + 1}", blob_of(net, name), values[t + 1], STEPS)


def check_solver_net(case: Case, check: Check) -> None:
    """HT-CAC with the plan's solver: parameters after steps 1 and 8, losses of every step."""
    net = case.net("TRAIN", batch_shapes(case))
    start = case.group("step0")
    set_parameters(net, {name: tensor(value) for name, value in start.items()})
    solver = make_solver(case, net)
    for t in range(case.meta["steps"]):
        check.compare("rate", f"lr[{t}]", solver.rate(), case.arrays["lr"][t], 1e-6)
        outputs = train_step(case, net, solver, t)
        for name, theirs in zip(("loss", "likelihood_loss"), case.arrays["losses"][t], strict=True):
            check.compare("step", f"{name}[{t}]", outputs[name], theirs, STEPS)
        for name, theirs in case.group(f"step{t + 1}").items():
            check.compare("step", f"{name} after {t + 1}", blob_of(net, name), theirs, STEPS)


def check_lr_policy(case: Case, check: Check) -> None:
    document = schema.parse_solver(str(case.arrays["solver"]), f"{case.name}_solver.prototxt")
    document.message.strict = case.strict
    rates = LearningRate(document.message)
    ours = [rates.next(iteration) for iteration in range(case.meta["steps"])]
    check.compare("rate", "lr", np.array(ours), case.arrays["lr"], 1e-6)


def check_fillers(case: Case, check: Check) -> None:
    """Exact fillers value by value; random ones by statistics, allowed ten standard errors of two draws."""
    for name, entry in case.meta["fillers"].items():
        message = schema.parse("FillerParameter", entry["filler"], f"{case.name}.prototxt").message
        draws = []
        for seed in range(8):
            blob = torch.empty(entry["shape"])
            fillers.fill(blob, message, torch.Generator().manual_seed(seed), case.strict)
            draws.append(blob)
        if entry["kind"] == "exact":
            check.compare("output", name, draws[0], case.group("blob")[name], 1e-6)
            continue
        ours = np.array([statistics(draw) for draw in draws])
        theirs = case.group("stats")[name]
        spread = 10 * ours.std(0, ddof=1) + 0.02 * np.abs(ours.mean(0)) + 1e-6
        for label, mine, stored, allowed in zip(
            case.meta["stats"], ours.mean(0), theirs, spread, strict=True
        ):
            check.require(
                bool(abs(mine - stored) <= allowed), f"{name}: {label} {mine:.4g}, original {stored:.4g}"
            )


def statistics(blob: torch.Tensor) -> list[float]:
    """What golden/ records of a random filler (meta.stats)."""
    values = blob.double().numpy()
    rows = values.reshape(values.shape[0], -1).sum(1)
    return [
        values.mean(), values.std(), values.min(), values.max(),
        rows.mean(), rows.std(), (values == 0).mean(), float(np.median(values)),
    ]  # fmt: skip


def check_unsupervised(case: Case, check: Check) -> None:
    """k-means and mixture initialisation on well separated clusters, up to the order of the instances."""
    data, batch = tensor(case.arrays["data"]), case.meta["batch"]
    shapes = {"data": (batch, *data.shape[1:]), "label": (batch,)}
    net = (
        case.net("TRAIN", shapes)
        if "phase" in case.meta
        else build(case.graph("TRAIN"), seed=1, input_shapes=shapes)
    )
    count = 0

    def batches() -> tuple[torch.Tensor, ...]:
        nonlocal count
        rows = (torch.arange(batch) + count * batch) % len(data)
        count += 1
        return data[rows], torch.zeros(batch)

    best: Check | None = None
    for seed in range(20):  # as in the original run, a random start may miss a cluster
        attempt, count = Check(), 0
        initialise(net, batches, seed=seed)
        compare_instances(case, net, attempt)
        if best is None or len(attempt.failures) < len(best.failures):
            best = attempt
        if not attempt.failures:
            break
    if best is not None:
        check.worst, check.failures = best.worst, best.failures


def compare_instances(case: Case, net: Net, check: Check) -> None:
    names = [name for name in ("templates", "weights", "bias") if name in case.arrays]
    ours = [blob.detach().numpy() for blob in net.layer("sim").blobs]
    theirs = case.arrays["templates"]
    flat = theirs.reshape(len(theirs), -1)
    order = [int(np.abs(row.ravel() - flat).sum(1).argmin()) for row in ours[0]]
    check.require(sorted(order) == list(range(len(flat))), "templates do not pair up one to one")
    for name, mine in zip(names, ours, strict=False):
        instances = case.arrays[name].reshape(len(flat), -1)[order]
        tolerance = max(1e-4, share_of_seeds(case) if "init_kmeans" in case.name else 0.0)
        check.compare("parameter", name, mine.reshape(len(flat), -1), instances, tolerance)


def share_of_seeds(case: Case) -> float:
    """What another random start changes in k-means centres: a seed counts as one observation of its cluster.

    So two runs differ by at most a cluster's diameter over the number of its patches in all iterations; relative to
    the largest centre.
    """
    data, component = case.arrays["data"].reshape(len(case.arrays["data"]), -1), case.arrays["component"]
    clusters = [data[component == k] for k in np.unique(component)]
    diameter = max(np.ptp(cluster, axis=0).max() for cluster in clusters)
    fit = next(layer for layer in case.graph("TRAIN").spec.layers if layer.type == "Similarity")
    batches = fit.message.similarity_param.unsupervised_init.max_iterations
    return float(
        diameter / (batches * case.meta["batch"] / len(clusters)) / np.abs(case.arrays["templates"]).max()
    )


KINDS: dict[str, Callable[[Case, Check], None]] = {
    "layer": check_layer,
    "net": check_layer,
    "net_raw": check_layer,
    "net_test": check_net_test,
    "solver": check_solver,
    "solver_net": check_solver_net,
    "lr_policy": check_lr_policy,
    "fillers": check_fillers,
    "unsupervised_init": check_unsupervised,
}


def missing_types(case: Case) -> set[str]:
    """Layer types of the case that are not registered."""
    if "prototxt" not in case.arrays:
        return set()
    document = schema.parse_net(str(case.arrays["prototxt"]), f"{case.name}.prototxt")
    return {layer.type for layer in document.message.layer} - set(registry)


def run(path: Path) -> tuple[Case, Check | None]:
    """Check one file; None in place of a Check when it needs a layer type or a kind that is not there."""
    case = Case(path)
    if case.kind not in KINDS or missing_types(case):
        return case, None
    check = Check()
    torch.manual_seed(0)
    try:
        KINDS[case.kind](case, check)
    except Exception as error:  # any exception is this case's failure; the others still run
        check.failures.append(f"{type(error).__name__}: {error}")
    return case, check


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="folder of .npz files in the format of golden/README.md"
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="run cases whose name contains TEXT")
    parser.add_argument("--verbose", action="store_true", help="list every failing array")
    options = parser.parse_args()
    counts = {"passed": 0, "failed": 0, "unsupported": 0}
    hazards = []
    paths = sorted(path for path in options.folder.glob("*.npz") if options.only in path.stem)
    if not paths:
        print(f"no .npz files in {options.folder}", file=sys.stderr)
        return 2
    for path in paths:
        case, check = run(path)
        status = "unsupported" if check is None else "failed" if check.failures else "passed"
        hazard = "hazard_" in case.name
        word = "differs" if hazard and status == "failed" else status
        line = f"{word:11} {case.name:48} {report(case, check, options.verbose)}"
        if hazard:
            hazards.append(line)
        else:
            counts[status] += 1
            print(line)
    if hazards:
        print("\nrecords of the originals' accidents, not counted:")
        print("\n".join(hazards))
    print()
    print(", ".join(f"{n} {status}" for status, n in counts.items()))
    return 1 if counts["failed"] else 0


def report(case: Case, check: Check | None, verbose: bool) -> str:
    if check is None:
        return "needs " + (", ".join(sorted(missing_types(case))) or f"kind {case.kind!r}")
    errors = "  ".join(f"{kind} {error:.1e} (<= {limit:g})" for kind, (error, limit) in check.worst.items())
    shown = check.failures if verbose else check.failures[:1]
    return errors + "".join(f"\n{'':12}{failure}" for failure in shown)


if __name__ == "__main__":
    sys.exit(main())
