"""Plans: those of hyper_train.py and our own, the runs that they mean, and what is wrong with bad ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netspec.cli import app
from netspec.errors import SpecError
from netspec.experiments.parameters import from_object, from_short, permutation
from netspec.experiments.plan_reading import read_plan
from netspec.experiments.points import runs_of, settings_of, text_of, variables
from netspec.experiments.values import parse_settings, read_values
from netspec.schema import shipped

TEMPLATE = """base_lr: {{ base_lr }} max_iter: {{ max_iter | int }} lr_policy: "fixed" snapshot_prefix: "{{ name }}"
test_iter: 2 test_state: { stage: "a" } test_interval: 10 random_seed: {{ caffe_random_seed }}
net_param { name: "{{ name }}"
  layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param {
    data_filler { type: "gaussian" } data_filler { type: "constant" } shape { dim: 4 dim: 3 } shape { dim: 4 } } }
  layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: {{ units | int }} } }
  layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "y" top: "loss" }
}
"""
ORIGINAL = """{
    "name": "model/train",  # the folder, and "model_train" in names
    "search_type": "grid",
    "rendering_engine": true,
    "termination_rules": {
#      "delta": 1e-7,
      "nan": true
    },
    "hyper_params": [
        {"name": "base_lr", "type": "preset", "values": [0.01, 1e-3]},
        ### Architectural Parameters # ###
        {
            "name": "units",
            "type": "sample",\t"sample_type": "linspace", "min": 4, "max": 8, "sample_count": 3, "data_type": "int"
        },
        {"name": "note", "type": "preset", "values": ["a # b"]},
        {"name": "max_iter", "type": "preset", "values": [20]}
    ]
}
"""


def write(folder: Path, plan: str, template: str = TEMPLATE, name: str = "train_plan.json") -> Path:
    (folder / "net.prototmp").write_text(template)
    path = folder / name
    path.write_text(plan)
    return path


def test_an_original_plan(tmp_path: Path) -> None:
    plan = read_plan(write(tmp_path, ORIGINAL))
    runs = runs_of(plan)
    assert plan.folder == Path("model/train")
    assert [run.id for run in runs] == [f"model_train_{i}" for i in range(1, 7)]
    assert [(run.values["base_lr"], run.values["units"]) for run in runs] == [
        (0.01, 4), (0.01, 6), (0.01, 8), (0.001, 4), (0.001, 6), (0.001, 8)
    ]  # fmt: skip
    assert runs[0].values["note"] == "a # b"
    given = variables(runs[4], plan)
    assert given["name"] == str(Path("model/train/model_train_5").absolute())
    assert given["run_idx_1"] == 5
    assert 0 <= given["caffe_random_seed"] < 2**32
    assert variables(runs_of(read_plan(tmp_path / "train_plan.json"))[4], plan) == given
    text = text_of(runs[1], plan)
    assert text is not None
    assert text.parse().message.net_param.layer[1].inner_product_param.num_output == 6


def test_dry_run_of_an_original_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, ORIGINAL)
    for files in ([str(path)], [str(tmp_path / "net.prototmp"), str(path)]):
        app(["sweep", *files, "--dry-run", "--json", "--no-timing"], standalone_mode=False)
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [line["iterations"] for line in lines] == [20] * 6
        assert not any(line["error"] for line in lines)
    assert not Path("model").exists()


def test_render_with_the_values_of_a_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, ORIGINAL)
    app(
        ["render", str(tmp_path / "net.prototmp"), "--plan", str(path), "--point", "5"], standalone_mode=False
    )
    text = capsys.readouterr().out
    assert "base_lr: 0.001" in text
    assert "num_output: 6" in text
    given = [part for value in ("base_lr=0.1", "units=3", "max_iter=5") for part in ("--set", value)]
    app(["render", str(tmp_path / "net.prototmp"), *given, "-o", str(tmp_path / "o")], standalone_mode=False)
    assert 'snapshot_prefix: "net"' in (tmp_path / "o").read_text()
    with pytest.raises(SpecError, match="has 6 points, found 7"):
        app(
            ["render", str(tmp_path / "net.prototmp"), "--plan", str(path), "--point", "7"],
            standalone_mode=False,
        )


def test_a_template_in_place_of_a_plan(tmp_path: Path) -> None:
    (tmp_path / "t.prototmp").write_text('name: "{{ x }}"')
    with pytest.raises(SpecError, match=r"is a template or a spec; a plan is \.yaml or \.json"):
        read_plan(tmp_path / "t.prototmp")


def test_nets_that_are_shipped_are_found_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, "file: ht_cac_digits\nmetric: accuracy\nvalues: {base_lr: 0.1}", name="p.yaml")
    stage = read_plan(path).stages[0]
    assert stage.file == shipped.folder() / "ht_cac_digits.prototxt"
    path.write_text("file: ht_cac_digit\nmetric: accuracy\nvalues: {base_lr: 0.1}")
    with pytest.raises(SpecError, match=r"did you mean 'ht_cac_digits'\?"):
        read_plan(path)


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "nets" / "plans").glob("*.yaml")), ids=lambda p: p.stem
)
def test_plans_that_are_shipped(path: Path) -> None:
    plan = read_plan(path)
    if plan.search == "grid":
        number = len(runs_of(plan))
        assert number > 0
        assert plan.points is None or number % plan.points == 0  # a run for each point and seed


def test_dry_run_times_a_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, ORIGINAL)
    app(["sweep", str(path), "--dry-run", "-j", "2"], standalone_mode=False)
    *lines, last = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("model_train_2  base_lr=0.01  units=6  20 iterations  ")
    assert "ms a step" in lines[1]
    assert last.startswith("6 runs in model/train, about ")


def test_groups_are_multiplied_and_random_ones_bounded(tmp_path: Path) -> None:
    plan = json.dumps(
        {
            "name": "m",
            "search_type": ["grid", "random"],
            "max_data_points": 5,
            "hyper_params": [
                [
                    {"name": "a", "type": "preset", "values": [1, 2]},
                    {"name": "max_iter", "type": "preset", "values": [7]},
                ],
                [
                    {"name": "b", "type": "preset", "values": ["x", "y"]},
                    {"name": "c", "type": "sample", "sample_type": "log_uniform", "min": -0.1, "max": -0.001},
                ],
            ],
        }
    )
    runs = runs_of(
        read_plan(write(tmp_path, plan, "max_iter: %(max_iter)d base_lr: %(a)s # %(b)s %(c).3f 5%%"))
    )
    assert [run.id for run in runs] == [f"m_1_{i}" for i in range(1, 6)]
    assert [run.values["b"] for run in runs] == ["x", "y", "x", "y", "x"]  # presets take turns
    assert all(-0.1 <= run.values["c"] <= -0.001 for run in runs)
    assert len({run.values["c"] for run in runs}) == 5
    text = text_of(runs[0], read_plan(tmp_path / "train_plan.json"))
    assert text is not None
    assert text.text.startswith("max_iter: 7 base_lr: 1 # x -0.")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (
            {"type": "sample", "sample_type": "logspace", "min": 0.01, "max": 1, "sample_count": 3},
            [0.01, 0.1, 1.0],
        ),
        ({"type": "sample", "sample_type": "linspace", "min": 0, "max": 1, "sample_count": 2}, [0.0, 1.0]),
        ({"type": "preset", "values": [1.9, -1.9], "data_type": "int"}, [1, -1]),
        ({"type": "preset", "values": [1, "2"], "data_type": "float"}, [1.0, 2.0]),
        ({"type": "preset", "values": [1, True], "data_type": "string"}, ["1", "True"]),
        ({"type": "cyclic_shift_permute", "height": 2, "width": 3, "s_x": 1, "s_y": 0}, ["2,0,1,5,3,4"]),
    ],
)
def test_values_of_a_grid(entry: dict[str, Any], expected: list[Any]) -> None:
    grid = from_object({"name": "x", **entry}, "grid").grid(0)
    assert grid == pytest.approx(expected) if isinstance(expected[0], float) else grid == expected


def test_drawn_values_are_within_their_range() -> None:
    uniform = from_short("x", {"uniform": [2, 3], "count": 400}, "grid").grid(1)
    assert 2 <= min(uniform) < 2.05
    assert 2.95 < max(uniform) <= 3
    logs = np.log10(from_short("x", {"log_uniform": [1e-4, 1], "count": 2000}, "grid").grid(1))
    assert logs.mean() == pytest.approx(-2, abs=0.1)
    assert set(from_short("x", {"choice": [1, 2, 3], "count": 60}, "grid").grid(1)) == {1, 2, 3}
    assert (
        from_object(
            {"name": "x", "type": "sample", "sample_type": "choice", "values": [1, 2, 3]}, "random"
        ).count
        is None
    )


@pytest.mark.parametrize("radius", [1, 2, 4])
def test_no_cell_moves_further_than_the_radius(radius: int) -> None:
    height, width = 5, 7
    text = permutation("radius_permute", (height, width, radius), np.random.default_rng(radius))
    cells = np.array([int(part) for part in text.split(",")])
    assert sorted(cells) == list(range(35))
    here = np.arange(35)
    assert np.abs(cells // width - here // width).max() <= radius
    assert np.abs(cells % width - here % width).max() <= radius
    assert (cells != here).any()


# Plans of our own

SHORT = """
name: short
template: net.prototmp
metric: loss
values:
  max_iter: 20
  units: [2, 4]
  base_lr: {logspace: [0.001, 0.1], count: 2}
  extra: {values: [1, 2], when: {units: 4}}
seeds: [7, 8]
set: {momentum: 0.9, display: 5}
"""


def test_a_short_plan(tmp_path: Path) -> None:
    plan = read_plan(write(tmp_path, SHORT, name="p.yaml"))
    runs = runs_of(plan)
    assert plan.folder == Path("runs/short")
    assert (plan.metric.output, plan.metric.mode) == ("loss", "min")
    assert len(runs) == (2 + 4) * 2
    assert [run.id for run in runs[:3]] == ["short_1_s7", "short_1_s8", "short_2_s7"]
    assert [run.values.get("extra") for run in runs[::2]] == [None, None, 1, 2, 1, 2]
    assert settings_of(runs[0]) == {"momentum": "0.9", "display": "5"}
    assert variables(runs[1], plan)["seed"] == 8


STAGES = """
name: chain
template: net.prototmp
values: {max_iter: 5, units: 3, base_lr: 0.1}
stages:
  - name: init
  - {name: train, after: init, values: {base_lr: [0.1, 0.2]}, seeds: 2}
  - {name: test, after: train, task: test, values: {p: [0, 0.5, 0.9]}}
"""


def test_stages(tmp_path: Path) -> None:
    runs = runs_of(read_plan(write(tmp_path, STAGES, name="p.yaml")))
    assert [sum(run.stage.name == name for run in runs) for name in ("init", "train", "test")] == [1, 4, 12]
    last = runs[-1]
    assert last.id == "chain_init_1_train_2_s2_test_3"
    assert (last.values["base_lr"], last.values["p"], last.seed) == (0.2, 0.9, 2)
    assert last.parent is not None
    assert last.parent.parent is runs[0]


def test_values_of_files_are_settings(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(TEMPLATE)
    plan = "file: net.prototxt\nvalues: {base_lr: [0.1], ip.inner_product_param.num_output: 4, stepvalue: [[1, 2]]}"
    (run,) = runs_of(read_plan(write(tmp_path, plan, name="p.yaml")))
    assert settings_of(run) == {
        "base_lr": "0.1",
        "ip.inner_product_param.num_output": "4",
        "stepvalue": "1,2",
    }


# Mistakes


@pytest.mark.parametrize(
    ("plan", "line", "complaint"),
    [
        ("template: net.prototmp\nvalus: {}", 2, "unknown key 'valus'; did you mean 'values'"),
        (
            "template: net.prototmp\nvalues:\n  a: {logspac: [1, 2]}",
            3,
            "unknown key 'logspac'; did you mean 'logspace'",
        ),
        ("template: net.prototmp\nvalues:\n  a: {logspace: [1, 2]}", 3, "needs a count"),
        ("template: net.prototmp\nvalues:\n  a: {logspace: [-1, 2], count: 2}", 3, "same sign"),
        ("template: net.prototmp\nvalues:\n  a: {uniform: [3, 2], count: 2}", 3, "min 3 is above max 2"),
        ("template: net.prototmp\nvalues:\n  a: {uniform: 3, count: 2}", 3, "needs two numbers"),
        ("template: net.prototmp\nvalues:\n  a: {choice: []}", 3, "needs a list of values"),
        (
            "template: net.prototmp\nvalues:\n  b: 1\n  a: {values: [1], when: {c: 1}}",
            4,
            "no parameter before it",
        ),
        ("template: net.prototmp\nsearch: rndom", 2, "did you mean 'random'"),
        ("template: net.prototmp\nsearch: random", 2, "needs points"),
        ("template: net.prototmp\nkeep: 3", 2, "keep is one of last, best, all, none"),
        ("template: other.prototmp", 1, "'other.prototmp': no such file"),
        ("values: {}", 1, "names no template and no file"),
        (
            "template: net.prototmp\nstages:\n- {name: a}\n- {name: b, after: c}",
            4,
            "no stage before it has that name",
        ),
        ("template: net.prototmp\nstop: {patience: -1}", 2, "patience is a whole number"),
        ("template: net.prototmp\nlimits: {seconds: 0}", 2, "above 0"),
        ("template: net.prototmp\na: [1", 2, "expected"),
        ("- 1", 1, "expected a mapping"),
    ],
)
def test_mistakes_are_placed(plan: str, line: int, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=complaint) as raised:
        read_plan(write(tmp_path, plan, name="p.yaml"))
    position = raised.value.problems[0].position
    assert position is not None
    assert (position.file, position.line) == (str(tmp_path / "p.yaml"), line)


@pytest.mark.parametrize(
    ("change", "line", "complaint"),
    [
        (('"linspace"', '"linspac"'), 12, "unknown sample_type 'linspac'; did you mean 'linspace'"),
        ((', "sample_count": 3', ""), 12, "needs a count"),
        (('"grid"', '"gird"'), 3, "did you mean 'grid'"),
        (('"grid"', '"random"'), 3, "needs max_data_points"),
        (("[0.01, 1e-3]", "[]"), 11, "needs a list of values"),
        (('"nan": true', '"nan": true,'), 8, "property name|Illegal trailing comma"),
        (('"name": "model/train", ', '"nam": "x",'), 2, "unknown key 'nam'; did you mean 'name'"),
    ],
)
def test_mistakes_of_originals_are_placed(
    change: tuple[str, str], line: int, complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=complaint) as raised:
        read_plan(write(tmp_path, ORIGINAL.replace(*change)))
    position = raised.value.problems[0].position
    assert position is not None
    assert abs(position.line - line) <= 1


def test_settings_of_the_command_line() -> None:
    given = ["a=1", "b=1e-3", "c=true", "d=[1, 2]", "e=text, more", "f=None", "g={x: 1e2}", "h=", "i='1'"]
    assert parse_settings(given) == {
        "a": 1, "b": 0.001, "c": True, "d": [1, 2], "e": "text, more", "f": None, "g": {"x": 100.0}, "h": "", "i": "1"
    }  # fmt: skip
    with pytest.raises(SpecError, match="--set a: expected NAME=VALUE"):
        parse_settings(["a"])


def test_files_of_values(tmp_path: Path) -> None:
    for name, text in (("v.yaml", "a: 1e-3\nb: [1]\n"), ("v.json", '{"a": 1e-3, # c\n "b": [1]}')):
        (tmp_path / name).write_text(text)
        assert read_values(tmp_path / name) == {"a": 0.001, "b": [1]}
