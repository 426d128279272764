"""spflow: an Einet with Gaussian leaves, one repetition, as deep as the variables can be halved."""

from __future__ import annotations

from importlib import import_module

import torch

from tools.bench.peers_children.common import hidden, images, report, sizes, step_of, without_gradient


def main() -> None:
    given = sizes()
    leaves, zoo = import_module("spflow.modules.leaves"), import_module("spflow.zoo.einet")
    variables, states = given["variables"], given["states"]
    leaf = leaves.Normal(scope=list(range(variables)), out_channels=states, num_repetitions=1)
    model = zoo.Einet(
        leaf_modules=[leaf], num_classes=1, num_sums=states, num_leaves=states, depth=variables.bit_length() - 1,
        num_repetitions=1, layer_type="linsum",
    )  # fmt: skip
    x = images(given)
    part = torch.where(hidden(given), torch.nan, x)
    parameters = [one for one in model.parameters() if one.requires_grad]
    eager = {
        "step": step_of(lambda: model.log_likelihood(x), parameters),
        "marginal": without_gradient(lambda: model.log_likelihood(part)),
        "sample": without_gradient(lambda: model.sample(num_samples=given["batch"])),
    }
    report("spflow", parameters, {"eager": eager}, given["rounds"])


if __name__ == "__main__":
    main()
