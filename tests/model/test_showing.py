"""What notebooks show: nets, runs, answers and pictures, without a file of the user's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import netspec
from netspec import draw
from netspec.draw.notebook import Picture, graph_picture
from netspec.model import showing
from netspec.model.answers import ask
from netspec.model.model import Model
from tests.places import NETS

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def digits() -> Model:
    torch.manual_seed(0)
    return netspec.load(NETS / "ht_cac_digits.prototxt")


def test_a_net_shows_its_layers(digits: Model) -> None:
    html = digits.net._repr_html_()
    for name in ("gaussians", "Similarity", "mex2", "multiply-adds", "parameters"):
        assert name in html
    assert html.count("<tr>") == len(digits.net.made) + 1


def test_a_graph_is_an_svg(digits: Model, tmp_path: Path) -> None:
    picture = graph_picture(digits.net)
    svg = picture._repr_svg_()
    assert svg is not None
    assert svg.lstrip().startswith("<")
    assert "mex2" in svg
    assert picture._repr_png_() is None
    drawing = draw.graph(digits.net, tmp_path / "net.png")
    png = drawing._repr_png_()
    assert png is not None
    assert png.startswith(PNG)
    assert drawing._repr_svg_() is None


def test_answers_are_a_table(digits: Model) -> None:
    pixels, labels = digits.images(end=3)
    observed = np.ones(pixels.shape, bool)
    observed[0] = False
    answers = ask(digits, pixels, labels.tolist(), observed)
    html = answers._repr_html_()
    assert html.count("<tr>") == 4
    assert f"<td>{answers[1].log_likelihood:.2f}</td>" in html
    assert str(answers).splitlines()[1].split()[0] == "0"


def test_pictures_of_a_model(digits: Model, tmp_path: Path) -> None:
    pixels, labels = digits.images(end=2)
    observed = np.ones(pixels.shape, bool)
    observed[:, :, :4] = False
    made = [
        showing.samples(digits, columns=2, classes=[1, 2]),
        showing.completions(digits, pixels, observed, samples=1),
        showing.explanation(digits, pixels, labels.tolist(), size=4),
        showing.tree(digits, pixels[0]),
        showing.neurons(digits, count=2),
    ]
    for picture in made:
        png = picture._repr_png_()
        assert png is not None
        assert png.startswith(PNG)
        assert picture._repr_svg_() is None
    assert made[0].save(tmp_path / "a.png").read_bytes() == made[0].raw
    with pytest.raises(ValueError, match=r"is a \.png file"):
        made[0].save(tmp_path / "a.svg")
    assert "bytes of png" in repr(Picture(b"x", ".png"))


@pytest.mark.slow
def test_a_run_shows_its_results(tmp_path: Path) -> None:
    run = netspec.fit(NETS / "ht_cac_digits.prototxt", iterations=2, out=tmp_path / "run")
    html = run._repr_html_()
    assert "<th>iteration</th><td>2</td>" in html
    assert "test accuracy" in html
    assert "data:image/png;base64," in html
