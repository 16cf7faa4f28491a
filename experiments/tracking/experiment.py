"""One MLflow experiment and its runs: found by their tags, created once, and extended."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from mlflow.entities import DatasetInput, Experiment, Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException

from cskd.utils.errors import UserError
from cskd.utils.files import exclusive
from experiments.tracking.store import artifact_location, open_store

NOTE = "mlflow.note.content"  # the description of an experiment, in Markdown
MAX_BATCH = 1000  # MLflow's limit of metrics in one request
PAGE = 100  # runs of one reply: a busy server takes 10 s and longer to send 1,000
# MLflow's status by the state of a run or trial; MLflow has no status "pruned".
STATUS = {
    "running": "RUNNING",
    "done": "FINISHED",
    "complete": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
    "pruned": "KILLED",
}
FINAL = ("done", "complete", "pruned")  # an uploaded training in this state never changes


@dataclass
class TrackedRun:
    """The uploaded part of a run. ``state`` is "" unless the upload of the state was completed."""

    run_id: str
    parent: str
    has_settings: bool
    state: str
    epochs: dict[str, int] = field(default_factory=dict)  # number uploaded, by the prefix of the metrics
    tags: dict[str, str] = field(default_factory=dict)  # those of the state, as this process uploaded them

    @classmethod
    def of(cls, run: Run) -> "TrackedRun":
        tags = run.data.tags
        state = tags.get("state", "")
        is_complete = run.info.status == STATUS.get(state)  # the status is uploaded last
        parent = tags.get("mlflow.parentRunId", "")
        return cls(run.info.run_id, parent, bool(run.data.params), state if is_complete else "")

    def is_final(self, state: str) -> bool:
        """Return True if MLflow has this state of a training, which then never changes."""
        return self.state == state and state in FINAL

    def is_uploaded(self, state: str, histories: dict[str, list]) -> bool:
        """Return True if MLflow has the state and these epochs, by prefix."""
        return self.state == state and all(self.epochs.get(key, -1) >= len(epochs) for key, epochs in histories.items())


@contextmanager
def collect_errors(errors: list[UserError]) -> Iterator[None]:
    """Append a UserError of the block to a list, so that an unreadable run folder does not stop the others."""
    try:
        yield
    except UserError as error:
        errors.append(error)


class TrackedExperiment:
    """One MLflow experiment. The tag ``experiment`` identifies it; its name is a label that a user may change."""

    def __init__(self, uri: str, key: str, lock: Path):
        """lock: the lock file that all launches with the same RUNS_DIR use when they create something."""
        self.key, self.lock = key, lock
        self.uri = uri
        self.client = open_store(uri)
        self.artifacts = artifact_location(uri, key)
        self.id = ""

    def open(self, describe: Callable[[str], str], tags: dict[str, str]) -> None:
        """Find or create the experiment and set its tags. Raises UserError if it was deleted.

        describe: returns the description from the experiment's id. A description that a user has changed stays.
        """
        with exclusive(self.lock):
            experiment = self._find() or self._create()
        if experiment.lifecycle_stage != "active":
            message = f"the MLflow experiment {experiment.name!r} was deleted"
            raise UserError(f"{message}: restore it, or remove it with 'mlflow gc'")
        self.id = experiment.experiment_id
        if NOTE not in experiment.tags:
            tags = tags | {NOTE: describe(self.id)}
        for name, value in tags.items():
            if experiment.tags.get(name) != value:
                self.client.set_experiment_tag(self.id, name, value)

    def runs(self, by: tuple[str, ...], **tags: str) -> dict[tuple[str, ...], Run]:
        """Return the active runs that have these tags. The keys are their values of the tags ``by``."""
        query = " and ".join(f"tags.{name} = '{value}'" for name, value in tags.items())
        groups, token = defaultdict(list), None
        while True:
            page = self.client.search_runs([self.id], filter_string=query, max_results=PAGE, page_token=token)
            for run in page:
                if run.data.tags.keys() >= set(by):
                    groups[tuple(run.data.tags[name] for name in by)].append(run)
            token = page.token
            if not token:
                return {values: self._merge_copies(copies) for values, copies in groups.items()}

    def ensure_run(self, name: str, identity: dict[str, str], tags: dict[str, str], started: int | None = None) -> Run:
        """Return the run whose tags contain ``identity``. If there is none, create it with ``tags`` added.

        started: in milliseconds.
        """
        with exclusive(self.lock):
            runs = self.runs(by=(), **identity)
            return runs[()] if runs else self.client.create_run(self.id, started, identity | tags, name)

    def _merge_copies(self, runs: list[Run]) -> Run:
        """Return one of several runs with the same identity. Copies that are cells or empty are deleted.

        Copies arise when the server creates a run after the client's timeout, and when launches on machines without a
        shared lock create the same cell at once. The next upload to a deleted copy fails and finds the other one.
        """
        first, *copies = sorted(runs, key=lambda run: (not run.data.params, run.info.run_id))
        for run in copies if first.data.params else ():
            if not run.data.params or run.data.tags["kind"] == "cell":  # which holds nothing but copies of its seeds
                self.client.delete_run(run.info.run_id)
        return first

    def set_parent(self, tracked: TrackedRun, parent: TrackedRun) -> None:
        """Set the parent if it differs: a user may have deleted the earlier parent."""
        if tracked.parent != parent.run_id:
            self.client.set_tag(tracked.run_id, "mlflow.parentRunId", parent.run_id)
            tracked.parent = parent.run_id

    def log_dataset(self, tracked: TrackedRun, dataset: DatasetInput) -> None:
        """Log the dataset that a run was trained on. The second attempt finds one that another process has created."""
        try:
            self.client.log_inputs(tracked.run_id, [dataset])
        except MlflowException as error:
            if error.error_code != "BAD_REQUEST":  # of a violated constraint of the database
                raise
            self.client.log_inputs(tracked.run_id, [dataset])

    def log_settings(self, tracked: TrackedRun, settings: dict[str, Any]) -> None:
        """Log every setting as a parameter, once."""
        if not tracked.has_settings:
            params = [Param(name, str(value)) for name, value in settings.items()]
            self.client.log_batch(tracked.run_id, params=params)
            tracked.has_settings = True

    def log_epochs(self, tracked: TrackedRun, epochs: list[dict[str, Any]], prefix: str = "") -> None:
        """Log the metrics of new epochs, with ``prefix`` before each name."""
        if prefix not in tracked.epochs:
            history = self.client.get_metric_history(tracked.run_id, f"{prefix}train/loss")
            tracked.epochs[prefix] = max((metric.step + 1 for metric in history), default=0)
        new = epochs[tracked.epochs[prefix] :]
        size = MAX_BATCH // max((len(record["metrics"]) for record in new), default=1)
        for start in range(0, len(new), size):
            metrics = [
                Metric(prefix + name, value, int(record["timestamp"] * 1000), record["epoch"])
                for record in new[start : start + size]
                for name, value in record["metrics"].items()
            ]
            self.client.log_batch(tracked.run_id, metrics=metrics)
        # A run that resumes from its previous checkpoint has fewer epochs than before for a while.
        tracked.epochs[prefix] = max(tracked.epochs[prefix], len(epochs))

    def log_state(self, tracked: TrackedRun, state: str, tags: dict[str, str], ended: float) -> None:
        """Log the state with other tags, and then MLflow's status. ended: unix seconds, unless it is running."""
        if STATUS[state] == "RUNNING" and (tracked.state, tracked.tags) == (state, tags):
            return  # most updates of a running run: only its epochs are new
        self.set_tags(tracked.run_id, {"state": state} | tags)
        if STATUS[state] == "RUNNING":
            self.client.update_run(tracked.run_id, status="RUNNING")
        else:
            self.client.set_terminated(tracked.run_id, STATUS[state], int(ended * 1000))
        tracked.state, tracked.tags = state, tags

    def log_values(self, tracked: TrackedRun, values: dict[str, float], timestamp: float, step: int = 0) -> None:
        """Log metrics that have one value. timestamp: unix seconds, the same when the upload is repeated."""
        metrics = [Metric(*item, int(timestamp * 1000), step) for item in values.items()]
        self.client.log_batch(tracked.run_id, metrics=metrics)

    def set_tags(self, run_id: str, tags: dict[str, str]) -> None:
        self.client.log_batch(run_id, tags=[RunTag(*item) for item in tags.items()])

    def _find(self) -> Experiment | None:
        query = f"tags.experiment = '{self.key}'"
        experiments = self.client.search_experiments(view_type=ViewType.ALL, filter_string=query)
        return min(experiments, key=lambda experiment: experiment.lifecycle_stage != "active", default=None)

    def _create(self) -> Experiment:
        tags = {
            "experiment": self.key,
            "mlflow.experimentKind": "custom_model_development",  # selects the UI's view of training runs
        }
        for number in count(1):
            label = self.key if number == 1 else f"{self.key} ({number})"
            try:
                self.client.create_experiment(label, self.artifacts, tags)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            # A launch on another machine may have created it, or the label belongs to another experiment.
            if experiment := self._find():
                return experiment
