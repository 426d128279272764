"""cirkit (libcirkit): a quad tree over a square of pixels, CP-T layers, Gaussian inputs, folded and optimised."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch

from tools.bench.peers_children.common import hidden, images, report, side, sizes, step_of, without_gradient


def main() -> None:
    given = sizes()
    data, pipeline = import_module("cirkit.templates.data_modalities"), import_module("cirkit.pipeline")
    weights = import_module("cirkit.templates.utils").Parameterization(
        activation="softmax", initialization="normal"
    )
    queries = import_module("cirkit.backend.torch.queries")
    n = side(given)
    symbolic = data.image_data(
        (1, n, n), "quad-tree-4", input_layer="gaussian", num_input_units=given["states"], sum_product_layer="cp-t",
        num_sum_units=given["states"], sum_weight_param=weights,
    )  # fmt: skip
    context = pipeline.PipelineContext(backend="torch", semiring="lse-sum", fold=True, optimize=True)
    circuit = context.compile(symbolic)
    x, missing = images(given), hidden(given)
    parameters = [one for one in circuit.parameters() if one.requires_grad]
    integrate, draw = queries.IntegrateQuery(circuit), queries.SamplingQuery(circuit)
    compiled: Any = torch.compile(circuit)
    eager = {
        "step": step_of(lambda: circuit(x), parameters),
        "marginal": without_gradient(lambda: integrate(x, integrate_vars=missing)),
        "sample": without_gradient(lambda: draw(given["batch"])),
    }
    report("cirkit", parameters, {"eager": eager, "compiled": {"step": step_of(lambda: compiled(x), parameters)}},
           given["rounds"])  # fmt: skip


if __name__ == "__main__":
    main()
