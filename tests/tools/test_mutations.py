"""Damaged spec files: checking one gives a report; building its nets gives nets or a located SpecError."""

from __future__ import annotations

import random
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netspec import schema
from netspec.check import check
from netspec.errors import DataError, SpecError
from netspec.net.make import make_net
from netspec.schema import spec
from tests.cases import all_cases
from tests.places import ROOT

TEXTS = [path.read_text() for path in sorted((ROOT / "nets").glob("*.prototxt"))]
TEXTS += [case.text for case in all_cases()]


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


@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.randoms(use_true_random=False))
def test_mutated_nets_give_a_net_or_a_located_error(chance: random.Random) -> None:
    text = mutate(chance.choice(TEXTS), chance)
    problem: SpecError | DataError | None = None
    try:
        document = schema.parse_net(text, "mutated.prototxt")
        for phase in (spec.TRAIN, spec.TEST):
            make_net(document, phase, device="meta")
    except (SpecError, DataError) as error:  # the latter where a net's data is a file that is not here
        problem = error
    if problem is not None:
        assert "mutated.prototxt:" in str(problem) or "fit" in str(problem)


def test_mutated_files_give_a_report(tmp_path: Path) -> None:
    chance = random.Random(99)
    for i in range(100):
        file = tmp_path / f"{i}.prototxt"
        file.write_text(mutate(chance.choice(TEXTS), chance), encoding="utf-8", errors="surrogateescape")
        report = check(file)
        assert report.ok == (not report.problems)
        assert str(file) in str(report)
        assert report.as_json()["file"] == str(file)
