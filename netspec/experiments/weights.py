"""Where a planned run's weights come from: the run before it, or the newest file of a pattern."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from netspec.experiments.plans import Plan
from netspec.experiments.points import PlannedRun, variables
from netspec.schema.templates import render_text


def pattern_of(run: PlannedRun, plan: Plan) -> tuple[str, bool]:
    """(weights that the run names, "" where it names none; whether they are missing)."""
    name, path = run.stage.weights, weights_of(run, plan)
    if not name and run.parent is None:
        return "", False
    if path is None and run.parent is not None and not name:
        return run.parent.id, False  # its parent will have made them
    return str(path or pattern(run, plan)), path is None


def pattern(run: PlannedRun, plan: Plan) -> str:
    """The pattern with the run's values put in: in the sweep's folder, or else beside the plan."""
    return render_text(run.stage.weights, variables(run, plan), plan.file, "jinja")


def weights_of(run: PlannedRun, plan: Plan) -> Path | None:
    """The weights that a run starts from: the newest file that matches its pattern, or its parent's folder.

    None where there are none yet; a run with neither starts from its fillers.
    """
    if run.stage.weights:
        text = pattern(run, plan)
        for base in (plan.folder, Path(plan.file).parent, Path()):
            paths = [Path(path) for path in glob.glob(os.path.normpath(base / text))]
            if paths:
                return max(paths, key=lambda path: (path.stat().st_mtime, str(path)))
        return None
    if run.parent is not None:
        folder = run.parent.folder(plan)
        return folder if folder.is_dir() else None
    return None


def lacks_weights(run: PlannedRun, plan: Plan) -> bool:
    """Whether a run names weights that do not exist."""
    return bool(run.stage.weights) and weights_of(run, plan) is None
