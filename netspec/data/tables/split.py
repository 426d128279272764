"""Parts of the user's data: shares held out at random, stratified by class, equal for equal seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from netspec.data.draws import derive, uniform
from netspec.data.files.idx import Array
from netspec.errors import DataError, did_you_mean

TRAIN, VALIDATION, TEST, WHOLE_TRAIN, ALL = "train", "validation", "test", "whole_train", "all"
PARTS = (TRAIN, VALIDATION, TEST, WHOLE_TRAIN, ALL)


@dataclass(frozen=True)
class Split:
    """Which examples a layer uses; see SplitParameter."""

    part: str = ALL
    validation: float = 0.0
    test: float = 0.0
    seed: int = 1
    stratified: bool = True

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            hint = did_you_mean(self.part, PARTS, f"there are {', '.join(PARTS)}")
            raise DataError(f"no part is called {self.part!r}{hint}")
        for name in (VALIDATION, TEST):
            share = getattr(self, name)
            if not 0 <= share < 1:
                raise DataError(f"the {name} share is {share:g}; it is 0 or more, and less than 1")
            if self.part == name and not share:
                raise DataError(f"part {name!r} needs a share: {name}: 0.2, for example")
        if self.validation + self.test >= 1:
            raise DataError(
                f"validation {self.validation:g} and test {self.test:g} leave nothing to train on"
            )

    @classmethod
    def of(cls, message: Any, phase: str = "TRAIN") -> Split:
        """From a SplitParameter; without a named part the phase decides."""
        # The shares are 32-bit floats: 0.2 is meant, not 0.20000000298.
        validation, test = (float(f"{share:.6g}") for share in (message.validation, message.test))
        part = message.part
        if not part:
            held = TEST if test else VALIDATION if validation else ALL
            part = ALL if held == ALL else TRAIN if phase == "TRAIN" else held
        return cls(part, validation, test, message.seed, message.stratified)

    @property
    def cuts(self) -> bool:
        """Whether anything is held out."""
        return bool(self.validation or self.test)

    def rows(self, n: int, labels: Array | None = None, part: str = "") -> Array:
        """Indices, ascending, of the part (default: its own) of n examples.

        labels (n,): classes, NaN or negative where unknown; with `stratified` each class gives its share. The order in
        which a class's examples are taken depends on the seed, the class and their indices alone.
        """
        part = part or self.part
        if part == ALL:
            return np.arange(n)
        strata = np.full(n, -1.0)
        if labels is not None and self.stratified:
            strata = np.where(np.isnan(labels.astype(float)), -1.0, labels)
        which = np.zeros(n, np.int64)  # 0 train, 1 validation, 2 test
        for kind in np.unique(strata):
            mine = np.flatnonzero(strata == kind)
            order = mine[uniform(derive(self.seed, "split", int(kind)), mine, 1)[:, 0].argsort(kind="stable")]
            test = round(self.test * len(mine))
            which[order[:test]] = 2
            which[order[test : test + round(self.validation * len(mine))]] = 1
        wanted = {TRAIN: (0,), VALIDATION: (1,), TEST: (2,), WHOLE_TRAIN: (0, 1)}[part]
        chosen = np.flatnonzero(np.isin(which, wanted))
        if not len(chosen):
            raise DataError(f"part {part!r} of {n} examples is empty; enlarge its share")
        return chosen
