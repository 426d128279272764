"""The commands: their flags, what they print and write, and how they fail."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from netspec.cli import app, main
from netspec.errors import NetspecError
from tests.command import call
from tests.places import ROOT

DIGITS = str(ROOT / "nets" / "ht_cac_digits.prototxt")

FLAGS = {
    "list": "json",
    "new": "caffe images solver table",
    "train": (
        "allow-python compile device dialect iterations local memory no-compile out resume seed set "
        "shard tensorboard track weights"
    ),
    "test": "allow-python confusion device hardest iterations json out seed stage weights",
    "check": "dialect for json no-run no-strict run shape strict watch weights",
    "render": "check engine no-check out plan point set values",
    "sweep": "device dry-run jobs json keep no-timing out retry storage timing",
    "lr-range": "device from iterations json out seed set to weights",
    "summary": "level phase shape stage",
    "draw": "level phase rankdir shape stage",
    "report": "metric no-test out test",
    "activations": "blob image weights",
    "sample": "class columns given no-noise noise out page rows seed weights",
    "complete": "how images missing out page samples seed table weights",
    "explain": "images missing out page seed size weights",
    "likelihood": "images json missing seed table weights",
    "tree": "class image images out page seed weights",
    "neurons": "count kind level out page seed weights",
    "missing": (
        "allow-python baselines device iid images impute metric mixture neighbours no-mixture no-shifts other out "
        "rects repeats robust seed shifts split table"
    ),
    "predict": "images out table weights",
    "arrange": (
        "category decimal encoding header leave-out missing-word no-header number out separator "
        "set size target test"
    ),
    "serve": "allow-host body-mb device host open port waiting weights",
    "dataset": (
        "backend encoded gray labels leave-out no-standardise root rows same-size scale seed shuffle size split "
        "standardise target"
    ),
    "mean": "gray root size split",
    "features": "backend batches blob device seed stage weights",
    "convert": "allow-python dynamic-batch for fork net shape weights",
    "compare": "blobs device diff json no-test output test tolerance weights-a weights-b",
    "caffe": "",
    "fmt": "check diff",
    "runs": "csv in json rebuild sort sql",
    "field": "json",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on the digits."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    printed = call("train", DIGITS, "-n", "30", "--out", str(folder), "--seed", "3", "--set", "test_iter=2",
                   "--set", "gaussians.similarity_param.unsupervised_init.num_batches=3")  # fmt: skip
    assert "test accuracy" in printed
    for name in ("graph.svg", "loss.png", "samples.png", "metrics.jsonl", "run.json", "net.prototxt"):
        assert (folder / name).stat().st_size > 0, name
        if name.endswith(("svg", "png")):
            assert str(folder / name) in printed
    return folder


def test_flags_are_those_that_users_know() -> None:
    by_command = {}
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        words = {word for option in command.params for word in (*option.opts, *option.secondary_opts)}
        by_command[name] = " ".join(sorted(w[2:] for w in words if w.startswith("--") and w != "--help"))
    assert by_command == FLAGS


@pytest.mark.parametrize("columns", ["40", "80"])
def test_no_help_is_cut(columns: str) -> None:
    """Wherever a terminal is narrow, in one process for all commands."""
    code = """
import sys
import textwrap
from typer.testing import CliRunner
from netspec.cli import app
for command in sys.argv[1:]:
    print(CliRunner().invoke(app, [command, "--help"]).output)
"""
    words = [sys.executable, "-c", code, *sorted(set(FLAGS) - {"caffe"})]
    finished = subprocess.run(
        words, capture_output=True, text=True, env={**os.environ, "COLUMNS": columns}, check=True
    )
    assert "…" not in finished.stdout
    assert finished.stdout.count("Usage:") == len(FLAGS) - 1
    for flag in ("--iterations", "--weights", "--compile", "--no-compile"):
        assert flag in finished.stdout


@pytest.mark.parametrize("command", sorted(FLAGS))
def test_every_command_has_help(command: str) -> None:
    if command != "caffe":  # its flags are Caffe's own
        assert "Usage" in call(command, "--help")


def test_check(tmp_path: Path) -> None:
    assert "ok: net ht_cac_digits" in call("check", DIGITS)
    bad = tmp_path / "bad.prototxt"
    bad.write_text('layer { name: "ip" type: "InnerProduc" bottom: "dat" top: "ip" }')
    result = CliRunner().invoke(app, ["check", "--json", DIGITS, str(bad)])
    assert result.exit_code == 1
    good, report = (json.loads(line) for line in result.stdout.splitlines())
    assert good["ok"]
    assert [problem["line"] for problem in report["problems"]] == [1, 1]
    assert "did you mean 'InnerProduct'?" in report["problems"][1]["message"]


def test_the_readme_shows_what_check_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "README.md").read_text()
    assert not [name for name in re.findall(r"nets/\w+\.prototxt", text) if not (ROOT / name).is_file()]
    slip = re.search(r"\$ sed 's/(.*)/(.*)/' (\S+) > (\S+)\n +\$ netspec check \4\n((?:    .*\n)+)", text)
    assert slip is not None
    old, new, source, target, shown = slip.groups()
    original = (ROOT / source).read_text()
    monkeypatch.chdir(tmp_path)
    Path(target).write_text(original.replace(old, new))
    result = CliRunner().invoke(app, ["check", target], env={"COLUMNS": "200"})
    assert result.output == textwrap.dedent(shown)


def test_summary_and_draw(tmp_path: Path) -> None:
    assert "gaussians" in call("summary", DIGITS)
    picture = tmp_path / "net.svg"
    assert str(picture) in call("draw", DIGITS, str(picture))
    assert "<svg" in picture.read_text()


def test_test(run: Path) -> None:
    data = json.loads(call("test", str(run), "-n", "2", "--json").splitlines()[-1])
    assert 0 < data["accuracy"] <= 1
    assert data["net"] == 0
    given = json.loads(call("test", DIGITS, "--weights", str(run), "-n", "2", "--json").splitlines()[-1])
    assert given["accuracy"] == data["accuracy"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("sample", "--columns", "2", "--class", "3", "--class", "7", "--page", "2x3"),
        ("sample", "--columns", "2", "--given", "sum1:0,1=5", "--given", "sum2:0,0=3"),
        ("complete", "--images", "0:2", "--missing", "rects:1x3"),
        ("explain", "--images", "0:2", "--size", "4"),
        ("explain", "--images", "0:2", "--size", "4", "--missing", "rects:1x5"),
        ("tree", "--class", "4", "--page", "8.3x11.7"),
        ("tree", "--image", "1"),
        ("neurons", "--level", "sum1", "--count", "4", "--kind", "most_probable"),
    ],
    ids=lambda arguments: "-".join(arguments[:2]),
)
def test_questions(arguments: tuple[str, ...], run: Path, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    assert str(picture) in call(arguments[0], str(run), "--out", str(picture), *arguments[1:])
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_missing(run: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    printed = call(
        "missing", str(run), "--iid", "0.5", "--rects", "1x3", "--images", "0:40", "-o", str(table),
        "--robust", "2x0.1", "--robust", "0x0.2", "--neighbours", "3", "--device", "cpu",
    )  # fmt: skip
    assert "iid:0.5" in printed
    assert "robust linear (N=2, C=0.1)" in printed
    assert "3 nearest neighbours" in printed
    assert table.exists()
    for wrong in ("2", "ax1", "-1x0.1", "1xinf"):
        assert CliRunner().invoke(app, ["missing", str(run), "--robust", wrong]).exit_code == 2


def test_report_and_activations(run: Path, tmp_path: Path) -> None:
    page = call("report", str(run), "-o", str(tmp_path / "report.html")).splitlines()[-1]
    assert "<html" in Path(page).read_text()
    pages = call("activations", str(run), str(tmp_path), "--blob", "mex1").split()
    assert [Path(page).name for page in pages] == ["mex1.png"]


def test_what_is_wrong_is_said(run: Path) -> None:
    for arguments, words in (
        (("sample", str(run), "--class", "10"), "no class .10.*has 0, 1, .*, 9"),
        (("sample", str(run), "--given", "sum7:0,0=1"), "did you mean 'sum"),
        (("sample", str(run), "--given", "sum1:0,0=5", "--given", "sum1:0,0=6"), "two states at 0,0: 5, 6"),
        (("sample", str(run), "--given", "mex1:0,0=5", "--given", "mex1:0,1=6"), "exclude one another"),
        (("sample", str(run), "--given", "scores:0,0=3", "--class", "5"), "exclude one another"),
        (("sample", str(run), "--given", "sum1:0,2=1"), "sum1 has no state 1 at 0,2: .*columns 0 to 1"),
        (("neurons", str(run), "--level", "sum7"), "did you mean 'sum"),
        (("complete", str(run), "--missing", "idd:0.5"), "did you mean 'iid'"),
        (("draw", DIGITS, "net.bmp"), "bmp"),
        (("test", DIGITS), "--weights"),
        (("train", DIGITS, "--set", "base_rl=1"), "base_lr"),
        (("train", "nothing.prototxt"), "no such file"),
        (("train", DIGITS, "--weights", "nothing.caffemodel"), "nothing.caffemodel: cannot be read"),
        (("train", DIGITS, "--resume", "nothing"), "there is no such run folder or snapshot"),
        (("train", DIGITS, "--resume", DIGITS), "is no snapshot; give a run folder"),
        (("tree", str(run), "--class", "10"), "no class .10.*has 0, 1, .*, 9"),
        (("tree", str(run), "--image", "99999"), "has no images 99999 to 100000 among its 290"),
    ):
        with pytest.raises(NetspecError, match=words):
            CliRunner().invoke(app, list(arguments), catch_exceptions=False)


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", DIGITS, "--seed", "-1"),
        ("test", "run", "--seed", str(2**63)),
        ("test", "run", "-n", "0"),
        ("sample", "run", "--columns", "0"),
        ("tree", "run", "--page", "8.3"),
        ("neurons", "run", "--page", "0.1x3"),
        ("sample", "run", "--given", "sum1:0=1"),
        ("sample", "run", "--seed", str(2**63)),
        ("complete", "run", "--images", "9:3"),
        ("complete", "run", "--samples", "-1"),
        ("explain", "run", "--size", "0"),
        ("tree", "run", "--image", "-1"),
        ("neurons", "run", "--count", "0"),
        ("missing", "run", "--iid", "0.5", "--repeats", "0"),
        ("missing", "run", "--iid", "0.5", "--neighbours", "-1"),
    ],
    ids=lambda arguments: "".join((arguments[0], *arguments[-2:])),
)
def test_numbers_out_of_range(arguments: tuple[str, ...], run: Path) -> None:
    result = CliRunner().invoke(app, [str(run) if word == "run" else word for word in arguments])
    assert result.exit_code == 2
    assert "Invalid value" in result.output


def test_errors_end_with_2_and_no_traceback() -> None:
    command = [sys.executable, "-m", "netspec", "train", "nothing.prototxt"]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert finished.returncode == 2
    assert finished.stderr.startswith("error: nothing.prototxt: no such file")
    assert "Traceback" not in finished.stderr
    finished = subprocess.run([*command, "--debug"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert "Traceback" in finished.stderr


@pytest.mark.parametrize("arguments", [("summary", DIGITS), ("train", "--help")], ids=["table", "help"])
def test_a_terminal_without_utf8(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii"))
    monkeypatch.setattr(sys, "argv", ["netspec", *arguments])
    monkeypatch.setenv("COLUMNS", "40")
    with pytest.raises(SystemExit) as ended:
        main()
    sys.stdout.flush()
    assert ended.value.code == 0
    assert b"gaussians" in shown.getvalue() or b"Usage" in shown.getvalue()


def test_a_full_disk_ends_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    monkeypatch.setattr(
        sys, "argv", ["netspec", "train", DIGITS, "-n", "1", "--out", str(tmp_path / "run"),
                      "--set", "gaussians.similarity_param.unsupervised_init.num_batches=1"],
    )  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith("solver.prototxt: No space left on device [NS004]\n")


def test_convert_and_compare(tmp_path: Path) -> None:
    net = tmp_path / "net.prototxt"
    net.write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }\n'
        'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"\n'
        '  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }\n'
    )
    import netspec
    from netspec import schema
    from netspec.interchange import save_weights
    from netspec.net.graph import compile
    from netspec.schema import spec

    made = netspec.build(compile(spec.net(schema.read_net(net), "TEST")), seed=1)
    save_weights(made, tmp_path / "net.safetensors")
    target = tmp_path / "out.caffemodel"
    assert str(target) in call("convert", str(net), str(target), "-w", str(tmp_path / "net.safetensors"))
    given = ("--weights-a", str(target), "--weights-b", str(tmp_path / "net.safetensors"))
    call("compare", str(net), str(net), *given)
    other = netspec.build(compile(spec.net(schema.read_net(net), "TEST")), seed=2)
    save_weights(other, tmp_path / "other.safetensors")
    given = ("--weights-a", str(target), "--weights-b", str(tmp_path / "other.safetensors"))
    result = CliRunner().invoke(app, ["compare", str(net), str(net), *given], catch_exceptions=False)
    assert result.exit_code == 1
    assert "ip" in result.output
