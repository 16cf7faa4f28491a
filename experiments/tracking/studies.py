"""Upload of a study: a parent run for the study and a child run for each trial, in the MLflow experiment "tuning"."""

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from mlflow.entities import Metric, Run
from mlflow.exceptions import MlflowException

from experiments.config.spec import RunSpec
from experiments.runs.folder import RunFolder
from experiments.tracking.records import environment_tags, epoch_batches
from experiments.tracking.store import TrackedExperiment, upload_error

EXPERIMENT = "tuning"
RUNNING, COMPLETE = "running", "complete"
# By the state of a trial. MLflow has no status "pruned".
STATUS = {RUNNING: "RUNNING", COMPLETE: "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
NOTE = (
    "One row per study; its children are the trials, evaluated on a validation split of the training set. "
    "Filter `tags.kind = 'study'` for studies, `tags.kind = 'trial'` for trials; `tags.state` is Optuna's."
)


class Trial(Protocol):
    """A trial of Optuna's storage, as ``experiments.tuning`` reads it."""

    number: int
    state: str
    parameters: dict[str, float]
    values: tuple[float, ...] | None
    metrics: dict[str, float]
    runs: dict[int, str]  # seed -> run key
    reason: str
    started: datetime | None
    ended: datetime | None


Load = Callable[[], tuple[tuple[str, ...], list[Trial], Trial | None]]  # objectives, trials, best trial


@dataclass
class TrackedTrial:
    """What MLflow has of a trial. ``training_ids`` of its seeds identify it."""

    run_id: str
    parent: str
    number: int
    training_ids: set[str]
    has_settings: bool
    state: str
    epochs: int  # of all seeds
    epochs_by_seed: dict[int, int] = field(default_factory=lambda: defaultdict(int))  # uploaded by this process

    @classmethod
    def of(cls, run: Run) -> "TrackedTrial":
        tags = run.data.tags
        # The status is uploaded last: with it, the run is complete.
        state = tags.get("state", "")
        is_complete = state != RUNNING and run.info.status == STATUS.get(state)
        return cls(
            run.info.run_id,
            tags["mlflow.parentRunId"],
            int(tags["trial"]),
            set(tags["training_ids"].split()),
            bool(run.data.params),
            state if is_complete else "",
            int(tags.get("epochs", 0)),
        )


class StudyTracker:
    """Copies the trials of one study to MLflow (see ``uploader.Tracker``)."""

    def __init__(self, uri: str, name: str, load: Load, runs_dir: Path, results: Path):
        """load: reads the study from its storage. results: the folder of its tables and figures."""
        self.name, self.load = name, load
        self.runs_dir, self.results = runs_dir, results
        self.experiment = TrackedExperiment(uri, EXPERIMENT, runs_dir / "studies" / "tracking.lock")
        self.client = self.experiment.client
        self._is_open = False
        self._trials: list[TrackedTrial] = []

    def watch(self, run_key: str) -> None:
        """Do nothing: the study's storage lists the runs."""

    def update(self, everything: bool) -> None:
        objectives, trials, best = self.load()
        if everything or not self._is_open:
            self._open(objectives)
        self._is_open = False  # after an exception the next update reads the store again
        for trial in trials:
            self._upload(trial, objectives)
        if everything:
            self._summarise(objectives, trials, best)
        self._is_open = True

    def _open(self, objectives: tuple[str, ...]) -> None:
        self.experiment.open(NOTE, {})
        identity = {"kind": "study", "study": self.name}
        parent = self.experiment.ensure_run(self.name, identity, {"objective": " ".join(objectives)})
        self.parent, self._parent_has_settings = parent.info.run_id, bool(parent.data.params)
        trials = defaultdict(list)
        for run in self.experiment.runs(kind="trial", study=self.name):
            trials[run.data.tags["trial"], run.data.tags["training_ids"]].append(run)
        self._trials = [TrackedTrial.of(self.experiment.merge_copies(copies)) for copies in trials.values()]

    def _upload(self, trial: Trial, objectives: tuple[str, ...]) -> None:
        """Upload what MLflow does not have of a trial."""
        folders = {seed: RunFolder(self.runs_dir / key) for seed, key in trial.runs.items()}
        ids = {seed: training_id for seed, folder in folders.items() if (training_id := folder.training_id())}
        if not ids:
            return
        folders = {seed: folders[seed] for seed in ids}
        histories = {seed: folder.epochs() for seed, folder in folders.items()}
        first = next(iter(folders.values()))
        tracked = self._ensure_trial(trial, first.spec(), set(ids.values()))
        if tracked.parent != self.parent:  # somebody has deleted the parent
            self.client.set_tag(tracked.run_id, "mlflow.parentRunId", self.parent)
            tracked.parent = self.parent
        epochs = sum(map(len, histories.values()))
        if (tracked.epochs, tracked.state) == (epochs, trial.state):
            return
        self._log_settings(tracked, first.spec())
        for seed, history in histories.items():
            # After a restart all epochs are uploaded again: MLflow stores identical points once.
            prefix = f"seed{seed}/" if len(trial.runs) > 1 else ""
            for metrics in epoch_batches(history, tracked.epochs_by_seed[seed], prefix):
                self.client.log_batch(tracked.run_id, metrics=metrics)
            tracked.epochs_by_seed[seed] = len(history)
        tags = {
            "state": trial.state,
            "reason": trial.reason,
            "epochs": str(epochs),
            "training_ids": " ".join(ids.values()),
        }
        self.experiment.set_tags(tracked.run_id, tags | environment_tags(first.starts()))
        if trial.state == RUNNING:
            self.client.update_run(tracked.run_id, status=STATUS[RUNNING])
        else:
            minutes = sum(folder.summary()["minutes"] for folder in folders.values())
            self._log_results(trial, tracked.run_id, objectives, minutes)
            self.client.set_terminated(tracked.run_id, STATUS[trial.state], int(trial.ended.timestamp() * 1000))
        tracked.epochs, tracked.state = epochs, trial.state

    def _ensure_trial(self, trial: Trial, spec: RunSpec, training_ids: set[str]) -> TrackedTrial:
        """Return the trial whose trainings are among these: later seeds may have started since its last upload."""
        for tracked in self._trials:
            if tracked.number == trial.number and tracked.training_ids <= training_ids:
                tracked.training_ids = training_ids
                return tracked
        identity = {"kind": "trial", "study": self.name, "trial": str(trial.number)}
        tags = {
            "mlflow.parentRunId": self.parent,
            "training_ids": " ".join(training_ids),
            "dataset": spec.dataset,
            "architecture": spec.architecture,
            "method": spec.method,
            "profile": spec.profile,
            "seeds": " ".join(map(str, trial.runs)),
            "run_keys": " ".join(trial.runs.values()),
        }

        def is_same(run: Run) -> bool:
            return set(run.data.tags["training_ids"].split()) <= training_ids

        name, started = f"{self.name}/trial{trial.number}", int(trial.started.timestamp() * 1000)
        tracked = TrackedTrial.of(self.experiment.ensure_run(name, identity, tags, started, is_same))
        self._trials.append(tracked)
        return tracked

    def _log_settings(self, tracked: TrackedTrial, spec: RunSpec) -> None:
        """Log the settings as parameters, once: on the parent those that all trials share."""
        settings = {name: value for name, value in spec.flat().items() if name != "seed"}
        if not self._parent_has_settings:
            shared = {name: value for name, value in settings.items() if not name.startswith("parameters.")}
            self.experiment.log_settings(self.parent, shared)
            self._parent_has_settings = True
        if not tracked.has_settings:
            self.experiment.log_settings(tracked.run_id, settings)
            tracked.has_settings = True

    def _log_results(self, trial: Trial, run_id: str, objectives: tuple[str, ...], minutes: float) -> None:
        values = {"minutes": minutes}
        if trial.state == COMPLETE:
            values |= {f"objective/{name}": value for name, value in zip(objectives, trial.values, strict=True)}
            values |= {f"mean/{name}": value for name, value in trial.metrics.items()}
        self._log_values(run_id, values, trial)

    def _summarise(self, objectives: tuple[str, ...], trials: list[Trial], best: Trial | None) -> None:
        """Log the numbers of trials, the best trial and the study's tables and figures on the parent run."""
        states = [trial.state for trial in trials]
        tags = {f"trials.{state}": str(states.count(state)) for state in STATUS}
        if best is not None:
            tags |= {"best_trial": str(best.number), "best_parameters": json.dumps(best.parameters)}
            values = {f"best/{objectives[0]}": best.values[0]}
            self._log_values(self.parent, values | {f"best/{name}": v for name, v in best.metrics.items()}, best)
        self.experiment.set_tags(self.parent, tags)
        if self.results.is_dir():
            self.client.log_artifacts(self.parent, str(self.results))
        self.client.update_run(self.parent, status="RUNNING" if RUNNING in states else "FINISHED")

    def _log_values(self, run_id: str, values: dict[str, float], trial: Trial) -> None:
        """Log values with the time of the trial's last epoch, so that a repeated upload sends identical points.

        The storage's own times have no time zone.
        """
        histories = [RunFolder(self.runs_dir / key).epochs() for key in trial.runs.values()]
        seconds = max((history[-1]["timestamp"] for history in histories if history), default=trial.ended.timestamp())
        self.client.log_batch(run_id, metrics=[Metric(*item, int(seconds * 1000), 0) for item in values.items()])


def sync_study(uri: str, name: str, load: Load, runs_dir: Path, results: Path) -> None:
    """Upload everything of a study. Raises UserError if the store fails."""
    try:
        StudyTracker(uri, name, load, runs_dir, results).update(everything=True)
    except MlflowException as error:
        raise upload_error(uri, f"study {name}", error) from error
