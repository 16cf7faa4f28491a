"""Upload of a study: a parent run for the study and a child run for each trial, in the MLflow experiment "tuning"."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cskd.utils.databases import view_link, view_path
from cskd.utils.errors import UserError
from experiments.runs.folder import RunFolder
from experiments.tracking.experiment import TrackedExperiment, TrackedRun, collect_errors
from experiments.tracking.records import environment_tags, shared_settings, spec_tags
from experiments.tracking.store import store_errors
from experiments.tracking.views import STUDY_VIEWS, view_tags

EXPERIMENT = "tuning"
RUNNING, COMPLETE = "running", "complete"
STATES = (RUNNING, COMPLETE, "pruned", "failed")
DESCRIPTION = """Studies of hyper-parameters, evaluated on training images that are held out.

- [Studies]({studies}): one row per study, with the parameters and metrics of its best trial.
- [Trials]({trials}): one row per trial; `mean/...` are the means over its seeds, `state` is Optuna's.

Errors and ECE (20 bins) are in percent, NLL is in nats.
"""

Trial = Any  # experiments.tuning.trial.Trial; tuning imports this package
Load = Callable[[], tuple[tuple[str, ...], list[Trial], Trial | None]]


def _description(experiment_id: str) -> str:
    return DESCRIPTION.format(**{view: view_path(experiment_id, view) for view in STUDY_VIEWS})


class StudyTracker:
    """Copies the trials of one study to MLflow (see ``uploader.Tracker``)."""

    def __init__(self, uri: str, name: str, load: Load, runs_dir: Path, results: Path):
        """load: returns the study's objectives, trials and best trial. results: folder of its tables and figures."""
        self.name, self.load = name, load
        self.runs_dir, self.results = runs_dir, results
        self.experiment = TrackedExperiment(uri, EXPERIMENT, runs_dir / "studies" / "tracking.lock")
        self.client = self.experiment.client
        self._is_open = False
        self._trials: dict[tuple[str, ...], TrackedRun] = {}  # by trial number and training id

    @property
    def link(self) -> str:
        return view_link(self.experiment.uri, self.experiment.id, "studies") if self.experiment.id else ""

    def watch(self, run_key: str) -> None:
        """Do nothing: the study's storage lists the runs."""

    def update(self, everything: bool) -> None:
        """Upload all trials. An unreadable run folder does not stop the others; its error is raised last."""
        objectives, trials, best = self.load()
        if everything or not self._is_open:
            self._open(objectives)
        self._is_open = False  # after an exception the next update reads the store again
        errors: list[UserError] = []
        for trial in trials:
            with collect_errors(errors):
                self._upload(trial, objectives)
        if everything:
            self._summarise(objectives, trials, best)
        self._is_open = True
        if errors:
            raise errors[0]

    def _open(self, objectives: tuple[str, ...]) -> None:
        self.experiment.open(_description, view_tags(STUDY_VIEWS))
        identity = {"kind": "study", "study": self.name}
        tags = {"objective": " ".join(objectives)}
        self.parent = TrackedRun.of(self.experiment.ensure_run(self.name, identity, tags))
        runs = self.experiment.runs(by=("trial", "training_id"), kind="trial", study=self.name)
        self._trials = {identity: TrackedRun.of(run) for identity, run in runs.items()}
        for tracked in self._trials.values():
            self.experiment.set_parent(tracked, self.parent)

    def _upload(self, trial: Trial, objectives: tuple[str, ...]) -> None:
        """Upload the parts of a trial that MLflow lacks. It is identified by the training of its first seed."""
        folders = {seed: RunFolder(self.runs_dir / key) for seed, key in trial.runs.items()}
        first = next(iter(folders.values()), None)
        if first is None or not first.training_id():
            return
        identity = str(trial.number), first.training_id()
        if identity not in self._trials:
            self._trials[identity] = self._ensure_run(trial, first, identity)
        tracked = self._trials[identity]
        if tracked.is_final(trial.state) and self.parent.has_settings:
            return
        settings = shared_settings(first.spec())
        fixed = {name: value for name, value in settings.items() if not name.startswith("parameters.")}
        self.experiment.log_settings(self.parent, fixed)
        # The seeds of a trial have separate curves.
        histories = {f"seed{seed}/" if len(folders) > 1 else "": folder.epochs() for seed, folder in folders.items()}
        if tracked.is_uploaded(trial.state, histories):
            return
        self.experiment.log_settings(tracked, settings)
        for prefix, epochs in histories.items():
            self.experiment.log_epochs(tracked, epochs, prefix)
        if trial.state != RUNNING:
            started = [folder for folder in folders.values() if folder.training_id()]
            values = {"minutes": sum(folder.summary()["minutes"] for folder in started)}
            if trial.state == COMPLETE:
                values |= {f"objective/{name}": value for name, value in zip(objectives, trial.values, strict=True)}
                values |= {f"mean/{name}": value for name, value in trial.metrics.items()}
            self.experiment.log_values(tracked, values, self._last_timestamp(trial))
        tags = {"reason": trial.reason} | environment_tags(first.starts())
        self.experiment.log_state(tracked, trial.state, tags, trial.ended.timestamp() if trial.ended else 0.0)

    def _ensure_run(self, trial: Trial, first: RunFolder, identity: tuple[str, str]) -> TrackedRun:
        keys = {"kind": "trial", "study": self.name} | dict(zip(("trial", "training_id"), identity, strict=True))
        tags = spec_tags(first.spec()) | {
            "mlflow.parentRunId": self.parent.run_id,
            "seeds": " ".join(map(str, trial.runs)),
            "run_keys": " ".join(trial.runs.values()),
        }
        name, started = f"{self.name}/trial{trial.number}", int(trial.started.timestamp() * 1000)
        return TrackedRun.of(self.experiment.ensure_run(name, keys, tags, started))

    def _summarise(self, objectives: tuple[str, ...], trials: list[Trial], best: Trial | None) -> None:
        """Log the numbers of trials, the best trial and the study's tables and figures on the parent run."""
        states = [trial.state for trial in trials]
        tags = {f"trials.{state}": str(states.count(state)) for state in STATES}
        if best is not None:
            tags |= {"best_trial": str(best.number), "best_parameters": json.dumps(best.parameters)}
            tags["best_metrics"] = json.dumps(best.metrics | {objectives[0]: best.values[0]})
        self.experiment.set_tags(self.parent.run_id, tags)
        if self.results.is_dir():
            self.client.log_artifacts(self.parent.run_id, str(self.results))
        self.client.update_run(self.parent.run_id, status="RUNNING" if RUNNING in states else "FINISHED")

    def _last_timestamp(self, trial: Trial) -> float:
        """Return when the trial's last epoch ended. Times in the storage have no time zone."""
        histories = [RunFolder(self.runs_dir / key).epochs() for key in trial.runs.values()]
        return max((history[-1]["timestamp"] for history in histories if history), default=trial.ended.timestamp())


def sync_study(uri: str, name: str, load: Load, runs_dir: Path, results: Path) -> None:
    """Upload all trials of a study. Raises UserError if the store fails."""
    with store_errors(uri, f"upload study {name}"):
        StudyTracker(uri, name, load, runs_dir, results).update(everything=True)
