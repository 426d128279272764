"""The way in: --version, list, new, nets by name, completion, and options of other programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import netspec
from tests.places import ROOT


def run(*arguments: str, cwd: Path, code: int = 0, **variables: str) -> str:
    """What the command prints; it must end with `code`."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | variables
    done = subprocess.run(
        [sys.executable, "-m", "netspec", *arguments],
        cwd=cwd, capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_version(tmp_path: Path) -> None:
    assert run("--version", cwd=tmp_path) == f"netspec {netspec.__version__}\n"


def test_list(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in run("list", "--json", cwd=tmp_path).splitlines()]
    assert "ht_cac_digits" in {line["name"] for line in lines}
    assert all(Path(line["path"]).is_file() for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["images", "table", "caffe"])
def test_what_new_makes_trains(kind: str, tmp_path: Path) -> None:
    made = run("new", "mine", f"--{kind}", cwd=tmp_path)
    assert made.splitlines() == ["mine.prototxt", "mine_solver.prototxt", "netspec train mine.prototxt"]
    run("train", "mine.prototxt", "--iterations", "2", cwd=tmp_path)
    assert (tmp_path / "runs/mine/run.json").is_file()


@pytest.mark.slow
def test_a_net_without_solver_gets_the_offer_of_one(tmp_path: Path) -> None:
    run("new", "mine", "--caffe", cwd=tmp_path)
    (tmp_path / "mine_solver.prototxt").unlink()
    told = run("train", "mine.prototxt", cwd=tmp_path, code=2)
    assert "netspec new --solver mine.prototxt writes one" in told
    assert "mine_solver.prototxt" in run("new", "--solver", "mine.prototxt", cwd=tmp_path)
    run("train", "mine.prototxt", "-n", "2", cwd=tmp_path)
    assert "is there already" in run("new", "--solver", "mine.prototxt", cwd=tmp_path, code=2)


@pytest.mark.slow
def test_a_shipped_net_is_trained_by_name(tmp_path: Path) -> None:
    run("train", "ht_cac_digits", "-n", "2", cwd=tmp_path)
    assert (tmp_path / "runs/ht_cac_digits/net.prototxt").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--lr 0.1", "netspec has no option --lr: a solver's fields are set with --set base_lr=0.1"),
        ("train x --learning_rate=0.1", "--set base_lr=0.1"),
        ("train x --weight-decay 0.1", "--set weight_decay=0.1"),
        ("train x --base_lr 0.1", "--set base_lr=0.1"),
        ("train x --momentm 0.9", "did you mean 'momentum'?"),
        ("train x --epochs 3", "epochs have no field: --iterations N"),
        ("train x --batch-size 3", "--set data.dataset_param.batch_size=3"),
        ("train x --gpu 1", "write --device cuda:1"),
        ("train x --max_iter 4", "write --iterations 4"),
        ("train --solver s.prototxt", "write s.prototxt"),
        ("train x --pretrained w.caffemodel", "write --weights w.caffemodel"),
        ("summary x --lr 3", "netspec train FILE --set base_lr=3"),
    ],
)
def test_options_of_other_programs(arguments: str, words: str) -> None:
    from netspec.cli import refuse_foreign

    with pytest.raises(netspec.NetspecError) as raised:
        refuse_foreign(arguments.split())
    assert words in str(raised.value)


@pytest.mark.parametrize(
    "arguments", ["train x --set base_lr=1", "train x --nonsense", "check --json x", "--help"]
)
def test_options_of_ours_and_nonsense_go_on(arguments: str) -> None:
    from netspec.cli import refuse_foreign

    refuse_foreign(arguments.split())


@pytest.mark.slow
def test_completion(tmp_path: Path) -> None:
    words = {"_NETSPEC_COMPLETE": "complete_bash", "COMP_WORDS": "netspec tr", "COMP_CWORD": "1"}
    code = "import sys; sys.argv = ['netspec']; from netspec.cli import main; main()"
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | words
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert {"train", "tree"} <= set(done.stdout.split()), done.stderr
    environment |= {"COMP_WORDS": "netspec train ht_cac_d", "COMP_CWORD": "2"}
    (tmp_path / "ht_cac_dear.prototxt").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert {"ht_cac_digits", "ht_cac_dear.prototxt"} <= set(done.stdout.split()), done.stderr


def test_no_message_names_the_distribution_of_others() -> None:
    """`pip install netspec[...]` would install another project."""
    for folder in ("netspec", "docs", "nets", "proto"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".md", ".html", ".prototxt", ".proto"):
                assert "netspec[" not in path.read_text(encoding="utf-8"), path
    assert "install netspec" not in (ROOT / "README.md").read_text(encoding="utf-8")
