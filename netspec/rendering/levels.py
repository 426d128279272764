"""A net read as a rendering model: its levels, the switches of max-sum inference, and the way top-down.

Shape suffixes: N images, C channels, H, W the plane of a convolution's top, h, w the plane after pooling.
Level l = 1..L renders z^(l) into z^(l-1); z^(0) is an image. Everything is linear in z once the switches are
given, and uses the weights of the way up; biases and normalisations only decide the switches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import conv_transpose2d, fold, one_hot

from netspec.errors import SpecError
from netspec.layers.base import Layer
from netspec.layers.basic.convolution import Convolution
from netspec.layers.basic.inner_product import InnerProduct
from netspec.layers.basic.pooling import MAX, Pooling
from netspec.layers.basic.pools import max_pool
from netspec.net.graph import Step
from netspec.net.net import Net

Found = TypeVar("Found", bound=Layer)
AFTER = ("BatchNorm", "Scale", "Bias", "BN")
"""Types of layers allowed between a convolution and its ReLU."""
HANDED_ON = ("Dropout", "Flatten", "Reshape", "Split")
"""Types of layers allowed between levels, which do not change the messages."""


class Switches(NamedTuple):
    """The latent nuisances of one level: a (N, C, H, W) 1 where a unit renders, t (N, C, h, w) flat places.

    t is None where the level does not pool by maxima.
    """

    a: Tensor
    t: Tensor | None


@dataclass(frozen=True)
class Level:
    """One rendering level: the layers that it is in the net."""

    conv: Convolution
    after: tuple[Layer, ...]
    pool: Pooling | None

    @property
    def weight(self) -> Tensor:
        """The filters (C, C of the level below, k, k)."""
        return self.conv.blob(0)

    @property
    def pad(self) -> int:
        """Zeros on each side of the convolution's bottom."""
        return self.conv.window.pad[0]

    def activation(self, below: Tensor) -> Tensor:
        """u: the filters' response, normalised and with its bias, (N, C, H, W)."""
        u: Tensor = self.conv(below)[0]
        for layer in self.after:
            u = layer(u)
        return u

    def up(self, below: Tensor) -> tuple[Tensor, Switches]:
        """(message, switches): max over the nuisances of this level; a ReLU and a pooling."""
        u = self.activation(below)
        a, r = (u > 0).to(u.dtype), u.relu()
        if self.pool is None:
            return r, Switches(a, None)
        if self.pool.method == MAX:
            message, t = max_pool(r, self.pool.frame, True)
            return message, Switches(a, t.long())
        return self.pool(r), Switches(a, None)

    def spread(self, z: Tensor, switches: Switches) -> Tensor:
        """h: z (N, C, h, w) at the places that render, 0 elsewhere, (N, C, H, W)."""
        a, t = switches
        if t is not None:
            z = (
                z.new_zeros(*z.shape[:2], a[0, 0].numel())
                .scatter(2, t.flatten(2), z.flatten(2))
                .view(a.shape)
            )
        elif self.pool is not None:
            z = z.expand(a.shape)
        return z * a

    def down(self, z: Tensor, switches: Switches) -> Tensor:
        """z one level below."""
        return self.transposed(self.spread(z, switches))

    def transposed(self, h: Tensor) -> Tensor:
        """The transpose of the convolution, without bias."""
        weight = self.weight
        if weight.shape[1] > 3 or h.device.type != "cpu":
            return conv_transpose2d(h, weight, padding=self.pad)
        kernel = (weight.shape[2], weight.shape[3])
        sides = (h.shape[2] + kernel[0] - 1 - 2 * self.pad, h.shape[3] + kernel[1] - 1 - 2 * self.pad)
        cells = weight.flatten(1).t() @ h.flatten(2)  # see Deconvolution: few outputs are slow in torch
        return fold(cells, sides, kernel, padding=self.pad)


class RenderingModel:
    """The levels of `net` and the classes on top (Patel et al. 2016, section 3, appendix B).

    Any net of Convolution [BatchNorm, Scale] ReLU [Pooling] levels with an InnerProduct on top will do, so
    also a DCN. Raises SpecError at the layer that does not fit.
    """

    def __init__(self, net: Net):
        self.net = net
        self.levels: list[Level] = []
        slot = None
        for step, layer in self._steps(Convolution):
            if slot is None:
                self.bottom = step.reads[0]
            else:
                self._refuse_gap(slot, step, layer)
            level, slot = self._level(step, layer)
            self.levels.append(level)
        if slot is None:
            raise SpecError(f"{net.graph.spec.file}: no Convolution, so nothing that could render")
        tops = [pair for pair in self._steps(InnerProduct) if not pair[1].param.transpose]
        if len(tops) != 1:
            raise SpecError(
                f"{net.graph.spec.file}: needs one InnerProduct for the classes, found {len(tops)}"
            )
        self._refuse_gap(slot, *tops[0])
        self.classes: InnerProduct = tops[0][1]
        self.by_class = any(step.layer.type == "ArgMaxOneHot" for step in net.graph.steps)
        """Whether the net renders from the winning class (DRMM), and not from its top messages (DRFM)."""
        self.variance = self._variance()
        """The number (,) by which the net's own image is larger than z^(0), where it has such a layer."""

    def _variance(self) -> Tensor | None:
        """The blob of a Scale by one number behind the last Deconvolution."""
        pairs = list(zip(self.net.graph.steps, self.net.made, strict=True))
        rendered = [step.writes[0] for step, _ in pairs if step.layer.type == "Deconvolution"]
        reader = self._reader(pairs, rendered[-1], ("Scale",)) if rendered else None
        return reader[1].blob(0) if reader is not None and reader[1].blob(0).dim() == 0 else None

    def _steps(self, kind: type[Found]) -> list[tuple[Step, Found]]:
        pairs = zip(self.net.graph.steps, self.net.made, strict=True)
        return [(step, layer) for step, layer in pairs if type(layer) is kind]

    def _refuse_gap(self, slot: int, step: Step, layer: Layer) -> None:
        """Raise SpecError where a layer between the messages of the level below (`slot`) and `step` changes them."""
        pairs = list(zip(self.net.graph.steps, self.net.made, strict=True))
        while slot != step.reads[0] and (reader := self._reader(pairs, slot, HANDED_ON)) is not None:
            slot = reader[0].writes[0]
        if slot != step.reads[0]:
            graph, below = self.net.graph, self.levels[-1].conv.spec
            layer.fail(
                f"does not follow on the rendering level of {below.name!r}: its bottom "
                f"{graph.name(step.reads[0])!r} is made by {graph.spec.layers[graph.slots[step.reads[0]].maker]}",
                "bottom",
                0,
            )

    def _level(self, step: Step, layer: Convolution) -> tuple[Level, int]:
        """A level, and the slot of its messages."""
        window = layer.window
        if set(window.stride) != {1} or set(window.dilation) != {1} or len(set(window.pad)) != 1:
            layer.fail(
                "a rendering level convolves with stride 1, dilation 1 and one pad", "convolution_param"
            )
        if layer.group != 1:
            layer.fail("a rendering level convolves with group 1", "convolution_param", "group")
        slot, after = step.writes[0], []
        pairs = list(zip(self.net.graph.steps, self.net.made, strict=True))
        while (reader := self._reader(pairs, slot, AFTER)) is not None:
            after.append(reader[1])
            slot = reader[0].writes[0]
        relu = self._reader(pairs, slot, ("ReLU",))
        if relu is None or relu[1].param.negative_slope != 0:
            layer.fail("a rendering level has a plain ReLU behind its convolution")
        message = relu[0].writes[0]
        pooling = self._reader(pairs, message, ("Pooling",))
        if pooling is None or not isinstance(pool := pooling[1], Pooling):
            return Level(layer, tuple(after), None), message
        if pool.method != MAX and not pool.whole:
            pool.fail("a rendering level pools by MAX, or averages its whole plane", "pooling_param", "pool")
        if not pool.whole and (pool.frame.kernel != pool.frame.stride or any(pool.frame.pad)):
            text = "a rendering level pools windows side by side: stride = kernel_size, no pad"
            pool.fail(text, "pooling_param")
        return Level(layer, tuple(after), pool), pooling[0].writes[0]

    @staticmethod
    def _reader(
        pairs: Sequence[tuple[Step, Layer]], slot: int, kinds: tuple[str, ...]
    ) -> tuple[Step, Layer] | None:
        """The first layer of one of these types that reads the slot as its first bottom."""
        return next(
            (pair for pair in pairs if pair[0].layer.type in kinds and pair[0].reads[:1] == (slot,)), None
        )

    # Bottom-up

    def up(self, x: Tensor) -> tuple[list[Tensor], list[Switches]]:
        """([I^(0) = x, I^(1), ..., I^(L)], switches of levels 1..L)."""
        messages, switches = [x], []
        for level in self.levels:
            message, chosen = level.up(messages[-1])
            messages.append(message)
            switches.append(chosen)
        return messages, switches

    def scores(self, top: Tensor) -> Tensor:
        """Class scores (N, K) of the top messages."""
        scores: Tensor = self.classes(top)
        return scores.flatten(1)

    def template(self, c: Tensor, shape: Sequence[int]) -> Tensor:
        """mu_c of classes c (N,), in the shape (., C, h, w) of the top messages."""
        weight = self.classes.blob(0)
        return (one_hot(c, weight.shape[0]).to(weight.dtype) @ weight).view(-1, *shape[1:])

    # Top-down

    def down(self, z: Tensor, switches: Sequence[Switches], level: int | None = None) -> list[Tensor]:
        """[z^(0), ..., z^(level)]: z = z^(level) rendered level by level (default: from the top)."""
        rendered = [z]
        for part, chosen in zip(reversed(self.levels[:level]), reversed(switches[:level]), strict=True):
            rendered.append(part.down(rendered[-1], chosen))
        return rendered[::-1]

    def infer(self, x: Tensor, c: Tensor | None = None) -> tuple[list[Tensor], list[Switches], list[Tensor]]:
        """The full E-step (messages, switches, templates z) with the winning class, or classes c (N,)."""
        messages, switches = self.up(x)
        top = messages[-1]
        if self.by_class:
            top = self.template(self.scores(top).argmax(1) if c is None else c, top.shape)
        return messages, switches, self.down(top, switches)

    def reconstruct(self, x: Tensor, c: Tensor | None = None, scaled: bool = False) -> Tensor:
        """I_hat = z^(0); `scaled`: each image by the factor that brings it closest to x."""
        image = self.infer(x, c)[2][0]
        return image * best_scale(image, x) if scaled else image

    def render(self, x: Tensor, level: int, unit: Tensor | None = None) -> Tensor:
        """The image that level `level`'s messages of x render under the switches of x; of one channel `unit`
        (N,) alone if given.
        """
        messages, switches = self.up(x)
        z = messages[level]
        if unit is not None:
            z = z * one_hot(unit, z.shape[1]).to(z.dtype)[:, :, None, None]
        return self.down(z, switches, level)[0]


def best_scale(image: Tensor, x: Tensor) -> Tensor:
    """<image, x> / |image|^2 for each image, (N, 1, 1, 1); 0 for an empty image."""
    dot, square = (image * x).flatten(1).sum(1), image.square().flatten(1).sum(1)
    scale = torch.where(square > 0, dot / torch.where(square > 0, square, 1.0), 0.0)
    return scale.view(-1, 1, 1, 1)


def unexplained(image: Tensor, x: Tensor, scaled: bool = True) -> Tensor:
    """|x - image|^2 / |x|^2 of each image (N,); `scaled`: after the best scale of each image."""
    if scaled:
        image = image * best_scale(image, x)
    rest = (x - image).square().flatten(1).sum(1)
    return rest / x.square().flatten(1).sum(1).clamp(min=torch.finfo(x.dtype).tiny)


def relative_error(model: RenderingModel, x: Tensor, scaled: bool = True, c: Tensor | None = None) -> Tensor:
    """|I - I_hat|^2 / |I|^2 of each image (N,), rendered from the winning class or from classes c (N,)."""
    return unexplained(model.reconstruct(x, c), x, scaled)
