"""What MLflow is told of a study: a parent run the study, a child run a trial, with its state as it was.

A copy of the study's storage and of the run folders, sent again without harm. All studies are in one experiment.
"""

import json
from pathlib import Path

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from cskd.files import locked
from experiments.run_folder import RunFolder
from experiments.tracking.run_records import epoch_batches, minutes, start_tags
from experiments.tracking.store import ensure_experiment, find_runs, open_store, refusal
from experiments.tuning.objectives import OBJECTIVES
from experiments.tuning.study import COMPLETE, FAILED, PRUNED, RUNNING, Trial, best_of, load_trials

EXPERIMENT = "tuning"
STATUS = {RUNNING: "RUNNING", COMPLETE: "FINISHED", PRUNED: "KILLED", FAILED: "FAILED"}  # MLflow has no "pruned"
NOTE = (
    "One row a study; its children are the trials, evaluated on a validation split of the training set. "
    "Filter `tags.kind = 'study'` for studies, `tags.kind = 'trial'` for trials; `tags.state` is Optuna's."
)


class StudyTracking:
    """Keeps one study's runs in step (see experiments.background.Tracking)."""

    def __init__(self, uri: str, storage: str, name: str, runs_dir: Path, results: Path):
        """results: the folder of the study's tables and figures, which become artifacts."""
        self.uri, self.storage, self.name = uri, storage, name
        self.runs_dir, self.results = runs_dir, results
        self.client = open_store(uri)
        self.experiment_id: str | None = None
        self.children: dict[int, str] = {}  # trial number -> MLflow run
        self.sent: dict[int, tuple[int, str]] = {}  # trial number -> (epochs, state) that MLflow has
        self.sent_epochs: dict[tuple[int, int], int] = {}  # (trial number, seed) -> epochs sent by this process

    def watch(self, run_key: str) -> None:
        """Nothing to do: a trial's runs are known from the study."""

    def update(self, whole: bool) -> None:
        objectives, trials = load_trials(self.storage, self.name)
        if self.experiment_id is None:
            with locked(self.runs_dir / "studies" / "tracking.lock"):  # another launch may be creating the same
                self._open(objectives)
        for trial in trials:
            self._trial(trial, objectives)
        if whole:
            self._summarise(objectives, trials)

    def _open(self, objectives: tuple[str, ...]) -> None:
        experiment_id = ensure_experiment(self.client, self.uri, EXPERIMENT, NOTE)
        query = f"tags.study = '{self.name}'"
        self.parent = None
        for run in find_runs(self.client, experiment_id, query):
            tags = run.data.tags
            if tags["kind"] == "study":
                self.parent = run.info.run_id
            else:
                number = int(tags["trial"])
                self.children[number] = run.info.run_id
                if tags.get("state") in (COMPLETE, PRUNED, FAILED):
                    self.sent[number] = (int(tags["epochs"]), tags["state"])
        if self.parent is None:
            tags = {"kind": "study", "study": self.name, "objective": " ".join(objectives)}
            self.parent = self.client.create_run(experiment_id, tags=tags, run_name=self.name).info.run_id
        self.experiment_id = experiment_id

    def _trial(self, trial: Trial, objectives: tuple[str, ...]) -> None:
        folders = {seed: RunFolder(self.runs_dir / key) for seed, key in trial.runs.items()}
        histories = {seed: folder.epochs() for seed, folder in folders.items() if folder.starts()}
        epochs = sum(map(len, histories.values()))
        if not histories or self.sent.get(trial.number) == (epochs, trial.state):
            return
        spec = folders[next(iter(histories))].spec()
        if trial.number not in self.children:
            tags = {
                "kind": "trial",
                "mlflow.parentRunId": self.parent,
                "study": self.name,
                "trial": str(trial.number),
                "dataset": spec.dataset,
                "architecture": spec.architecture,
                "method": spec.method,
                "profile": spec.profile,
                "seeds": " ".join(map(str, trial.runs)),
                "run_keys": " ".join(trial.runs.values()),
            }
            started = int(trial.started.timestamp() * 1000)
            run = self.client.create_run(self.experiment_id, started, tags, f"{self.name}/trial{trial.number}")
            self.children[trial.number] = run.info.run_id
            settings = {name: value for name, value in spec.flat().items() if name != "seed"}
            self.client.log_batch(run.info.run_id, params=[Param(*map(str, item)) for item in settings.items()])
            fixed = {name: value for name, value in settings.items() if not name.startswith("parameters.")}
            self.client.log_batch(self.parent, params=[Param(*map(str, item)) for item in fixed.items()])
        run_id = self.children[trial.number]
        for seed, history in histories.items():
            # Of several seeds each has curves of its own, and the trial has its mean below.
            prefix = f"seed{seed}/" if len(trial.runs) > 1 else ""
            named = [
                record | {"metrics": {prefix + name: value for name, value in record["metrics"].items()}}
                for record in history
            ]
            # After a restart all of them again: MLflow keeps identical points once.
            for metrics in epoch_batches(named, self.sent_epochs.get((trial.number, seed), 0)):
                self.client.log_batch(run_id, metrics=metrics)
            self.sent_epochs[trial.number, seed] = len(history)
        self._end(trial, run_id, objectives, histories, folders, epochs)
        self.sent[trial.number] = (epochs, trial.state)

    def _end(self, trial: Trial, run_id: str, objectives, histories, folders, epochs: int) -> None:
        tags = {"state": trial.state, "reason": trial.reason, "epochs": str(epochs)}
        tags |= start_tags(folders[next(iter(histories))])
        self.client.log_batch(run_id, tags=[RunTag(*item) for item in tags.items()])
        if trial.state == RUNNING:
            self.client.update_run(run_id, status="RUNNING")
            return
        ended = int(trial.ended.timestamp() * 1000)
        values = {"minutes": sum(minutes(history) for history in histories.values())}
        if trial.state == COMPLETE:
            values |= {f"objective/{name}": value for name, value in zip(objectives, trial.values, strict=True)}
            values |= {f"mean/{name}": value for name, value in trial.metrics.items()}
        self.client.log_batch(run_id, metrics=[Metric(*item, ended, 0) for item in values.items()])
        self.client.set_terminated(run_id, STATUS[trial.state], ended)

    def _summarise(self, objectives: tuple[str, ...], trials: list[Trial]) -> None:
        states = [trial.state for trial in trials]
        tags = {f"trials.{state}": str(states.count(state)) for state in STATUS}
        best = best_of(trials)
        if best is not None:
            tags |= {"best_trial": str(best.number), "best_parameters": json.dumps(best.parameters)}
            now = int(best.ended.timestamp() * 1000)
            values = {f"best/{objectives[0]}": best.values[0]}
            values |= {f"best/{name}": best.metrics[name] for name in OBJECTIVES.values()}
            self.client.log_batch(self.parent, metrics=[Metric(*item, now, 0) for item in values.items()])
        self.client.log_batch(self.parent, tags=[RunTag(*item) for item in tags.items()])
        if self.results.is_dir():
            self.client.log_artifacts(self.parent, str(self.results))
        self.client.update_run(self.parent, status="RUNNING" if RUNNING in states else "FINISHED")


def sync_study(uri: str, storage: str, name: str, runs_dir: Path, results: Path) -> None:
    """Bring a store in step with a study. Raises UserError where it cannot be reached or refuses."""
    try:
        StudyTracking(uri, storage, name, runs_dir, results).update(whole=True)
    except MlflowException as error:
        raise refusal(uri, f"study {name}", error) from error
