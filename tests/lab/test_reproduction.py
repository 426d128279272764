"""What the reproduction scripts compute besides training."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from netspec.errors import DataError
from tools.results import claim3 as reproduce_claim3
from tools.results import fsdd, reproduction
from tools.results.reproduction import Results, mark, markdown, page
from tools.results.speech import Interpolated


@pytest.mark.parametrize("epsilon", [Fraction(1, 10000), Fraction(1, 7), Fraction(2, 5)])
def test_claim_3_is_the_papers(epsilon: Fraction) -> None:
    joint = reproduce_claim3.table_2(epsilon)
    assert sum(joint.values()) == 1
    assert reproduce_claim3.accuracy(joint, reproduce_claim3.unconditional) == (1 + epsilon) / 3
    assert reproduce_claim3.accuracy(joint, reproduce_claim3.conditional) == (1 + epsilon) / 3
    assert reproduce_claim3.accuracy(joint, reproduce_claim3.marginalised) == (2 - epsilon) / 3
    assert reproduce_claim3.full(joint) == Fraction(2, 3)


def test_results_are_computed_once(tmp_path: Path) -> None:
    made: list[str] = []

    def compute() -> list[int]:
        made.append("")
        return [1, 2]

    path = tmp_path / "r.json"
    assert Results(path, {"n": 1}).get("a", compute) == [1, 2]
    assert Results(path, {"n": 1}).get("a", compute) == [1, 2]
    assert len(made) == 1
    with pytest.raises(SystemExit, match="was made with"):
        Results(path, {"n": 2})


def test_earlier_results_keep_their_circumstances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.json"
    for commit, key in (("one", "a"), ("one", "b"), ("two", "c"), ("three", "d")):
        monkeypatch.setattr(reproduction, "circumstances", lambda _, commit=commit: {"commit": commit})
        Results(path, {}).get(key, lambda: 1)
    kept = Results(path, {})
    assert kept.made == {"commit": "three"}
    assert kept.before == [{"commit": "one", "results": ["a", "b"]}, {"commit": "two", "results": ["c"]}]
    assert kept.facts() == {
        "commit": "three",
        "made before (a; b)": "commit one",
        "made before (c)": "commit two",
    }
    del kept.values["a"]
    kept.save()
    again = Results(path, {})
    again.get("a", lambda: 2)
    assert [one["results"] for one in again.before] == [["b"], ["c"]]
    assert again.latest == ["d", "a"]


def test_an_interruption_keeps_what_was_done(tmp_path: Path) -> None:
    def killed() -> None:
        raise KeyboardInterrupt

    results = Results(tmp_path / "r.json", {})
    results.get("a", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        results.get("b", killed)
    assert Results(tmp_path / "r.json", {}).values == {"a": 1}


def test_a_training_that_was_stopped_is_not_finished(tmp_path: Path) -> None:
    run = SimpleNamespace(interrupted=True)
    with pytest.raises(SystemExit, match="stopped; the same command goes on"):
        mark(run, tmp_path)  # type: ignore[arg-type]
    assert not (tmp_path / "finished").exists()
    run.interrupted = False
    mark(run, tmp_path)  # type: ignore[arg-type]
    assert (tmp_path / "finished").exists()


def test_pages(tmp_path: Path) -> None:
    assert markdown(("N", "0"), [["LP", 97.94], ["none", None]]).splitlines()[2:] == [
        "| LP | 97.9 |",
        "| none |  |",
    ]
    text = page(tmp_path / "p.md", "Title", ["Text."], {"seed": 1, "commit": ""}).read_text()
    assert text == "# Title\n\nText.\n\n- seed: 1\n"


def test_interpolation_is_numpys() -> None:
    values = np.array([[0.0, 9, 9, 6, 9, 2], [1, 1, 5, 1, 1, 1], [3, 3, 3, 3, 3, 3]])[:, None, None]
    seen = np.array([[1, 0, 0, 1, 0, 1], [0, 0, 1, 0, 0, 0], [0] * 6], bool)[:, None, None]
    filled = Interpolated().fill(values, seen)[:, 0, 0]
    np.testing.assert_allclose(filled[0], [0, 2, 4, 6, 4, 2])
    np.testing.assert_allclose(filled[1], 5)
    np.testing.assert_allclose(filled[2], 3)  # nothing to go by: as it is


def test_windows_of_speech() -> None:
    """Around the loudest part, in units of the clip's loudness, silence beyond the ends."""
    clip = np.zeros(6000, np.int16)
    clip[4000:4100] = 1000
    middle = fsdd.centre(clip)
    assert abs(middle - 4050) <= fsdd.WIDTH // 2
    cut = fsdd.window(clip, middle)
    assert cut.shape == (fsdd.WIDTH,)
    assert (cut > 0).sum() == 100
    loudness = np.sqrt((clip.astype(float) ** 2).mean())
    assert cut.max() == pytest.approx(1000 / (4 * loudness))
    assert (fsdd.window(clip[:50] + np.int16(1), 25) != 0).sum() == 50


def test_spoken_digits_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"fsdd\.npz is not in"):
        fsdd.find(tmp_path)
