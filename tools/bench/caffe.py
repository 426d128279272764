"""Time nets of Caffe's time: against what Caffe took, and against the same nets written by hand in PyTorch.

    OMP_NUM_THREADS=2 python -m tools.bench.nets --caffe [--rounds 30] [--no-compiled] [--out FILE.json]

The nets are those of nets/caffe, their twins those of tools/bench/plain_nets.py, with equal weights and inputs.
forward is the training net without gradients; forward and backward gives the gradient of every weight. eager is the
net layer by layer, compiled the same net after `net.compile`, plain the twin, layer by layer too. All three are timed
in turns, round after round; a ratio is the median over the rounds of ratios within a round, `..._cpu` in processor
time. Caffe's figures (the original program on 2 processor cores of the same kind) are in ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from netspec import schema
from netspec.net.compiling import compile_net
from netspec.net.make import make_net
from netspec.net.net import Net
from tools.bench.plain_nets import PLAIN, take_weights
from tools.bench.timing import Run, Taken, milliseconds, ratios, rounds

NETS = Path(__file__).parent.parent.parent / "nets" / "caffe"
CAFFE = {
    "lenet": (15.7, 32.0),
    "caffenet": (277.0, 633.0),
    "googlenet": (403.0, 758.0),
    "cifar10_full": (153.0, 319.0),
}
"""Milliseconds of the original program: forward; forward and backward."""
ORIGIN = (
    "Milliseconds are forward / forward and backward. Those of Caffe are given, not measured by this command: the "
    "original program took them on a machine of the same kind (2 processor cores), and they stand in "
    "`tools/bench/caffe.py`. The other columns were measured in turns in one process; `times as fast` divides the "
    "given figures by netspec's, `netspec over it` is the median over rounds of netspec's time over PyTorch's."
)
WAYS = ("forward", "forward_backward")


def text_of(name: str, **values: Any) -> str:
    """The net's prototxt, rendered where it is a template."""
    template = NETS / f"{name}.prototmp"
    return schema.render(template, values) if template.exists() else (NETS / f"{name}.prototxt").read_text()


def twins(name: str, **values: Any) -> tuple[Net, nn.Module, list[Tensor]]:
    """The net, its twin with the same weights, and a batch: images, and labels as Caffe has them."""
    net = make_net(schema.parse_net(text_of(name, **values), name), phase="TRAIN", seed=1)
    module = PLAIN[name]()
    take_weights(module, [param.value for param in net.params])
    generator = torch.Generator().manual_seed(1)
    shape = net.shape("data")
    classes = net.params[-1].value.numel()
    labels = torch.randint(classes, shape[:1], generator=generator)
    return net, module, [torch.randn(shape, generator=generator), labels.float()]


def net_runs(net: Net, batch: Sequence[Tensor]) -> dict[str, Run]:
    """The two ways of the net."""
    weights = [param.value for param in net.params]

    def forward() -> None:
        with torch.no_grad():
            net(*batch)

    return {
        "forward": forward,
        "forward_backward": lambda: torch.autograd.grad(net.objective(net(*batch)), weights),
    }


def plain_runs(module: nn.Module, batch: Sequence[Tensor]) -> dict[str, Run]:
    """The two ways of the twin."""
    x, label, weights = batch[0], batch[1].long(), list(module.parameters())

    def forward() -> None:
        with torch.no_grad():
            module(x, label)

    return {"forward": forward, "forward_backward": lambda: torch.autograd.grad(module(x, label), weights)}


def measure(name: str, count: int, compiled: bool, **values: Any) -> dict[str, Any]:
    """The entry of one net."""
    net, module, batch = twins(name, **values)
    kinds = {"eager": net_runs(net, batch), "plain": plain_runs(module, batch)}
    if compiled:
        torch.compiler.reset()
        other, _, _ = twins(name, **values)
        if reason := compile_net(other, batch):
            raise SystemExit(f"{name}: not compiled: {reason}")
        kinds["compiled"] = net_runs(other, batch)
    taken = rounds({f"{kind}/{way}": run for kind, runs in kinds.items() for way, run in runs.items()}, count)
    entry: dict[str, Any] = {"batch": len(batch[0]), "parameters": sum(p.value.numel() for p in net.params)}
    for way, original in zip(WAYS, CAFFE[name], strict=True):
        entry |= compared(way, original, taken, [kind for kind in kinds if kind != "plain"])
    return entry | {what: milliseconds(times) for what, times in taken.items()}


def compared(
    way: str, original: float, taken: dict[str, list[Taken]], kinds: Sequence[str]
) -> dict[str, Any]:
    """What one way takes, over the twin and over Caffe."""
    figures: dict[str, Any] = {f"{way}_caffe_ms": original}
    for kind in kinds:
        figures |= ratios(f"{way}_{kind}_over_plain", taken[f"{kind}/{way}"], taken[f"plain/{way}"])
        median = milliseconds(taken[f"{kind}/{way}"])["median_ms"]
        figures[f"{way}_{kind}_times_faster_than_caffe"] = round(original / median, 2)
    return figures


def table(entries: dict[str, dict[str, Any]]) -> str:
    """The figures as Markdown, forward / forward and backward."""
    lines = [
        "| net | batch | Caffe, ms | netspec, ms | times as fast | PyTorch, ms | netspec over it | compiled, ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, entry in entries.items():

        def both(pattern: str, entry: dict[str, Any] = entry) -> str:
            return " / ".join(f"{entry[pattern.format(way)]:.4g}" for way in WAYS)

        def times(kind: str, entry: dict[str, Any] = entry) -> str:
            entries = [entry.get(f"{kind}/{way}") for way in WAYS]
            return " / ".join(f"{one['median_ms']:.1f}" if one else "-" for one in entries)

        cells = (name, str(entry["batch"]), both("{}_caffe_ms"), times("eager"),
                 both("{}_eager_times_faster_than_caffe"), times("plain"), both("{}_eager_over_plain"),
                 times("compiled"))  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def run(names: Sequence[str], count: int, compiled: bool) -> dict[str, dict[str, Any]]:
    """The entries of the nets, said as they come."""
    entries = {}
    for name in names or list(CAFFE):
        entry = entries[name] = measure(name, count, compiled)
        print(table({name: entry}).splitlines()[-1], flush=True)
    return entries
