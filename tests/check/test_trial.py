"""The random walk of `netspec check --run`: which values its inputs get."""

from __future__ import annotations

import pytest
import torch

from netspec import schema
from netspec.check.trial import random_inputs
from netspec.net.graph import compile
from netspec.net.net import build
from netspec.schema import spec

NET = """
layer {{ name: "d" type: "Input" top: "x" top: "{cont}" input_param {{
  shape {{ dim: 4 dim: 2 dim: 3 }} shape {{ dim: 4 dim: 2 }} }} }}
layer {{ name: "r" type: "{kind}" bottom: "x" bottom: "{cont}" top: "y" recurrent_param {{ num_output: 2 }} }}
"""


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_sequences_begin_at_the_first_step_and_go_on(kind: str) -> None:
    text = NET.format(kind=kind, cont="goes_on")
    net = build(compile(spec.net(schema.parse_net(text))), device="meta")
    x, goes_on = random_inputs(net)
    assert goes_on.tolist() == [[0, 0], [1, 1], [1, 1], [1, 1]]
    assert x.std() > 0.5
    assert torch.equal(x, random_inputs(net)[0])
