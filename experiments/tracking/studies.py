"""What MLflow is told of a study: a parent run the study, a child run a trial, with its state as it was.

A copy of the study's storage and of the run folders, sent again without harm. All studies are in one experiment.
"""

import json
import uuid
from collections import defaultdict
from contextlib import AbstractContextManager
from pathlib import Path

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from cskd import RECORDS_VERSION
from cskd.utils.files import exclusive
from experiments.config.spec import RunSpec
from experiments.runs.folder import RunFolder
from experiments.tracking.origin import ORIGIN, origin_of, tells_of_another_training
from experiments.tracking.records import epoch_batches, minutes, start_tags
from experiments.tracking.store import MAKER, ensure_experiment, find_runs, one_of, open_store, refusal
from experiments.tuning.objectives import OBJECTIVES
from experiments.tuning.storage import load_trials
from experiments.tuning.trial import COMPLETE, FAILED, PRUNED, RUNNING, Trial, best_of

EXPERIMENT = "tuning"
STATUS = {RUNNING: "RUNNING", COMPLETE: "FINISHED", PRUNED: "KILLED", FAILED: "FAILED"}  # MLflow has no "pruned"
NOTE = (
    "One row a study; its children are the trials, evaluated on a validation split of the training set. "
    "Filter `tags.kind = 'study'` for studies, `tags.kind = 'trial'` for trials; `tags.state` is Optuna's."
)


class StudyTracking:
    """Keeps one study's runs in step (see experiments.tracking.uploader.Tracking)."""

    def __init__(self, uri: str, storage: str, name: str, runs_dir: Path, results: Path):
        """results: the folder of the study's tables and figures, which become artifacts."""
        self.uri, self.storage, self.name = uri, storage, name
        self.runs_dir, self.results = runs_dir, results
        self.client = open_store(uri)
        self.maker = uuid.uuid4().hex
        self.origin = ""
        self.experiment_id: str | None = None
        self.children: dict[int, str] = {}  # trial number -> MLflow run
        self.described: set[int] = set()  # trial numbers whose run has its settings
        self.sent: dict[int, tuple[int, str]] = {}  # trial number -> (epochs, state) that MLflow has
        self.sent_epochs: dict[tuple[int, int], int] = {}  # (trial number, seed) -> epochs sent by this process

    def watch(self, run_key: str) -> None:
        """Nothing to do: a trial's runs are known from the study."""

    def update(self, whole: bool) -> None:
        objectives, trials = load_trials(self.storage, self.name)
        if self.experiment_id is None:
            with self._alone():
                self._open(objectives)
        for trial in trials:
            self._trial(trial, objectives)
        if whole:
            self._summarise(objectives, trials)

    def _alone(self) -> AbstractContextManager:
        """While held, no other launch into the same RUNS_DIR creates any run of a study."""
        return exclusive(self.runs_dir / "studies" / "tracking.lock")

    def _open(self, objectives: tuple[str, ...]) -> None:
        self.origin = origin_of(self.runs_dir)
        experiment_id = ensure_experiment(self.client, self.uri, EXPERIMENT, NOTE)
        parents, children = [], defaultdict(list)
        for run in find_runs(self.client, experiment_id, f"tags.study = '{self.name}'"):
            if run.data.tags["kind"] == "study":
                parents.append(run)
            else:
                children[int(run.data.tags["trial"])].append(run)
        for number, found in children.items():
            run = one_of(self.client, found)
            self.children[number] = run.info.run_id
            state = run.data.tags.get("state")
            if state in (COMPLETE, PRUNED, FAILED) and run.info.status == STATUS[state]:  # the last that is told
                self.sent[number] = (int(run.data.tags["epochs"]), state)
        if parents:
            self.parent = one_of(self.client, parents).info.run_id
        else:
            tags = {"kind": "study", "study": self.name, "objective": " ".join(objectives)}
            self.parent = self._create(experiment_id, tags, self.name)
        self.experiment_id = experiment_id

    def _create(self, experiment_id: str, tags: dict[str, str], name: str, started: int | None = None) -> str:
        tags |= {"records_version": str(RECORDS_VERSION), MAKER: self.maker}
        return self.client.create_run(experiment_id, started, tags, name).info.run_id

    def _trial(self, trial: Trial, objectives: tuple[str, ...]) -> None:
        folders = {seed: RunFolder(self.runs_dir / key) for seed, key in trial.runs.items()}
        histories = {seed: folder.epochs() for seed, folder in folders.items() if folder.starts()}
        epochs = sum(map(len, histories.values()))
        if not histories or self.sent.get(trial.number) == (epochs, trial.state):
            return
        spec = folders[next(iter(histories))].spec()
        if trial.number not in self.children:
            with self._alone():  # another launch may have begun to track the same trial
                self.children[trial.number] = self._found(trial) or self._new(trial, spec)
        run_id = self.children[trial.number]
        if trial.state != RUNNING and self._tells_of_another_training(run_id, trial, histories):
            self.client.delete_run(run_id)
            self._forget(trial.number)
            self._trial(trial, objectives)
            return
        if trial.number not in self.described:  # apart from the creation: the store may have gone away in between
            settings = {name: value for name, value in spec.flat().items() if name != "seed"}
            fixed = {name: value for name, value in settings.items() if not name.startswith("parameters.")}
            self.client.log_batch(self.parent, params=[Param(*map(str, item)) for item in fixed.items()])
            self.client.log_batch(run_id, params=[Param(*map(str, item)) for item in settings.items()])
            self.described.add(trial.number)
        for seed, history in histories.items():
            prefix = _prefix(trial, seed)
            named = [
                record | {"metrics": {prefix + name: value for name, value in record["metrics"].items()}}
                for record in history
            ]
            # After a restart all of them again: MLflow keeps identical points once. What differs is noticed at the end.
            for metrics in epoch_batches(named, self.sent_epochs.get((trial.number, seed), 0)):
                self.client.log_batch(run_id, metrics=metrics)
            self.sent_epochs[trial.number, seed] = len(history)
        self._end(trial, run_id, objectives, histories, folders, epochs)
        self.sent[trial.number] = (epochs, trial.state)

    def _tells_of_another_training(self, run_id: str, trial: Trial, histories) -> bool:
        """Whether a run of the trial was trained again since MLflow was told; never so of another RUNS_DIR's trial."""
        is_own = self.client.get_run(run_id).data.tags.get(ORIGIN) == self.origin
        return is_own and any(
            tells_of_another_training(self.client, run_id, history, _prefix(trial, seed))
            for seed, history in histories.items()
        )

    def _forget(self, number: int) -> None:
        """Of a trial that MLflow has no more; whoever tells of it next creates it."""
        del self.children[number]
        self.described.discard(number)
        self.sent.pop(number, None)
        self.sent_epochs = {key: count for key, count in self.sent_epochs.items() if key[0] != number}

    def _found(self, trial: Trial) -> str | None:
        query = f"tags.study = '{self.name}' and tags.trial = '{trial.number}'"
        runs = find_runs(self.client, self.experiment_id, query)
        return one_of(self.client, runs).info.run_id if runs else None

    def _new(self, trial: Trial, spec: RunSpec) -> str:
        tags = {
            "kind": "trial",
            ORIGIN: self.origin,
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
        return self._create(self.experiment_id, tags, f"{self.name}/trial{trial.number}", started)

    def _end(self, trial: Trial, run_id: str, objectives, histories, folders, epochs: int) -> None:
        tags = {"state": trial.state, "reason": trial.reason, "epochs": str(epochs)}
        tags |= start_tags(folders[next(iter(histories))])
        self.client.log_batch(run_id, tags=[RunTag(*item) for item in tags.items()])
        if trial.state == RUNNING:
            self.client.update_run(run_id, status="RUNNING")
            return
        values = {"minutes": sum(minutes(history) for history in histories.values())}
        if trial.state == COMPLETE:
            values |= {f"objective/{name}": value for name, value in zip(objectives, trial.values, strict=True)}
            values |= {f"mean/{name}": value for name, value in trial.metrics.items()}
        now = self._last_epoch(trial)
        self.client.log_batch(run_id, metrics=[Metric(*item, now, 0) for item in values.items()])
        self.client.set_terminated(run_id, STATUS[trial.state], int(trial.ended.timestamp() * 1000))

    def _last_epoch(self, trial: Trial) -> int:
        """When a finished trial's last epoch was recorded, in milliseconds.

        Told again, it is the same: a study keeps its own times without their zone.
        """
        histories = [RunFolder(self.runs_dir / key).epochs() for key in trial.runs.values()]
        seconds = [history[-1]["timestamp"] for history in histories if history]
        return int(max(seconds, default=trial.ended.timestamp()) * 1000)

    def _summarise(self, objectives: tuple[str, ...], trials: list[Trial]) -> None:
        states = [trial.state for trial in trials]
        tags = {f"trials.{state}": str(states.count(state)) for state in STATUS}
        best = best_of(trials)
        if best is not None:
            tags |= {"best_trial": str(best.number), "best_parameters": json.dumps(best.parameters)}
            now = self._last_epoch(best)
            values = {f"best/{objectives[0]}": best.values[0]}
            values |= {f"best/{name}": best.metrics[name] for name in OBJECTIVES.values()}
            self.client.log_batch(self.parent, metrics=[Metric(*item, now, 0) for item in values.items()])
        self.client.log_batch(self.parent, tags=[RunTag(*item) for item in tags.items()])
        if self.results.is_dir():
            self.client.log_artifacts(self.parent, str(self.results))
        self.client.update_run(self.parent, status="RUNNING" if RUNNING in states else "FINISHED")


def _prefix(trial: Trial, seed: int) -> str:
    """Of a seed's metrics: of several seeds each has curves of its own."""
    return f"seed{seed}/" if len(trial.runs) > 1 else ""


def sync_study(uri: str, storage: str, name: str, runs_dir: Path, results: Path) -> None:
    """Bring a store in step with a study. Raises UserError where it cannot be reached or refuses."""
    try:
        StudyTracking(uri, storage, name, runs_dir, results).update(whole=True)
    except MlflowException as error:
        raise refusal(uri, f"study {name}", error) from error
