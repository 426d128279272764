"""Upgrades old syntaxes, as Caffe does on loading; the tree of places follows each field to its new path.

V1 (`layers { type: CONVOLUTION blobs_lr: 1 }`), `input:` with `input_dim:` or `input_shape`, data transforms
inside the data parameters (V1 only, as in Caffe), BatchNorm with three `param`, `solver_type`.  V0 is in
upgrade_v0.py.
Source of the rules: what BVLC's src/caffe/util/upgrade_proto.cpp does.
"""

from __future__ import annotations

from netspec.schema.descriptors import enum
from netspec.schema.place import Place, UpgradeProblem, param_specs
from netspec.schema.upgrade_v0 import fold_padding, upgrade_v0_layer

V1_TYPES = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "ELTWISE": "Eltwise",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SLICE": "Slice",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "TANH": "TanH",
    "THRESHOLD": "Threshold",
    "WINDOW_DATA": "WindowData",
    # Of forks; those without a layer here keep their meaning for messages.
    "CROP": "Crop",
    "INTERP": "Interp",
    "PRELU": "PReLU",
    "BN": "BN",
    "BATCH_NORM": "BatchNorm",
    "UNPOOLING": "UnPooling",
    "ROI_POOLING": "ROIPooling",
    "RESHAPE": "Reshape",
    "UPSAMPLE": "Upsample",
    "IMAGE_SEG_DATA": "ImageSegData",
    "SEG_ACCURACY": "SegAccuracy",
    "IMAGE_LABELMAP_DATA": "ImageLabelmapData",
    "VIDEO_DATA": "VideoData",
    "CONVOLUTION3D": "Convolution3D",
    "POOLING3D": "Pooling3D",
    "MAT_WRITE": "MatWrite",
    "MAT_READ": "MatRead",
    "DENSE_CRF": "DenseCRF",
    "MULTI_STAGE_MEANFIELD": "MultiStageMeanfield",
    "ELTWISE_ACCURACY": "EltwiseAccuracy",
    "WINDOW_SEG_DATA": "WindowSegData",
    "PADDING": "Padding",
}
SOLVER_TYPES = {
    "SGD": "SGD",
    "NESTEROV": "Nesterov",
    "ADAGRAD": "AdaGrad",
    "RMSPROP": "RMSProp",
    "ADADELTA": "AdaDelta",
    "ADAM": "Adam",
}
_TRANSFORMED = {"Data": "data_param", "ImageData": "image_data_param", "WindowData": "window_data_param"}
_TRANSFORM_FIELDS = ("scale", "mean_file", "crop_size", "mirror")


def upgrade_net(net: Place, v1_types: dict[int, str] | None = None, lenient: bool = False) -> list[str]:
    """Upgrade a NetParameter in place; returns the old syntaxes that it had.

    `v1_types` gives the type as written of V1 layers whose type the schema does not know, by index.
    `lenient` accepts inputs without a shape, as in weight files.
    """
    done: list[str] = []
    if net.has("layers"):
        if net.has("layer"):
            place = net.node.child("layer")
            raise UpgradeProblem("the net has both 'layer' and the older 'layers'; use one syntax", place)
        layers = [Place(layer, node) for layer, node in net.values("layers")]
        if any(layer.has("layer") for layer in layers):
            done.append("v0")
            layers = fold_padding(layers)
        else:
            done.append("v1")
        for index, old in enumerate(layers):
            new = net.add("layer", old.node)
            if old.has("layer"):
                upgrade_v0_layer(old, new)
            else:
                if _move_transform(old):
                    done.append("transform")
                _upgrade_v1_layer(old, new, (v1_types or {}).get(index))
        net.clear("layers")
    if net.has("input"):
        done.append("input")
        _upgrade_input(net, lenient)
    net.clear("input", "input_dim", "input_shape")
    for layer in net.values("layer"):
        if layer[0].type == "BatchNorm" and len(layer[0].param) == 3:
            # Its three blobs are statistics that no solver should touch; old files said so with lr_mult 0.
            Place(*layer).clear("param")
            done.append("batch_norm")
    return list(dict.fromkeys(done))


def upgrade_solver(solver: Place) -> list[str]:
    """`solver_type: NESTEROV` -> `type: "Nesterov"`, and the nets written inside the solver; in place."""
    done = []
    if solver.has("solver_type"):
        node = solver.node.child("solver_type")
        if solver.has("type"):
            raise UpgradeProblem("the solver has both 'type' and the older 'solver_type'; use one", node)
        name = enum("SolverParameter.SolverType").values_by_number[solver.message.solver_type].name
        solver.clear("solver_type")
        solver.put("type", SOLVER_TYPES[name], node)
        done.append("solver_type")
    for name in ("net_param", "train_net_param", "test_net_param"):
        for message, node in solver.values(name):
            done += upgrade_net(Place(message, node))
    return list(dict.fromkeys(done))


def _upgrade_v1_layer(old: Place, new: Place, type_text: str | None) -> None:
    fields = new.message.DESCRIPTOR.fields_by_name
    for field in old.message.DESCRIPTOR.fields:
        if field.name in fields and field.name not in ("type", "param"):
            for value, node in old.values(field.name):
                new.put(field.name, value, node)
    for value, node in old.values("type"):
        name = enum("V1LayerParameter.LayerType").values_by_number[value].name
        new.put("type", V1_TYPES[name], node)
    if type_text is not None:
        new.put("type", type_text, old.node.child("type"))
    if old.has("softmaxloss_param"):
        loss = old.sub("softmaxloss_param", old.node)
        for value, node in loss.values("ignore_label"):
            new.sub("loss_param", node).put("ignore_label", value, node)
    param_specs(old, new)


def _move_transform(layer: Place) -> bool:
    """`data_param { scale: }` -> `transform_param { scale: }` in a V1 data layer; whether there was any."""
    name = enum("V1LayerParameter.LayerType").values_by_number[layer.message.type].name
    holder = _TRANSFORMED.get(V1_TYPES[name])
    if holder is None or not layer.has(holder):
        return False
    data, moved = layer.sub(holder, layer.node), False
    for field in _TRANSFORM_FIELDS:
        for value, node in data.values(field):
            layer.sub("transform_param", node).put(field, value, node)
            data.clear(field)
            moved = True
    return moved


def _upgrade_input(net: Place, lenient: bool) -> None:
    """An Input layer named "input" put before all others."""
    inputs, shapes, dims = net.values("input"), net.values("input_shape"), net.values("input_dim")
    if not shapes and not dims:
        if lenient:
            return
        raise UpgradeProblem(
            f"input {inputs[0][0]!r} has no shape; add input_shape {{ dim: ... }}", inputs[0][1]
        )
    each = len(dims) if len(inputs) == 1 else 4
    if shapes and len(shapes) != len(inputs):
        raise UpgradeProblem(f"{len(inputs)} input, but {len(shapes)} input_shape", shapes[-1][1])
    if not shapes and len(dims) != each * len(inputs):
        raise UpgradeProblem(
            f"{len(inputs)} input need 4 input_dim each, found {len(dims)} in all", dims[-1][1]
        )
    layer = net.add("layer", inputs[0][1])
    layer.put("name", "input", inputs[0][1])
    layer.put("type", "Input", inputs[0][1])
    for index, (name, node) in enumerate(inputs):
        layer.put("top", name, node)
        if shapes:
            layer.sub("input_param", shapes[0][1]).put("shape", *shapes[index])
            continue
        shape = layer.sub("input_param", dims[0][1]).add("shape", dims[each * index][1])
        for value, dim_node in dims[each * index : each * (index + 1)]:
            shape.put("dim", value, dim_node)
    _last_layer_first(net)


def _last_layer_first(net: Place) -> None:
    # sort() moves the messages without copying the weights in them; the keys are their new places.
    places = iter([*range(1, len(net.message.layer)), 0])
    net.message.layer.sort(key=lambda _: next(places))
    nodes = net.node.children["layer"]
    nodes.insert(0, nodes.pop())
