"""bfloat16 products: losses near float32's, log space and statistics in float32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from netspec import make_net
from netspec.net.net import Net
from netspec.net.precision import tf32
from netspec.run.fit import fit
from netspec.schema.spec import TRAIN
from tests.net.test_checkpointing import PLAIN

SIMNET = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 dim: 1 dim: 4 dim: 4 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "c"
  convolution_param { num_output: 3 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "c" top: "r" }
layer { name: "leaf" type: "Similarity" bottom: "r" top: "s" similarity_param { num_instances: 5
  block_param { block_size: 2 stride: 2 } normalization_term: true
  template_filler { type: "gaussian" } weight_filler { type: "constant" value: 100 } } }
layer { name: "mex" type: "MEX" bottom: "s" top: "m" mex_param { num_instances: 4 block_param { block_size: 1 }
  softmax_mode: true normalize_offsets: true epsilon_filler { type: "constant" value: 1 } } }
layer { name: "pool" type: "Pooling" bottom: "m" top: "p" pooling_param { pool: SUM global_pooling: true } }
layer { name: "ip" type: "InnerProduct" bottom: "p" top: "y" inner_product_param { num_output: 2 } }
"""


def test_log_space_stays_in_float32() -> None:
    """Each layer's tops: products in bfloat16, what is of log space in float32, as if its bottoms were exact."""
    net = make_net(SIMNET, TRAIN, seed=1)
    net.short_products = True
    seen: dict[str, torch.dtype] = {}
    for layer in net.made:
        layer.register_forward_hook(
            lambda one, _, tops: seen.update(
                {one.spec.name: (tops if isinstance(tops, Tensor) else tops[0]).dtype}
            )
        )
    net(torch.rand(4, 1, 4, 4))
    short = {name for name, kind in seen.items() if kind == torch.bfloat16}
    assert short == {"conv", "relu", "ip"}
    assert all(param.value.dtype == torch.float32 for param in net.params)


def objective(net: Net) -> tuple[Tensor, list[Tensor]]:
    torch.manual_seed(2)
    loss = net.objective(net())
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach(), [p.value.grad for p in net.params if p.value.grad is not None]


def test_losses_and_gradients_are_near_those_of_float32() -> None:
    exact, short = (make_net(PLAIN, TRAIN, seed=1) for _ in range(2))
    short.short_products = True
    (loss, gradients), (near, ends) = objective(exact), objective(short)
    assert near != loss
    assert float(near) == pytest.approx(float(loss), rel=0.01)
    assert all(gradient.dtype == torch.float32 for gradient in ends)
    mine, theirs = (torch.cat([gradient.flatten() for gradient in one]) for one in (gradients, ends))
    assert (
        float(torch.cosine_similarity(mine, theirs, 0)) > 0.99
    )  # BatchNorm takes differences, which lose digits


def test_a_solver_chooses_it(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(PLAIN)
    file = tmp_path / "solver.prototxt"
    text = f'net: "{tmp_path / "net.prototxt"}" base_lr: 0.01 lr_policy: "fixed" max_iter: 3 random_seed: 1 '
    weights = {}
    for precision in ("FP32", "TF32", "BF16"):
        file.write_text(f"{text} solver_mode: CPU precision: {precision}")
        run = fit(file, out=tmp_path / precision, progress=False)
        assert run.net.short_products == (precision == "BF16")
        weights[precision] = run.net.weights()
    for name, value in weights["FP32"].items():
        assert torch.equal(value, weights["TF32"][name])  # no GPU
        assert torch.allclose(value, weights["BF16"][name], atol=0.02 * float(value.abs().max()) + 1e-3), name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_tf32_is_on_meanwhile() -> None:
    before = torch.get_float32_matmul_precision()
    with tf32(torch.device("cuda")):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before


def test_places_of_maxima_keep_their_digits() -> None:
    """Flat places above 256 have no bfloat16: the switches of a pooling stay float32."""
    text = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 dim: 64 dim: 64 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "c"
  convolution_param { num_output: 2 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "pool" type: "Pooling" bottom: "c" top: "p" top: "mask"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "up" type: "Upsample" bottom: "p" bottom: "mask" top: "u" upsample_param { scale: 2 } }
"""
    net = make_net(text, TRAIN, seed=1)
    net.short_products = True
    x = torch.rand(1, 2, 64, 64)
    (up,) = net(x)
    assert (up != 0).sum() == 2 * 32 * 32
    weight, bias = (blob.detach().to(torch.bfloat16) for blob in net.made[1].blobs)
    products = torch.nn.functional.conv2d(x.to(torch.bfloat16), weight, bias)
    torch.testing.assert_close(up[up != 0].float(), products.float()[up != 0])
