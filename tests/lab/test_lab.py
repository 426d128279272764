"""The laboratory: settings, tables and their intervals, runs on equal masks, averaging over translations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from netspec import lab, schema
from netspec.data.files.idx import Array
from netspec.errors import DataError
from netspec.lab.methods import SHIFTS, translate, translated_scores
from netspec.lab.plot import looks
from netspec.model import model
from netspec.model.deploy import deploy
from netspec.model.mixture import Mixture
from netspec.net.make import make_net
from netspec.run.fit import fit
from netspec.schema import spec


class Oracle:
    """Answers with the number of observed pixels."""

    def __init__(self, name: str = "oracle"):
        self.name = name
        self.seen: list[Array] = []

    def predict(self, pixels: Array, observed: Array) -> Array:
        self.seen.append(observed)
        counts: Array = observed.reshape(len(observed), -1).sum(1)
        return counts


NAMES = [
    "clean", "iid:0.25", "rects:2x7", "rects:1x3x5", "nonzero:25", "pixels:9", "lines:3", "square",
    "square:4", "trapezoid", "noise:0.5", "mar",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_named_and_repeatable(name: str) -> None:
    setting = lab.parse(name)
    assert setting.name == name
    pixels = np.random.default_rng(0).integers(0, 256, (6, 1, 28, 28)).astype(np.uint8)
    keys = np.arange(6)
    mask = setting.observed(pixels, keys, seed=1)
    assert mask.shape == (6, 1, 28, 28)
    assert np.array_equal(mask, setting.observed(pixels, keys, seed=1))
    assert np.array_equal(mask[3:], setting.observed(pixels[3:], keys[3:], seed=1))
    if name == "clean":
        assert mask.all()
    else:
        assert not np.array_equal(mask, setting.observed(pixels, keys, seed=2))
        assert not np.array_equal(mask, setting.observed(pixels, keys, seed=1, repeat=1))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("iid", "expected iid:P with a probability"),
        ("iid:1.5", "expected iid:P"),
        ("rects:3", "expected rects:NxW"),
        ("rects:3x0", "expected rects:NxW"),
        ("rect:1x7", "did you mean 'rects'"),
        ("mar:1", "expected mar without a number"),
        ("clean:1", "no missingness is called 'clean'"),
    ],
)
def test_settings_that_are_none(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        lab.parse(name)


def test_the_settings_of_fig_4() -> None:
    names = [setting.name for setting in lab.FIG_4]
    assert names[:7] == ["clean", "iid:0.25", "iid:0.5", "iid:0.75", "iid:0.9", "iid:0.95", "iid:0.99"]
    assert names[7:] == [f"rects:{n}x{w}" for n in (1, 2, 3) for w in (7, 11, 15)]


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys(counts: tuple[int, int]) -> None:
    right, n = counts
    expected = stats.binomtest(right, n).proportion_ci(0.95, "wilson")
    np.testing.assert_allclose(lab.wilson(right / n, n), expected, atol=1e-12)


def test_every_method_sees_the_same_masks() -> None:
    pixels = np.zeros((2500, 1, 4, 4), np.uint8)
    labels = np.full(2500, 16)
    methods = [Oracle("a"), Oracle("b")]
    table = lab.run(methods, lab.parse_all(["0.5"]), pixels, labels, repeats=2, seed=3)
    for one, other in zip(methods[0].seen, methods[1].seen, strict=True):
        assert np.array_equal(one, other)
    assert table.settings == ["clean", "iid:0.5"]
    clean, half = table.cells["a"].values()
    assert (clean.right, clean.images, clean.repeats) == (2500, 2500, 1)
    assert (half.images, half.repeats) == (2500, 2)
    masks = np.concatenate(methods[0].seen[3:])
    assert len(masks) == 5000
    assert half.right == (masks.reshape(5000, -1).sum(1) == 16).sum()
    assert stats.binomtest(int((~masks).sum()), masks.size, 0.5).pvalue > 1e-3


def test_the_intervals_cover(tmp_path: Path) -> None:
    """Accuracies of 95 % intervals hold the truth about 95 times in 100, with repeats no less."""
    random = np.random.default_rng(5)
    held = 0
    for _ in range(300):
        difficulty = random.random(200)  # each image has its own chance
        right = int((random.random((3, 200)) < difficulty).sum())
        low, high = lab.Cell(right, 200, 3).interval
        held += low <= 0.5 <= high
    assert held >= 280


def test_rows_of_one_name_are_not_added_up() -> None:
    pixels, labels = np.zeros((5, 1, 2, 2), np.uint8), np.full(5, 4)
    with pytest.raises(DataError, match="two methods are called 'a'"):
        lab.run([Oracle("a"), Oracle("a")], lab.parse_all(), pixels, labels)


def test_a_setting_given_twice_is_one_column() -> None:
    seen = Oracle("a")
    made = lab.run([seen], lab.parse_all(["0.5", " 0.5 "]), np.zeros((5, 1, 2, 2), np.uint8), np.full(5, 4))
    assert made.settings == ["clean", "iid:0.5"]
    assert len(seen.seen) == 2


def table() -> lab.Table:
    made = lab.Table(facts={"seed": 1})
    made.put("ours", "clean", lab.Cell(99, 100))
    made.put("ours", "iid:0.5", lab.Cell(270, 100, 3))
    made.put("theirs", "clean", lab.Cell(50, 100))
    return made


def test_tables_are_written(tmp_path: Path) -> None:
    made = table()
    data = json.loads(made.write(tmp_path / "t.json").read_text())
    assert data["methods"]["ours"]["accuracy"] == {"clean": 99.0, "iid:0.5": 90.0}
    assert data["seed"] == 1
    again = lab.Table.from_json(data)
    assert again.markdown() == made.markdown()
    lines = made.write(tmp_path / "t.csv").read_text().splitlines()
    assert lines[0].startswith("method,setting,accuracy")
    assert len(lines) == 4
    assert "| ours | 99.00" in made.write(tmp_path / "t.md").read_text()
    assert made.write(tmp_path / "t.txt").read_text().startswith("method")
    with pytest.raises(DataError, match="written as"):
        made.write(tmp_path / "t.xls")


def test_a_table_of_one_method_is_flat() -> None:
    made = lab.Table()
    made.put("ours", "clean", lab.Cell(1, 2))
    assert made.as_json()["accuracy"] == {"clean": 50.0}
    assert lab.Table.from_json(made.as_json(), "ours").cells == made.cells


def test_translations_bring_in_nothing() -> None:
    x = torch.arange(9.0).view(1, 1, 3, 3)
    moved = translate(x, 1, -1)[0, 0]
    assert moved[1:, :2].tolist() == [[1, 2], [4, 5]]
    assert moved[0].isnan().all()
    assert moved[:, 2].isnan().all()
    assert len(set(SHIFTS)) == 9


def test_averaging_over_translations_is_a_sum_of_nine_passes() -> None:
    net = model.load("nets/ht_cac_digits.prototxt")
    x = torch.rand(5, 1, 8, 8) - 0.5
    x[torch.rand(x.shape) < 0.3] = torch.nan
    expected = sum(net.scores(translate(x, dy, dx)) for dy, dx in SHIFTS)
    small = model.Model(net.net, net.deployed, batch=2)
    torch.testing.assert_close(translated_scores(small, x), expected, rtol=1e-4, atol=1e-3)


def test_a_mixture_of_models_is_the_mean_of_their_densities() -> None:
    nets = [digits(seed) for seed in (1, 2, 3)]
    x = torch.rand(5, 1, 8, 8) - 0.5
    x[torch.rand(x.shape) < 0.5] = torch.nan
    mixed = Mixture(nets)
    densities = torch.stack([one.scores(x).double().exp() for one in nets])
    torch.testing.assert_close(mixed.scores(x).double().exp(), densities.mean(0), rtol=1e-4, atol=0)
    assert mixed.scores(x * torch.nan).abs().max() < 1e-5
    expected = sum(mixed.scores(translate(x, dy, dx)) for dy, dx in SHIFTS)
    torch.testing.assert_close(translated_scores(mixed, x), expected, rtol=1e-4, atol=1e-3)


def digits(seed: int, old: str = "", new: str = "") -> model.Model:
    """The net of digits with random offsets, `old` in its text replaced by `new`."""
    text = Path("nets/ht_cac_digits.prototxt").read_text().replace(old, new)
    deployed = deploy(spec.net(schema.parse_net(text), "TEST"))
    return model.Model(make_net(deployed.spec, seed=seed), deployed, f"seed {seed}")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A generative net and a classifier of whole images, hardly trained."""
    folder = tmp_path_factory.mktemp("runs")
    fit("nets/ht_cac_digits.prototxt", iterations=5, out=folder / "ht", progress=False)
    plain = folder / "plain.prototxt"
    plain.write_text(
        'layer { name: "data" type: "Dataset" top: "data" top: "label" transform_param { scale: 0.01 }'
        ' dataset_param { name: "digits" batch_size: 50 } }'
        'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"'
        ' inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }'
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }'
    )
    solver = folder / "plain_solver.prototxt"
    solver.write_text('base_lr: 0.1 lr_policy: "fixed" max_iter: 100')
    fit(plain, out=folder / "plain", progress=False, seed=1)
    return folder / "ht", folder / "plain"


def test_the_laboratory_in_one_call(runs: tuple[Path, Path], tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("t.json", "t.md", "t.png", "t.svg")]
    made = lab.missing(
        runs,
        lab.Columns(iid=["0.5"], rects=["1x3"], others=["nonzero:5"]),
        lab.Rows(neighbours=3, robust=[(1, 1.0)], impute=["zero", "mean_per_pixel", "sampled"]),
        end=60,
        out=files,
    )
    assert list(made.cells) == [
        "ht", "plain, zero", "plain, mean_per_pixel", "plain, sampled", "3 nearest neighbours",
        "robust linear (N=1, C=1)",
    ]  # fmt: skip
    assert made.settings == ["clean", "iid:0.5", "rects:1x3", "nonzero:5"]
    assert made.facts["data"] == "digits"
    whole = {row["clean"].right for name, row in made.cells.items() if name.startswith("plain")}
    assert len(whole) == 1  # nothing to impute
    assert made.cells["3 nearest neighbours"]["clean"].accuracy > 0.9
    assert all(path.stat().st_size > 500 for path in files)
    assert json.loads(files[0].read_text())["methods"]["ht"]["accuracy"] == made.accuracy("ht")


def test_a_row_does_not_depend_on_the_others(runs: tuple[Path, Path]) -> None:
    together = lab.missing(runs, lab.Columns(iid=["0.5"]), end=60)
    alone = lab.missing(runs[:1], lab.Columns(iid=["0.5"]), end=60)
    assert together.cells["ht"] == alone.cells["ht"]


def test_a_mixture_is_one_row_more(runs: tuple[Path, Path]) -> None:
    made = lab.missing(
        [*runs, runs[0]], lab.Columns(iid=["0.5"]), lab.Rows(mixture=True, impute=["zero"]), end=60
    )
    assert list(made.cells) == ["ht (1)", "plain, zero", "ht (2)", "ht (1) + ht (2)"]
    assert made.cells["ht (1) + ht (2)"] == made.cells["ht (1)"]  # of a net and itself


def test_a_wrong_suffix_costs_no_work() -> None:
    with pytest.raises(DataError, match=r"results\.xls: results are written as \.json, .*\.svg"):
        lab.missing(["no such run"], out=["results.xls"])


def test_what_cannot_be_assembled(runs: tuple[Path, Path]) -> None:
    with pytest.raises(DataError, match="comes from a generative net"):
        lab.missing(runs[1:], rows=lab.Rows(impute=["expected"]))
    with pytest.raises(DataError, match="did you mean 'zero'"):
        lab.missing(runs[1:], rows=lab.Rows(impute=["zeros"]))
    with pytest.raises(DataError, match="no run was given"):
        lab.missing([])

    with pytest.raises(DataError, match="does not know of missing pixels"):
        lab.Direct(model.load(runs[1]))
    with pytest.raises(DataError, match="no model to mix"):
        lab.missing(runs[1:], rows=lab.Rows(mixture=True))
    ours, plain = (model.load(run) for run in runs)
    with pytest.raises(DataError, match="plain: this net is no generative model"):
        Mixture([ours, plain])
    other = digits(1)
    other.transform.scale *= 2
    with pytest.raises(DataError, match="differ in the size, the scale or the mean"):
        Mixture([ours, other])
    with pytest.raises(DataError, match="it has 3 classes, the other 10"):
        Mixture([ours, digits(1, "num_instances: 10", "num_instances: 3")])
    with pytest.raises(DataError, match="a mixture needs two generative runs; there is one, ht"):
        lab.missing(runs, rows=lab.Rows(mixture=True), end=5)
    with pytest.raises(DataError, match="did you mean 'zero'"):
        lab.missing(runs[:1], rows=lab.Rows(impute=["zeros"]), end=5)
    with pytest.raises(DataError, match="10000 nearest neighbours: there are 1507 training images"):
        lab.missing(runs[:1], rows=lab.Rows(neighbours=10_000), end=5)


def test_baselines_given_twice_are_one_row(runs: tuple[Path, Path]) -> None:
    made = lab.missing(runs[1:], rows=lab.Rows(impute=["zero", "zero"], robust=[(1, 1.0), (1, 1.0)]), end=20)
    assert list(made.cells) == ["plain, zero", "robust linear (N=1, C=1)"]
    assert made.cells["plain, zero"]["clean"].accuracy <= 1


def test_a_run_is_called_by_its_folder(runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs[0])
    assert list(lab.missing(["."], end=5).cells) == ["ht"]


def test_an_image_has_its_mask_in_any_selection(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """Also one from a file, which has a mask for each image of the split."""
    masks = np.random.default_rng(1).random((40, 8, 8)) < 0.5
    np.save(tmp_path / "masks.npy", masks)
    names = ["iid:0.5", f"file:{tmp_path / 'masks.npy'}"]
    parts = [
        lab.missing(runs[:1], lab.Columns(others=names), begin=b, end=e)
        for b, e in ((0, 40), (0, 25), (25, 40))
    ]
    for name in names:
        whole, *halves = (table.cells["ht"][name].right for table in parts)
        assert whole == sum(halves)
    net = model.load(runs[0])
    pixels, labels = net.images("test", 0, 40)
    right = net.predict(net.from_pixels(pixels, masks[:, None])).numpy() == labels
    assert parts[0].cells["ht"][names[1]].right == right.sum()


def test_a_table_names_the_gpu_only_where_it_was_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "Some GPU")
    assert "Some GPU" not in lab.circumstances("cpu")["machine"]
    assert lab.circumstances(torch.device("cuda"))["machine"].endswith("threads, Some GPU")
    assert lab.circumstances()["machine"].endswith("threads, Some GPU")


def test_no_two_methods_look_alike() -> None:
    names = [name + end for name in map(str, range(20)) for end in ("", ", 9 shifts")]
    styles = looks(names)
    assert len({tuple(sorted(look.items())) for look in styles.values()}) == 40
    for plain, shifted in zip(names[::2], names[1::2], strict=True):
        same = {key for key in styles[plain] if styles[plain][key] == styles[shifted][key]}
        assert same == {"color", "marker"}
    assert len({look["color"] for look in looks(names[:20]).values()}) == 10
