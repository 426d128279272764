"""Average precision of detections over a whole test, from the rows that DetectionEvaluate gives batch by batch."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from torch import Tensor

from netspec.errors import SpecError, did_you_mean

Curve = Sequence[tuple[float, float]]
"""(recall, precision) after each box, by falling confidence; recall never falls."""

NEGLIGIBLE = 1e-6
"""Steps of recall that count as none."""


def eleven_points(curve: Curve) -> float:
    """Mean over the recalls r = 0, 0.1, ... 1 of the best precision at a recall of r or more (VOC 2007).

    The original compares recalls in single precision with r in double: 7 of 10 is less than 0.7.
    """
    singles = [(float(np.float32(recall)), precision) for recall, precision in curve]
    return sum(max((p for r, p in singles if r >= tenth / 10), default=0.0) for tenth in range(11)) / 11


def max_integral(curve: Curve) -> float:
    """Sum of (r' - r) p over the steps of recall, p the best precision at a recall of r' or more (VOC 2012)."""
    recall, best = curve[-1]
    area = 0.0
    for lower, precision in reversed(curve[:-1]):
        best = max(best, precision)
        if recall - lower > NEGLIGIBLE:
            area += best * (recall - lower)
            recall = lower
    return area + recall * best


def integral(curve: Curve) -> float:
    """Sum of (r' - r) p(r') over the steps of recall."""
    steps = pairwise([(0.0, 0.0), *curve])
    return sum(p * (r - before) for (before, _), (r, p) in steps if r - before > NEGLIGIBLE)


VERSIONS: dict[str, Callable[[Curve], float]] = {
    "11point": eleven_points,
    "MaxIntegral": max_integral,
    "Integral": integral,
}
"""How the curve is integrated, by the name written in `ap_version`. Source: SSD, bbox_util.cpp (ComputeAP)."""


class Detections:
    """Gathers rows of DetectionEvaluate, and gives the average precision of each label and their mean."""

    def __init__(self, version: str = "Integral"):
        """SpecError for an unknown version."""
        if version not in VERSIONS:
            raise SpecError(f"unknown ap_version {version!r}{did_you_mean(version, VERSIONS)}")
        self.area = VERSIONS[version]
        self.objects: Counter[int] = Counter()
        self.boxes: dict[int, list[tuple[float, int, int]]] = defaultdict(list)
        """(confidence, right, wrong) of each box by label."""

    def add(self, rows: Tensor) -> None:
        """One batch, of shape (1, 1, rows, 5); boxes that are neither right nor wrong do not count."""
        for image, label, value, right, wrong in rows.detach().reshape(-1, 5).tolist():
            if image == -1:
                self.objects[int(label)] += int(value)
            elif right or wrong:
                self.boxes[int(label)].append((value, int(right), int(wrong)))

    def by_label(self) -> dict[int, float]:
        """Average precision of each label; 0 for one without objects or boxes."""
        return {label: self.of(label) for label in sorted(self.objects)}

    def of(self, label: int) -> float:
        """Average precision of one label."""
        boxes = sorted(self.boxes[label], key=lambda box: -box[0])
        if not boxes or not self.objects[label]:
            return 0.0
        curve, rights = [], 0
        for count, (_, right, _) in enumerate(boxes, start=1):
            rights += right
            curve.append((rights / self.objects[label], rights / count))
        return self.area(curve)

    def mean(self) -> float:
        """Mean over all labels; 0 when there are none."""
        precisions = self.by_label()
        return sum(precisions.values()) / len(precisions) if precisions else 0.0
