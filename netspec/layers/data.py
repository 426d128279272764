"""Layers that read data: their tops are the net's inputs, fed by the `source` that each of them opens."""

from __future__ import annotations

from abc import abstractmethod

from netspec.data.source import Source
from netspec.errors import DataError, SpecError
from netspec.layers.base import Layer, Shape, between, exactly, register


class DataLayer(Layer):
    """A layer that no walk runs: `source` opens its data, `source_shapes` asks the data for its shape."""

    bottoms = exactly(0)
    tops = between(1, 2)
    is_source = True

    @abstractmethod
    def source(self, seed: int) -> Source:
        """Open the data; raises DataError at the field whose file is missing or damaged."""

    def source_shapes(self) -> list[Shape]:
        source = self.source(0)
        try:
            return source.shapes
        finally:
            source.close()


@register("Dataset")
class Dataset(DataLayer):
    """data = (x - mean) * scale of a named data set (mnist, fashion-mnist, cifar10, digits); label; mask.

    Shapes: data (N, C, H, W) of raw values 0..255 before `transform_param`; label (N,); mask (N, 1, H, W), or
    (N, C, H, W) with `missing.per_channel`, is 1 where observed. Colour is in the order B, G, R.
    NaN is written at missing pixels (`dataset_param.missing`). Order: of the file, or with `shuffle` a new
    permutation each epoch; batches run over the end of an epoch into the next.
    """

    tops = between(1, 3)
    param_field = "dataset_param"

    def source(self, seed: int) -> Source:
        from netspec.data.named import DatasetSource

        return DatasetSource(self.spec, self.phase, seed)

    def source_shapes(self) -> list[Shape]:
        from netspec.data.named import shapes

        try:
            return shapes(self.spec, self.phase)
        except DataError as error:
            raise SpecError(str(error)) from error
