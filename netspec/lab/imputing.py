"""An imputation from its name: a baseline, a trained run, or a class of the user's own.

zero  mean  mean_per_pixel           constants
knn[:K]  pca[:RANK]  missforest      baselines that look at training images
expected  most_probable  sampled     of the first generative run of the table
RUN[:WAY][:NUMBER]                   any run or net file that completes images (`netspec.model.completing`)
MODULE:CLASS  FILE.py:CLASS          CLASS(training images) with fill(pixels, observed), with consent
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

from netspec.errors import DataError, did_you_mean, one_line
from netspec.lab.baselines import ByModel, Mean, MissForest, NearestMean, PrincipalComponents, Zero
from netspec.lab.methods import Imputer
from netspec.layers import consent
from netspec.model import model
from netspec.model.model import Model

CONSTANT = ("zero", "mean", "mean_per_pixel")
LEARNED = {"knn": 5, "pca": 50, "missforest": 100}
"""Baselines that look at training images, with their number: neighbours, components, trees."""
IMPUTATIONS = (*CONSTANT, *ByModel.KINDS)
"""Baselines that cost little compared with the classifier."""
NAMES = (*IMPUTATIONS, *LEARNED)
EXAMPLES = {"knn": 5000, "pca": 10_000, "missforest": 1000}
"""Training images that each of LEARNED looks at."""
CLASS = re.compile(r"(?P<module>.+\.py|[A-Za-z_][\w.]*):(?P<name>[A-Za-z_]\w*)")


class Imputations:
    """The imputers of one table, each made once for each classifier's data."""

    def __init__(self, generative: Model | None, seed: int, device: Any = None):
        """generative: the model behind expected, most_probable and sampled."""
        self.generative, self.seed, self.device = generative, seed, device
        self.runs: dict[str, Model] = {}

    def make(self, text: str, classifier: Model) -> Imputer:
        """The imputer that `text` names, for the classifier's images; DataError, or SpecError without consent."""
        check(text)
        kind, _, number = text.partition(":")
        if kind in CONSTANT:
            return Zero() if kind == "zero" else Mean(classifier.images("train")[0], kind == "mean_per_pixel")
        if kind in ByModel.KINDS:
            if self.generative is None:
                raise DataError(f"imputation {kind!r} comes from a generative net; give a run of one as well")
            return ByModel(self.generative, kind, self.seed)
        if kind in LEARNED:
            training = classifier.images("train")[0][: EXAMPLES[kind]]
            return learned(kind, training, int(number) if number else LEARNED[kind], self.seed)
        if (run := run_of(text)) is not None:
            return self.by_run(*run, classifier)
        return own(text, classifier)

    def by_run(self, folder: str, way: str, effort: int, classifier: Model) -> Imputer:
        """The completions of a run, which must be of the classifier's images."""
        if folder not in self.runs:
            self.runs[folder] = model.load(folder, device=self.device or "cpu")
        trained = self.runs[folder]
        if trained.image_shape != classifier.image_shape:
            raise DataError(
                f"{folder} completes images {trained.image_shape}, {classifier.name} reads {classifier.image_shape}"
            )
        return ByModel(trained, way, self.seed, effort)


def run_of(text: str) -> tuple[str, str, int] | None:
    """(run folder or net file, way, number) of RUN[:WAY][:NUMBER]; None where no such file is there."""
    path, parts = text, list[str]()
    while not Path(path).exists() and ":" in path and len(parts) < 2:
        path, _, part = path.rpartition(":")
        parts.insert(0, part)
    if not Path(path).exists() or path.endswith(".py"):
        return None
    effort = int(parts.pop()) if parts and parts[-1].isdecimal() else 0
    if len(parts) > 1:
        raise DataError(f"imputation {text!r}: expected RUN, RUN:WAY, RUN:NUMBER or RUN:WAY:NUMBER")
    return path, parts[0] if parts else "", effort


def check(text: str) -> None:
    """DataError where the name is unknown; loads and imports nothing."""
    kind, colon, number = text.partition(":")
    if kind in LEARNED and colon and not (number.isdecimal() and int(number)):
        raise DataError(f"imputation {text!r}: expected {kind} or {kind}:NUMBER, a number of at least 1")
    if (kind in NAMES and not colon) or kind in LEARNED or run_of(text) or CLASS.fullmatch(text):
        return
    hint = did_you_mean(text, NAMES, f"known: {', '.join(NAMES)}, a run folder, or MODULE:CLASS")
    raise DataError(f"no imputation is called {text!r}{hint}")


def title(text: str) -> str:
    """The title of an imputation in a table."""
    if text.partition(":")[0] in NAMES or (run := run_of(text)) is None:
        return text
    folder, way, effort = run
    path = Path(folder)
    name = path.stem if path.suffix == ".prototxt" else path.resolve().name
    return " ".join([name, *([way] if way else []), *([str(effort)] if effort else [])])


def learned(kind: str, training: Any, number: int, seed: int) -> Imputer:
    """One of LEARNED on training images (N, C, H, W)."""
    if kind == "knn":
        return NearestMean(training, number)
    if kind == "pca":
        return PrincipalComponents(training, number)
    return MissForest(training, number, seed=seed)


def own(text: str, classifier: Model) -> Imputer:
    """CLASS(training) of the user's module or file, imported with consent; NoConsent without, DataError otherwise."""
    match = CLASS.fullmatch(text)
    if match is None:
        raise DataError(f"no imputation is called {text!r}")
    if not consent.given():
        raise consent.NoConsent(f"imputation {text!r} runs Python of yours; {consent.REMEDY}")
    module, name = match["module"], match["name"]
    try:
        kind = getattr(imported(module), name)
        imputer: Imputer = kind(classifier.images("train")[0])
    except Exception as error:  # whatever the user's module raises
        raise DataError(f"imputation {text!r}: {one_line(error)}") from error
    if not callable(getattr(imputer, "fill", None)):
        raise DataError(f"imputation {text!r}: {name} has no method fill(pixels, observed)")
    return imputer


def imported(module: str) -> Any:
    """A module by its dotted name, or the one in a .py file."""
    if not module.endswith(".py"):
        return importlib.import_module(module)
    spec = importlib.util.spec_from_file_location(Path(module).stem, module)
    if spec is None or spec.loader is None:
        raise ImportError(f"{module} cannot be imported")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded
