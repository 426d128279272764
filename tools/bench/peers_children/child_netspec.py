"""netspec: a net of the kind of HT-CAC over a square of pixels, one Gaussian mixture for each."""

from __future__ import annotations

import torch

from netspec.net.allocator import keep_freed_memory
from netspec.net.make import make_net
from netspec.queries.sampling import complete, sample
from netspec.queries.tree import Tree
from tools.bench.peers_children.common import hidden, images, report, side, sizes, step_of, without_gradient
from tools.bench.scaling import net_text

ROOT = """layer {{ name: "root" type: "MEX" bottom: "{bottom}" top: "root" param {{ lr_mult: 0 }} param {{ }}
  mex_param {{ num_instances: 1 block_param {{ block_size: 1 }} shared_offsets_region_size: 1 softmax_mode: true
    normalize_offsets: true epsilon_filler {{ type: "constant" value: 1 }} offsets_filler {{ type: "gaussian" }} }} }}
layer {{ name: "loss" type: "LogLikelihoodLoss" bottom: "root" bottom: "label" top: "loss" }}
"""
"""One mixture at the top, and its negative mean log likelihood."""


def main() -> None:
    given = sizes()
    keep_freed_memory()
    n, batch = side(given), given["batch"]
    net = make_net(net_text(given["states"], n, batch, depth=0, patch=1, loss=ROOT), "TRAIN", seed=1)
    tree = Tree(make_net(net_text(given["states"], n, batch, depth=0, patch=1, loss=ROOT), "TEST", seed=1))
    x = images(given).view(batch, 1, n, n)
    part = torch.where(hidden(given).view(x.shape), torch.nan, x)
    y, label = torch.zeros(batch, dtype=torch.int64), torch.zeros(batch)
    values = [param.value for param in net.params if param.value.requires_grad]
    compiled = torch.compile(net, fullgraph=True, dynamic=False)
    eager = {
        "step": step_of(lambda: -net.objective(net(x, label)), values),
        "marginal": without_gradient(lambda: net(part, label)),
        "sample": without_gradient(lambda: sample(tree, y)),
        "complete": without_gradient(lambda: complete(tree, part)),
    }
    fast = {
        "step": step_of(lambda: -net.objective(compiled(x, label)), values),
        "marginal": without_gradient(lambda: compiled(part, label)),
    }
    report("netspec", values, {"eager": eager, "compiled": fast}, given["rounds"])


if __name__ == "__main__":
    main()
