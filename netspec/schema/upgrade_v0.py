"""Caffe's first syntax, `layers { layer { type: "conv" kernelsize: 3 } bottom: "data" }`, made current."""

from __future__ import annotations

from netspec.schema.document import Node
from netspec.schema.place import Place, UpgradeProblem, param_specs

V0_TYPES = {
    "accuracy": "Accuracy",
    "bnll": "BNLL",
    "concat": "Concat",
    "conv": "Convolution",
    "data": "Data",
    "dropout": "Dropout",
    "euclidean_loss": "EuclideanLoss",
    "flatten": "Flatten",
    "hdf5_data": "HDF5Data",
    "hdf5_output": "HDF5Output",
    "im2col": "Im2col",
    "images": "ImageData",
    "infogain_loss": "InfogainLoss",
    "inner_product": "InnerProduct",
    "innerproduct": "InnerProduct",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MultinomialLogisticLoss",
    "pool": "Pooling",
    "relu": "ReLU",
    "sigmoid": "Sigmoid",
    "softmax": "Softmax",
    "softmax_loss": "SoftmaxWithLoss",
    "split": "Split",
    "tanh": "TanH",
    "window_data": "WindowData",
}
_SPELT = {"inner_product": "innerproduct"}
"""Other spellings of V0 types that public files have."""
_PARAM = {
    "conv": "convolution_param",
    "innerproduct": "inner_product_param",
    "pool": "pooling_param",
    "dropout": "dropout_param",
    "lrn": "lrn_param",
    "data": "data_param",
    "hdf5_data": "hdf5_data_param",
    "hdf5_output": "hdf5_output_param",
    "images": "image_data_param",
    "window_data": "window_data_param",
    "infogain_loss": "infogain_loss_param",
    "concat": "concat_param",
}
_WEIGHTED = ("conv", "innerproduct")
_WINDOWED = ("conv", "pool")
_READING = ("data", "hdf5_data", "images", "window_data")
_PIXELS = ("data", "images", "window_data")
# V0 field -> (name of the field now, layer types that had it)
_FIELDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "num_output": ("num_output", _WEIGHTED),
    "biasterm": ("bias_term", _WEIGHTED),
    "weight_filler": ("weight_filler", _WEIGHTED),
    "bias_filler": ("bias_filler", _WEIGHTED),
    "pad": ("pad", _WINDOWED),
    "kernelsize": ("kernel_size", _WINDOWED),
    "stride": ("stride", _WINDOWED),
    "group": ("group", ("conv",)),
    "pool": ("pool", ("pool",)),
    "dropout_ratio": ("dropout_ratio", ("dropout",)),
    "local_size": ("local_size", ("lrn",)),
    "alpha": ("alpha", ("lrn",)),
    "beta": ("beta", ("lrn",)),
    "k": ("k", ("lrn",)),
    "source": ("source", (*_READING, "infogain_loss")),
    "batchsize": ("batch_size", _READING),
    "rand_skip": ("rand_skip", ("data", "images")),
    "shuffle_images": ("shuffle", ("images",)),
    "new_height": ("new_height", ("images",)),
    "new_width": ("new_width", ("images",)),
    "concat_dim": ("concat_dim", ("concat",)),
    "det_fg_threshold": ("fg_threshold", ("window_data",)),
    "det_bg_threshold": ("bg_threshold", ("window_data",)),
    "det_fg_fraction": ("fg_fraction", ("window_data",)),
    "det_context_pad": ("context_pad", ("window_data",)),
    "det_crop_mode": ("crop_mode", ("window_data",)),
}
_TRANSFORM = {"scale": "scale", "meanfile": "mean_file", "cropsize": "crop_size", "mirror": "mirror"}


def fold_padding(layers: list[Place]) -> list[Place]:
    """Drop "padding" layers: the convolution or pooling that reads one takes over `pad` and its bottom."""
    maker: dict[str, Place] = {}
    kept = []
    for layer in layers:
        for index, (bottom, node) in enumerate(layer.values("bottom")):
            source = maker.get(bottom)
            if source is not None and source.message.layer.type == "padding":
                _fold(layer, index, source, node)
        for top in layer.message.top:
            maker[top] = layer
        if layer.message.layer.type != "padding":
            kept.append(layer)
    return kept


def _fold(layer: Place, index: int, padding: Place, node: Node) -> None:
    name = padding.message.layer.name
    if layer.message.layer.type not in _WINDOWED:
        text = (
            f"padding layer {name!r} feeds {layer.message.layer.name!r}, which is no convolution or pooling"
        )
        raise UpgradeProblem(text, node)
    if len(layer.message.bottom) != 1 or len(padding.message.bottom) != 1 or len(padding.message.top) != 1:
        raise UpgradeProblem(
            f"padding layer {name!r} and the layer it feeds need one bottom and one top", padding.node
        )
    inner = padding.node.child("layer")
    layer.sub("layer", layer.node).put("pad", padding.message.layer.pad, inner.child("pad"))
    layer.message.bottom[index] = padding.message.bottom[0]
    layer.node.children["bottom"] = [padding.node.child("bottom")]


def upgrade_v0_layer(old: Place, new: Place) -> None:
    """Fill the current layer `new` from the V0 layer `old`; fields that its type does not have are dropped,
    as Caffe does (with a warning)."""
    inner = old.sub("layer", old.node)
    for field in ("bottom", "top"):
        for value, node in old.values(field):
            new.put(field, value, node)
    kind = _SPELT.get(inner.message.type, inner.message.type)
    for value, node in inner.values("name"):
        new.put("name", value, node)
    for value, node in inner.values("type"):
        new.put("type", V0_TYPES.get(value, value), node)
    for value, node in inner.values("blobs"):
        new.put("blobs", value, node)
    param_specs(inner, new)
    for name, (target, kinds) in _FIELDS.items():
        if kind in kinds:
            for value, node in inner.values(name):
                new.sub(_PARAM[kind], inner.node).put(target, value, node)
    if kind in _PIXELS:
        for name, target in _TRANSFORM.items():
            for value, node in inner.values(name):
                new.sub("transform_param", node).put(target, value, node)
    if kind == "hdf5_output":
        for value, node in inner.values("hdf5_output_param"):
            new.put("hdf5_output_param", value, node)
