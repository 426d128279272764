"""Data layers of detectors and of nets over video, of public forks."""

from __future__ import annotations

from typing import Any

from netspec.data.source import Source
from netspec.layers.base import Shape, at_least, between, register
from netspec.layers.data import DataLayer, ShapedData
from netspec.schema.spec import LayerSpec

CELL = 7
"""Numbers of a cell in BoxData's labels."""


@register("BoxData")
class BoxData(DataLayer):
    """data = transformed pictures of a database of Datums with boxes; a top of labels for each data_param.side.

    Shapes: data (N, C, H, W), labels (N, 7 side^2): for each cell difficult, whether an object's middle lies in it, its
    class (-1: none), then for each cell the box (x, y, width, height) in [0, 1]; of several objects the last counts. A
    Datum holds its boxes as float_data, six numbers each: class, difficult, box. `mirror` mirrors the boxes too; the
    fork's random parts of pictures are not drawn. Raises DataError at a record that is none. Source: caffe-yolo,
    box_data_layer.cpp.
    """

    tops = at_least(1)
    param_field = "data_param"

    @classmethod
    def likely_shapes(cls, spec: LayerSpec, image: Shape) -> list[Shape]:
        sides = list(spec.message.data_param.side) or [CELL]
        return [image, *((image[0], CELL * side**2) for side in sides)][: len(spec.tops)]

    def source(self, seed: int) -> Source:
        from netspec.data.sources.boxes import BoxSource

        return BoxSource(self.spec, self.phase, seed)


@register("VideoData")
class VideoData(DataLayer):
    """data = clips of frames of a list `<folder> <number> <class>`; label.

    Shapes: with image_data_param (C3D) or video_data_param without num_segments data (N, 3, new_length, H, W), the
    number being the first frame from 1 (with use_temporal_jitter that of all frames: TRAIN begins anywhere); with
    num_segments (temporal segment networks) data (N, num_segments 3 new_length, H, W), the number being that of all
    frames: of each segment frames from a random place in TRAIN, from its middle in TEST; modality FLOW has 2 grey
    pictures (x, y) for 3. label (N,). All frames of a clip are cropped and mirrored alike, a mirrored flow's x being
    255 - x. Colour is in the order B, G, R. Video files and cameras are not read. Raises DataError where a frame is
    missing. Source: Tran et al. 2015 (C3D), Wang et al. 2016 (TSN): video_data_layer.cpp.
    """

    param_field = "video_data_param"

    @classmethod
    def likely_shapes(cls, spec: LayerSpec, image: Shape) -> list[Shape]:
        from netspec.data.sources.video import Clips

        clips = Clips.of(spec)
        return [(clips.batch, *clips.stacked(image[2], image[3])), (clips.batch,)][: len(spec.tops)]

    def source(self, seed: int) -> Source:
        from netspec.data.sources.video import VideoSource

        return VideoSource(self.spec, self.phase, seed)


def sides(p: Any, image: Shape) -> tuple[int, int]:
    """Height and width of the pictures that a list of MS-CNN's or Cascade R-CNN's gives."""
    short, long = int(getattr(p, "short_size", 0)), int(getattr(p, "long_size", 0))
    height = getattr(p, "crop_height", 0) or getattr(p, "resize_height", 0) or short or image[2]
    width = getattr(p, "crop_width", 0) or getattr(p, "resize_width", 0) or long or image[3]
    return int(height), int(width)


def label_maps(p: Any, cells: Any, height: int, width: int) -> list[Shape]:
    """The tops behind the pictures: a map of labels for each size of boxes, and the boxes."""
    maps: list[Shape] = [(int(p.batch_size), 6, height // int(n), width // int(n)) for n in cells]
    return [*maps, (2, 8)] if p.output_gt_boxes else maps


@register("ImageGtData")
class ImageGtData(ShapedData):
    """data, a map of labels (class, box, overlap) for each field, and with output_gt_boxes the boxes: MS-CNN's.

    Shapes: data (N, 3, crop_height, crop_width), maps (N, 6, H / downsample_rate, W / downsample_rate), boxes (G, 7).
    Its random sizes and crops around objects are not made here, so it is shaped, and not run. Source: Cai et al. 2016,
    image_gt_data_layer.cpp.
    """

    tops = at_least(2)
    lacks = "MS-CNN's random crops around objects are not made here"

    @classmethod
    def likely_shapes(cls, spec: LayerSpec, image: Shape) -> list[Shape]:
        p = spec.message.image_gt_data_param
        height, width = sides(p, image)
        return [(int(p.batch_size), 3, height, width), *label_maps(p, p.downsample_rate, height, width)]


@register("DetectionData")
class DetectionData(ShapedData):
    """data, a map of labels (class, box, overlap) for each field, and with output_gt_boxes the boxes: Cascade R-CNN's.

    Shapes: data (N, 3, H, W), maps (N, 6, H / stride, W / stride), boxes (G, 8). Its random sizes and crops are not
    made here, so it is shaped, and not run. Source: Cai and Vasconcelos 2018, detection_data_layer.cpp.
    """

    tops = at_least(2)
    lacks = "Cascade R-CNN's random sizes and crops are not made here"

    @classmethod
    def likely_shapes(cls, spec: LayerSpec, image: Shape) -> list[Shape]:
        p = spec.message.detection_data_param
        height, width = sides(p, image)
        return [(int(p.batch_size), 3, height, width), *label_maps(p, p.stride, height, width)]


@register("EvalData")
class EvalData(ShapedData):
    """data, sizes: Cascade R-CNN's pictures to be judged, each of its own size.

    Shapes: data (N, 3, H, W), sizes (N, 2). Pictures have many sizes, so it is shaped, and not run. Source: Cai and
    Vasconcelos 2018, eval_data_layer.cpp.
    """

    tops = between(1, 3)
    lacks = "its pictures have many sizes"

    @classmethod
    def likely_shapes(cls, spec: LayerSpec, image: Shape) -> list[Shape]:
        p = spec.message.eval_data_param
        return [(int(p.batch_size), 3, *sides(p, image)), (1, 2), (2, 8)][: len(spec.tops)]
