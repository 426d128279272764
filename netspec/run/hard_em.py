"""The trainer of solver type "HardEM": an iteration is an E-step over the same images and an M-step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from netspec.errors import Problem, SnapshotError, SpecError
from netspec.interchange.weights import Weights
from netspec.rendering.hard_em import Batch, HardEM
from netspec.rendering.levels import RenderingModel
from netspec.run.trainer import Trainer

PATIENCE = 3
"""A run ends after so many iterations in which the error did not fall by `tolerance`."""


class Search:
    """Chooses the next filters: those of the M-step, or a shorter step towards them where the full step raised the
    error.

    A step begins at the weights with the lowest error so far and leads towards their M-step's. Where the error did not
    fall, the step is halved and tried again from the same weights; where it fell, the next step is half as long again,
    at most 1.
    """

    def __init__(self, weights: dict[str, Tensor]):
        self.error, self.step, self.patience = math.inf, 1.0, PATIENCE
        self.weights = self.aim = weights

    def look(
        self, error: float, weights: dict[str, Tensor], aim: dict[str, Tensor], tolerance: float
    ) -> dict[str, Tensor]:
        """Take note of an iteration, the error of its weights and the result of its M-step; returns the next
        filters.
        """
        self.patience = PATIENCE if error < self.error * (1 - tolerance) else self.patience - 1
        if error < self.error:
            self.error, self.weights, self.aim = error, weights, aim
            self.step = min(1.0, self.step * 1.5)
        else:
            self.step /= 2
        return {name: value.lerp(self.aim[name], self.step) for name, value in self.weights.items()}

    def state_dict(self) -> dict[str, int | Tensor]:
        """What a snapshot keeps."""
        numbers = torch.tensor([self.error, self.step], dtype=torch.float64)
        weights = {f"weights/{name}": value for name, value in self.weights.items()}
        aim = {f"aim/{name}": value.clone() for name, value in self.aim.items()}
        return {"numbers": numbers, "patience": self.patience, **weights, **aim}

    def load_state_dict(self, state: Mapping[str, int | Tensor], /) -> None:
        if lacking := self.state_dict().keys() - state.keys():
            raise SnapshotError(f"the snapshot is not one of hard EM on this net: no {min(lacking)!r} in it")
        tensors = {name: value.clone() for name, value in state.items() if isinstance(value, Tensor)}
        self.error, self.step = tensors["numbers"].tolist()
        self.patience = int(state["patience"])
        self.weights = {name: tensors[f"weights/{name}"] for name in self.weights}
        self.aim = {name: tensors[f"aim/{name}"] for name in self.aim}


class HardEMTrainer(Trainer):
    """Trainer whose iterations are hard EM over `hard_em_param.images` images; it ends with the best filters.

    Metrics: `loss` is the reconstruction error, outputs are the other numbers of hard_em.Report.
    """

    def prepare(self, weights: Sequence[Weights]) -> None:
        p = self.message.hard_em_param
        if self.ranks.world > 1:
            text = "type 'HardEM' cannot be spread over processes: its steps go through all images; run it in one"
            raise SpecError(Problem(text, self.plan.at("type")))
        if len(self.feeder.sources) != 1:
            raise SpecError(
                Problem("hard EM takes a net with one data layer, without stage semi", self.plan.at("type"))
            )
        self.refuse_numbers()
        self.start = self.feeder.state()
        batch = self.net.shapes[self.net.graph.inputs[0]][0]
        self.batches = max(1, p.images // batch)
        self.search = self.checkpoint.more["search"] = Search(self.weights())
        super().prepare(weights)
        self.model = RenderingModel(self.net)
        self.refuse_way_in()
        generator = torch.Generator().manual_seed(self.seed)
        self.em = HardEM(self.model, p, generator)
        if p.patches and not weights and not self.beginning.resumes:
            self.progress.line(f"k-means of {p.patches} patches for each of {len(self.model.levels)} levels")
            self.em.initialise(self.images(min(self.batches, 20)))
        if self.search.patience <= 0:  # a resumed run that came to its end
            self.message.max_iter = self.solver.iteration

    def refuse_numbers(self) -> None:
        """Raise SpecError for fields of hard_em_param that make no sense."""
        p = self.message.hard_em_param
        wrong = [
            (name, "0 or more")
            for name in ("ridge", "tolerance", "dead")
            if not 0 <= getattr(p, name) < math.inf
        ]
        wrong += [("tolerance", "below 1")] * (p.tolerance >= 1)
        wrong += [("images", "at least 1")] * (p.images < 1)
        if wrong:
            raise SpecError([Problem(f"hard_em_param.{name} must be {least}, found {getattr(p, name):g}",
                                     self.plan.at("hard_em_param", name)) for name, least in wrong])  # fmt: skip

    def refuse_way_in(self) -> None:
        """Raise SpecError where a layer stands between the data and the first level."""
        bottom, graph = self.model.bottom, self.net.graph
        if bottom != graph.inputs[0]:
            maker = self.net.made[graph.slots[bottom].maker]
            maker.fail("hard EM gives the data to the first level as they come; no layer may stand between")

    def lacks_loss(self) -> str:
        return ""  # hard EM lowers the reconstruction error, which is no blob of the net

    def wants_compile(self) -> bool:
        return False

    def images(self, batches: int) -> Iterator[Batch]:
        """The same images in every iteration."""
        self.feeder.load_state(self.start)
        for _ in range(batches):
            tops = self.feeder.next()
            yield tops[0], tops[1] if len(tops) > 1 else None

    def weights(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.net.weights().items()}

    def iterate(self, t: int) -> None:
        """One iteration; the error it reports is that of the filters before it."""
        old = self.weights()
        report = self.em.step(self.images(self.batches))
        self.losses.append(report.error)
        if self.shows(t):
            outputs = {
                "m_step_before": torch.tensor(report.before),
                "m_step_after": torch.tensor(report.after),
                "variance": torch.tensor(report.variance),
                "accuracy": torch.tensor(report.accuracy),
                "reseeded": torch.tensor(report.reseeded),
            }
            self.display(t, 0.0, outputs)
        tolerance = self.message.hard_em_param.tolerance
        self.net.load_weights(self.search.look(report.error, old, self.weights(), tolerance))
        self.solver.iteration += 1
        if self.search.patience == 0 or self.solver.iteration == self.message.max_iter:
            self.finish()

    def finish(self) -> None:
        """Return to the filters with the lowest error, which may be the last ones, and end the run."""
        error = self.em.error(self.images(self.batches))
        if error > self.search.error:
            self.net.load_weights(self.search.weights)
        self.em.fit_classes(self.images(self.batches))
        self.em.fit_variance(self.images(self.batches))
        self.progress.line(
            f"reconstruction error {min(error, self.search.error):.5g} after {self.solver.iteration} iterations"
        )
        self.message.max_iter = self.solver.iteration
