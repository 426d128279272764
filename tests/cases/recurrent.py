"""Cases of the recurrent layers. Sequences begin at the first step: with a state carried over, a forward is
no function of its inputs alone, so gradients could not be checked (tests/test_recurrent.py checks the
state)."""

from __future__ import annotations

import torch

from tests.cases import Case
from tests.cases.loss import text

CONT = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
GOES_ON = torch.ones(4, 2)
FILLERS = 'weight_filler { type: "gaussian" std: 0.5 } bias_filler { type: "uniform" }'


def recurrent(kind: str, bottoms: str, tops: str, more: str = "", **shapes: tuple[int, ...]) -> str:
    layer = f"{kind} recurrent_param {{ num_output: 3 {FILLERS} {more} }}"
    return text(layer, bottoms=bottoms, tops=tops, x=(4, 2, 2), cont=(4, 2), **shapes)


def oh_lstm(bottoms: str, more: str = "", **shapes: tuple[int, ...]) -> str:
    return text(f"Lstm lstm_param {{ num_output: 3 {FILLERS} {more} }}", bottoms=bottoms, tops="h", **shapes)


CASES = [
    Case("lstm", recurrent("LSTM", "x cont", "h"), inputs={"cont": CONT}),
    Case("lstm_static", recurrent("LSTM", "x cont s", "h", s=(2, 2, 1)), inputs={"cont": CONT}),
    Case(
        "lstm_exposed",
        recurrent(
            "LSTM", "x cont s h0 c0", "h hT cT", "expose_hidden: true", s=(2, 5), h0=(1, 2, 3), c0=(1, 2, 3)
        ),
        inputs={"cont": GOES_ON},
    ),
    Case("rnn", recurrent("RNN", "x cont", "o"), inputs={"cont": CONT}),
    Case("rnn_static", recurrent("RNN", "x cont s", "o", s=(2, 2)), inputs={"cont": CONT}),
    Case(
        "rnn_exposed",
        recurrent("RNN", "x cont h0", "o hT", "expose_hidden: true", h0=(1, 2, 3)),
        inputs={"cont": GOES_ON},
    ),
    Case("oh_lstm", oh_lstm("x", "batch_size: 2", x=(6, 2, 2))),
    Case("oh_lstm_of_one", oh_lstm("x", x=(3, 2))),
    Case("oh_lstm_clip", oh_lstm("x clip", "batch_size: 2", x=(8, 2), clip=(4, 2)), inputs={"clip": CONT}),
    Case("oh_lstm_cut", oh_lstm("x", "clipping_threshold: 0.1 batch_size: 2", x=(4, 2)), gradient=()),
    Case(
        "continuation_indicator",
        text(
            "ContinuationIndicator continuation_indicator_param { time_step: 3 batch_size: 2 }",
            bottoms="",
            tops="cont",
        ),
        gradient=(),
    ),
    Case(
        "lstm_unit",
        text("LSTMUnit", bottoms="c g cont", tops="cN h", c=(1, 2, 3), g=(1, 2, 12), cont=(1, 2)),
        inputs={"cont": torch.tensor([[0.0, 1.0]])},
    ),
]
