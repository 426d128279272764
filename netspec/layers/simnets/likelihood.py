"""Losses of SimNets: generalised hinge, log likelihood of unlabelled and labelled rows, plain sum."""

from __future__ import annotations

from math import isinf, log, prod

import torch
from torch import Tensor

from netspec.layers.base import Layer, Shape, between, register
from netspec.layers.loss.labels import check_labels, classes, value_with_gradient_of


def unlabelled(label: Tensor) -> Tensor:
    """Which rows have no label: it is negative (SimNets' mark) or NaN."""
    label = label.detach().reshape(-1)
    return (label < 0) | label.isnan()


def mean_over(values: Tensor, chosen: Tensor) -> Tensor:
    """The mean of the chosen values, 0 when there are none."""
    return torch.where(chosen, values, 0.0).sum() / chosen.sum().clamp(min=1)


@register("GeneralizedHingeLoss")
class GeneralizedHingeLoss(Layer):
    """loss = mean over labelled rows of (1/eps) log sum_j exp(eps (margin [j != y] + x_j - x_y)).

    Shapes: scores (N, K, ...) read as (N, K), label N values, optional true labels N values; top (); the
    optional second top holds the margins z_j = margin [j != y] + x_j - x_y, 0 in rows that do not count.
    epsilon 1 with margin 0 is the softmax cross entropy in nats; an infinite epsilon takes the largest
    (smallest) z_j. A row whose label is negative or NaN does not count; with ignore_labeled_data neither does
    a row whose true label is not negative. No counted row: loss 0. strict: the gradient ignores
    ignore_labeled_data, as the fork's. Raises SpecError for epsilon 0, a missing third bottom, or labels that
    do not fit. Source: SimNets fork, generalized_hinge_loss_layer.cpp.
    """

    family, roles = "loss", ("scores", "row label")
    bottoms, tops, is_loss = between(2, 3), between(1, 2), True
    param_field = "generalized_hinge_loss_param"

    def setup(self, *shapes: Shape) -> None:
        scores = (shapes[0][0], prod(shapes[0][1:]))
        for label in shapes[1:]:
            check_labels(self, scores, label, 1)
        if self.param.epsilon == 0:
            self.fail(
                "epsilon must not be 0: the loss has no limit there",
                "epsilon",
            )
        if self.param.ignore_labeled_data and len(shapes) < 3:
            self.fail("ignore_labeled_data needs the true labels as third bottom", "bottom", 0)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        x_NK, labelled = bottoms[0].flatten(1), ~unlabelled(bottoms[1])
        index, _ = classes(torch.where(labelled, bottoms[1].reshape(-1), 0))
        safe_NK = torch.where(labelled.unsqueeze(1), x_NK, 0.0)
        others = torch.arange(x_NK.shape[1], device=x_NK.device) != index.unsqueeze(1)
        z_NK = safe_NK - safe_NK.gather(1, index.unsqueeze(1)) + self.param.margin * others
        losses = soft_maximum(z_NK, self.param.epsilon)
        chosen = labelled
        if self.param.ignore_labeled_data:
            chosen = labelled & unlabelled(bottoms[2])
        loss = mean_over(losses, chosen)
        if self.strict:
            loss = value_with_gradient_of(loss, mean_over(losses, labelled))
        if len(self.spec.tops) == 1:
            return (loss,)
        return loss, torch.where(chosen.unsqueeze(1), z_NK, 0.0).reshape(bottoms[0].shape)


def soft_maximum(z_NK: Tensor, epsilon: float) -> Tensor:
    """(1/eps) log sum_j exp(eps z_j) of each row; its limits max and min for infinite eps."""
    if isinf(epsilon):
        return z_NK.amax(1) if epsilon > 0 else z_NK.amin(1)
    return (epsilon * z_NK).logsumexp(1) / epsilon


@register("LogLikelihoodLoss")
class LogLikelihoodLoss(Layer):
    """loss = -mean over chosen rows of log( (1/K) sum_j exp x_j ), in nats; maximize_likelihood false flips
    the sign.

    Shapes: log likelihoods of each class (N, K, ...) read as (N, K), optional label N values, top (). Chosen
    are all rows; with use_labeled_data false those without a label (negative or NaN); with
    filter_selected_labels those whose label is selected_label. No chosen row: loss 0. A NaN score makes the
    loss NaN where its row is chosen. Raises SpecError when a choice of rows needs a label bottom that is
    missing or can hold for no row. Source: SimNets fork, log_likelihood_loss_layer.cpp (which takes exactly 2
    bottoms).
    """

    family, roles = "loss", ("scores", "row label")
    scores_unlabelled = True
    bottoms, is_loss = between(1, 2), True
    param_field = "log_likelihood_loss_param"

    def setup(self, *shapes: Shape) -> None:
        p, field = self.param, "log_likelihood_loss_param"
        if len(shapes) == 2:
            check_labels(self, (shapes[0][0], prod(shapes[0][1:])), shapes[1], 1)
        elif p.filter_selected_labels or not p.use_labeled_data:
            self.fail("choosing rows by label needs a label bottom", field)
        if p.filter_selected_labels and not p.use_labeled_data and p.selected_label >= 0:
            self.fail(
                f"selected_label {p.selected_label} is a labelled class, "
                "which use_labeled_data: false leaves out; "
                "set use_labeled_data: true or a negative selected_label",
                field,
                "selected_label",
            )

    def forward(self, *bottoms: Tensor) -> Tensor:
        p, x_NK = self.param, bottoms[0].flatten(1)
        chosen = torch.ones_like(x_NK[:, 0], dtype=torch.bool)
        if not p.use_labeled_data:
            chosen = unlabelled(bottoms[1])
        if p.filter_selected_labels:
            label = bottoms[1].detach().reshape(-1)
            chosen = chosen & (label.trunc() == p.selected_label)
        safe_NK = torch.where(chosen.unsqueeze(1), x_NK, 0.0)
        mean = mean_over(safe_NK.logsumexp(1) - log(x_NK.shape[1]), chosen)
        return -mean if p.maximize_likelihood else mean


@register("SumLoss")
class SumLoss(Layer):
    """loss = -mean of the bottom over its rows, so its values are made large (log likelihoods, in nats).

    Shapes: bottom with one value per row, such as (N,) or (N, 1, 1, 1), optional label N values, top (). With
    use_labeled_data false only rows without a label (negative or NaN) count; none: loss 0. NaN in a row that
    does not count has no effect. strict: forward divides by the rows that count, the gradient by all rows, as
    the fork. Raises SpecError when a row has more than one value or the label bottom is missing. Source:
    SimNets fork, sum_loss_layer.cpp (which takes exactly 2 bottoms).
    """

    family, roles = "loss", ("scores", "row label")
    scores_unlabelled = True
    bottoms, is_loss = between(1, 2), True
    param_field = "sum_loss_param"

    def setup(self, *shapes: Shape) -> None:
        if prod(shapes[0]) != shapes[0][0]:
            self.fail(f"needs one value per row, found shape {shapes[0]}", "bottom", 0)
        if len(shapes) == 2:
            check_labels(self, (shapes[0][0], 1), shapes[1], 1)
        elif not self.param.use_labeled_data:
            self.fail("use_labeled_data: false needs a label bottom", "use_labeled_data")

    def forward(self, *bottoms: Tensor) -> Tensor:
        x = bottoms[0].reshape(-1)
        if self.param.use_labeled_data:
            return -x.mean()
        chosen = unlabelled(bottoms[1])
        loss = -mean_over(x, chosen)
        if self.strict:
            loss = value_with_gradient_of(loss, -torch.where(chosen, x, 0.0).sum() / x.shape[0])
        return loss
