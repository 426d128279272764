"""A data set on the device gives the samples that its source gives."""

from __future__ import annotations

import pytest
import torch

from netspec import make_net
from netspec.data import feeder
from netspec.data.resident import Resident, settle_on, stands_still
from netspec.data.sources.named import DatasetSource
from netspec.schema.spec import TRAIN

pytest.importorskip("sklearn")
TEXT = """
layer { name: "d" type: "Dataset" top: "x" top: "t" transform_param { mean_value: 100 scale: 0.0039 %s }
  dataset_param { name: "digits" split: "train" batch_size: 7 shuffle: true begin: 10 end: 33 %s } }
layer { name: "s" type: "Reduction" bottom: "x" top: "s" }
"""


def source(transform: str = "", param: str = "") -> DatasetSource:
    net = make_net(TEXT % (transform, param), TRAIN)
    (one,) = feeder(net, 3).sources
    assert isinstance(one, DatasetSource)
    return one


def test_samples_are_those_of_the_source_epoch_after_epoch() -> None:
    plain, on_device = source(), source()
    resident = Resident(on_device, torch.device("cpu"))
    on_device.make = resident.make  # type: ignore[method-assign]
    for _ in range(8):
        for mine, theirs in zip(plain.next(), on_device.next(), strict=True):
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("transform", "param", "still"),
    [
        ("", "", True),
        ("mirror: true", "", False),
        ("crop_size: 6", "", False),
        ("", 'missing { kind: "iid" probability: 0.5 }', False),
        ("", 'binarize: "threshold"', False),
    ],
)
def test_what_changes_from_showing_to_showing_stays_where_it_is(
    transform: str, param: str, still: bool
) -> None:
    one = source(transform, param)
    assert stands_still(one) == still
    assert not settle_on(one, torch.device("cpu"))
    assert not stands_still(object())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_feeder_of_a_gpu_keeps_it_there() -> None:
    net = make_net(TEXT % ("", ""), TRAIN)
    with feeder(net, 3) as plain, feeder(net, 3, device="cuda") as resident:
        assert any("on the device" in note for note in resident.notes)
        for _ in range(5):
            for mine, theirs in zip(plain.next(), resident.next(), strict=True):
                assert theirs.is_cuda
                assert torch.equal(mine, theirs.cpu())
