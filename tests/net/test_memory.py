"""A net that does not fit is refused with figures: what the machine, its control groups and the solver leave."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from netspec import schema
from netspec.errors import SpecError
from netspec.net import memory
from netspec.net.graph import compile
from netspec.net.memory import cgroup_bytes
from netspec.net.net import build
from netspec.schema import spec
from netspec.solver import history_of

NET = """
layer { name: "data" type: "Input" top: "x" input_param { shape { dim: 4 dim: 1000 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
  inner_product_param { num_output: 500 bias_term: false } }
layer { name: "loss" type: "Reduction" bottom: "y" top: "loss" loss_weight: 1 }
"""
BLOBS = 2 * 4 * (4 * 1000 + 4 * 500 + 1)
WEIGHTS = 4 * 1000 * 500


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_use_of_a_group_counts_but_not_its_page_cache(tmp_path: Path) -> None:
    (tmp_path / "self").write_text("0::/user/job\n")
    group(
        tmp_path / "user",
        memory__max="1000\n",
        memory__current="400\n",
        memory__stat="anon 9\ninactive_file 60\nactive_file 40\n",
    )
    group(
        tmp_path / "user/job",
        memory__max="max\n",
        memory__current="300\n",
        memory__stat="inactive_file 0\nactive_file 0\n",
    )
    assert cgroup_bytes(tmp_path, tmp_path / "self") == [1000 - 400 + 100]


def test_groups_of_the_first_version(tmp_path: Path) -> None:
    (tmp_path / "self").write_text("9:name=systemd:/\n4:cpu,memory:/box/42\n0::/\n")
    used = {
        "memory__usage_in_bytes": "700\n",
        "memory__stat": "cache 5\ntotal_inactive_file 50\ntotal_active_file 0\n",
    }
    group(tmp_path / "memory/box", memory__limit_in_bytes="5000\n", **used)
    group(tmp_path / "memory/box/42", memory__limit_in_bytes="900\n", **used)
    assert cgroup_bytes(tmp_path, tmp_path / "self") == [250, 4350]


def test_a_group_seen_from_inside_its_box(tmp_path: Path) -> None:
    """The path is the host's, the mounted folder is the group's own."""
    (tmp_path / "self").write_text("0::/kubepods/pod7\n")
    group(tmp_path, memory__max="2000\n", memory__current="2500\n")
    assert cgroup_bytes(tmp_path, tmp_path / "self") == [0]


def test_no_groups(tmp_path: Path) -> None:
    assert cgroup_bytes(tmp_path, tmp_path / "self") == []


@pytest.mark.parametrize(("kind", "copies"), [("SGD", 1), ("Adam", 2), ("SMORMS3", 3), ("Nonsense", 0)])
def test_the_history_of_the_solver_counts(kind: str, copies: int, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = compile(spec.net(schema.parse_net(NET, "big.prototxt"), "TRAIN"))
    assert history_of(kind) == copies
    need = BLOBS + (2 + copies) * WEIGHTS
    monkeypatch.setattr(memory, "available_bytes", lambda device: need)
    assert build(graph, seed=1, history=history_of(kind)).params[0].value.device == torch.device("cpu")
    monkeypatch.setattr(memory, "available_bytes", lambda device: need - 1)
    with pytest.raises(SpecError, match=r"big.prototxt:3:1: .*the TRAIN net needs .* GiB is free on cpu"):
        build(graph, seed=1, history=history_of(kind))


def test_a_test_net_holds_its_input_and_output_of_one_layer_at_a_time() -> None:
    """Ten ReLUs over 1,000 numbers: two blobs live at once. In TRAIN all eleven do, and their gradients."""
    relus = "".join(
        f'layer {{ name: "r{i}" type: "ReLU" bottom: "x{i}" top: "x{i + 1}" }}' for i in range(10)
    )
    text = 'layer { name: "d" type: "Input" top: "x0" input_param { shape { dim: 1000 } } }' + relus
    for phase, blobs in (("TEST", 2), ("TRAIN", 2 * 11)):
        graph = compile(spec.net(schema.parse_net(text), phase))
        assert memory.activation_bytes(graph, [(1000,)] * 11) == blobs * 4 * 1000


def test_a_test_net_keeps_what_is_read_again_later() -> None:
    text = """
    layer { name: "d" type: "Input" top: "x" input_param { shape { dim: 1000 } } }
    layer { name: "a" type: "ReLU" bottom: "x" top: "a" }
    layer { name: "b" type: "ReLU" bottom: "a" top: "b" }
    layer { name: "sum" type: "Eltwise" bottom: "x" bottom: "b" top: "sum" }
    """
    graph = compile(spec.net(schema.parse_net(text), "TEST"))
    assert memory.activation_bytes(graph, [(1000,)] * 4) == 3 * 4 * 1000


def test_too_many_weights_are_named_at_their_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda device: 10_000)
    graph = compile(spec.net(schema.parse_net(NET, "big.prototxt"), "TEST"))
    reason = r"big.prototxt:3:1: layer 'ip' \(InnerProduct\): the TEST net needs .* in this layer: 500,000"
    with pytest.raises(SpecError, match=reason):
        build(graph)


def test_too_large_a_blob_is_named_at_its_maker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda device: 10_000)
    text = NET.replace("num_output: 500", "num_output: 1")
    graph = compile(spec.net(schema.parse_net(text, "big.prototxt"), "TEST"))
    with pytest.raises(SpecError, match=r"big.prototxt:2:1: .*its largest blob is 'x' of shape \(4, 1000\)"):
        build(graph)
