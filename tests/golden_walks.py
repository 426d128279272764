"""Golden vectors of one pass: outputs and gradients of layers and nets, and test nets."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from netspec.net.net import Net
from tests.golden_case import (
    FORWARD,
    GRADIENT,
    Array,
    Case,
    Check,
    blob_of,
    set_parameters,
    tensor,
    with_rounding,
)


def check_layer(case: Case, check: Check) -> None:
    """One layer or a small net: outputs, gradients of inputs and parameters, parameters changed by the pass.

    Where something misses its tolerance, the float64 run gives the exact values, from which the rounding of each
    element is known (Check.beyond_rounding). A gradient that is exactly 0 (terms that cancel) is rounding alone in the
    original: it counts relative to the largest gradient.
    """
    with_rounding(case, check, walk_layer)


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
        slopes = torch.autograd.grad(tops, [wanted[key][0] for key in live], diffs, allow_unused=True)
        gradients = dict(zip(live, slopes, strict=True))
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
