"""Whatever is in a file, reading gives a Document or a SpecError."""

from __future__ import annotations

import contextlib
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netspec import schema
from netspec.errors import SpecError

SEEDS = [
    """name: "lenet" # digits
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { scale: 0.00390625 mean_value: [1, 2.5] }
  data_param { source: "a/b" batch_size: 64 backend: LMDB } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" param { lr_mult: 1 }
  param { lr_mult: 2 }
  convolution_param { num_output: 20 kernel_size: 5 stride: 1 weight_filler { type: "xavier" } } }
layer { name: "clip" type: "Clip" bottom: "conv1" top: "clip" clip_param { min: -inf max: 1e3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "clip" bottom: "label" loss_weight: 0.5 }
""",
    """input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8
layers { layer { name: "pad1" type: "padding" pad: 2 } bottom: "data" top: "pad1" }
layers { layer { name: "conv1" type: "conv" num_output: 4 kernelsize: 3 blobs_lr: 1 }
  bottom: "pad1" top: "conv1" }
layers { name: "r" type: RELU bottom: "conv1" top: "conv1" blobs_lr: 1 weight_decay: 0 param: "w" }
""",
    """layer { name: "sim" type: "Similarity" similarity_param <
  num_instances: 64; ignore_nan_input: true,
  block_param { block_size: 2 stride: 2 out_of_bounds_value: nan }
  template_filler { type: 'gaussian' std: 0.1 } > }
layer { name: "bn" type: "BatchNorm" param { } param { } param { }
  batch_norm_param: { use_global_stats: 1 } }
""",
    """net: "a.prototxt" test_iter: 100 base_lr: 0.01 solver_type: ADAM
lr_policy: "multistep" stepvalue: [10, 20]
step_lr: 0.1 step_policy: "linear" solver_mode: CPU net_param { layer { name: "a" type: "ReLU" } }
""",
]
PIECES = [
    "{",
    "}",
    "<",
    ">",
    "[",
    "]",
    ":",
    ";",
    ",",
    '"',
    "'",
    "\\",
    "#",
    "\n",
    "-",
    ".",
    "0",
    "1e99",
    "0x",
    "nan",
]
PIECES += [
    "layer",
    "layers",
    "name",
    "type",
    "input",
    "pad: 1",
    "{ {",
    "\0",
    "\x7f",
    "\u00e9",
    "\ud800",
    "/",
    "@",
    "true",
]


def mutate(text: str, chance: random.Random) -> str:
    """A few random edits: a piece put in, a stretch cut out, doubled or moved, a character changed."""
    for _ in range(chance.randrange(1, 5)):
        at, to = sorted(chance.randrange(len(text) + 1) for _ in range(2))
        to = min(to, at + chance.choice((1, 5, 40)))
        kind = chance.randrange(5)
        if kind == 0:
            text = text[:at] + chance.choice(PIECES) + text[at:]
        elif kind == 1:
            text = text[:at] + text[to:]
        elif kind == 2:
            text = text[:to] + text[at:]
        elif kind == 3:
            other = chance.randrange(len(text) + 1)
            text = text[:other] + text[at:to] + text[other:]
        else:
            text = text[:at] + chr(chance.randrange(1, 128)) + text[at + 1 :]
    return text


@pytest.mark.parametrize("seed", range(4))
def test_mutated_texts(seed: int) -> None:
    chance = random.Random(seed)
    refused = 0
    for number in range(500):
        text = mutate(SEEDS[seed], chance)
        kind = schema.guess_kind(text)
        try:
            document = schema.parse(kind, text, unknown="keep" if number % 2 else "error")
        except SpecError as error:
            refused += all(problem.position is not None for problem in error.problems)
        else:
            assert (
                schema.parse(kind, schema.print_text(document.message)).message == document.message
                or "nan" in text
            )
    assert 100 < refused < 500


@given(st.text(max_size=60))
def test_any_text(text: str) -> None:
    with contextlib.suppress(SpecError):
        schema.parse_net(text)


WORDS = [
    "num_output",
    "kernel_size",
    "convolution_param",
    "bottom",
    "type",
    "lr_mult",
    "weight_filler",
    "batch_size",
]


@given(st.sampled_from(WORDS), st.data())
def test_misspelling_one_name_is_an_error_in_its_line(word: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(word) - 1))
    letter = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz_"))
    misspelt = word[:at] + letter + word[at + data.draw(st.integers(0, 1)) :]
    known = {name for each in schema.message_names() for name in schema.descriptor(each).fields_by_name}
    if misspelt in known:
        return
    place = SEEDS[0].index(word + ":") if word + ":" in SEEDS[0] else SEEDS[0].index(word)
    text = SEEDS[0][:place] + misspelt + SEEDS[0][place + len(word) :]
    with pytest.raises(SpecError) as raised:
        schema.parse_net(text)
    line = text.count("\n", 0, place) + 1
    assert any(problem.position and problem.position.line == line for problem in raised.value.problems)
    assert misspelt in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "a: 1 " * 300_000,
        "layer { type: 1 } " * 50_000,
        "name: " + "1" * 1_000_000,
        "layer { param { lr_mult: 0x" + "f" * 1000 + " } }",
        "layer { param { lr_mult: 0" + "7" * 1000 + " } }",
        "input_dim: 0" + "7" * 1_000_000,
        "x" * 1_000_000 + ": 1 }",
        "name: '" + "\\n" * 500_000,
        "input: [" + "'a'," * 200_000,
        "layer { pooling_param { pool: " + "M" * 1_000_000,
    ],
    ids=lambda text: text[:24],
)
def test_hostile_texts_are_refused_in_bounded_time(text: str) -> None:
    start = time.process_time()
    with pytest.raises(SpecError) as raised:
        schema.parse_net(text, unknown="keep")
    assert len(str(raised.value)) < 10_000
    assert time.process_time() - start < 10


def test_speed() -> None:
    text = "".join(
        f'layer {{ name: "c{i}" type: "Convolution" bottom: "c{i - 1}" top: "c{i}" param {{ lr_mult: 1 }} '
        f'convolution_param {{ num_output: 64 kernel_size: 3 weight_filler {{ type: "xavier" }} }} }}\n'
        for i in range(1000)
    )
    start = time.process_time()
    document = schema.parse_net(text)
    taken = time.process_time() - start
    assert len(document.message.layer) == 1000
    # 11,000 fields; 0.2 s on the machine this was written on.
    assert taken < 3
