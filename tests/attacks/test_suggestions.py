"""Suggestions for unknown names take bounded time, whatever the file holds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from netspec.check import check
from netspec.errors import SpecError, nearest

MANY = 4_000
LONG = "x" * 200_000


def chain(bottom: str) -> str:
    return "".join(
        f'layer {{ name: "r{i}" type: "ReLU" bottom: "{bottom.format(i)}" top: "blob_number_{i}" }}\n'
        for i in range(MANY)
    )


TEXTS = {
    "bottoms": chain("blub_number_{}"),
    "types": "".join(f'layer {{ name: "r{i}" type: "Convolutiom{i}" top: "t{i}" }}\n' for i in range(MANY)),
    "fields": 'layer { name: "r" type: "ReLU" bottom: "x" top: "y" '
    + "".join(f"nom_{i}: 1 " for i in range(MANY))
    + "}",
    "values": 'layer { name: "p" type: "Pooling" bottom: "x" top: "y" pooling_param { '
    + "".join(f"pool: MIX{i} " for i in range(MANY))
    + "} }",
    "long bottom": f'layer {{ name: "a" type: "Input" top: "{LONG}a" input_param {{ shape {{ dim: 1 }} }} }}'
    f'layer {{ name: "r" type: "ReLU" bottom: "{LONG}b" top: "y" }}',
    "long type": f'layer {{ name: "r" type: "{LONG}" bottom: "x" top: "y" }}',
    "long field": f"{LONG}: 1",
}


@pytest.mark.parametrize(
    "what", [pytest.param(what, marks=[] if "long" in what else pytest.mark.slow) for what in TEXTS]
)
def test_bad_names_end_in_bounded_time(what: str, tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(TEXTS[what])
    started = time.process_time()
    checked = check(path)
    seconds = time.process_time() - started
    assert checked.problems or checked.warnings
    assert seconds < 10, seconds
    assert all(len(problem.message) <= 2000 for problem in (*checked.problems, *checked.warnings))


@pytest.mark.slow
def test_the_first_problems_still_have_their_suggestions(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(
        'layer { name: "a" type: "Input" top: "data" input_param { shape { dim: 1 } } }\n' + chain("dat")
    )
    checked = check(path)
    for problem in checked.problems[: SpecError.MOST]:
        assert "did you mean 'data'" in problem.message


def test_nearest_is_bounded() -> None:
    names = [f"name_{i}" for i in range(100_000)]
    started = time.process_time()
    assert nearest("name_77", names) is not None
    assert nearest("y" * 10**6, names) is None
    assert time.process_time() - started < 1
