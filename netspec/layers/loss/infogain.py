"""InfogainLoss: the cross entropy with a matrix of gains in place of the one-hot label."""

from __future__ import annotations

from dataclasses import replace
from math import log, prod
from pathlib import Path

import torch
from google.protobuf.message import DecodeError
from torch import Tensor
from torch.nn.functional import log_softmax

from netspec.errors import DataError
from netspec.layers.base import Layer, Shape, between, register
from netspec.layers.loss.labels import (
    Normalization,
    check_labels,
    classes,
    floor_through,
    from_start,
    ignored,
    normalization,
    rows,
)
from netspec.layers.loss.loss import LOG_THRESHOLD
from netspec.layers.traits import Lack
from netspec.schema.descriptors import message_class
from netspec.schema.regular import read_regular
from netspec.schema.spec import LayerSpec


@register("InfogainLoss")
class InfogainLoss(Layer):
    """loss = -sum_c H[label, c] log softmax(x)_c / normaliser in nats; the optional second top is softmax(x).

    Shapes: scores (..., C at infogain_loss_param.axis, ...), label with one value for every other position, H
    with C * C values as third bottom or in the binaryproto file infogain_loss_param.source, tops () and the
    scores' shape. loss_param as in SoftmaxWithLoss. Log probabilities are floored at log 1e-20. A label that
    is NaN or ignore_label takes no part. strict: as the fork, bottom 0 (N, ...) holds probabilities, without
    softmax, ignore_label or axis, and the loss is divided by N. Raises SpecError when shapes do not fit or H
    cannot be read. Source: Caffe, infogain_loss_layer.cpp.
    """

    family, roles = "loss", ("scores", "label", "gains")
    bottoms, tops, is_loss = between(2, 3), between(1, 2), True
    param_field = "infogain_loss_param"

    @classmethod
    def lacking(cls, spec: LayerSpec) -> Lack | None:
        """The file of gains; SoftmaxWithLoss, which weighs all classes alike, has the same shapes."""
        path = spec.message.infogain_loss_param.source
        if len(spec.bottoms) > 2 or not path or Path(path).exists():
            return None
        problem = spec.problem(f"gains file {path!r} is not here", "infogain_loss_param", "source")
        return Lack(path, problem, replace(spec, type="SoftmaxWithLoss"))

    def setup(self, *shapes: Shape) -> None:
        scores = (shapes[0][0], prod(shapes[0][1:])) if self.strict else shapes[0]
        self.class_axis = 1 if self.strict else self.axis(self.param.axis, len(scores), "axis")
        check_labels(self, scores, shapes[1], self.class_axis)
        self.ignore = None if self.strict else ignored(self)
        self.normalized = Normalization("BATCH_SIZE") if self.strict else normalization(self, "VALID")
        number = scores[self.class_axis]
        if len(shapes) == 3:
            shape = shapes[2]
        else:
            gains = self.read_gains()
            shape = tuple(gains.shape)
        if prod(shape) != number * number:
            self.fail(
                f"needs gains of {number} x {number} classes, found shape {shape}", "infogain_loss_param"
            )
        if len(shapes) == 2:
            self.register_buffer("gains", gains.reshape(number, number))

    def read_gains(self) -> Tensor:
        """The values of the BlobProto file `source`."""
        path = self.param.source
        if not path:
            self.fail(
                "needs the gains as third bottom or in infogain_loss_param.source", "infogain_loss_param"
            )
        try:
            blob = message_class("BlobProto").FromString(read_regular(Path(path)))
        except (DataError, OSError, ValueError, DecodeError) as error:
            self.fail(f"cannot read gains from {path!r}: {error}", "source")
        return torch.tensor(list(blob.double_data or blob.data), dtype=torch.float32)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        x_OCI = bottoms[0].flatten(1).unsqueeze(2) if self.strict else rows(bottoms[0], self.class_axis)
        gains = bottoms[2].detach() if len(bottoms) == 3 else self.get_buffer("gains").to(x_OCI.dtype)
        gains = gains.reshape(x_OCI.shape[1], x_OCI.shape[1])
        label_OI = bottoms[1].reshape(x_OCI.shape[0], x_OCI.shape[2])
        index_OI, valid_OI = classes(label_OI, self.ignore)
        gain_OCI = gains[from_start(index_OI, len(gains))].transpose(1, 2)
        x_OCI = torch.where(valid_OI.unsqueeze(1), x_OCI, 1.0)
        if self.strict:
            logp_OCI = floor_through(x_OCI, LOG_THRESHOLD).log()
        else:
            logp_OCI = floor_through(log_softmax(x_OCI, 1), log(LOG_THRESHOLD))
        losses_OI = torch.where(valid_OI, -(gain_OCI * logp_OCI).sum(1), 0.0)
        loss = self.normalized(losses_OI, valid_OI, x_OCI.shape[0])
        if len(self.spec.tops) == 1:
            return (loss,)
        return loss, bottoms[0] if self.strict else bottoms[0].softmax(self.class_axis)
