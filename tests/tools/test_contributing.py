"""The example of CONTRIBUTING.md, followed in a copy of the checkout: a layer in three places passes every check."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.places import ROOT


def blocks() -> list[str]:
    """The indented blocks of the section on adding a layer."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.split("## Add a layer, an example")[1].split("\n## ")[0]
    texts = re.findall(r"(?:^ {7}.*\n|^\n(?= {7}))+", section, re.M)
    return [textwrap.dedent(block).strip("\n") for block in texts]


def replaced(path: Path, old: str, new: str) -> None:
    """Change one place of a file; the first where there are several."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def run(folder: Path, *arguments: str) -> str:
    """What `python -m ARGUMENTS` prints in the copy; it must end well."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_example_of_a_new_layer(tmp_path: Path) -> None:
    for name in ("netspec", "proto", "tools", "tests", "docs"):
        skipped = shutil.ignore_patterns(
            "__pycache__", "golden", "corpus", "pictures", "results", "notebooks"
        )
        shutil.copytree(ROOT / name, tmp_path / name, ignore=skipped)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    message, layer = blocks()
    field, message = message.split("\n", 1)
    proto = tmp_path / "proto" / "netspec.proto"
    replaced(
        proto, "  optional SwishParameter swish_param", f"  {field}\n  optional SwishParameter swish_param"
    )
    proto.write_text(proto.read_text(encoding="utf-8") + "\n" + message + "\n", encoding="utf-8")
    pointwise = tmp_path / "netspec" / "layers" / "basic" / "pointwise.py"
    pointwise.write_text(pointwise.read_text(encoding="utf-8") + "\n\n" + layer + "\n", encoding="utf-8")
    (case,) = re.findall(r"`(Case\(.*?\)\))`", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    replaced(tmp_path / "tests" / "cases" / "pointwise.py", "CASES = [", f"CASES = [\n    {case},")
    run(tmp_path, "tools.generate.compile_schema")
    run(tmp_path, "tools.generate.layer_table")
    assert "| ChannelSwish | y = x / (1 + exp(-b_c x))" in (tmp_path / "docs" / "layers.md").read_text()
    chosen = "channel_swish or ChannelSwish or every_type"
    printed = run(
        tmp_path,
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-rs",
        "-m",
        "",
        "tests/layers/test_layers.py",
        "-k",
        chosen,
    )
    assert printed.count("channel_swish") == printed.count("SKIPPED") == 0
    assert re.search(r"^\.{11}", printed, re.M), printed
