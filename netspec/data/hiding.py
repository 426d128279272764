"""`missing { ... }` of a data layer: which pixels or cells its source hides, and what is written in their place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netspec.data.draws import derive
from netspec.data.files.idx import Array
from netspec.data.masks import Missing
from netspec.data.source import mistake
from netspec.errors import DataError
from netspec.schema.spec import TRAIN, LayerSpec


class Hiding:
    """Hides what `param.missing` says; nothing where it is not set.

    In training an example is hidden anew each time that it is shown, in tests always alike; `fixed` says otherwise,
    and masks of a file belong to the examples. Raises SpecError at the field `missing` where it cannot be
    done.
    """

    def __init__(self, spec: LayerSpec, field: str, phase: str, seed: int):
        """field: the layer's message that has `missing`."""
        param: Any = getattr(spec.message, field)
        self.missing: Missing | None = None
        if param.HasField("missing"):
            try:
                self.missing = Missing.of(param.missing, derive(seed, "missing"))
            except DataError as error:
                raise mistake(spec, str(error), field, "missing") from error
        fixed = param.missing.fixed if param.missing.HasField("fixed") else phase != TRAIN
        self.fixed = fixed or param.missing.kind == "file"

    def hide(self, data: Array, seen: Callable[[], Array], examples: Array, positions: Array) -> Array:
        """Write the value for missing pixels over `data` (N, C, H, W), in place.

        seen: gives the pixels that masks are drawn from. examples, positions: numbers of the examples in their set, and
        of their places in the run (N,).
        Returns what stays observed (N, 1 or C, H, W), bool.
        """
        if self.missing is None:
            return np.ones((len(data), 1, *data.shape[2:]), bool)
        observed = self.missing.mask(seen(), examples if self.fixed else positions)
        np.copyto(data, np.float32(self.missing.value), where=~observed)
        return observed
