"""Python layers: values, blobs, phases, state, errors; and Blob."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from netspec import schema
from netspec.errors import SpecError
from netspec.layers.blob import Blob, BlobVec
from netspec.net.make import make_net
from netspec.net.net import Net
from tests.cases.pointwise import net as text_of
from tests.cases.python_layer import AFFINE, python
from tests.cases.shape import several
from tests.places import ROOT
from tests.python_layers import Watcher


def make(text: str, phase: str = "TRAIN", share: Net | None = None) -> Net:
    return make_net(schema.parse_net(text, "test.prototxt"), phase, seed=1, share=share)


def test_blob_names_its_axes_and_reshapes() -> None:
    blob = Blob(2, 3, 4)
    blob.data[...] = np.arange(24).reshape(2, 3, 4)
    assert (blob.num, blob.channels, blob.height, blob.width, blob.count) == (2, 3, 4, 1, 24)
    blob.diff[...] = 1
    blob.reshape(4, 6)
    assert blob.shape == (4, 6)
    assert blob.data[3, 5] == 23
    assert blob.diff.sum() == 24
    blob.reshape(2)
    assert blob.data.tolist() == [0, 0]
    assert blob.diff.shape == (2,)
    blob.reshape()
    assert blob.shape == ()
    with pytest.raises(ValueError, match=r"\(-1, 2\)"):
        blob.reshape(-1, 2)
    with pytest.raises(ValueError, match="at most 4 axes"):
        _ = Blob(1, 1, 1, 1, 1).num


def test_blob_over_arrays_shares_them() -> None:
    tensor = torch.zeros(3)
    Blob.over(tensor.numpy()).data[...] = 2
    assert tensor.tolist() == [2, 2, 2]
    assert BlobVec().add_blob().shape == ()
    with pytest.raises(ValueError, match="data has shape"):
        Blob.over(np.zeros(2), np.zeros(3))


def test_loss_in_python_equals_euclidean_loss() -> None:
    ours = make(several("Python", "loss_weight: 1 " + python("SquaredDistance"), (3, 4), (3, 4)))
    theirs = make(several("EuclideanLoss", "", (3, 4), (3, 4)))
    a, b = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4)
    gradients = []
    for made in (ours, theirs):
        loss = made.objective(made(a, b))
        gradients.append(torch.autograd.grad(loss, a)[0])
        assert float(loss.detach()) == pytest.approx(float(((a - b) ** 2).sum().detach() / 6))
    torch.testing.assert_close(gradients[0], gradients[1])


def test_blobs_start_as_setup_wrote_them_and_learn() -> None:
    made = make(text_of("Python", f"loss_weight: 1 {AFFINE}"))
    assert made.weights()["layer/0"].tolist() == [0.5, 0.5, 0.5]
    x = torch.randn(2, 3, 4)
    made.objective(made(x)).backward()
    first = [param.value.grad.clone() for param in made.params]
    torch.testing.assert_close(first[0], 2 * x.sum((0, 2)))
    assert first[1].tolist() == [24]
    made.objective(made(x)).backward()  # gradients of two passes add up once, not thrice
    torch.testing.assert_close(made.params[0].value.grad, 2 * first[0])


def test_backward_sees_the_values_of_its_own_forward() -> None:
    made = make(text_of("Python", f"loss_weight: 1 {AFFINE}"))
    x = torch.randn(2, 3, 4)
    tops = made(x)
    made(torch.randn(2, 3, 4))
    made.objective(tops).backward()
    torch.testing.assert_close(made.params[0].value.grad, 2 * x.sum((0, 2)))


COUNTER = f'layer {{ name: "c" type: "Python" top: "y" {python("Counter")} }}'


def test_state_in_blobs_and_phase() -> None:
    train = make(COUNTER)
    test = make(COUNTER, "TEST", share=train)
    assert train()[0].tolist() == [1, 1]
    assert train()[0].tolist() == [2, 2]
    assert test()[0].tolist() == [103, 103]
    assert train.weights()["c/0"].tolist() == [3, 3]
    assert train.double()()[0].dtype == torch.float64


def test_layer_without_top_runs() -> None:
    Watcher.seen.clear()
    x = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 } } }'
    made = make(f'{x} layer {{ name: "w" type: "Python" bottom: "x" {python("Watcher")} }}')
    made(torch.ones(2))
    assert Watcher.seen == [2.0]


def test_the_class_cannot_change_its_bottoms() -> None:
    made = make(text_of("Python", AFFINE))
    x = torch.ones(2, 3, 4)
    made(x)
    layer = made.layer("layer")
    layer.bottom[0].data[...] = 7  # type: ignore[union-attr, index]
    assert float(x.max()) == 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            'python_param { module: "no_such_module" layer: "A" }',
            "module 'no_such_module' cannot be imported",
        ),
        ('python_param { layer: "A" }', "module '' cannot be imported"),
        (python("Afine"), "has no class 'Afine'; did you mean 'Affine'?"),
        ('python_param { module: "os" layer: "system" }', "module 'os' has no class 'system'"),
        (python("Half"), "has no reshape and no backward"),
        (python("Affine", "param_str: '{'"), "Affine.setup raised JSONDecodeError"),
        (python("SquaredDistance"), "SquaredDistance.setup raised ValueError: takes two bottoms, found 1"),
        (python("Shapeless"), "top 'y' would have shape (0,)"),
    ],
)
def test_errors_name_place_layer_and_cause(options: str, text: str) -> None:
    with pytest.raises(SpecError) as caught:
        make(text_of("Python", options))
    assert text in str(caught.value)
    assert str(caught.value).startswith("test.prototxt:3:")
    assert "layer 'layer' (Python)" in str(caught.value)


def test_modules_that_import_caffe_find_ours(tmp_path: Path) -> None:
    """In a process of its own, since the stand-in stays importable."""
    (tmp_path / "doubling.py").write_text(
        "import caffe\n"
        "class Double(caffe.Layer):\n"
        "    def setup(self, bottom, top): pass\n"
        "    def reshape(self, bottom, top): top[0].reshape(*bottom[0].data.shape)\n"
        "    def forward(self, bottom, top): top[0].data[...] = 2 * bottom[0].data\n"
        "    def backward(self, top, propagate_down, bottom): bottom[0].diff[...] = 2 * top[0].diff\n"
    )
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }\n'
        'layer { name: "d" type: "Python" bottom: "x" top: "y" python_param { module: "doubling" layer: "Double" } }\n'
    )
    command = [
        sys.executable,
        "-m",
        "netspec",
        "convert",
        str(tmp_path / "net.prototxt"),
        str(tmp_path / "y.prototxt"),
    ]
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path}
    command.append("--allow-python")
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert (tmp_path / "y.prototxt").exists()
