"""How much each setting matters for a metric, over many runs."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

FEWEST = 4
"""Least number of runs for an estimate."""


def importance(
    names: Sequence[str],
    rows: Sequence[Sequence[str | None]],
    scores: Sequence[float | None],
    note: Callable[[str], None],
) -> list[list[Any]]:
    """[setting, share] by optuna's fANOVA: how much of the scores' variance each setting explains.

    rows: for each of `names` its value in every run, None where it is not set. scores: of the runs, None where a run
    has none. Empty where too few runs or settings differ; `note` is called where optuna is not installed.
    """
    scored = [i for i, score in enumerate(scores) if score is not None]
    usable = {
        name: [row[i] for i in scored]
        for name, row in zip(names, rows, strict=True)
        if all(row[i] is not None for i in scored) and len({row[i] for i in scored}) > 1
    }
    values = [score for score in scores if score is not None]
    if len(scored) < FEWEST or len(usable) < 2 or len(set(values)) < 2:
        return []
    try:
        import optuna
    except ImportError:
        note("no importance of settings: it is optuna's (pip install optuna)")
        return []
    with warnings.catch_warnings(), contextlib.suppress(RuntimeError):
        warnings.simplefilter("ignore")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study()
        settings = {name: distribution_of(texts) for name, texts in usable.items()}
        distributions = {name: distribution for name, (distribution, _) in settings.items()}
        for i, value in enumerate(values):
            params = {name: shown[i] for name, (_, shown) in settings.items()}
            study.add_trial(
                optuna.trial.create_trial(params=params, distributions=distributions, value=value)
            )
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
        return [[name, round(float(share), 4)] for name, share in shares.items()]
    return []


def distribution_of(texts: Sequence[str | None]) -> tuple[Any, list[Any]]:
    """(optuna's distribution of a setting, its value in each run): a range of numbers, or categories."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    numbers = [value for value in map(as_number, texts) if value is not None]
    if len(numbers) < len(texts):
        words = [str(text) for text in texts]
        return CategoricalDistribution(sorted(set(words))), words
    log = min(numbers) > 0 and max(numbers) / min(numbers) > 30
    return FloatDistribution(min(numbers), max(numbers), log=log), numbers


def as_number(value: str | None) -> float | None:
    try:
        parsed = float(value) if value is not None else None
    except ValueError:
        return None
    return parsed if parsed is not None and math.isfinite(parsed) else None
