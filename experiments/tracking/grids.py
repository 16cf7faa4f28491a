"""Upload of a grid: an MLflow experiment with a parent run for each cell and a child run for each training of a seed.

Training processes do not use this: a slow or dead server costs them no time.
"""

import json
import threading
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from cskd.utils.errors import UserError
from experiments.config.spec import RunSpec
from experiments.runs.folder import DONE, INTERRUPTED, MISSING, RUNNING, RunFolder
from experiments.runs.plan import Cell, Plan, load_plan
from experiments.tracking.cells import cell_name, cell_status, cell_tags, seed_curves, seed_statistics
from experiments.tracking.records import (
    STATUS,
    dataset_input,
    environment_tags,
    epoch_batches,
    result_metrics,
    upload_artifacts,
)
from experiments.tracking.store import TrackedExperiment, upload_error

NOTE = (
    "One row per cell (dataset / architecture / method): mean, std (ddof=1) and number of its seeds. "
    "Its children are the seeds. Filter `tags.kind = 'cell'` to compare methods, `tags.kind = 'run'` for seeds."
)


@dataclass
class TrackedRun:
    """What MLflow has of a cell or of one training of a seed."""

    run_id: str
    parent: str
    has_settings: bool
    state: str  # "" if unknown
    epochs: int | None = None  # None: unknown

    @classmethod
    def of(cls, run: Run) -> "TrackedRun":
        tags = run.data.tags
        # The status is uploaded last: with it, the run is complete.
        state = DONE if tags.get("state") == DONE and run.info.status == STATUS[DONE] else ""
        return cls(run.info.run_id, tags.get("mlflow.parentRunId", ""), bool(run.data.params), state)


class GridTracker:
    """Copies the run folders of one plan to its MLflow experiment (see ``uploader.Tracker``).

    The plan is read from RUNS_DIR at the first update and at complete ones, since other launches may extend it.
    """

    def __init__(self, uri: str, experiment: str, runs_dir: Path):
        self.runs_dir = runs_dir
        self.plan_file = Plan.path(experiment, runs_dir)
        self.experiment = TrackedExperiment(uri, experiment, self.plan_file.with_suffix(".lock"))
        self.client = self.experiment.client
        self._is_open = False
        self._cells: dict[str, TrackedRun] = {}  # by cell key
        self._runs: dict[tuple[str, str, str], TrackedRun] = {}  # by cell key, run key and training id
        self._watched: set[str] = set()
        self._watched_lock = threading.Lock()

    def watch(self, run_key: str) -> None:
        with self._watched_lock:
            self._watched.add(run_key)

    def update(self, everything: bool) -> None:
        """Upload the watched runs, or all. An unreadable run folder does not stop the others; it is raised last."""
        if everything or not self._is_open:
            self._open()
        self._is_open = False  # after an exception the next update reads the store again
        with self._watched_lock:
            watched = set(self._watched)
        errors = []
        for cell in self.plan.cells:
            try:
                for run_key in cell.runs.values():
                    if everything or run_key in watched:
                        self._upload(cell, run_key)
                if everything and self._cells[cell.key].state != DONE:
                    self._summarise(cell)
            except UserError as error:
                errors.append(error)
        self._is_open = True
        if errors:
            raise errors[0]

    def _open(self) -> None:
        """Find or create the experiment and the parent runs, and find what MLflow has of the seeds."""
        self.plan = load_plan(self.plan_file)
        self.experiment.open(f"{self.plan.title}, profile {self.plan.profile}. {NOTE}", self._experiment_tags())
        cells, runs = defaultdict(list), defaultdict(list)
        for run in self.experiment.runs():
            tags = run.data.tags
            if tags.get("kind") == "cell":
                cells[tags["cell_key"]].append(run)
            elif tags.get("kind") == "run":
                runs[tags["cell_key"], tags["run_key"], tags["training_id"]].append(run)
        self._cells = {cell.key: self._open_cell(cell, cells[cell.key]) for cell in self.plan.cells}
        self._mark_superseded(cells)
        self._runs = {}
        for identity, copies in runs.items():
            self._runs[identity] = TrackedRun.of(self.experiment.merge_copies(copies))

    def _experiment_tags(self) -> dict[str, str]:
        return {
            "grid": self.plan.grid,
            "profile": self.plan.profile,
            "title": self.plan.title,
            "overrides": json.dumps(self.plan.overrides),
            "tuned": json.dumps(self.plan.tuned),
            "launched": f"{self.plan_file.stat().st_mtime:.0f}",
        }

    def _open_cell(self, cell: Cell, copies: list[Run]) -> TrackedRun:
        tags = cell_tags(self.plan, cell)
        if not copies:
            copies = [self.experiment.ensure_run(cell.name, {"kind": "cell", "cell_key": cell.key}, tags)]
        run = self.experiment.merge_copies(copies)
        is_changed = any(run.data.tags.get(name) != value for name, value in tags.items())
        if is_changed:
            self.experiment.set_tags(run.info.run_id, tags)
        is_done = run.info.status == STATUS[DONE] and not is_changed
        return TrackedRun(run.info.run_id, "", bool(run.data.params), DONE if is_done else "")

    def _mark_superseded(self, cells: dict[str, list[Run]]) -> None:
        """Mark the cells whose settings were changed since: the plan has their name with another key."""
        names = {cell.name for cell in self.plan.cells}
        for key, copies in cells.items():
            for run in copies if key not in self._cells else ():
                if cell_name(run.data.tags) in names and run.data.tags["superseded"] == "false":
                    self.client.set_tag(run.info.run_id, "superseded", "true")

    def _upload(self, cell: Cell, run_key: str) -> None:
        """Upload what MLflow does not have of this run's folder."""
        folder = RunFolder(self.runs_dir / run_key)
        state, training_id = folder.state(), folder.training_id()
        if state["state"] == MISSING or not training_id:
            return
        identity = cell.key, run_key, training_id
        tracked = self._runs.get(identity)
        if tracked is None:
            tracked = self._runs[identity] = self._create_run(cell, folder, identity)
        parent = self._cells[cell.key].run_id
        if tracked.parent != parent:  # somebody has deleted the parent
            self.client.set_tag(tracked.run_id, "mlflow.parentRunId", parent)
            tracked.parent = parent
        if tracked.state == DONE == state["state"]:
            return
        epochs = folder.epochs()
        if (tracked.epochs, tracked.state) == (len(epochs), state["state"]):
            return
        if state["state"] == DONE and (damage := folder.damage()):
            state |= {"state": INTERRUPTED, "reason": damage}  # as the next launch will find it
        self._upload_changes(cell, tracked, folder, state, epochs)
        self._cells[cell.key].state = ""
        if state["state"] == DONE:
            self._summarise(cell)

    def _upload_changes(
        self, cell: Cell, tracked: TrackedRun, folder: RunFolder, state: dict[str, Any], epochs: list[dict[str, Any]]
    ) -> None:
        """Upload new epochs, the results of a finished run, and the state. The status is last."""
        spec = folder.spec()
        self._log_settings(cell, tracked, spec)
        if tracked.epochs is None:
            history = self.client.get_metric_history(tracked.run_id, "train/loss")
            tracked.epochs = max((metric.step + 1 for metric in history), default=0)
        for metrics in epoch_batches(epochs, tracked.epochs):
            self.client.log_batch(tracked.run_id, metrics=metrics)
        if state["state"] == DONE:
            results = result_metrics(folder.summary(), epochs[-1]["timestamp"])
            self.client.log_batch(tracked.run_id, metrics=results)
            upload_artifacts(self.client, tracked.run_id, spec, folder)
        tags = {"state": state["state"], "reason": state["reason"]} | environment_tags(folder.starts())
        self.experiment.set_tags(tracked.run_id, tags)
        if state["state"] == RUNNING:
            self.client.update_run(tracked.run_id, status=STATUS[RUNNING])
        else:
            self.client.set_terminated(tracked.run_id, STATUS[state["state"]], int(state["heartbeat"] * 1000))
        tracked.epochs, tracked.state = len(epochs), state["state"]

    def _create_run(self, cell: Cell, folder: RunFolder, identity: tuple[str, str, str]) -> TrackedRun:
        spec = folder.spec()
        keys = {"kind": "run"} | dict(zip(("cell_key", "run_key", "training_id"), identity, strict=True))
        tags = {
            "mlflow.parentRunId": self._cells[cell.key].run_id,
            "mlflow.source.name": "experiments.launch.worker",
            "dataset": spec.dataset,
            "architecture": spec.architecture,
            "method": spec.method,
            "seed": str(spec.seed),
            "profile": spec.profile,
            "comparable": json.dumps(spec.comparable),
            "comparable_reason": spec.comparable_reason,
            "hyperparameter_source": cell.hyperparameter_source,
            "tuned": cell.tuned,
            "data_complete": json.dumps(spec.data_complete),
            "data_source": spec.data_source,
        }
        started = int(folder.starts()[0]["started"] * 1000)
        return TrackedRun.of(self.experiment.ensure_run(spec.name, keys, tags, started))

    def _log_settings(self, cell: Cell, tracked: TrackedRun, spec: RunSpec) -> None:
        """Log every setting as a parameter, on the run and without the seed on its parent, once."""
        parent = self._cells[cell.key]
        if not parent.has_settings:
            settings = {name: value for name, value in spec.flat().items() if name != "seed"}
            self.experiment.log_settings(parent.run_id, settings)
            parent.has_settings = True
        if not tracked.has_settings:
            self.client.log_inputs(tracked.run_id, [dataset_input(spec)])
            self.experiment.log_settings(tracked.run_id, spec.flat())
            tracked.has_settings = True

    def _summarise(self, cell: Cell) -> None:
        """Log the statistics and curves of the cell's finished seeds on the parent run."""
        parent = self._cells[cell.key]
        folders = [RunFolder(self.runs_dir / key) for key in cell.runs.values()]
        states = [folder.state()["state"] for folder in folders]
        histories = [folder.epochs() for folder, state in zip(folders, states, strict=True) if state == DONE]
        if histories:
            self.client.log_batch(parent.run_id, metrics=seed_statistics(histories))
            self.client.log_figure(parent.run_id, seed_curves(cell, histories), "curves.png")
        self.client.update_run(parent.run_id, status=cell_status(states))
        parent.state = DONE if all(state == DONE for state in states) else ""


def sync_plan(uri: str, plan: Plan, runs_dir: Path) -> None:
    """Upload everything of a plan. Raises UserError if the store fails."""
    try:
        GridTracker(uri, plan.experiment, runs_dir).update(everything=True)
    except MlflowException as error:
        raise upload_error(uri, plan.experiment, error) from error
