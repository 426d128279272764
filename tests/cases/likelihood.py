"""Cases of the losses of SimNets."""

from __future__ import annotations

from tests.cases import Case
from tests.cases.loss import NAN, labels, text

SIX = labels(0, -1, 2, NAN, 1, 2)

CASES = [
    Case(
        "generalized_hinge",
        text("GeneralizedHingeLoss", x=(6, 3), label=(6,)),
        inputs={"label": SIX},
    ),
    Case(
        "generalized_hinge_margins",
        text(
            "GeneralizedHingeLoss generalized_hinge_loss_param { epsilon: -2 margin: 0.5 }",
            tops="loss z",
            x=(6, 3, 1, 1),
            label=(6, 1, 1, 1),
        ),
        inputs={"label": SIX.reshape(6, 1, 1, 1)},
    ),
    Case(
        "generalized_hinge_maximum",
        text("GeneralizedHingeLoss generalized_hinge_loss_param { epsilon: inf }", x=(6, 3), label=(6,)),
        inputs={"label": SIX},
    ),
    Case(
        "generalized_hinge_ignore_labeled",
        text(
            "GeneralizedHingeLoss generalized_hinge_loss_param { ignore_labeled_data: true }",
            bottoms="x label true",
            x=(6, 3),
            label=(6,),
            true=(6,),
        ),
        inputs={"label": SIX, "true": labels(-1, 0, -1, -1, 1, NAN)},
    ),
    Case("log_likelihood", text("LogLikelihoodLoss", bottoms="x", x=(5, 3))),
    Case(
        "log_likelihood_unlabelled",
        text(
            "LogLikelihoodLoss log_likelihood_loss_param "
            "{ use_labeled_data: false maximize_likelihood: false }",
            x=(6, 3, 1, 1),
            label=(6,),
        ),
        inputs={"label": SIX},
    ),
    Case(
        "log_likelihood_selected",
        text(
            "LogLikelihoodLoss log_likelihood_loss_param { filter_selected_labels: true selected_label: 2 }",
            x=(6, 3),
            label=(6, 1, 1, 1),
        ),
        inputs={"label": SIX.reshape(6, 1, 1, 1)},
    ),
    Case("sum_loss", text("SumLoss loss_weight: 0.5", bottoms="x", x=(6, 1, 1, 1))),
    Case(
        "sum_loss_unlabelled",
        text("SumLoss sum_loss_param { use_labeled_data: false }", x=(6,), label=(6, 1)),
        inputs={"label": SIX.reshape(6, 1)},
    ),
]
