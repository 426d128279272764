"""FocalLoss: cross entropies of classes or of targets, those of certain answers made small."""

from __future__ import annotations

from math import log, prod

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as sigmoid_cross_entropy
from torch.nn.functional import log_softmax

from netspec.layers.base import Layer, Shape, between, exactly, register
from netspec.layers.loss.labels import check_labels, classes, floor_through, ignored, normalization, rows
from netspec.layers.loss.loss import FLT_MIN
from netspec.schema.spec import LayerSpec


@register("FocalLoss", "SoftmaxFocalLoss")
class FocalLoss(Layer):
    """loss = -sum alpha (1 - p)^gamma log p / normaliser, in nats, p being softmax(x)[label]; the optional second
    top is softmax(x).

    Shapes: scores (..., C at focal_loss_param.axis, else softmax_param.axis, ...), label with one value for every
    other position, tops () and the scores' shape. Where there is a label for every score, p is sigmoid(x) for
    targets of 1 and 1 - sigmoid(x) for others, whose alpha is 1 - alpha, and log p the cross entropy with the
    target, which may be between. loss_param: ignore_label; normalization VALID (default with classes), BATCH_SIZE
    (default with targets), FULL, NONE. alpha_balance: one alpha a class. p is floored at the smallest normal
    float32 in the logarithm. A label that is NaN or ignore_label takes no part, whatever its scores hold; elsewhere
    NaN makes the loss NaN. Raises SpecError for type LINEAR, gamma < 0, wrong numbers of alpha and labels that do
    not fit; IndexError in forward for a label of no class. Source: Lin et al. 2017; focal_loss_layer of SSD forks
    (classes) and of R-FCN forks (targets).
    """

    family, roles = "loss", ("scores", "label")
    bottoms, tops, is_loss = exactly(2), between(1, 2), True
    param_field = "focal_loss_param"
    alphas: Tensor

    @classmethod
    def classes_along(cls, spec: LayerSpec) -> int:
        p = spec.message.focal_loss_param
        return int(p.axis if p.HasField("axis") else spec.message.softmax_param.axis)

    def setup(self, *shapes: Shape) -> None:
        p, shape = self.param, shapes[0]
        self.require(p.type != p.LINEAR, "type", "type can be ORIGIN only")
        self.require(p.gamma >= 0, "gamma", f"gamma must be 0 or more, found {p.gamma}")
        if p.HasField("axis"):
            self.along = self.axis(p.axis, len(shape), "axis")
        else:
            self.along = self.axis(self.spec.message.softmax_param.axis, len(shape), "softmax_param", "axis")
        self.targets = prod(shapes[1]) == prod(shape)
        if self.targets and len(self.spec.tops) > 1:
            self.fail("has one top where there is a label for every score")
        if not self.targets:
            check_labels(self, shape, shapes[1], self.along)
        self.ignore = ignored(self)
        self.normalized = normalization(self, "BATCH_SIZE" if self.targets else "VALID")
        wanted = shape[self.along] if p.alpha_balance else 1
        alphas = list(p.alpha) or [0.25] * (1 if wanted == 1 or self.targets else 0)
        if len(alphas) != wanted:
            self.fail(
                f"needs {wanted} alpha, found {len(alphas)}",
                *(("alpha", 0) if alphas else ()),
            )
        self.register_buffer("alphas", torch.tensor(alphas), persistent=False)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        losses, valid = self.of_targets(*bottoms) if self.targets else self.of_classes(*bottoms)
        batch = bottoms[0].shape[0] if self.targets else losses.shape[0]
        loss = self.normalized(losses, valid, batch)
        return (loss, bottoms[0].softmax(self.along))[: len(self.spec.tops)]

    def of_classes(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """(loss of each position, whether it counts), both (O, I)."""
        x_OCI = rows(x, self.along)
        index_OI, valid_OI = classes(label.reshape(x_OCI.shape[0], x_OCI.shape[2]), self.ignore)
        logp_OCI = log_softmax(torch.where(valid_OI.unsqueeze(1), x_OCI, 0.0), 1)
        logp_OI = logp_OCI.gather(1, index_OI.unsqueeze(1)).squeeze(1)
        alpha = self.alphas.to(x.dtype)
        alpha = alpha[index_OI] if self.param.alpha_balance else alpha
        losses_OI = -alpha * self.doubt(logp_OI) * floor_through(logp_OI, log(FLT_MIN))
        return torch.where(valid_OI, losses_OI, 0.0), valid_OI

    def of_targets(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """(loss of each entry, whether it counts), both of the shape of x."""
        target = label.detach().reshape(x.shape)
        valid = ~target.isnan()
        if self.ignore is not None:
            valid = valid & (target != self.ignore)
        x, target = torch.where(valid, x, 0.0), torch.where(valid, target, 0.0)
        positive = target == 1
        alpha = self.alphas.to(x.dtype)
        alpha = torch.where(positive, alpha, 1 - alpha)
        logp = torch.nn.functional.logsigmoid(torch.where(positive, x, -x))
        losses = alpha * self.doubt(logp) * sigmoid_cross_entropy(x, target, reduction="none")
        return torch.where(valid, losses, 0.0), valid

    def doubt(self, logp: Tensor) -> Tensor:
        """(1 - p)^gamma."""
        return (-torch.expm1(logp)).clamp(min=FLT_MIN).pow(self.param.gamma)
