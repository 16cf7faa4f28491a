"""What MLflow is told of a grid. It is a copy of the run folders: sent as they grow, and sent again without harm.

One experiment a grid; a parent run a cell, which carries mean, std and n of its seeds; a child run a seed.
Training processes know nothing of this: a tracking server that is slow or away costs them nothing.
"""

import json
import math
import threading
import time
import uuid
from collections import defaultdict
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.entities import Dataset, DatasetInput, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from cskd import RECORDS_VERSION
from cskd.plots import curves_figure, method_color, reliability_figure
from cskd.utils.errors import UserError
from cskd.utils.files import exclusive
from experiments.config.spec import RunSpec
from experiments.runs.folder import DONE, FAILED, INTERRUPTED, MISSING, RUNNING, RunFolder
from experiments.runs.plan import Cell, Plan, load_plan
from experiments.tracking.origin import ORIGIN, origin_of, tells_of_another_training
from experiments.tracking.records import STATUS, epoch_batches, kilojoules, minutes, start_tags
from experiments.tracking.store import MAKER, ensure_experiment, find_runs, one_of, open_store, refusal

NOTE = (
    "One row a cell (dataset / architecture / method): mean, std (ddof=1) and number of its seeds. "
    "Its children are the seeds. Filter `tags.kind = 'cell'` to compare methods, `tags.kind = 'run'` for seeds."
)


class Tracker:
    """Keeps one experiment in step with its plan's run folders. Every method may be called again at any time."""

    def __init__(self, uri: str, plan: Plan, runs_dir: Path):
        self.uri, self.plan, self.runs_dir = uri, plan, runs_dir
        self.client = open_store(uri)
        self.maker = uuid.uuid4().hex
        self.origin = ""
        self.experiment_id: str | None = None
        self.parents: dict[str, str] = {}  # cell key -> MLflow run
        self.children: dict[tuple[str, str], str] = {}  # (cell key, run key) -> MLflow run
        self.described: set[str] = set()  # MLflow runs that have their settings
        self.sent: dict[tuple[str, str], tuple[int, str]] = {}  # as children -> (epochs, state) that MLflow has
        self.summarised: set[str] = set()  # keys of the cells whose parent is finished and up to date

    def open(self) -> None:
        """Find or create the experiment and a parent run for every cell."""
        with self._alone():
            self._open()

    def _alone(self) -> AbstractContextManager:
        """While held, no other launch into the same RUNS_DIR creates anything in the experiment."""
        return exclusive(Plan.path(self.plan.experiment, self.runs_dir).with_suffix(".tracking.lock"))

    def _open(self) -> None:
        self.origin = origin_of(self.runs_dir)
        note = f"{self.plan.title}, profile {self.plan.profile}. {NOTE}"
        self.experiment_id = ensure_experiment(self.client, self.uri, self.plan.experiment, note)
        self.client.set_experiment_tag(self.experiment_id, "launched", f"{time.time():.0f}")
        if self.plan.overrides:
            self.client.set_experiment_tag(self.experiment_id, "overrides", ", ".join(self.plan.overrides))
        names = {cell.name: cell for cell in self.plan.cells}
        cells, children = defaultdict(list), defaultdict(list)
        for run in find_runs(self.client, self.experiment_id):
            tags = run.data.tags
            if tags.get("kind") == "run" and self._is_own(run):
                children[tags["cell_key"], tags["run_key"]].append(run)
            elif tags.get("kind") == "cell" and run.info.run_name in names:
                if names[run.info.run_name].key == tags["cell_key"]:
                    cells[run.info.run_name].append(run)
                else:
                    self.client.set_tag(run.info.run_id, "superseded", "true")
        self.children = {}
        for child, found in children.items():
            run = one_of(self.client, found)
            self.children[child] = run.info.run_id
            epochs = run.data.params.get("schedule.epochs")
            # State and status are the last that is told of a run: it is there whole.
            whole = run.data.tags.get("state") == DONE and run.info.status == STATUS[DONE] and epochs
            if whole and self._is_overtaken(run):
                self.sent.pop(child, None)
            elif whole:
                self.sent[child] = (int(epochs), DONE)
        for name, found in cells.items():
            cell, run = names[name], one_of(self.client, found)
            self.parents[cell.key] = run.info.run_id
            if run.data.tags.get("seeds_planned") == _seeds(cell) and run.info.status == STATUS[DONE]:
                self.summarised.add(cell.key)
        for cell in self.plan.cells:
            self._cell(cell)

    def sync(self, cell: Cell, run_key: str) -> None:
        """Send what this run's folder has and MLflow has not."""
        folder = RunFolder(self.runs_dir / run_key)
        state = folder.state()
        try:
            if state["state"] == MISSING or not folder.starts():
                return
        except UserError:  # damaged: the next launch starts the run anew, and then it is told
            return
        epochs = folder.epochs()
        child = cell.key, run_key
        if self.sent.get(child) == (len(epochs), state["state"]):
            return
        if state["state"] == DONE and (damage := folder.damage()):
            state |= {"state": INTERRUPTED, "reason": damage}  # what the next launch makes of it
        spec = folder.spec()
        if spec.run_key != run_key:
            raise UserError(f"{folder.spec_file} is not of run {run_key}: remove {folder.path} to start the run anew")
        run_id = self._child(cell, spec, folder)
        if state["state"] == DONE and tells_of_another_training(self.client, run_id, epochs):
            self.client.delete_run(run_id)
            self._forget(child)
            run_id = self._child(cell, spec, folder)
        already = self.sent.get(child, (0, None))[0] or self._epochs_tracked(run_id)
        for metrics in epoch_batches(epochs, already):
            self.client.log_batch(run_id, metrics=metrics)
        if state["state"] == DONE:
            self._results(run_id, spec, folder, epochs)
        tags = {"state": state["state"], "reason": state.get("reason", "")} | start_tags(folder)
        self.client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
        self._status(run_id, state)
        self.sent[child] = (len(epochs), state["state"])
        self.summarised.discard(cell.key)
        if state["state"] == DONE:
            self.summarise(cell)

    def sync_all(self) -> None:
        """Every run of the plan, then the state of every cell.

        A run whose folder cannot be read does not keep the others from being sent; it is named when they are.
        """
        unreadable: list[UserError] = []
        for cell in self.plan.cells:
            try:
                for run_key in cell.runs.values():
                    self.sync(cell, run_key)
                if cell.key not in self.summarised:
                    self.summarise(cell)
            except UserError as error:
                unreadable.append(error)
        if unreadable:
            raise unreadable[0]

    def summarise(self, cell: Cell) -> None:
        """Mean, std and n of the cell's finished seeds, and their mean curves, on the parent run."""
        parent = self.parents[cell.key]
        folders = [RunFolder(self.runs_dir / key) for key in cell.runs.values()]
        states = [folder.state()["state"] for folder in folders]
        histories = [folder.epochs() for folder, state in zip(folders, states, strict=True) if state == DONE]
        if histories:
            now = int(max(history[-1]["timestamp"] for history in histories) * 1000)
            n = len(histories)
            metrics = [Metric("seeds", n, now, n)]
            for name in _tested(histories[0][-1]):
                values = np.array([history[-1]["metrics"][f"test/{name}"] for history in histories])
                metrics.append(Metric(f"test/{name}_mean", float(values.mean()), now, n))
                if n > 1:
                    metrics.append(Metric(f"test/{name}_std", float(values.std(ddof=1)), now, n))
            self.client.log_batch(parent, metrics=metrics)
            color = method_color(cell.name.split("/")[-1])
            figure = curves_figure(f"{cell.name}, {n} seeds", _curves(histories), color)
            self.client.log_figure(parent, figure, "curves.png")
        if all(state == DONE for state in states):
            status = "FINISHED"
            self.summarised.add(cell.key)
        elif RUNNING in states:
            status = "RUNNING"
        else:
            status = "FAILED" if FAILED in states else "KILLED" if INTERRUPTED in states else "SCHEDULED"
        self.client.update_run(parent, status=status)

    def _cell(self, cell: Cell) -> None:
        dataset, architecture, method = cell.name.split("/")
        tags = {
            "kind": "cell",
            "records_version": str(RECORDS_VERSION),
            "cell_key": cell.key,
            "grid": self.plan.grid,
            "profile": self.plan.profile,
            "dataset": dataset,
            "architecture": architecture,
            "method": method,
            "seeds_planned": _seeds(cell),
            "grid_order": str(cell.order),
            "comparable": json.dumps(cell.comparable),
            "comparable_reason": cell.comparable_reason,
            "tuned": cell.tuned,
            "hyperparameter_source": cell.hyperparameter_source,
            "superseded": "false",
        }
        if cell.key not in self.parents:
            run = self.client.create_run(self.experiment_id, tags=tags | {MAKER: self.maker}, run_name=cell.name)
            self.parents[cell.key] = run.info.run_id
        else:
            self.client.log_batch(self.parents[cell.key], tags=[RunTag(*tag) for tag in tags.items()])

    def _child(self, cell: Cell, spec: RunSpec, folder: RunFolder) -> str:
        child = cell.key, spec.run_key
        if child not in self.children:
            with self._alone():  # another launch may have begun to track the same run
                self.children[child] = self._found_child(*child) or self._new_child(cell, spec, folder)
        run_id = self.children[child]
        # Apart from the creation and harmless to repeat: the store may have gone away in between.
        self._describe(self.parents[cell.key], {name: value for name, value in spec.flat().items() if name != "seed"})
        if run_id not in self.described:
            source = json.dumps({"reader": spec.settings.data.reader, "sha256": spec.data_digest})
            dataset = Dataset(name=spec.dataset, digest=spec.data_digest[:16], source_type="local", source=source)
            self.client.log_inputs(run_id, [DatasetInput(dataset)])
        self._describe(run_id, spec.flat())
        return run_id

    def _found_child(self, cell_key: str, run_key: str) -> str | None:
        query = f"tags.cell_key = '{cell_key}' and tags.run_key = '{run_key}'"
        runs = [run for run in find_runs(self.client, self.experiment_id, query) if self._is_own(run)]
        return one_of(self.client, runs).info.run_id if runs else None

    def _new_child(self, cell: Cell, spec: RunSpec, folder: RunFolder) -> str:
        tags = {
            "kind": "run",
            "records_version": str(RECORDS_VERSION),
            ORIGIN: self.origin,
            MAKER: self.maker,
            "mlflow.parentRunId": self.parents[cell.key],
            "mlflow.source.name": "experiments.launch.worker",
            "run_key": spec.run_key,
            "cell_key": cell.key,
            "dataset": spec.dataset,
            "architecture": spec.architecture,
            "method": spec.method,
            "profile": spec.profile,
            "grid": self.plan.grid,
            "seed": str(spec.seed),
            "data_complete": json.dumps(spec.data_complete),
            "data_source": spec.data_source,
            "comparable": json.dumps(spec.comparable),
            "comparable_reason": spec.comparable_reason,
        }
        started = int(folder.starts()[0]["started"] * 1000)
        run = self.client.create_run(self.experiment_id, start_time=started, tags=tags, run_name=spec.name)
        return run.info.run_id

    def _describe(self, run_id: str, settings: dict[str, Any]) -> None:
        """Every setting as a parameter, once."""
        if run_id not in self.described:
            self.client.log_batch(run_id, params=[Param(name, str(value)) for name, value in settings.items()])
            self.described.add(run_id)

    def _is_own(self, run: Run) -> bool:
        """Whether it tells of a run of this RUNS_DIR: of the same settings and seed there may be others'."""
        if ORIGIN in run.data.tags:
            return run.data.tags[ORIGIN] == self.origin
        # told before there was this tag
        try:
            starts = RunFolder(self.runs_dir / run.data.tags["run_key"]).starts()
        except UserError:
            return False
        return bool(starts) and run.info.start_time == int(starts[0]["started"] * 1000)

    def _is_overtaken(self, run: Run) -> bool:
        """Whether the run was trained again since it was told."""
        epochs = RunFolder(self.runs_dir / run.data.tags["run_key"]).epochs()
        return not math.isclose(run.data.metrics.get("minutes", math.nan), minutes(epochs))

    def _forget(self, child: tuple[str, str]) -> None:
        """Of a run that MLflow has no more; whoever tells of it next creates it."""
        self.described.discard(self.children.pop(child))
        self.sent.pop(child, None)

    def _epochs_tracked(self, run_id: str) -> int:
        history = self.client.get_metric_history(run_id, "train/loss")
        return max((metric.step + 1 for metric in history), default=0)

    def _results(self, run_id: str, spec: RunSpec, folder: RunFolder, epochs: list[dict[str, Any]]) -> None:
        best = min(epochs, key=lambda record: record["metrics"]["test/top1_error"])
        values = {f"best/{name}": best["metrics"][f"test/{name}"] for name in _tested(best)}
        values["best/epoch"] = best["epoch"]
        values["minutes"] = minutes(epochs)
        energy = kilojoules(epochs)
        if energy is not None:
            values["energy_kilojoules"] = energy
        # Of a run whose state alone was damaged they are there already.
        if "best/epoch" not in self.client.get_run(run_id).data.metrics:
            now = int(epochs[-1]["timestamp"] * 1000)
            self.client.log_batch(run_id, metrics=[Metric(*item, now, 0) for item in values.items()])
        for file in (folder.predictions, folder.weights, folder.environment, folder.spec_file):
            self.client.log_artifact(run_id, str(file))
        predictions = folder.load_predictions()
        figure = reliability_figure(predictions.logits, predictions.labels, spec.name, method_color(spec.method))
        self.client.log_figure(run_id, figure, "reliability.png")

    def _status(self, run_id: str, state: dict[str, Any]) -> None:
        if state["state"] == RUNNING:
            self.client.update_run(run_id, status="RUNNING")
        else:
            self.client.set_terminated(run_id, STATUS[state["state"]], int(state["heartbeat"] * 1000))


class GridTracking:
    """A tracker that is called again and again while a grid goes on (see experiments.tracking.uploader.Tracking).

    The plan must have been saved before the first update.
    """

    def __init__(self, uri: str, plan: Plan, runs_dir: Path):
        self.tracker = Tracker(uri, plan, runs_dir)
        self._open = False
        self._watched: set[str] = set()
        self._lock = threading.Lock()

    def watch(self, run_key: str) -> None:
        with self._lock:
            self._watched.add(run_key)

    def update(self, whole: bool) -> None:
        if whole or not self._open:
            # As it is kept: with the cells and seeds that other launches have added, or add meanwhile.
            self.tracker.plan = load_plan(Plan.path(self.tracker.plan.experiment, self.tracker.runs_dir))
            self.tracker.open()
            self._open = True
        with self._lock:
            watched = set(self._watched)
        for cell in self.tracker.plan.cells:
            for run_key in watched.intersection(cell.runs.values()):
                self.tracker.sync(cell, run_key)
        if whole:
            self.tracker.sync_all()


def sync_plan(uri: str, plan: Plan, runs_dir: Path) -> None:
    """Bring a store in step with a plan. Raises UserError where it cannot be reached or refuses."""
    try:
        tracker = Tracker(uri, plan, runs_dir)
        tracker.open()
        tracker.sync_all()
    except MlflowException as error:
        raise refusal(uri, plan.experiment, error) from error


def _seeds(cell: Cell) -> str:
    return " ".join(map(str, cell.runs))


def _curves(histories: list[list[dict[str, Any]]]) -> dict[str, np.ndarray]:
    """One (seeds, epochs) array for each panel of the parent's figure."""
    panels = {"test/top1_error": "test error (%)", "test/ece": "test ECE (%)", "train/loss": "training loss"}
    return {
        label: np.array([[record["metrics"][name] for record in history] for history in histories])
        for name, label in panels.items()
    }


def _tested(epoch: dict[str, Any]) -> list[str]:
    """The names of an epoch's metrics of the test set, which differ with datasets and epochs."""
    return [name.removeprefix("test/") for name in epoch["metrics"] if name.startswith("test/")]
