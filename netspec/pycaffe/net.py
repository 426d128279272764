"""Net, as scripts know it from pycaffe."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from netspec.interchange import hdf5, load_weights
from netspec.interchange.caffemodel import write_caffemodel
from netspec.interchange.dialects import told
from netspec.interchange.weights import owned
from netspec.layers.basic.noise import INPUT
from netspec.layers.blob import Array, BlobVec
from netspec.layers.python_layer import Python
from netspec.net import reading
from netspec.pycaffe.batches import Batches
from netspec.pycaffe.feeds import Data
from netspec.pycaffe.memory import NetBlob
from netspec.pycaffe.mode import CaffeError
from netspec.pycaffe.running import Running
from netspec.pycaffe.step import Step
from netspec.run.averages import Averages
from netspec.schema import spec
from netspec.schema.spec import NetSpec

Callback = Callable[[int], Any]


def check_file(name: str | Path) -> Path:
    """The path, CaffeError when no file is there."""
    path = Path(name)
    if not path.is_file():
        raise CaffeError(f"Could not open file {name}")
    return path


class NetLayer:
    """A layer of a net: `type` and `blobs`. Of a Python layer also all that the user's object has."""

    def __init__(self, step: Step):
        self.__dict__["_step"] = step

    @property
    def type(self) -> str:
        return str(self._step.layer.spec.type)

    @property
    def blobs(self) -> BlobVec:
        """The learnable blobs."""
        return BlobVec(self._step.blobs)

    def reshape(self, bottom: Sequence[NetBlob], top: Sequence[NetBlob]) -> None:
        """Give the tops their shapes."""
        self._step.reshape()

    def __getattr__(self, name: str) -> Any:
        layer = self.__dict__["_step"].layer if "_step" in self.__dict__ else None
        if isinstance(layer, Python):
            return getattr(layer.user, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        layer = self._step.layer
        if not isinstance(layer, Python):
            raise AttributeError(f"cannot set {name!r} of a {layer.spec.type} layer")
        setattr(layer.user, name, value)


class Net(Batches):
    """A net with its blobs and parameters in memory that numpy shares.

        net = Net("deploy.prototxt", "weights.caffemodel", TEST)
        net.blobs["data"].data[...] = image
        probabilities = net.forward()["prob"]

    Arrays are those that the layers compute on: what is written into them takes part in the next forward.
    """

    def __init__(
        self,
        network_file: str | Path,
        *args: Any,
        phase: int | None = None,
        level: int = 0,
        stages: Sequence[str] | None = None,
        weights: str | Path | None = None,
    ):
        """Net(file, phase, level, stages, weights), or as older scripts have it Net(file, weights, phase).

        Raises CaffeError when a file cannot be opened, SpecError for mistakes in the net, and what a Python
        layer's setup raises.
        """
        rest = list(args)
        if rest and not isinstance(rest[0], int):
            weights = rest.pop(0)
        if rest:
            phase = rest.pop(0)
        level = rest.pop(0) if rest else level
        stages = rest.pop(0) if rest else stages
        weights = rest.pop(0) if rest else weights
        if rest or phase is None or isinstance(phase, bool) or phase not in (0, 1):
            raise TypeError("Net takes (network_file, phase, level=0, stages=None, weights=None)")
        path = check_file(network_file)
        if weights is not None:
            check_file(weights)
        document = reading.read(path, "net")
        names = [*document.message.state.stage, *(stages or ())]
        written = spec.net(document, spec.phase_name(phase), names, level)
        self._set_up(Running(written if weights is None else told(written, weights)))
        self.debug(document.message.debug_info)
        if weights is not None:
            self.copy_from(weights)

    @classmethod
    def of(cls, written: NetSpec, share: Net | None = None) -> Net:
        """A net from its spec, with the parameters of `share` for layers of the same name."""
        net = cls.__new__(cls)
        net._set_up(Running(written, None if share is None else share._running))
        return net

    def _set_up(self, running: Running) -> None:
        self._running = running
        self.layers = [NetLayer(step) for step in running.steps]
        self._layer_names = [step.name for step in running.steps]
        self._blobs = running.blobs
        self._blob_names = [blob.name for blob in running.blobs]
        number = {id(blob): i for i, blob in enumerate(running.blobs)}
        self._bottom = [[number[id(blob)] for blob in step.bottoms] for step in running.steps]
        self._top = [[number[id(blob)] for blob in step.tops] for step in running.steps]
        graph = running.core.graph
        self.name = graph.spec.name
        """Name of the net, as its file gives it."""
        self._inputs = [i for k, step in enumerate(running.steps) for i in self._top[k] if is_input(step)]
        self._outputs = [number[id(running.slots[slot])] for slot in graph.outputs]
        self._before: dict[str, list[Callback]] = {"forward": [], "backward": []}
        self._after: dict[str, list[Callback]] = {"forward": [], "backward": []}
        self.blobs: OrderedDict[str, NetBlob] = OrderedDict(zip(self._blob_names, self._blobs, strict=True))
        """Blobs by name, from input to output."""
        self.layer_dict = OrderedDict(zip(self._layer_names, self.layers, strict=True))
        self.params: OrderedDict[str, BlobVec] = OrderedDict(
            (step.name, BlobVec(step.blobs)) for step in running.steps if step.blobs
        )
        """Learnable blobs by layer."""
        self.inputs = [self._blob_names[i] for i in self._inputs]
        self.outputs = [self._blob_names[i] for i in self._outputs]
        self.top_names = self._names(self._top)
        self.bottom_names = self._names(self._bottom)

    def _names(self, blobs: list[list[int]]) -> OrderedDict[str, list[str]]:
        return OrderedDict(
            (name, [self._blob_names[i] for i in numbers])
            for name, numbers in zip(self._layer_names, blobs, strict=True)
        )

    @property
    def _blob_loss_weights(self) -> list[float]:
        weights = {
            id(blob): weight
            for step in self._running.steps
            for blob, weight in zip(step.tops, step.weights, strict=True)
        }
        return [weights.get(id(blob), 0.0) for blob in self._blobs]

    @property
    def blob_loss_weights(self) -> OrderedDict[str, float]:
        """Each blob's weight in the loss."""
        return OrderedDict(zip(self._blob_names, self._blob_loss_weights, strict=True))

    def _top_ids(self, layer: int) -> list[int]:
        return list(self._top[layer])

    def _bottom_ids(self, layer: int) -> list[int]:
        return list(self._bottom[layer])

    def _detected(self) -> list[str]:
        """The outputs with rows of detections."""
        steps = [step for step in self._running.steps if step.layer.gathers]
        tops = {top.name for step in steps for top in step.tops}
        return [name for name in self.outputs if name in tops]

    def _add_outputs(self, averages: Averages) -> None:
        """Add the outputs of the last forward pass, in double precision as Caffe's test does."""
        for name in self.outputs:
            value = torch.from_numpy(self.blobs[name].data)
            averages.add(name, value if name in averages.detections else value.double())

    # Running

    def _forward(self, first: int, last: int) -> float:
        """Run the layers numbered `first` to `last`; gives the loss."""
        return self._running.forward(first, last, self._before["forward"], self._after["forward"])

    def _backward(self, first: int, last: int) -> None:
        """Run the layers numbered `first` down to `last` backward."""
        self._running.backward(first, last, self._before["backward"], self._after["backward"])

    def reshape(self) -> None:
        """Give all blobs the shapes that follow from those of the inputs."""
        self._running.reshape()

    def before_forward(self, call: Callback) -> None:
        """Call `call(number of the layer)` before each layer's forward."""
        self._before["forward"].append(call)

    def after_forward(self, call: Callback) -> None:
        """Call `call(number of the layer)` after each layer's forward."""
        self._after["forward"].append(call)

    def before_backward(self, call: Callback) -> None:
        """Call `call(number of the layer)` before each layer's backward."""
        self._before["backward"].append(call)

    def after_backward(self, call: Callback) -> None:
        """Call `call(number of the layer)` after each layer's backward."""
        self._after["backward"].append(call)

    def debug(self, on: bool) -> None:
        """Whether every pass logs the mean absolute value of what each layer made, as `debug_info` asks."""
        self._running.debug = on

    def set_input_arrays(self, data: Array, labels: Array) -> None:
        """Feed a MemoryData layer, the net's first, from float32 arrays (n, C, H, W) and n labels.

        CaffeError for other arrays, or unless n is a multiple of the batch size.
        """
        labels = labels.reshape(-1, 1, 1, 1) if labels.ndim == 1 else labels
        feed = self._running.steps[0].feed
        if not isinstance(feed, Data) or self.layers[0].type != "MemoryData":
            raise CaffeError("set_input_arrays may only be called if the first layer is a MemoryDataLayer")
        for name, array in (("data array", data), ("labels array", labels)):
            if not array.flags.c_contiguous or array.ndim != 4 or array.dtype != np.float32:
                raise CaffeError(f"{name} must be C contiguous, 4-d and float32")
        if len(data) != len(labels):
            raise CaffeError("data and labels must have the same first dimension")
        feed.reset(data, labels)

    _set_input_arrays = set_input_arrays

    # Weights

    def clear_param_diffs(self) -> None:
        """Set the diffs of all parameters to 0."""
        for blob in self._running.diffs.values():
            blob.gradient.clear()

    def share_with(self, other: Net) -> None:
        """Use the other net's parameters in layers of the same name: one memory from now on."""
        self._running.share_with(other._running)

    def copy_from(self, path: str | Path) -> None:
        """Copy weights of layers of the same name from a .caffemodel or HDF5 file."""
        load_weights(self._running.synced(), check_file(path))
        self._running.changed()

    def load_hdf5(self, path: str | Path) -> None:
        """Copy weights of layers of the same name from an HDF5 file."""
        self.copy_from(path)

    def save(self, path: str | Path) -> None:
        """Write the weights as a binary NetParameter, whatever the file's name."""
        write_caffemodel(self._running.synced(), path)

    def save_hdf5(self, path: str | Path) -> None:
        """Write the weights as Caffe's HDF5, whatever the file's name."""
        hdf5.write_weights(path, owned(self._running.synced()))


def is_input(step: Step) -> bool:
    """Whether the program feeds this layer."""
    return step.layer.spec.type == INPUT
