"""The verdict of every file of tests/corpus and nets/, as committed, and that all commands give one verdict."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netspec import schema
from netspec.check import check, shaped_net
from netspec.errors import NetspecError
from netspec.interchange.comparison import open_net
from netspec.net import reading
from netspec.net.graph import compile
from netspec.net.make import make_net
from netspec.net.net import build
from netspec.pycaffe.net import Net as CaffeNet
from netspec.run import experiment
from netspec.schema import spec
from tests.cases import all_cases
from tests.places import CORPUS, ROOT
from tools.results.verdicts import LISTED, files, name, verdict

FILES = files()


def test_every_file_of_the_corpus_is_listed_and_nets_are_ok() -> None:
    listed = json.loads(LISTED.read_text())
    assert {name(path) for path in FILES if CORPUS in path.parents} <= set(listed)
    assert all(lines == ["ok"] for path, lines in listed.items() if path.startswith("nets/"))


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=name)
def test_the_verdict_is_the_listed_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A net of ours that the list does not have yet is ok."""
    monkeypatch.chdir(ROOT)
    assert verdict(path) == json.loads(LISTED.read_text()).get(name(path), ["ok"])


# One verdict


def train(path: Path, phase: str) -> None:
    solver = schema.SolverParameter(base_lr=0.1, lr_policy="fixed", max_iter=1)
    plan = experiment.load(reading.read(path, "net"), solver=solver)
    net_spec = plan.train if phase == spec.TRAIN else spec.net(reading.read(path, "net"), phase)
    build(compile(net_spec), device="meta")


COMMANDS: dict[str, Callable[[Path, str], object]] = {
    "summary, draw": shaped_net,
    "train": train,
    "test": lambda path, phase: make_net(reading.read(path, "net"), phase, device="meta"),
    "convert": lambda path, phase: open_net(path, phase=phase),
    "caffe, pycaffe": lambda path, phase: CaffeNet(str(path), int(phase == spec.TEST)),
}
SPECS = 200


def broken(text: str, chance: random.Random) -> str:
    """The text with a letter less, two letters the other way round, or a layer's number changed."""
    places = [i for i in range(len(text) - 1) if text[i].isalpha() and text[i + 1].isalpha()]
    i = chance.choice(places)
    return chance.choice((text[:i] + text[i + 1 :], text[:i] + text[i + 1] + text[i] + text[i + 2 :]))


def specs() -> Iterator[tuple[str, str]]:
    """(text, phase) of SPECS nets: the cases of the layers, and after each the same with a slip in it."""
    chance = random.Random(5)
    cases = [case for case in all_cases() if "tests.python_layers" not in case.text]
    for case in chance.sample(cases, SPECS // 2):
        yield case.text, case.phase
        yield broken(case.text, chance), case.phase


@pytest.mark.slow
def test_all_commands_give_one_verdict(tmp_path: Path) -> None:
    """In one process: what check calls ok, every command builds; what it refuses, every command refuses."""
    path, counts = tmp_path / "net.prototxt", {True: 0, False: 0}
    for text, phase in specs():
        path.write_text(text)
        report = check(path)
        accepts = {}
        for word, command in COMMANDS.items():
            try:
                command(path, phase)
                accepts[word] = True
            except (NetspecError, RuntimeError):  # pycaffe's errors are RuntimeErrors
                accepts[word] = False
        assert set(accepts.values()) == {report.ok}, f"{text}\n{report}\n{accepts}"
        counts[report.ok] += 1
    assert min(counts.values()) > SPECS // 5
