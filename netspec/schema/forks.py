"""What is known of public forks of Caffe whose layers or fields netspec lacks, for error messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from netspec.schema.document import UnknownField

DIALECTS = ("segnet", "pspnet", "yjxiong", "intel", "textboxes")
"""Values of a net's `dialect`: forks that have a layer of the same name as another fork's."""

TYPES = {
    "SimNets": ("MEX", "Similarity", "SumLoss", "LogLikelihoodLoss", "GeneralizedHingeLoss", "Translation"),
    "SSD": ("AnnotatedData", "PriorBox", "DetectionOutput", "MultiBoxLoss", "DetectionEvaluate"),
    "R-CNN": ("ROIPooling", "SmoothL1Loss", "Proposal", "ROIAlign"),
    "R-FCN": ("PSROIPooling", "BoxAnnotatorOHEM", "SoftmaxWithLossOHEM", "SmoothL1LossOHEM"),
    "SegNet": ("DenseImageData",),
    "DeepLab": ("Interp", "ImageSegData", "SegAccuracy", "MatWrite", "MatRead", "DenseCRF"),
    "YOLO": ("Reorg", "Region", "RegionLoss", "YoloDetectionOutput", "Yolov3DetectionOutput", "Yolov3"),
    "DeconvNet": ("UnPooling",),
    "MobileNet": ("ConvolutionDepthwise", "DepthwiseConvolution", "ReLU6"),
    "ShuffleNet": ("ShuffleChannel",),
    "SENet": ("Axpy",),
    "Junhyuk Oh": ("Lstm",),
    "center loss": ("CenterLoss",),
    "SphereFace": ("MarginInnerProduct",),
    "CTPN": ("Transpose", "Reverse"),
    "ENet": ("SpatialDropout",),
    "HED": ("SigmoidCrossEntropyBalanceLoss", "ImageLabelmapData"),
    "FlowNet": (
        "Correlation",
        "Correlation1D",
        "DataAugmentation",
        "FlowWarp",
        "FlowAugmentation",
        "CustomData",
        "FloData",
        "Resample",
        "Downsample",
        "ChannelNorm",
        "NegReLU",
        "Mean",
        "FLOWriter",
        "PFMWriter",
        "LpqLoss",
    ),
    "focal loss": ("FocalLoss", "SoftmaxFocalLoss"),
    "triplet loss": ("TripletLoss", "TripletData"),
    "domain adaptation": ("GradientScaler", "GradientReversal"),
    "CTC": ("CTCLoss", "CtcLoss", "WarpCTCLoss"),
    "Ristretto": ("ConvolutionRistretto", "FcRistretto", "DeconvolutionRistretto", "LRNRistretto"),
    "C3D or TSN": ("VideoData", "Convolution3D", "Pooling3D"),
    "DIGITS": ("DetectNetTransformation",),
}
"""The fork of layer types that exist in one fork only."""

BN_OWNERS = {
    "SegNet": ("bn_mode", "scale_filler", "shift_filler"),
    "yjxiong": ("var_eps", "moving_average", "decay"),
    "PSPNet": ("slope_filler", "bias_filler", "momentum", "frozen"),
}
"""The fork of a BN layer, by the fields of its bn_param."""

FORK_LAYERS = {
    "BilateralFilter": "a fork's bilateral filter",
    "ChannelwiseAffine": "scale and shift of each channel, of an early ResNet fork (Scale does the same)",
    "ConnectedComponent": "the connected components of an affinity map, of the MALIS fork",
    "ConvolutionRistretto": "a convolution with its numbers quantised, of Ristretto",
    "CPMData": "pictures with key points, of the pose machines' Caffe",
    "CustomData": "pairs of pictures with their flow from a database, of FlowNet's Caffe",
    "FloData": "flow fields from list files, of FlowNet's Caffe",
    "FlowAugmentation": "random changes of flow fields, of FlowNet's Caffe",
    "GenerateAugmentationParameters": "parameters of random changes of pictures, of FlowNet's Caffe",
    "DeconvolutionRistretto": "a deconvolution with its numbers quantised, of Ristretto",
    "DeformableConvolution": "convolution at learned offsets, of deformable forks",
    "FcRistretto": "an inner product with its numbers quantised, of Ristretto",
    "GANGate": "takes turns in feeding a GAN's discriminator, of GAN forks",
    "LRNRistretto": "response normalisation with its numbers quantised, of Ristretto",
    "LpqLoss": "a loss of powers that change with the iterations, of FlowNet's Caffe",
    "MalisLoss": "maximal affinity learning of segments, of the MALIS fork",
    "MatWrite": "writes its bottoms to Matlab files, of DeepLab's Caffe",
    "MatRead": "reads Matlab files, of DeepLab's Caffe",
    "MemoryLoss": "a fork's loss over a memory of features",
    "AnchorTarget": "anchors with their targets for training, of R-CNN forks in C++",
    "FrcnnProposal": "regions from anchors, of R-CNN forks in C++",
    "TripletData": "triplets of pictures, of face forks",
    "YoloSeg": "the segmentation head of MobileNet-YOLO",
}
"""Layer types that netspec lacks: what each does, and its fork."""

FORK_FIELDS = {
    "SolverParameter": {
        "global_grad_scale": "NVIDIA's Caffe",
        "store_blobs_in_old_format": "NVIDIA's Caffe",
        "test_and_snapshot_last_epochs": "NVIDIA's Caffe",
        "engine": "Intel's Caffe",
        "device_id_list": "a multi-GPU fork",
    },
    "NetParameter": {
        "default_forward_type": "NVIDIA's Caffe",
        "default_backward_type": "NVIDIA's Caffe",
        "default_forward_math": "NVIDIA's Caffe",
        "default_backward_math": "NVIDIA's Caffe",
        "default_conv_algos_override": "NVIDIA's Caffe",
        "default_cudnn_math_override": "NVIDIA's Caffe",
        "global_grad_scale": "NVIDIA's Caffe",
        "reduce_buckets": "NVIDIA's Caffe",
        "eltwise_mp": "NVIDIA's Caffe",
        "quantize": "Jacinto's Caffe",
        "net_quantization_param": "Jacinto's Caffe",
        "compile_net_state": "Intel's Caffe",
        "engine": "Intel's Caffe",
        "mem_param": "the memory-optimising fork of temporal segment networks",
    },
}
"""Fields of forks without effect here, by message, with their fork."""


HARMLESS = ("engine", "backend", "solver_mode", "snapshot_format", "store_blobs_in_old_format")
"""Fields whose value changes no number: an unknown value only causes a warning."""

WITHOUT_EFFECT = {
    "NVIDIA's Caffe": (
        "forward_type", "backward_type", "forward_math", "backward_math", "cudnn_math_override", "conv_algos_override",
        "cudnn_convolution_algo_seeker", "global_grad_scale_adaptive", "cache", "threads", "parser_threads",
        "top_k_gpu", "use_gpu_transform", "transformer_threads", "iters_num_for_stats", "forced_color_type",
        "larc_turbo", "local_lr_auto", "local_gw_ratio",
    ),
    "Jacinto's Caffe": (
        "quantization_param", "quantization_start_iter", "sparse_mode", "display_sparsity", "sparsity_target",
        "sparsity_step_iter", "sparsity_step_factor", "sparsity_start_iter", "sparsity_start_factor",
        "sparsity_threshold_maxratio", "sparsity_itr_increment_bfr_applying", "sparsity_threshold_value_max",
    ),
    "Intel's Caffe": ("mkldnn_param", "mkl2017_param", "multinode", "mn_param", "bn_stats_batch_size",
                      "local_lr_auto_step", "disabled_update"),
    "a multi-GPU fork": ("gpu_id", "gpu_ids", "device_query"),
}  # fmt: skip
"""Fields of forks that change no number here, in any message: memory, speed, precision, devices. Those that stand in
REFUSED too count here only where they are off.
"""

REFUSED = {
    "fuse_type": "it computes another layer inside this one; write that layer by itself",
    "fusion_type": "it computes another layer inside this one; write that layer by itself",
    "larc_turbo": "it changes the rates of larc by how gradients turn; leave it out, and larc is as it is published",
    "local_lr_auto": "it is the first form of larc; write larc: true, and larc_eta for local_gw_ratio",
    "disabled_update": "it keeps weights from being updated; give the layers param { lr_mult: 0 }",
}
"""Fields of forks that change numbers and are not implemented: what to do instead."""
OFF = ("false", "0")
"""Values with which such a field changes nothing."""


def whose(unknown: UnknownField) -> str:
    """The fork of a field without effect here; "" where that is unknown."""
    if unknown.name in FORK_FIELDS.get(unknown.owner, {}):
        return FORK_FIELDS[unknown.owner][unknown.name]
    return next((fork for fork, names in WITHOUT_EFFECT.items() if unknown.name in names), "")


def refusal(unknown: UnknownField) -> str:
    """What to do instead of a field that changes numbers and is not implemented; "" for other fields, and where it is
    off.
    """
    return "" if unknown.value in OFF else REFUSED.get(unknown.name, "")


OLD_NAMES = {
    ("LayerParameter", "blobs_lr"): "that is the old syntax; write param { lr_mult: ... } once for each blob",
    (
        "LayerParameter",
        "weight_decay",
    ): "that is the old syntax; write param { decay_mult: ... } once for each blob",
}
"""Fields of the old syntax, by message, with their replacement."""


def dialects(net: Any, unknown: Iterable[UnknownField]) -> list[str]:
    """The forks that a net was written for, by its layers and fields; BVLC where they show none."""
    types = {layer.type for layer in net.layer}
    forks = [fork for fork, names in TYPES.items() if types.intersection(names)]
    for layer in net.layer:
        if layer.type == "BN":
            fields = {field.name for field, _ in layer.bn_param.ListFields()}
            owners = [owner for owner, names in BN_OWNERS.items() if fields.intersection(names)]
            forks += owners[:1] or [net.dialect or "PSPNet"]
        elif layer.type == "Upsample":
            forks.append("SegNet" if len(layer.bottom) == 2 else "YOLO")
    forks += [fork.removesuffix("'s Caffe") for field in unknown if (fork := whose(field))]
    return list(dict.fromkeys(forks)) or ["BVLC"]
