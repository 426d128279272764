"""Layers that read data: their tops are inputs of the net, which the layer's `source` feeds."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor

from netspec.data.source import Source
from netspec.errors import DataError
from netspec.layers.base import Layer, Shape, at_least, between, exactly, register
from netspec.layers.traits import Lack
from netspec.schema.spec import LayerSpec


class DataLayer(Layer):
    """A layer that no walk runs: `source` opens its data, `source_shapes` gives the shapes of its tops."""

    family, roles = "data", ()
    bottoms = exactly(0)
    tops = between(1, 2)
    is_source = True

    @abstractmethod
    def source(self, seed: int) -> Source:
        """Open the data; raises DataError at the field whose file is missing or damaged."""

    def settle(self, earlier: Any = None) -> list[str]:
        """Write facts learnt from the data into the layer's message, so that the message suffices without the data;
        returns remarks for the user.

        By default does nothing. earlier: the settled message of the corresponding layer in an earlier net.
        """
        return []

    def source_shapes(self) -> list[Shape]:
        source = self.source(0)
        try:
            return source.shapes
        finally:
            source.close()


class ShapedData(DataLayer):
    """A source whose data is not read here: its shapes are known, its values are not."""

    lacks: str
    """Why."""

    def source(self, seed: int) -> Source:
        raise DataError(f"{self.spec}: {self.lacks}; give it as another data layer")

    def source_shapes(self) -> list[Shape]:
        raise DataError(f"{self.spec}: {self.lacks}")


@register("Dataset")
class Dataset(DataLayer):
    """data = (x - mean) * scale of a named data set (mnist, fashion-mnist, cifar10, digits); label; mask; clean.

    Shapes: data (N, C, H, W) of raw values 0..255 before `transform_param`; label (N,); mask (N, 1, H, W), or (N, C, H,
    W) with `missing.per_channel`, is 1 where observed; clean is the data before pixels are removed, for example as the
    target of a net that restores them. Colour is in the order B, G, R. `binarize` makes grey levels black or white. NaN
    is written at missing pixels (`dataset_param.missing`). Order: of the file, or with `shuffle` a new permutation each
    epoch; batches run over the end of an epoch into the next.
    """

    tops = between(1, 4)
    param_field = "dataset_param"

    @classmethod
    def lacking(cls, spec: LayerSpec) -> Lack | None:
        """The data set, where it is not on this machine; its shape is known anyway."""
        from netspec.data.sets.catalogue import KNOWN
        from netspec.data.sets.datasets import lack

        asked = spec.message.dataset_param
        absence = lack(asked.name, asked.stand_in) if asked.name in KNOWN else ""
        return Lack(asked.name, spec.problem(absence, "dataset_param", "name")) if absence else None

    def source(self, seed: int) -> Source:
        from netspec.data.sources.named import DatasetSource

        return DatasetSource(self.spec, self.phase, seed)

    def source_shapes(self) -> list[Shape]:
        from netspec.data.sources.named import shapes

        return shapes(self.spec, self.phase)


@register("Table")
class Table(DataLayer):
    """data = (cell - mean) / deviation of a table's columns (CSV, TSV, Parquet, a named set); label; mask.

    Shapes: data (N, 1, 1, D), a cell a column, in the order of the file without the target and what is left out;
    with `one_hot` K cells of 0 and 1 for a column of K categories, else the category's number from 0. label (N,): the
    target's class, or its standardised number; mask (N, 1, 1, D) is 1 where observed. NaN stands in data and label
    where a cell is missing, or holds a category not seen in training. The columns are described from the training part
    of the data, and written into the run folder's net. Raises DataError at a line with another number of cells, and at
    a word among numbers.
    """

    tops = between(1, 3)
    param_field = "table_param"

    def source(self, seed: int) -> Source:
        from netspec.data.sources.table import TableSource

        return TableSource(self.spec, self.phase, seed)

    def settle(self, earlier: Any = None) -> list[str]:
        from netspec.data.sources.table import settle

        return settle(self.spec, earlier)

    def source_shapes(self) -> list[Shape]:
        from netspec.data.sources.table import shapes

        return shapes(self.spec)


@register("Pictures")
class Pictures(DataLayer):
    """data = (x - mean) * scale of pictures of one's own (folder, list, .npz, .npy, idx, HDF5, LMDB); label; mask.

    Shapes: data (N, C, H, W) of raw values 0..255 before `transform_param`, C 3 (order B, G, R) or 1; label (N,), the
    number of the picture's sub-folder among the classes, NaN without one; mask (N, 1, H, W) is 1 where observed. NaN is
    written at missing pixels (`pictures_param.missing`). Order: as they lie, or with `shuffle` a new permutation each
    epoch. Size, colour and the names of the classes are written into the run folder's net. Raises DataError at a
    picture that cannot be read.
    """

    tops = between(1, 3)
    param_field = "pictures_param"

    def source(self, seed: int) -> Source:
        from netspec.data.sources.pictures import PicturesSource

        return PicturesSource(self.spec, self.phase, seed)

    def settle(self, earlier: Any = None) -> list[str]:
        from netspec.data.sources.pictures import settle

        return settle(self.spec, earlier)

    def source_shapes(self) -> list[Shape]:
        from netspec.data.sources.pictures import shapes

        return shapes(self.spec, self.phase)


@register("Data")
class Data(DataLayer):
    """data = transformed images of a database (LMDB, LevelDB) of Datums; label.

    Shapes: data (N, C, H, W), or crop_size x crop_size; label (N,). Colour of encoded pictures is in the order B, G, R.
    Order: of the keys, over and over. The first record gives the shape; a record of another shape raises DataError.
    `rand_skip` and `prefetch` have no effect, as in later versions of Caffe. Source: Caffe, data_layer.cpp.
    """

    param_field = "data_param"

    def source(self, seed: int) -> Source:
        from netspec.data.sources.database import DatabaseSource

        return DatabaseSource(self.spec, self.phase, seed)


@register("ImageData")
class ImageData(DataLayer):
    """data = transformed pictures of a list file `<path> <label>`; label.

    Shapes: data (N, C, H, W), resized to new_height x new_width if set, C 3 (order B, G, R) or 1 as
    `is_color` says; label (N,). Order: of the list, or with `shuffle` a new permutation each epoch. Source:
    Caffe, image_data_layer.cpp.
    """

    tops = exactly(2)
    param_field = "image_data_param"

    def source(self, seed: int) -> Source:
        from netspec.data.sources.lists import ImageListSource

        return ImageListSource(self.spec, self.phase, seed)


@register("DenseImageData")
class DenseImageData(DataLayer):
    """data = transformed pictures of a list file `<path> <label picture>`; label = the label picture's
    values.

    Shapes: data (N, C, H, W), label (N, 1, H, W), cropped and mirrored alike. Source: SegNet's Caffe.
    """

    tops = exactly(2)
    param_field = "dense_image_data_param"

    def source(self, seed: int) -> Source:
        from netspec.data.sources.lists import DenseListSource

        return DenseListSource(self.spec, self.phase, seed)


@register("ImageSegData")
class ImageSegData(DataLayer):
    """data = transformed pictures of a list file `<path> <label picture>`; label = the label picture's
    values; data_dim.

    Shapes: data (N, C, H, W), label (N, 1, H, W), cropped and mirrored alike; data_dim (N, 1, 1, 2), height and
    width of each picture within its crop. `label_type` IMAGE: the list gives an integer for all pixels, NONE:
    `ignore_label` for all; absent: as the list looks. Pictures smaller than the crop get the mean below and to
    the right, labels `ignore_label`. Source: DeepLab's Caffe (Chen et al. 2014), image_seg_data_layer.cpp.
    """

    tops = between(1, 3)
    param_field = "image_data_param"

    def source(self, seed: int) -> Source:
        from netspec.data.sources.label_pictures import SegListSource

        return SegListSource(self.spec, self.phase, seed)


@register("ImageLabelmapData")
class ImageLabelmapData(DataLayer):
    """data = transformed pictures of a list file `<path> <label picture>`; label = 1 where the label picture is
    above 127, else 0.

    Shapes: data (N, C, H, W), label (N, 1, H, W), cropped and mirrored alike. Source: Xie and Tu 2015 (HED),
    image_labelmap_data_layer.cpp.
    """

    tops = exactly(2)
    param_field = "image_data_param"

    def source(self, seed: int) -> Source:
        from netspec.data.sources.label_pictures import LabelmapSource

        return LabelmapSource(self.spec, self.phase, seed)


@register("HDF5Data")
class HDF5Data(DataLayer):
    """Each top = the rows of the HDF5 data set of its name, from the files that `source` lists.

    Shapes: (N, ...) as the data sets'. Order: of the files, or with `shuffle` files and rows permuted each
    epoch. NaN in a file is NaN in the blob. Source: Caffe, hdf5_data_layer.cpp.
    """

    tops = at_least(1)
    of_images = False
    param_field = "hdf5_data_param"

    def source(self, seed: int) -> Source:
        from netspec.data.sources.hdf5 import Hdf5Source

        return Hdf5Source(self.spec, self.phase, seed)


@register("MemoryData")
class MemoryData(DataLayer):
    """data, label = arrays that the program gives to the layer's source (`reset`, `add`).

    Shapes: data (N, C, H, W) of the parameter's numbers; label (N,). Source: Caffe, memory_data_layer.cpp.
    """

    tops = exactly(2)
    param_field = "memory_data_param"

    def source(self, seed: int) -> Source:
        from netspec.data.sources.memory import MemorySource

        return MemorySource(self.spec, self.phase, seed)


@register("WindowData")
class WindowData(DataLayer):
    """data = crops of pictures around boxes, background first, then foreground; label = class, 0 for
    background.

    Shapes: data (N, 3, crop_size, crop_size), colour in the order B, G, R; label (N,). Windows are drawn with
    replacement. Source: Caffe, window_data_layer.cpp (R-CNN).
    """

    tops = exactly(2)
    param_field = "window_data_param"

    def source(self, seed: int) -> Source:
        from netspec.data.sources.windows import WindowSource

        return WindowSource(self.spec, self.phase, seed)


@register("AnnotatedData")
class AnnotatedData(DataLayer):
    """data = pictures of a database of AnnotatedDatums, augmented and warped; label = their boxes, a row
    each.

    Shapes: data (N, C, height, width) of `resize_param`; label (1, 1, R, 8), R = N times `boxes_per_image`, a
    row (image, class, instance, xmin, ymin, xmax, ymax, difficult) with image -1 where there is no box (the
    original makes as many rows as there are boxes). Resizing is bilinear whatever `interp_mode` says. Source:
    SSD's Caffe.
    """

    param_field = "data_param"

    @classmethod
    def likely_shapes(cls, spec: LayerSpec, image: Shape) -> list[Shape]:
        return [image, (1, 1, image[0] * spec.message.annotated_data_param.boxes_per_image, 8)]

    def source(self, seed: int) -> Source:
        from netspec.data.sources.annotated import AnnotatedSource

        return AnnotatedSource(self.spec, self.phase, seed)


@register("HDF5Output")
class HDF5Output(Layer):
    """Nothing; its bottoms are written to a file, as rows of the data sets `data` and `label`.

    Shapes: two bottoms (N, ...), (N, ...); no top. `forward` writes nothing, since a walk has no side effects: the
    caller runs the net by `net.run(sinks, ...)` with a `netspec.data.writing.sinks.Sinks`, which collects and writes.
    Source: Caffe, hdf5_output_layer.cpp.
    """

    family, roles = "data", ("values", "label")
    bottoms = exactly(2)
    tops = exactly(0)
    differentiable = False
    param_field = "hdf5_output_param"

    def setup(self, *shapes: Shape) -> None:
        if not self.param.file_name:
            self.fail("needs a file_name", "file_name")
        if any(not shape for shape in shapes) or shapes[0][0] != shapes[1][0]:
            self.fail(
                f"needs bottoms with equal first dimensions, found {shapes[0]} and {shapes[1]}", "bottom", 0
            )

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return ()
