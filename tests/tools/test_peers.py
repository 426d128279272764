"""The bench of other libraries: what is absent is skipped in words, what fails too, and the verdict counts the best."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tools.bench import peers

SIZES = {"variables": 4, "states": 2, "batch": 2, "rounds": 1}


def test_absent_libraries_are_skipped_with_a_line(tmp_path: Path) -> None:
    known = peers.peers(argparse.Namespace(venvs=tmp_path))
    assert [peer.name for peer in known if not peer.lacks] == ["netspec"]
    for peer in known[1:]:
        assert str(tmp_path / peer.name / "bin" / "python") in peers.run(peer, SIZES)["skipped"]


def test_a_child_that_fails_is_skipped_with_its_last_line() -> None:
    skipped = peers.run(peers.Peer("no_such", Path(sys.executable)), SIZES)["skipped"]
    assert "child_no_such" in skipped


def test_the_verdict_compares_like_with_like() -> None:
    results = {
        "netspec": {"parameters": 1, "ms": {"eager": {"step": 2.0}, "compiled": {"step": 1.0}}},
        "a": {"parameters": 1, "ms": {"eager": {"step": 30.0}, "compiled": {"step": 5.0}}},
        "b": {"parameters": 1, "ms": {"eager": {"step": 12.0}}},
        "c": {"skipped": "no interpreter"},
    }
    assert peers.verdict(results) == "MISSED: a takes 5.0 times as long; goal 10"
    table = peers.table(results)
    assert "| c | skipped: no interpreter | | | | |" in table
    assert any(line.startswith("| b, eager | 1 | 12.00 |") and line.endswith("| 6.0 |") for line in table)
    assert json.dumps(results)
