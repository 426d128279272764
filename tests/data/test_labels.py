"""Few labels: which examples keep theirs."""

from __future__ import annotations

import numpy as np
import pytest

from netspec import schema
from netspec.data.sources.named import DatasetSource, balanced
from netspec.errors import DataError, SpecError
from netspec.schema.spec import TRAIN, net

TEXT = """layer {{ name: "d" type: "Dataset" top: "data" top: "label"
  dataset_param {{ name: "digits" split: "train" batch_size: 50 {options} }} }}"""


def source(options: str) -> DatasetSource:
    document = schema.parse_net(TEXT.format(options=options), "few.prototxt")
    return DatasetSource(net(document, TRAIN).layers[0], TRAIN, 3)


def test_classes_are_balanced_and_fewer_labels_are_a_part_of_more() -> None:
    labels = np.arange(400) % 10
    few, many = balanced(labels, 20, 1), balanced(labels, 100, 1)
    assert np.bincount(labels[few]).tolist() == [2] * 10
    assert set(few) < set(many)
    assert set(balanced(labels, 20, 2)) != set(few)
    assert np.bincount(labels[balanced(labels, 23, 1)]).tolist() == [3] * 3 + [2] * 7


def test_too_many_labels() -> None:
    with pytest.raises(DataError, match="needs 5 of class 0, which has 2"):
        balanced(np.arange(20) % 10, 50, 1)
    with pytest.raises(SpecError, match=r"few.prototxt:2.*labels 99999"):
        source("labels: 99999")


def test_the_other_labels_are_missing() -> None:
    whole, few = source(""), source("labels: 30")
    labels = few.data.labels
    kept = ~np.isnan(labels)
    assert kept.sum() == 30
    assert (labels[kept] == whole.data.labels[kept]).all()
    assert source("labels: 0").next()[1].isnan().all()


def test_labelled_only_is_a_small_data_set() -> None:
    only = source("labels: 30 labelled_only: true")
    assert len(only.data) == only.order.n == 30
    assert np.bincount(only.data.labels.astype(int)).tolist() == [3] * 10
    assert len(only.next()[0]) == 50
