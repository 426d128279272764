"""Learning from incomplete data: what the training net reads, and how trials are averaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from netspec.run.experiment import load
from netspec.schema.read import parse_net
from tests.places import ROOT
from tools.results import incomplete
from tools.results.reproduction import Results


@pytest.mark.parametrize("way", list(incomplete.WAYS))
def test_training_images_lack_the_same_pixels_for_ever(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    layers = parse_net(incomplete.net_text("0.75", way)).message.layer
    training, test = (layer.dataset_param for layer in layers if layer.type == "Dataset")
    assert training.missing.fixed
    assert list(training.missing.probability) == [0.75]
    assert np.isnan(training.missing.value) == (way == "marginalised")
    assert not test.HasField("missing")


def test_whole_training_images_are_the_shipped_net(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert incomplete.net_text("0", "marginalised") == incomplete.NET.read_text()
    assert load(str(incomplete.NET)).train.layers


def test_averages_and_page(tmp_path: Path) -> None:
    results = Results(tmp_path / "incomplete.json", {"iterations": 5})
    trial = {"whole": 90, "incomplete": 60, "images": 100}
    results.values = {
        "marginalised | 0.5 | 1": trial,
        "marginalised | 0.5 | 2": trial | {"whole": 80},
        "black | 0.5 | 1": trial | {"incomplete": 10},
    }
    mean, low, high = incomplete.averages(results, "0.5", "marginalised", "whole")
    assert mean == pytest.approx(0.85)
    assert low < 0.85 < high
    page = incomplete.report(tmp_path / "incomplete", results).read_text()
    assert "| marginalised, tested on whole images | 85.0 (76.7 to 90.7) |" in page
    assert "| black, tested with the same share missing | 10.0 (5.5 to 17.4) |" in page
