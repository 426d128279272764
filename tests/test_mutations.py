"""Damaged spec files: whatever is done to one, checking it gives a report; reading it a result or a located SpecError."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from netspec import schema, spec
from netspec.check import check
from netspec.errors import DataError, SpecError
from netspec.graph import compile
from netspec.net import build
from tests.cases import all_cases

ROOT = Path(__file__).parent.parent
TEXTS = [path.read_text() for path in sorted((ROOT / "nets").glob("*.prototxt"))]
TEXTS += [case.text for case in all_cases()]
COUNT, CHUNKS = 2000, 8


def mutate(text: str, chance: random.Random) -> str:
    """One to three edits: characters and tokens dropped, doubled, swapped or replaced by others of the text."""
    for _ in range(chance.randint(1, 3)):
        tokens = text.split(" ")
        i, j = chance.randrange(len(tokens)), chance.randrange(len(tokens))
        k = chance.randrange(len(text) or 1)
        kind = chance.randrange(8)
        if kind == 0:
            text = text[:k] + text[k + 1 :]
        elif kind == 1:
            text = text[:k] + chance.choice('{}:"#<>[];,-0123456789xé\n\\') + text[k:]
        elif kind == 2:
            del tokens[i]
            text = " ".join(tokens)
        elif kind == 3:
            tokens[i] = tokens[j]
            text = " ".join(tokens)
        elif kind == 4:
            tokens[i] = chance.choice(
                ["-1", "0", "1e30", "nan", "99999999999", '"x"', "true", "MAX", "layer {"]
            )
            text = " ".join(tokens)
        elif kind == 5:
            tokens[i], tokens[j] = tokens[j], tokens[i]
            text = " ".join(tokens)
        elif kind == 6:
            text = text[:k]
        else:
            text = text[:k] + text[k:][: chance.randint(1, 40)] + text[k:]
        text = text or " "
    return text


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_mutated_nets_give_a_net_or_a_spec_error(chunk: int) -> None:
    chance = random.Random(chunk)
    refused = 0
    for _ in range(COUNT // CHUNKS):
        text = mutate(chance.choice(TEXTS), chance)
        try:
            document = schema.parse_net(text, "mutated.prototxt")
            for phase in (spec.TRAIN, spec.TEST):
                build(compile(spec.net(document, phase)), device="meta")
        except SpecError as error:
            refused += 1
            assert error.problems
            assert any(problem.position is not None for problem in error.problems) or "fit" in str(error)
        except DataError as error:  # of a net whose data is a file that is not here
            refused += 1
            assert str(error).startswith("mutated.prototxt:")
    assert 0 < refused < COUNT // CHUNKS


def test_mutated_files_give_a_report(tmp_path: Path) -> None:
    chance = random.Random(99)
    for i in range(100):
        file = tmp_path / f"{i}.prototxt"
        file.write_text(mutate(chance.choice(TEXTS), chance), encoding="utf-8", errors="surrogateescape")
        report = check(file)
        assert report.ok == (not report.problems)
        assert str(file) in str(report)
        assert report.as_json()["file"] == str(file)
