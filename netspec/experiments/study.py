"""Runs that optuna hands out: searches that learn from results, and sweeps that several machines share.

A trial is a run: number n is run n + 1. optuna's storage gives each number once, whoever asks, so that processes and
machines with the same storage share the runs. A process that is killed leaves its trial unfinished; the sweep of the
same folder takes it up again.
"""

from __future__ import annotations

import re
import time
import zlib
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from netspec.errors import NetspecError
from netspec.experiments.ledger import DONE, PRUNED, Result
from netspec.experiments.parameters import Parameter
from netspec.experiments.plans import ADAPTIVE, Plan
from netspec.experiments.points import PlannedRun, base_name, runs_of
from netspec.experiments.sources import Ready
from netspec.run.folder import METRICS, Metrics
from netspec.run.stopping import value_of

FOLDER = "folder"
"""Attribute of a trial: the folder of the sweep that makes it."""
ORPHANED = 60.0
"""Seconds after which a trial that names no folder is one whose process was killed as it began."""
TRIES = 10
"""How often opening a database is tried while another process is creating it."""
FACTOR = 3
"""One in so many runs of a rung advances to the next (successive halving, Hyperband)."""


class Study:
    """The runs of a study of optuna's; see `netspec.experiments.sources.Source`."""

    def __init__(self, plan: Plan, storage: str = ""):
        import optuna

        if plan.search not in ADAPTIVE and len(plan.stages) > 1:
            raise NetspecError(f"{plan.file}: a plan with stages is shared by its folder, not by a storage")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.plan, self.optuna = plan, optuna
        plan.folder.mkdir(parents=True, exist_ok=True)
        self.listed = runs_of(plan) if plan.search not in ADAPTIVE else None
        self.points = len(self.listed) if self.listed is not None else plan.points or 0
        self.study = optuna.create_study(
            study_name=plan.name,
            storage=opened(storage, plan.folder),
            sampler=sampler(plan, 0),
            pruner=pruner(plan),
            direction="maximize" if plan.metric.mode == "max" else "minimize",
            load_if_exists=True,
        )
        self.trials: dict[str, Any] = {}
        """Trials of this process by run."""
        self.told: dict[str, int] = {}
        """How many tests of a run optuna has been told of."""
        self.runs: dict[str, PlannedRun] = {}
        self.waiting: list[PlannedRun] = []
        self.full = False
        self.adopt()

    @property
    def here(self) -> str:
        return str(self.plan.folder.resolve())

    def adopt(self) -> None:
        """Take up the trials of this folder that were left unfinished."""
        running = self.optuna.trial.TrialState.RUNNING
        for frozen in self.study.get_trials(deepcopy=False):
            owner = frozen.user_attrs.get(FOLDER)
            if owner == self.here and frozen.state != running:
                run = self.planned(frozen.number, frozen)
                self.runs[run.id] = run
                self.waiting.append(run)
            if frozen.state != running:
                continue
            begun = frozen.datetime_start or datetime.now()
            if owner == self.here or (owner is None and datetime.now() - begun > timedelta(seconds=ORPHANED)):
                trial = self.optuna.trial.Trial(self.study, frozen._trial_id)
                self.waiting.append(self.take(trial))

    def take(self, trial: Any) -> PlannedRun:
        """The run of a trial that this process makes."""
        trial.set_user_attr(FOLDER, self.here)
        run = self.planned(trial.number, trial)
        self.trials[run.id], self.runs[run.id] = trial, run
        return run

    def planned(self, number: int, trial: Any) -> PlannedRun:
        """The run of a trial's number, its values as the trial suggests them."""
        if self.listed is not None:
            return self.listed[number]
        stage = self.plan.stages[0]
        self.study.sampler = sampler(self.plan, number)
        values = suggested(stage.groups[0].parameters, trial)
        seed = stage.seeds[0] if stage.seeds else None
        return PlannedRun(f"{base_name(self.plan)}_{number + 1}", stage, values, (number + 1,), seed)

    # Source

    def next(self, ready: Ready) -> PlannedRun | None:
        while self.waiting:
            run = self.waiting.pop(0)
            if ready(run):
                return run
        while not self.full:
            trial = self.study.ask()
            if trial.number >= self.points:
                self.study.tell(trial, state=self.optuna.trial.TrialState.FAIL)
                self.full = True
                return None
            run = self.take(trial)
            if ready(run):
                return run
        return None

    def again(self, run: PlannedRun) -> None:
        self.waiting.insert(0, run)

    def finished(self, run: PlannedRun, result: Result) -> None:
        """Tell optuna, once."""
        trial = self.trials.pop(run.id, None)
        if trial is None:
            return
        states = self.optuna.trial.TrialState
        if result.status == DONE and result.value is not None:
            self.study.tell(trial, result.value, skip_if_finished=True)
        else:
            state = states.PRUNED if result.status == PRUNED else states.FAIL
            self.study.tell(trial, state=state, skip_if_finished=True)

    def prune(self, run: PlannedRun, folder: Path) -> bool:
        """Report the run's tests so far; returns whether the pruner gives it up."""
        trial = self.trials.get(run.id)
        if trial is None or self.plan.search not in ("halving", "hyperband"):
            return False
        values = tests_of(folder, self.plan)
        for step in range(self.told.get(run.id, 0), len(values)):
            trial.report(values[step], step + 1)
        new = len(values) > self.told.get(run.id, 0)
        self.told[run.id] = len(values)
        return new and bool(trial.should_prune())

    def known(self) -> list[PlannedRun]:
        return list(self.runs.values())


def tests_of(folder: Path, plan: Plan) -> list[float]:
    """The metric in each test of a run so far, except the test before the first iteration."""
    lines = Metrics(folder / METRICS).read()
    return [
        value_of(line["outputs"], plan.metric.output)
        for line in lines
        if line["kind"] == "test" and line["net"] == plan.metric.net and line["iteration"]
    ]


def suggested(parameters: tuple[Parameter, ...], trial: Any) -> dict[str, Any]:
    """Values of the parameters whose conditions hold."""
    values: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.applies(values):
            values[parameter.name] = parameter.as_cast(suggest(parameter, trial))
    return values


def suggest(parameter: Parameter, trial: Any) -> Any:
    """One value. Lists and spaces are choices among their values; what is fixed is not asked for."""
    name = parameter.name
    if parameter.kind in ("uniform", "log_uniform"):
        log = parameter.kind == "log_uniform"
        low, high = parameter.low, parameter.high
        if log:
            low, high = sorted((abs(low), abs(high)))
        if parameter.cast == "int":
            return signed(parameter, trial.suggest_int(name, int(low), int(high), log=log), log)
        return signed(parameter, trial.suggest_float(name, low, high, log=log), log)
    values = parameter.grid(0) if parameter.kind != "choice" else list(parameter.values)
    if len(values) == 1:
        return values[0]
    if all(isinstance(value, bool | int | float | str) or value is None for value in values):
        return trial.suggest_categorical(name, values)
    return values[trial.suggest_categorical(name, list(range(len(values))))]


def signed(parameter: Parameter, value: float, log: bool) -> float:
    return -value if log and parameter.low < 0 else value


def sampler(plan: Plan, number: int) -> Any:
    """How optuna finds the values of a trial. Its seed is the trial's: with one sampler per process, parallel processes
    and resumed sweeps would repeat values.
    """
    import optuna

    seed = zlib.crc32(f"{plan.seed} {number}".encode())
    if plan.search in ("tpe", "hyperband"):
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    return optuna.samplers.RandomSampler(seed=seed)


def pruner(plan: Plan) -> Any:
    """Which runs are given up early; resources are tests."""
    import optuna

    if plan.search == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=FACTOR)
    if plan.search == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource="auto", reduction_factor=FACTOR)
    return optuna.pruners.NopPruner()


def opened(storage: str, folder: Path) -> Any:
    """optuna's storage: a URL of a database (sqlite:///FILE, postgresql://...), or a file for its journal.

    By default the journal study.journal in the sweep's folder.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend

    if "://" in storage:
        return database(storage)
    path = Path(storage) if storage else folder / "study.journal"
    path.parent.mkdir(parents=True, exist_ok=True)
    backend = JournalFileBackend(str(path))
    return optuna.storages.JournalStorage(backend)


def database(storage: str) -> Any:
    """Open a database; tried again where another process is creating its tables at this moment."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    for last in (*[False] * TRIES, True):
        try:
            return optuna.storages.RDBStorage(storage, engine_kwargs=engine(storage))
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError) as error:
            if last or isinstance(error, ImportError):
                text = lacks_driver(storage) if isinstance(error, ImportError) else str(error).splitlines()[0]
                raise NetspecError(
                    f"--storage {without_password(storage)}: cannot be opened: {text}"
                ) from None
            time.sleep(0.5)
    return None


def lacks_driver(storage: str) -> str:
    """What to install for the database of a URL, scheme[+driver]://..."""
    scheme, _, driver = storage.partition("://")[0].partition("+")
    package = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary"}.get(driver, driver)
    package = package or {"postgresql": "psycopg2-binary", "mysql": "mysqlclient"}.get(
        scheme, "the one of SQLAlchemy"
    )
    return f"the driver of {scheme} is not installed (pip install {package})"


def without_password(storage: str) -> str:
    """A URL that can be shown."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", storage)


def engine(storage: str) -> dict[str, Any]:
    """Patience with the locks of SQLite, whose processes wait for one another."""
    return {"connect_args": {"timeout": 60}} if storage.startswith("sqlite") else {}
