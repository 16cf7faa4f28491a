"""Studies and hand-made runs of trials, for the tests of tuning."""

import csv
from pathlib import Path

from run_folders import START

from experiments.runs.folder import DONE
from experiments.runs.plan import PlannedRun
from experiments.tuning.space import load_space
from experiments.tuning.study import Study
from experiments.tuning.trial import Trial

IDENTITY = {"space": {"temperature": [1, 20]}, "objective": ["error"]}


def open_study(
    folder: Path, *, identity: dict = IDENTITY, objectives=("error",), sampler: str = "random", address: str = ""
) -> Study:
    study = Study(address or str(folder / "journal.log"), "s", folder / "s")
    study.open(identity, load_space("cs-kd"), objectives, sampler)
    return study


def metrics_of(error: float, nll: float = 1.0, ece: float = 5.0) -> dict[str, float]:
    """Return every objective's metric."""
    return {"top1_error": error, "top5_error": error / 2, "nll": nll, "brier": 0.5, "ece": ece}


def complete(study: Study, trial: Trial, error: float, nll: float = 1.0, ece: float = 5.0) -> None:
    metrics = metrics_of(error, nll, ece)
    values = {"error": error, "nll": nll, "ece": ece}
    study.complete(trial.number, metrics, tuple(values[name] for name in study.objectives), {})


def write_run(
    run: PlannedRun, error: float, epochs: int | None = None, state: str = DONE, *, reason: str = "", **metrics: float
) -> None:
    """Write a run's folder with constant validation metrics. epochs: None for all. metrics: nll and ece."""
    folder, last = run.folder, run.spec.settings.schedule.epochs
    folder.create(run.spec)
    folder.write_environment("training", [START])
    metrics = {f"validation/{name}": value for name, value in metrics_of(error, **metrics).items()}
    metrics |= {"time/train_seconds": 1.0, "time/test_seconds": 1.0}
    records = [{"epoch": epoch, "timestamp": 1.0 + epoch, "metrics": metrics} for epoch in range(epochs or last)]
    folder.write_epochs(records)
    if state == DONE:
        folder.finish()
    else:
        folder.write_state(state, reason=reason or state, epoch=len(records), epochs=last)


def work(folder: Path, max_trials: int) -> None:
    """Run trials of a study until it has ``max_trials``."""
    with open_study(folder) as study:
        while (trial := study.ask(max_trials)) is not None:
            complete(study, trial, 30.0)


def hold_trial(folder: Path, connection) -> None:
    """Ask for a trial, send its number, and wait."""
    with open_study(folder) as study:
        trial = study.ask(9)
        study.record_runs(trial.number, {1000: f"run{trial.number}"})
        connection.send(trial.number)
        connection.recv()


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    with path.open() as file:
        return list(csv.DictReader(file))
