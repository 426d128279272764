"""What a run folder says of its data, its settings and the commit of its files."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from netspec import fit, schema
from netspec.data.sets.datasets import load
from netspec.run.recording import commit_of, files_of, of_arrays, of_files
from netspec.schema import message_class, spec
from tests.places import ROOT

LINEAR = """
base_lr: 0.1 lr_policy: "fixed" type: "SGD" max_iter: 4 display: 2 test_iter: 2 test_interval: 2 random_seed: 1
snapshot: 4 compile: false
net_param {
  name: "linear"
  layer { name: "data" type: "Dataset" top: "data" top: "label" include { phase: TRAIN }
    transform_param { scale: 0.00390625 } dataset_param { name: "digits" split: "train" batch_size: 20 } }
  layer { name: "data" type: "Dataset" top: "data" top: "label" include { phase: TEST }
    transform_param { scale: 0.00390625 } dataset_param { name: "digits" split: "test" batch_size: 50 } }
  layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
    inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
  layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }
  layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
}
"""


def test_a_run_names_settings_data_and_commit(tmp_path: Path) -> None:
    overrides = ["display=1", "base_lr=0.01"]
    (tmp_path / "linear_solver.prototxt").write_text(LINEAR)
    fit(tmp_path / "linear_solver.prototxt", overrides=overrides, out=tmp_path / "a", progress=False)
    facts = json.loads((tmp_path / "a" / "run.json").read_text())
    assert facts["settings"] == {"display": "1", "base_lr": "0.01"}
    assert {(one["name"], one["split"]) for one in facts["data"]} == {("digits", "train"), ("digits", "test")}
    for one in facts["data"]:
        data = load(one["name"], one["split"])
        head = f"{data.images.dtype} {data.images.shape}".encode() + data.images.tobytes()
        head += f"{data.labels.dtype} {data.labels.shape}".encode() + data.labels.tobytes()
        assert one["sha256"] == hashlib.sha256(head).hexdigest()
    assert facts["commit"] == ""


def test_a_checksum_tells_any_change(tmp_path: Path) -> None:
    data = load("digits")
    before = of_arrays((data.images, data.labels))
    images = data.images.copy()
    images[-1, 0, 0, 0] ^= 1
    assert of_arrays((images, data.labels)) != before
    path = tmp_path / "x"
    path.write_bytes(b"a" * 3_000_000)
    known = of_files([path])
    path.write_bytes(b"a" * 2_000_000 + b"b" + b"a" * 999_999)
    assert of_files([path]) != known


def test_files_that_a_layer_names(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    for name in ("list.txt", "db/data.mdb", "conv"):
        (tmp_path / name).write_text("x")
    layer = message_class("LayerParameter")(name=str(tmp_path / "conv"), type="Data")
    layer.data_param.source = str(tmp_path / "db")
    layer.image_data_param.source = str(tmp_path / "list.txt")
    layer.transform_param.mean_file = str(tmp_path / "none")
    assert sorted(files_of(layer)) == [tmp_path / "db" / "data.mdb", tmp_path / "list.txt"]


def test_files_beside_the_net_are_found_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("x")
    file = tmp_path / "net.prototxt"
    file.write_text(
        'layer { name: "d" type: "ImageData" top: "x" top: "y" image_data_param { source: "list.txt" } }'
    )
    (layer,) = spec.net(schema.read_net(file), "TRAIN").layers
    assert list(files_of(layer.message, layer)) == [tmp_path / "list.txt"]


def test_the_commit_is_gits_own(tmp_path: Path) -> None:
    def git(*words: str, at: Path = tmp_path) -> str:
        known = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        try:
            done = subprocess.run(["git", *known, *words], cwd=at, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("no git here")
        return done.stdout.strip()

    assert commit_of(tmp_path / "a.prototxt") == "" or (ROOT.parents[0] in tmp_path.parents)
    git("init", "-q", "-b", "main")
    git("commit", "-q", "--allow-empty", "-m", "one")
    first = git("rev-parse", "HEAD")
    assert commit_of(tmp_path / "nets" / "a.prototxt") == first
    git("pack-refs", "--all")
    assert commit_of(tmp_path / "a.prototxt") == first
    git("checkout", "-q", "--detach")
    assert commit_of(tmp_path / "a.prototxt") == first
    git("worktree", "add", "-q", "-b", "side", str(tmp_path / "tree"))
    git("commit", "-q", "--allow-empty", "-m", "two", at=tmp_path / "tree")
    second = git("rev-parse", "side")
    assert first != second == commit_of(tmp_path / "tree" / "a.prototxt")
