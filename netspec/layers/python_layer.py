"""Python: layers written in Python by the user, with the protocol of pycaffe."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from netspec.errors import SpecError, did_you_mean, one_line
from netspec.layers import consent
from netspec.layers.base import Layer, Shape, at_least, register
from netspec.layers.blob import Array, Blob, BlobVec
from netspec.layers.traits import Lack
from netspec.schema.spec import TRAIN, LayerSpec

METHODS = ("setup", "reshape", "forward", "backward")
_as_raised: ContextVar[bool] = ContextVar("as_raised", default=False)


@contextmanager
def as_raised() -> Iterator[None]:
    """Within, errors of a user's setup and reshape keep their type, and get a note that names the layer."""
    token = _as_raised.set(True)
    try:
        yield
    finally:
        _as_raised.reset(token)


log = logging.getLogger("netspec")
known: dict[tuple[str, str], type[Layer]] = {}
"""Our own layers for Python modules and classes that public nets name."""
KnownClass = TypeVar("KnownClass", bound="type[Layer]")


def stands_for(module: str, name: str) -> Callable[[KnownClass], KnownClass]:
    """Class decorator: the class computes Python layers of this module and class."""

    def add(cls: KnownClass) -> KnownClass:
        known[module, name] = cls
        return cls

    return add


def own_kind(spec: LayerSpec) -> type[Layer] | None:
    """Our layer for the module and class that a Python layer names; None where there is none.

    With consent, an importable module takes precedence.
    """
    asked = spec.message.python_param
    kind = known.get((".".join(asked.module.split(".")[-2:]), asked.layer)) or known.get(
        (asked.module, asked.layer)
    )
    if kind is None or (consent.given() and is_found(asked.module)):
        return None
    say_once(asked.module, asked.layer)
    return kind


def is_found(module: str) -> bool:
    """Whether a module could be imported; asked with consent only, as its package is imported for it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


@cache
def say_once(module: str, name: str) -> None:
    log.info("%s of the Python module %s is computed by netspec's own layer", name, module)


class PythonLayer:
    """Base class for layers of users (pycaffe's `caffe.Layer`); a class with the same four methods will do as
    well.

    Before `setup` it gets `param_str` (text of the prototxt), `phase` (0 TRAIN, 1 TEST) and `blobs`, to which
    setup may add: `self.blobs.add_blob(3, 4)`, then `self.blobs[0].data[...] = initial values`.
    """

    param_str: str
    phase: int
    blobs: BlobVec

    def __init__(self, param: Any = None):
        """`param` is the LayerParameter."""

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Read param_str, check the number of blobs, add learnable ones; called once."""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the tops their shapes; called before every forward."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Write top[i].data."""

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Write bottom[i].diff where propagate_down[i], and add to self.blobs[i].diff."""


@register("Python")
class Python(Layer):
    """y = what the class `layer` of the Python module `module` computes.

    Building and running a net with such a layer imports that module and RUNS ITS CODE: it is done with the user's
    consent alone (netspec.layers.consent), else NoConsent is raised, and readers take the shapes as unknown. The
    module must be importable already (installed, or its folder on PYTHONPATH); no folder is added for it. Shapes:
    tops as the class's `reshape` says; blobs as its `setup` adds them, with the values it writes there. The class
    sees blobs (netspec.layers.blob.Blob) in main memory, in the net's floating-point type; bottoms are copies. NaN:
    as the class treats it. Gradients are the class's `backward`, for inputs and blobs; a blob's diff starts at 0.
    Runs eagerly: torch.compile breaks the graph here. `share_in_parallel` has no effect: each process has its own.
    Raises SpecError when the module or class is not there, lacks a method, or fails in setup or reshape. Source:
    Caffe, python_layer.hpp.
    """

    family, roles = "other", ()
    mixes = True
    bottoms = at_least(0)
    tops = at_least(0)
    param_field = "python_param"
    anchor: Tensor

    @classmethod
    def kind_for(cls, spec: LayerSpec) -> type[Layer]:
        """Our own class, for a module known by name."""
        return own_kind(spec) or cls

    @classmethod
    def lacking(cls, spec: LayerSpec) -> Lack | None:
        """The module: it is not imported to read a net."""
        asked = spec.message.python_param
        runs = f"runs class {asked.layer!r} of the Python module {asked.module!r}"
        text = f"{runs}, which is not imported to read a net: its shapes are unknown"
        problem = spec.problem(text, "python_param", "module")
        return Lack(f"Python module {asked.module}", problem)

    def setup(self, *shapes: Shape) -> None:
        self.register_buffer("anchor", torch.empty(0), persistent=False)  # follows the net's device and dtype
        self.user = self.make()
        self.user.param_str = self.user.param_str_ = self.param.param_str  # with _ in versions before 2015
        self.user.phase = 0 if self.phase == TRAIN else 1
        self.user.blobs = BlobVec()
        self.bottom = [Blob(*shape) if shape else Blob.over(np.zeros((), np.float32)) for shape in shapes]
        self.top = [Blob() for _ in self.spec.tops]
        for step in (self.user.setup, self.user.reshape):
            with self.running(step.__qualname__, _as_raised.get()):
                step(self.bottom, self.top)
        self.top_shapes = [blob.shape for blob in self.top]
        self.held = self.user.blobs
        """The class's blobs while this layer runs it; pycaffe's nets put theirs in their place."""
        self.initial = [np.array(blob.data) for blob in self.user.blobs]
        for blob in self.user.blobs:
            self.add_blob(blob.shape)

    def make(self) -> Any:
        """An object of the user's class."""
        module, name = self.param.module, self.param.layer
        if not consent.given():
            text = f"the Python module {module!r} (class {name!r}) is not imported: that runs its code"
            problem = self.spec.problem(f"{text}; {consent.REMEDY}", "python_param", "module")
            raise consent.NoConsent([problem])
        # Such modules import caffe: where there is none, ours stands in for it.
        if "caffe" not in sys.modules and importlib.util.find_spec("caffe") is None:
            importlib.import_module("netspec.pycaffe").install()
        try:
            loaded = importlib.import_module(module)
        except BaseException as error:  # SystemExit and whatever else a module may raise
            self.fail(
                f"module {module!r} cannot be imported ({type(error).__name__}: {one_line(error)}); "
                "is its folder on PYTHONPATH?",
                "module",
            )  # fmt: skip
        kind = getattr(loaded, name, None)
        if not isinstance(kind, type):
            classes = [key for key, value in vars(loaded).items() if isinstance(value, type)]
            self.fail(
                f"module {module!r} has no class {name!r}{did_you_mean(name, classes)}",
                "layer",
            )
        missing = [method for method in METHODS if not callable(getattr(kind, method, None))]
        if missing:
            self.fail(f"class {name} of {module!r} has no {' and no '.join(missing)}", "layer")
        with self.running(f"{name}()", _as_raised.get()):
            return kind(self.spec.message) if issubclass(kind, PythonLayer) else kind()

    @contextmanager
    def running(self, what: str, as_raised: bool) -> Iterator[None]:
        """Within, the user's code runs: its errors become SpecErrors at this layer, or keep their type and get a
        note.
        """
        try:
            yield
        except BaseException as error:
            text = f"{what} raised {type(error).__name__}: {one_line(error)}"
            problem = self.spec.problem(text, "python_param", "layer")
            if as_raised:
                error.add_note(str(problem))
                raise
            raise SpecError([problem]) from error

    def fill(self, blobs: Any, generator: torch.Generator) -> None:
        with torch.no_grad():
            for i in blobs:
                self.blobs[i].copy_(torch.from_numpy(self.initial[i]))

    def infer(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty(shape, device="meta") for shape in self.top_shapes)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        if (
            torch.compiler.is_compiling()
        ):  # torch.compiler.disable says the same, and imports torch's compiler at once
            raise NotImplementedError("a Python layer runs Python, which cannot be compiled")
        parameters = [self.blob(i) for i in range(len(self.blob_shapes))]
        if not self.top:
            self.compute(bottoms, parameters)
            return ()
        tops: tuple[Tensor, ...] = _Call.apply(self, len(bottoms), *bottoms, *parameters)  # type: ignore[no-untyped-call]
        return tops

    def compute(self, bottoms: Sequence[Tensor], parameters: Sequence[Tensor]) -> list[Array]:
        """Let the class compute its tops; gives their data."""
        self.lend(bottoms, parameters)
        with self.running(self.user.reshape.__qualname__, False):
            self.user.reshape(self.bottom, self.top)
        for top in self.top:  # as in Caffe, a top keeps its values until the class writes others
            top.hold(top.data.astype(numpy(self.anchor).dtype, copy=not top.data.flags.writeable))
        with self.running(self.user.forward.__qualname__, False):
            self.user.forward(self.bottom, self.top)
        for parameter, blob in zip(parameters, self.user.blobs, strict=True):
            if parameter.device.type != "cpu":  # on the CPU the class has written into the parameter itself
                parameter.copy_(torch.from_numpy(blob.data))
        return [top.data for top in self.top]

    def lend(self, bottoms: Sequence[Tensor], parameters: Sequence[Tensor]) -> None:
        """Show the class copies of the bottoms, and its learnable blobs (on the CPU the parameters
        themselves).
        """
        for blob, tensor in zip(self.bottom, bottoms, strict=True):
            blob.hold(np.array(numpy(tensor)))
        self.user.blobs = self.held
        for blob, tensor in zip(self.held, parameters, strict=True):
            blob.hold(numpy(tensor))

    def gradients(
        self, bottoms: Sequence[Tensor], parameters: Sequence[Tensor], tops: Sequence[Tensor],
        diffs: Sequence[Tensor], wanted: Sequence[bool],
    ) -> list[Array]:  # fmt: skip
        """Let the class compute its gradients; gives the diffs of bottoms and blobs."""
        self.lend(bottoms, parameters)
        for blob, tensor, diff in zip(self.top, tops, diffs, strict=True):
            blob.hold(np.array(numpy(tensor)), np.array(numpy(diff)))
        with self.running(self.user.backward.__qualname__, False):
            self.user.backward(self.top, list(wanted), self.bottom)
        return [blob.diff for blob in (*self.bottom, *self.user.blobs)]


class _Call(torch.autograd.Function):
    """Forward and backward of the user's class, with the values of the forward they belong to."""

    @staticmethod
    def forward(ctx: Any, layer: Python, count: int, *given: Tensor) -> tuple[Tensor, ...]:
        arrays = layer.compute(given[:count], given[count:])
        tops = tuple(torch.from_numpy(np.array(data)).to(layer.anchor) for data in arrays)
        ctx.layer, ctx.count = layer, count
        ctx.save_for_backward(*given, *tops)
        return tops

    @staticmethod
    def backward(ctx: Any, *diffs: Tensor) -> tuple[Tensor | None, ...]:
        layer, count = ctx.layer, ctx.count
        wanted = ctx.needs_input_grad[2:]
        given, tops = ctx.saved_tensors[: len(wanted)], ctx.saved_tensors[len(wanted) :]
        arrays = layer.gradients(given[:count], given[count:], tops, diffs, wanted[:count])
        gradients = (
            torch.from_numpy(diff).to(value) if needed else None
            for diff, value, needed in zip(arrays, given, wanted, strict=True)
        )
        return (None, None, *gradients)


def numpy(tensor: Tensor) -> Array:
    """A tensor's values in main memory, shared where they are there; half precision becomes single."""
    value = tensor.detach().cpu()
    return (value.float() if value.dtype in (torch.float16, torch.bfloat16) else value).numpy()
