"""`netspec compare RUN RUN...`: metrics beside the difference of the prototxt files, with significance."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netspec.errors import DataError, NetspecError, did_you_mean
from netspec.experiments.listing import cell, table
from netspec.experiments.runs import RunFolder, differing, runs_in, settable_text
from netspec.experiments.significance import McNemar, Paired, mcnemar, paired, spread
from netspec.interchange.snapshot_files import states
from netspec.run.confusion import predictions
from netspec.run.stopping import BEST, lower_is_better

PREFERRED = ("accuracy", "error", "loss")
"""Outputs that are compared first where no name is given."""
SEEDS = ("random_seed", "seed", "caffe_random_seed", "name", "snapshot_prefix")
"""Settings that may differ between the runs of one group."""
LINES = 60
"""Lines of a difference of files that are shown without --diff."""
Pairs = list[tuple[int, McNemar]]


@dataclass
class Group:
    """Runs that differ in nothing but their seeds."""

    name: str
    runs: list[RunFolder]

    def by_seed(self, output: str) -> dict[int | str, float]:
        """The last value of an output by seed ("run 0" and so on for runs without one); the mean over runs of
        one seed.
        """
        values_of_seed: dict[int | str, list[float]] = {}
        for i, run in enumerate(self.runs):
            if output in run.last:
                values_of_seed.setdefault(f"run {i}" if run.seed is None else run.seed, []).append(
                    run.last[output]
                )
        return {seed: sum(values) / len(values) for seed, values in values_of_seed.items()}

    def repeated(self) -> list[str]:
        """A note for each seed of several runs."""
        counts = Counter(run.seed for run in self.runs if run.seed is not None)
        return [
            f"{self.name}: {n} runs of seed {seed} count as one, their mean"
            for seed, n in counts.items()
            if n > 1
        ]


@dataclass
class Versus:
    """A group against the first."""

    pairs: dict[str, Paired]
    """The comparison of each output, over the seeds that both groups have."""
    tests: Pairs
    """(seed, McNemar's test on the test predictions)."""
    notes: list[str] = field(default_factory=list)
    diff: list[str] = field(default_factory=list)
    """The difference between the files of each group's first run."""


@dataclass
class Comparison:
    """Groups of runs; the first is what the others are compared with."""

    groups: list[Group]
    outputs: list[str]
    settings: dict[str, list[str | None]]
    """Settings that differ, with a value per group."""
    against: list[Versus]
    """One entry per group after the first."""

    def lower(self, output: str) -> bool:
        """Whether lower is better for the output."""
        return falls([run for group in self.groups for run in group.runs], output)

    def as_json(self) -> dict[str, Any]:
        return {
            "groups": [
                {
                    "name": group.name,
                    "runs": [str(run.path) for run in group.runs],
                    "seeds": [run.seed for run in group.runs],
                    "settings": {name: row[i] for name, row in self.settings.items()},
                    "outputs": {name: group.by_seed(name) for name in self.outputs},
                }
                for i, group in enumerate(self.groups)
            ],
            "against_first": [
                {
                    "group": group.name,
                    "paired": {name: pair.as_json() for name, pair in versus.pairs.items()},
                    "mcnemar": [{"seed": seed, **test.as_json()} for seed, test in versus.tests],
                    "notes": versus.notes,
                    "diff": versus.diff,
                }
                for group, versus in zip(self.groups[1:], self.against, strict=True)
            ],
        }

    def lines(self, whole_diff: bool = False) -> Iterator[str]:
        """What is printed."""
        rows: list[dict[str, Any]] = []
        for name, values in self.settings.items():
            rows.append({"": name, **{g.name: v for g, v in zip(self.groups, values, strict=True)}})
        rows.append({"": "runs", **{group.name: str(len(group.runs)) for group in self.groups}})
        for output in self.outputs:
            rows.append({"": output, **{group.name: shown(group.by_seed(output)) for group in self.groups}})
        seconds = {
            group.name: sum(run.seconds for run in group.runs) / len(group.runs) for group in self.groups
        }
        rows.append({"": "seconds", **{name: f"{value:.4g}" for name, value in seconds.items()}})
        yield table(rows, ["", *(group.name for group in self.groups)])
        first = self.groups[0].name
        for group, versus in zip(self.groups[1:], self.against, strict=True):
            yield ""
            yield f"{group.name} against {first}"
            for output, pair in versus.pairs.items():
                yield f"  {output}: {sentence(pair, self.lower(output))}"
            for seed, one_test in versus.tests:
                yield f"  test predictions, seed {seed}: {verdict(one_test)}"
            yield from (f"  {note}" for note in versus.notes)
            kept = versus.diff if whole_diff else versus.diff[:LINES]
            yield from (f"  {line}" for line in kept)
            if len(kept) < len(versus.diff):
                yield f"  ... {len(versus.diff) - len(kept)} lines more (--diff)"


def shown(values: dict[int | str, float]) -> str:
    """Mean, interval and count of a group's values."""
    if not values:
        return ""
    mean, half = spread(list(values.values()))
    return cell(mean) if math.isnan(half) else f"{mean:.5g} ± {half:.2g}"


def falls(runs: Sequence[RunFolder], output: str) -> bool:
    """Whether an output is to fall: as the runs' plan says, else by its name."""
    said = {run.aim for run in runs if run.aim and run.aim[0] == output}
    return said.pop()[1] if len(said) == 1 else lower_is_better(output)


def sentence(pair: Paired, lower: bool) -> str:
    """A paired difference in words; lower: whether lower is better."""
    if pair.count == 1:
        return f"{pair.difference:+.4g} in one pair, which says nothing of other seeds"
    better = pair.difference < 0 if lower else pair.difference > 0
    told = "no difference is shown" if not pair.p < 0.05 else "better" if better else "worse"
    return (
        f"{pair.difference:+.4g} over {pair.count} seeds, 95 % interval {pair.low:+.4g} to {pair.high:+.4g}, "
        f"p = {pair.p:.2g} (t), {pair.p_signs:.2g} (signs): {told}"
    )


def verdict(test: McNemar) -> str:
    """McNemar's test in words; both forms of z."""
    side = "no difference is shown" if not test.p < 0.05 else "better" if test.z > 0 else "worse"
    return (
        f"right alone on {test.n10}, the first on {test.n01}, of {test.examples}; z = {test.z:+.2f} (McNemar), "
        f"{test.z_literal:+.2f} (of the {test.differ} taken for different classes), p = {test.p:.2g}: {side}"
    )


def compare_runs(
    paths: Sequence[str | Path],
    *,
    output: str = "",
    test: bool = True,
    device: str | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Compare runs, or folders of runs, with the first of them.

    A path to a run is a run; one to a folder of runs means all of these. Runs that differ in nothing but their seeds
    are a group. output: the test output to compare; by default all that every run has, the accuracy first.
    test: also run the test nets, where weights are kept and they classify, for McNemar's test.
    Raises NetspecError where fewer than two groups are there, or no run has the output.
    """
    groups = grouped(paths)
    if len(groups) < 2:
        count = len(groups[0].runs)
        raise NetspecError(
            f"{groups[0].name}: {'a single run' if count == 1 else f'{count} runs that differ in their seeds alone'}; "
            "give another run to compare with"
        )
    outputs = outputs_of(groups, output)
    firsts = [group.runs[0] for group in groups]
    settings = {name: row for name, row in differing(firsts).items() if name not in SEEDS}
    against = []
    asked: dict[Path, tuple[Any, Any] | str] = {}
    for group in groups[1:]:
        versus = Versus(pairs_of(group, groups[0], outputs), [], diff=difference(firsts[0], group.runs[0]))
        versus.notes += [*groups[0].repeated(), *group.repeated()]
        if test:
            by_predictions(group, groups[0], versus, asked, device, progress)
        against.append(versus)
    return Comparison(groups, outputs, settings, against)


def grouped(paths: Sequence[str | Path]) -> list[Group]:
    """The groups in the order of the paths; named by what they share, or by their place."""
    groups: dict[str, list[RunFolder]] = {}
    for run in runs_in(paths):
        groups.setdefault(key_of(run), []).append(run)
    named: list[Group] = []
    taken: set[str] = set()
    for runs in groups.values():
        name = runs[0].name
        if len(runs) > 1:
            seeds = f"_s{runs[0].seed}"
            name = name.removesuffix(seeds) if name != seeds else name
        while name in taken:
            parent = runs[0].path.resolve().parent.name
            name = f"{parent}/{name}" if not name.startswith(f"{parent}/") else f"{name}'"
        taken.add(name)
        named.append(Group(name, sorted(runs, key=lambda run: (run.seed is None, run.seed or 0))))
    return named


def key_of(run: RunFolder) -> str:
    """The key that all runs of a group share."""
    values = {name: settable_text(value) for name, value in run.values.items()}
    own = {name: value for name, value in {**values, **run.settings}.items() if name not in SEEDS}
    return str(sorted(own.items()))


def outputs_of(groups: Sequence[Group], wanted: str) -> list[str]:
    """The outputs to compare."""
    names = dict.fromkeys(name for group in groups for run in group.runs for name in run.last)
    if wanted:
        if wanted not in names:
            raise NetspecError(f"no test of these runs has an output {wanted!r}{did_you_mean(wanted, names)}")
        return [wanted]
    common = [name for name in names if all(group.by_seed(name) for group in groups) and "[" not in name]

    def place(name: str) -> tuple[int, int]:
        return (PREFERRED.index(name) if name in PREFERRED else len(PREFERRED)), common.index(name)

    return sorted(common, key=place)


def pairs_of(group: Group, first: Group, outputs: Sequence[str]) -> dict[str, Paired]:
    """Paired differences, group minus first, over the seeds that both have."""
    pairs = {}
    for output in outputs:
        a, b = group.by_seed(output), first.by_seed(output)
        if both := sorted((seed for seed in a if seed in b), key=str):
            pairs[output] = paired([a[seed] for seed in both], [b[seed] for seed in both])
        elif len(a) == len(b) == 1:
            pairs[output] = paired(list(a.values()), list(b.values()))
    return pairs


def by_predictions(
    group: Group,
    first: Group,
    versus: Versus,
    asked: dict[Path, tuple[Any, Any] | str],
    device: str | None,
    progress: Callable[[str], None],
) -> None:
    """McNemar's test for each pair of runs with a seed of both; of several with one seed, the first with the first."""
    mine, theirs = (runs_by_seed(side.runs) for side in (group, first))
    pairs = [pair for seed in mine for pair in zip(mine[seed], theirs.get(seed, ()), strict=False)]
    if alone := sum(abs(len(mine[seed]) - len(theirs[seed])) for seed in mine if seed in theirs):
        versus.notes.append(
            f"test predictions: {alone} of the runs have none of their seed to be paired with"
        )
    if not pairs and len(mine) == len(theirs) == 1:
        pairs = list(zip(group.runs, first.runs, strict=False))
    for pair in pairs:
        for run in pair:
            if run.path not in asked:
                progress(f"testing {run.path}")
                asked[run.path] = predicted(run, device)
        a, b = (asked[run.path] for run in pair)
        told = next((reason for reason in (a, b) if isinstance(reason, str)), None)
        if isinstance(a, str) or isinstance(b, str):
            versus.notes.append(f"test predictions: {told}")
            return
        if a[0].shape != b[0].shape or not bool((a[0] == b[0]).all()):
            versus.notes.append("test predictions: the two are tested on different examples")
            return
        number = pair[0].seed if pair[0].seed is not None else 0
        versus.tests.append((number, mcnemar(a[0].numpy(), a[1].numpy(), b[1].numpy())))
    if not pairs:
        versus.notes.append("test predictions: the two have no seed in common")


def runs_by_seed(runs: Sequence[RunFolder]) -> dict[int | None, list[RunFolder]]:
    """The runs of each seed, in their order."""
    seeds: dict[int | None, list[RunFolder]] = {}
    for run in runs:
        seeds.setdefault(run.seed, []).append(run)
    return seeds


def predicted(run: RunFolder, device: str | None) -> tuple[Any, Any] | str:
    """(labels, classes) of the run's first test net, or why there are none."""
    best = run.path / BEST
    if not states(run.path) and not best.is_file():
        return f"{run.path}: keeps no weights"
    try:
        return predictions(run.path, None if states(run.path) else best, device=device)
    except (NetspecError, OSError) as error:
        return str(error) if isinstance(error, DataError | NetspecError) else f"{run.path}: {error}"


def difference(a: RunFolder, b: RunFolder) -> list[str]:
    """The difference between the resolved files of two runs, as `diff -U1` shows it."""
    lines: list[str] = []
    names = sorted(
        {path.name for run in (a, b) for path in run.path.glob("*.prototxt")} - {"rendered.prototxt"}
    )
    for name in names:
        old, new = (run.text(name).splitlines() for run in (a, b))
        lines += difflib.unified_diff(old, new, f"{a.name}/{name}", f"{b.name}/{name}", n=1, lineterm="")
    return lines
