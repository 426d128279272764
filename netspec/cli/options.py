"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NetFile = Annotated[Path, typer.Argument(metavar="FILE", help="A net's prototxt, or a run folder.")]
ModelFile = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run folder, or a net's prototxt with --weights.")
]
Weights = Annotated[
    Path | None,
    typer.Option("--weights", "-w", help="Weights: .safetensors, .caffemodel, .h5 or a run folder."),
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda or cuda:N; by default the GPU where there is one.")
]
Phase = Annotated[str, typer.Option(help="TRAIN or TEST, in any case.")]
Stages = Annotated[list[str] | None, typer.Option("--stage", help="A stage that is set; may be given again.")]
Level = Annotated[
    int | None, typer.Option(help="The level of the net's state; by default 0, or the solver's.")
]
SEED_MAX = 2**63 - 1
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.", min=0, max=SEED_MAX)]
