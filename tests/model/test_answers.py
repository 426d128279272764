"""Answers in numbers: log p, bits and classes of images, with any pixels missing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from netspec.cli import app
from netspec.model import answers, model

DIGITS = "nets/ht_cac_digits.prototxt"


def test_answers_are_those_of_the_model() -> None:
    ours = model.load(DIGITS)
    pixels, labels = ours.images(begin=2, end=5)
    observed = np.ones((3, 1, 8, 8), bool)
    observed[0, :, :4] = False
    observed[1] = False
    given = answers.ask(ours, pixels, labels.tolist(), observed, first=2)
    x = ours.from_pixels(pixels, observed)
    assert [one.image for one in given] == [2, 3, 4]
    assert [one.label for one in given] == labels.tolist()
    assert [one.observed for one in given] == [32, 0, 64]
    for i, one in enumerate(given):
        assert one.log_likelihood == pytest.approx(float(ours.log_likelihood(x)[i]))
        assert one.posterior == pytest.approx(ours.posterior(x)[i].tolist())
    assert given[1].entropy == pytest.approx(np.log(10))
    lines = answers.table(given).splitlines()
    assert len(lines) == 5
    assert len({line.index(" %") > 0 for line in lines[1:4]}) == 1
    assert json.loads(json.dumps(given[1].as_json(), allow_nan=False))["bits_per_dimension"] is None


def test_the_command() -> None:
    call = ["likelihood", DIGITS, "--images", "1:3", "--missing", "iid:0.5"]
    printed = CliRunner().invoke(app, call, catch_exceptions=False).output.splitlines()
    assert printed[0].split()[:3] == ["image", "label", "observed"]
    assert [line.split()[0] for line in printed[1:3]] == ["1", "2"]
    # Gaussian leaves: what is printed is a density, and says so.
    assert printed[0].split()[5] == "density"
    assert "log p: of a density" in printed[3]
    assert "no code length" in printed[3]
    lines = CliRunner().invoke(app, [*call, "--json"], catch_exceptions=False).output.splitlines()
    assert [json.loads(line)["image"] for line in lines] == [1, 2]
    assert sum(json.loads(lines[0])["posterior"]) == pytest.approx(1, abs=1e-5)
