"""Data of one's own are asked about, and answer, by their names: classes, columns, rows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netspec.data.files.images import encode
from tests.cli.test_own_data import refused
from tests.command import call as run

COLOURS = {"red": (220, 30, 30), "green": (20, 200, 40), "blue": (30, 40, 220)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a table and pictures of one's own, and a trained net of each."""
    place, before, rng = tmp_path_factory.mktemp("named"), Path.cwd(), np.random.default_rng(0)
    os.chdir(place)
    sex = rng.choice(["male", "female"], 120)
    height = np.where(sex == "male", 180, 164) + 6 * rng.standard_normal(120)
    weight = height - 100 + 4 * rng.standard_normal(120)
    city = rng.choice(["Rome", "Oslo"], 120)
    lines = [f"{s},{h:.1f},{w:.1f},{c}" for s, h, w, c in zip(sex, height, weight, city, strict=True)]
    Path("people.csv").write_text("\n".join(["sex,height,weight,city", *lines]) + "\n")
    for name, colour in COLOURS.items():
        Path("photos", name).mkdir(parents=True)
        for i in range(10):
            pixels = np.clip(np.array(colour)[:, None, None] + rng.normal(0, 20, (3, 6, 8)), 0, 255)
            Path("photos", name, f"{i}.png").write_bytes(encode(pixels.astype(np.uint8), "png", ""))
    run("arrange", "people.csv", "--target", "sex", "--set", "iterations=10", "--set", "states=4")
    run("train", "people.prototxt")
    run("arrange", "photos", "--set", "iterations=20", "--set", "gaussians=4", "--set", "states=4")
    run("train", "photos.prototxt")
    yield place
    os.chdir(before)


def told_as_json(*words: str) -> list[dict[str, Any]]:
    """The lines of JSON that a command prints."""
    return [json.loads(line) for line in run(*words, "--json").splitlines()]


@pytest.mark.parametrize("command", ["sample", "tree"])
def test_a_class_is_asked_for_by_its_name(folder: Path, command: str) -> None:
    run(command, "runs/photos", "--class", "red", "-o", "named.svg")
    number = sorted(COLOURS).index("red")
    run(command, "runs/photos", "--class", number, "-o", "numbered.svg")
    assert Path("named.svg").read_bytes() == Path("numbered.svg").read_bytes()
    told = refused(command, "runs/photos", "--class", "rad")
    assert "no class 'rad'; did you mean 'red'?" in told
    assert "'purple'" in refused(command, "runs/photos", "--class", "purple")
    assert "blue, green, red" in refused(command, "runs/photos", "--class", "3")


def test_rows_are_drawn_of_a_class(folder: Path) -> None:
    run("sample", "runs/people", "--class", "male", "--rows", "9", "-o", "men.csv")
    head, *rows = Path("men.csv").read_text().split()
    place = head.split(",").index("sex")
    assert [row.split(",")[place] for row in rows] == ["male"] * 9
    assert "female, male" in refused("sample", "runs/people", "--class", "mal,e")


def test_confusion_names_its_classes(folder: Path) -> None:
    assert run("test", "runs/photos", "--confusion").splitlines()[1].split() == [
        "label",
        *sorted(COLOURS),
        "right",
    ]
    lines = run("test", "runs/people", "--confusion", "--hardest", "1").splitlines()
    assert lines[1].split() == ["label", "female", "male", "right"]
    hard = next(line for line in lines if line.startswith("example"))
    assert "label male" in hard or "label female" in hard
    told = json.loads(run("test", "runs/people", "--confusion", "--json"))
    assert told["classes"] == ["female", "male"]


@pytest.mark.parametrize("command", ["neurons", "explain", "tree"])
def test_a_table_is_no_picture(folder: Path, command: str) -> None:
    told = refused(command, "runs/people")
    assert "is of a table, and this draws pictures" in told
    assert "netspec " in told
    assert not Path(f"{command}.png").exists()


def test_likelihoods_of_a_tables_own_rows_are_of_rows(folder: Path) -> None:
    own = run("likelihood", "runs/people").splitlines()
    assert own[0].split()[0] == "row"
    assert "grey level" not in own[-1]
    # The same rows, given as a file: the same log p, in the table's units.
    given = told_as_json("likelihood", "runs/people", "--table", "people.csv")
    answers = told_as_json("likelihood", "runs/people")
    assert len(answers) == 10
    by_number = {one["row"]: one for one in given}
    for answer in answers:
        assert answer["log_likelihood"] == pytest.approx(by_number[answer["row"]]["log_likelihood"], abs=1e-4)
        assert answer["label"] in ("female", "male")


def test_what_is_missing_of_rows_given_is_what_is_empty_there(folder: Path) -> None:
    for command in ("likelihood", "complete"):
        told = refused(command, "runs/people", "--table", "people.csv", "--missing", "iid:0.5")
        assert "--missing is for pictures" in told


def test_a_column_of_numbers_is_foretold(folder: Path) -> None:
    told = run(
        "arrange", "people.csv", "--target", "weight", "-o", "weight.prototxt", "--set", "iterations=20"
    )
    assert "target weight (a number" in told
    assert "netspec predict runs/weight --table people.csv" in told
    run("train", "weight.prototxt")
    lines = Path("people.csv").read_text().splitlines()
    # A table without the column, and one with it: the answer does not look at it.
    Path("new.csv").write_text(
        "\n".join(",".join(line.split(",")[:2] + line.split(",")[3:]) for line in lines)
    )
    run("predict", "runs/weight", "--table", "new.csv", "-o", "answer.csv")
    run("predict", "runs/weight", "--table", "people.csv", "-o", "answer2.csv")
    heads = [Path(name).read_text().splitlines()[0].split(",")[-2:] for name in ("answer.csv", "answer2.csv")]
    assert heads == [["predicted weight", "deviation(weight)"]] * 2
    cells = [
        np.array(
            [
                [float(cell) for cell in line.split(",")[-2:]]
                for line in Path(name).read_text().splitlines()[1:]
            ]
        )
        for name in ("answer.csv", "answer2.csv")
    ]
    assert np.array_equal(*cells)
    truth = np.array([float(line.split(",")[2]) for line in lines[1:]])
    assert np.sqrt(np.mean((cells[0][:, 0] - truth) ** 2)) < 0.75 * truth.std()
    assert 0.5 < np.mean((cells[0][:, 0] - truth) ** 2 / cells[0][:, 1] ** 2) < 2
    run("complete", "runs/weight", "--table", "people.csv", "-o", "whole.csv")


@pytest.mark.parametrize("how", ["rects:1x80", "square:9", "rects:2x3x7"])
def test_masks_larger_than_the_image_are_said(folder: Path, how: str) -> None:
    ask = ("complete", "runs/photos", "--images", "photos/red/0.png", "-o", "filled.png", "--missing")
    assert f"{how}: is larger than the images of 6x8" in run(*ask, how)
    assert "larger" not in run(*ask, "rects:1x6")


def test_the_laboratory_asks_nets_over_folders(folder: Path) -> None:
    table = run("missing", "runs/photos", "--iid", "0.5", "--neighbours", "3", "-o", "lab.json")
    assert "photos" in table
    assert "iid:0.5" in table
    own = run("test", "runs/photos")
    right = json.loads(Path("lab.json").read_text())["methods"]["photos"]["right"]
    assert right["clean"] / 6 == pytest.approx(float(own.split("accuracy ")[1].split(",")[0]), abs=1e-6)
    assert "did you mean 'test'" in refused("missing", "runs/photos", "--split", "tets")
    run("missing", "runs/photos", "--iid", "0.5", "--split", "train", "--images", "0:5")


def test_few_examples_are_all_trained_on(folder: Path) -> None:
    Path("one.csv").write_text("a,b\n1,x\n")
    assert "one.csv: 1 example is too few to hold out 0.2 of them; all are trained on" in run(
        "arrange", "one.csv", "--set", "iterations=1", "--set", "states=2"
    )
    run("train", "one.prototxt")
    Path("two").mkdir()
    for i in range(2):
        Path("two", f"{i}.png").write_bytes(encode(np.full((3, 6, 8), 90 * i, np.uint8), "png", ""))
    assert "too few to hold out" in run("arrange", "two", "--set", "iterations=1")


def test_a_table_without_a_target_is_tested_on_its_held_out_rows(folder: Path) -> None:
    """Its labels are NaN; the likelihood of its rows is what there is to score."""
    run("arrange", "people.csv", "-o", "joint.prototxt", "--set", "iterations=2", "--set", "states=2")
    assert "test likelihood_loss" in run("train", "joint.prototxt")
