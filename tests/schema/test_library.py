"""Macros of the package's library: what they write are nets that run, and HT-CAC is the HT-CAC of nets/."""

from __future__ import annotations

from pathlib import Path

import pytest

from netspec import schema
from netspec.check import check

NETS = Path(__file__).parents[2] / "nets"
DATA = 'name: "t" layer { name: "data" type: "Input" top: "data" top: "label" %s }\n'
SHAPES = "input_param { shape { dim: 4 dim: 1 dim: 16 dim: 16 } shape { dim: 4 } }"

CONV = """{% import "netspec/conv.prototmp" as conv %}
{{ conv.block("1", "data", 8, size=5, pool="MAX") }}
{{ conv.block("2", "pool1", 8, norm=true, dropout=0.2) }}
{{ conv.dense("3", "conv2", 16, dropout=0.5) }}
{{ conv.classes("ip3", 5) }}
"""
SIMNETS = """{% import "netspec/simnets.prototmp" as simnets %}
{{ simnets.marginalize("seen", "data", missing=true) }}
{{ simnets.gaussians("g", "seen", 8, size=2, batches=0) }}
{{ simnets.block("1", "g", 8, inputs=8, unshared=2) }}
{{ simnets.block("2", "sum1", 8, inputs=8, shared=-1, size=0) }}
{{ simnets.classes("sum2", 5, 8) }}
"""
RENDERING = """{% import "netspec/rendering.prototmp" as rendering %}
{{ rendering.up("1", "data", 6, size=5) }}
{{ rendering.up("2", "I1", 8, size=3, pad=1, pool=false) }}
{{ rendering.top("I2", 5, 8, width=6, to="z2") }}
{{ rendering.down("2", "z2", channels=6, size=3, pad=1, pool=false) }}
{{ rendering.down("1", "z1", channels=1, size=5) }}
{{ rendering.reconstruction("z0", "data", values=256) }}
"""


@pytest.mark.parametrize(("text", "layers"), [(CONV, 15), (SIMNETS, 11), (RENDERING, 21)])
def test_macros_write_nets_that_run(text: str, layers: int, tmp_path: Path) -> None:
    (tmp_path / "net.prototmp").write_text(DATA % SHAPES + text)
    path = tmp_path / "net.prototxt"
    path.write_text(schema.render(tmp_path / "net.prototmp", {}))
    report = check(path, run=True)
    assert report.ok, str(report)
    assert len(schema.read_net(path).message.layer) == layers


def test_ht_cac_is_a_page() -> None:
    """The template with no values is the net that was written by hand, but for one blob's name."""
    made = schema.parse_net(schema.render(NETS / "ht_cac.prototmp", {})).message
    theirs = schema.read_net(NETS / "ht_cac_mnist.prototxt").message
    for layer in theirs.layer:
        for blobs in (layer.top, layer.bottom):
            blobs[:] = ["drop0" if blob == "seen" else blob for blob in blobs]
    assert schema.print_text(made) == schema.print_text(theirs)
    assert len((NETS / "ht_cac.prototmp").read_text().splitlines()) < 40


def test_values_of_ht_cac() -> None:
    values = {"states": [8, 8, 16, 16, 32], "likelihood": 0, "data": "fashion-mnist"}
    net = schema.parse_net(schema.render(NETS / "ht_cac.prototmp", values)).message
    assert [layer.mex_param.num_instances for layer in net.layer if layer.type == "MEX"] == [
        8,
        16,
        16,
        32,
        10,
    ]
    assert not [layer for layer in net.layer if layer.type == "LogLikelihoodLoss"]
