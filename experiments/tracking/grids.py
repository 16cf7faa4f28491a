"""Upload of a grid: an MLflow experiment with a parent run for each cell and a child run for each training of a seed.

Training processes do not use this: a slow or dead server costs them no time.
"""

import json
import threading
from pathlib import Path

from cskd.utils.databases import view_link, view_path
from cskd.utils.errors import UserError
from experiments.runs.folder import DONE, INTERRUPTED, MISSING, RunFolder
from experiments.runs.stored_plan import Cell, Plan, load_plan
from experiments.tracking.cells import cell_name, cell_status, cell_tags, run_name, seed_curves, seed_statistics
from experiments.tracking.experiment import STATUS, TrackedExperiment, TrackedRun, collect_errors
from experiments.tracking.records import (
    best_epoch_tag,
    dataset_input,
    environment_tags,
    result_values,
    shared_settings,
    spec_tags,
    upload_artifacts,
)
from experiments.tracking.store import store_errors
from experiments.tracking.views import VIEWS, view_tags

DESCRIPTION = """**{title}**, profile {profile}.

- [Cells]({cells}): one row per method, dataset and network, with mean, std (ddof=1) and number of its seeds.
- [Seeds]({seeds}): one row per run, with its curves.

Errors, R@1 and ECE (20 bins) are in percent, NLL is in nats, the Brier score is from 0 to 2, `minutes` are those of
training and testing. Values are those after the last epoch. The tag `best_epoch` has the metrics of the epoch with the
lowest test error, which the paper's released code reports. [The paper](https://arxiv.org/abs/2003.13964)
"""
IDENTITY = ("cell_key", "run_key", "training_id")  # of a child run


class GridTracker:
    """Copies the run folders of one plan to its MLflow experiment (see ``uploader.Tracker``).

    The plan is read from RUNS_DIR at the first update, and whenever everything is uploaded: another launch may have
    extended it.
    """

    def __init__(self, uri: str, experiment: str, runs_dir: Path):
        self.runs_dir = runs_dir
        self.plan_file = Plan.path(experiment, runs_dir)
        self.experiment = TrackedExperiment(uri, experiment, self.plan_file.with_suffix(".lock"))
        self.client = self.experiment.client
        self._is_open = False
        self._cells: dict[str, TrackedRun] = {}  # by cell key
        self._runs: dict[tuple[str, ...], TrackedRun] = {}  # by identity
        self._watched: set[str] = set()
        self._watched_lock = threading.Lock()

    @property
    def link(self) -> str:
        experiment = self.experiment
        return view_link(experiment.uri, experiment.id, "cells") if experiment.id else ""

    def watch(self, run_key: str) -> None:
        with self._watched_lock:
            self._watched.add(run_key)

    def update(self, everything: bool) -> None:
        """Upload the watched runs, or all. An unreadable folder does not stop the others; its error is raised last."""
        if everything or not self._is_open:
            self._open()
        self._is_open = False  # after an exception the next update reads the store again
        with self._watched_lock:
            watched = set(self._watched)
        errors: list[UserError] = []
        for cell in self.plan.cells:
            has_finished = False
            for run_key in cell.runs.values():
                if everything or run_key in watched:
                    with collect_errors(errors):
                        has_finished |= self._upload(cell, run_key)
            if has_finished or (everything and self._cells[cell.key].state != DONE):
                with collect_errors(errors):
                    self._summarise(cell, everything)
        self._is_open = True
        if errors:
            raise errors[0]

    def _open(self) -> None:
        """Find or create the experiment and the parent runs, and load the uploaded runs of the seeds."""
        self.plan = load_plan(self.plan_file)
        tags = {
            "grid": self.plan.grid,
            "profile": self.plan.profile,
            "title": self.plan.title,
            "overrides": json.dumps(self.plan.overrides),
            "tuned": json.dumps(self.plan.tuned),
        } | view_tags(VIEWS)
        self.experiment.open(self._description, tags)
        self._open_cells()
        runs = self.experiment.runs(by=IDENTITY, kind="run")
        self._runs = {identity: TrackedRun.of(run) for identity, run in runs.items()}
        for (cell_key, *_), tracked in self._runs.items():  # also of other RUNS_DIRs
            if cell_key in self._cells:
                self.experiment.set_parent(tracked, self._cells[cell_key])

    def _description(self, experiment_id: str) -> str:
        links = {view: view_path(experiment_id, view) for view in VIEWS}
        return DESCRIPTION.format(title=self.plan.title, profile=self.plan.profile, **links)

    def _open_cells(self) -> None:
        """Find or create the parent runs. A cell whose settings have changed since is marked as superseded."""
        runs = self.experiment.runs(by=("cell_key",), kind="cell")
        for cell in self.plan.cells:
            tags = cell_tags(self.plan, cell)
            run = runs.pop((cell.key,), None) or self.experiment.ensure_run(
                run_name(cell.name), {"kind": "cell", "cell_key": cell.key}, tags
            )
            self._cells[cell.key] = TrackedRun.of(run)
            if any(run.data.tags.get(name) != value for name, value in tags.items()):
                self.experiment.set_tags(run.info.run_id, tags)
            elif run.info.status == STATUS[DONE] and run.data.metrics.get("seeds") == len(cell.runs):
                self._cells[cell.key].state = DONE
        names = {cell.name for cell in self.plan.cells}
        for run in runs.values():
            if cell_name(run.data.tags) in names and run.data.tags.get("superseded") != "true":
                self.client.set_tag(run.info.run_id, "superseded", "true")

    def _upload(self, cell: Cell, run_key: str) -> bool:
        """Upload the parts of this run's folder that MLflow lacks. Return True if they complete a run that is done."""
        folder = RunFolder(self.runs_dir / run_key)
        status, training_id = folder.state(), folder.training_id()
        state, reason = status["state"], status["reason"]
        if state == MISSING or not training_id:
            return False
        identity = cell.key, run_key, training_id
        if identity not in self._runs:
            self._runs[identity] = self._ensure_run(cell, folder, identity)
        parent, tracked = self._cells[cell.key], self._runs[identity]
        if not parent.has_settings:
            self.experiment.log_settings(parent, shared_settings(folder.spec()))
        if tracked.is_final(state):
            return False
        epochs = folder.epochs()
        if tracked.is_uploaded(state, {"": epochs}):
            return False
        if state == DONE and (damage := folder.damage()):
            state, reason = INTERRUPTED, damage  # as the next launch will find it
        spec = folder.spec()
        if not tracked.has_settings:
            self.experiment.log_dataset(tracked, dataset_input(spec))
        self.experiment.log_settings(tracked, spec.flat())
        self.experiment.log_epochs(tracked, epochs)
        tags = {"reason": reason} | environment_tags(folder.starts())
        if state == DONE:
            summary = folder.summary()
            self.experiment.log_values(tracked, result_values(summary), epochs[-1]["timestamp"])
            upload_artifacts(self.client, tracked.run_id, spec, folder)
            tags |= best_epoch_tag(summary)
        self.experiment.log_state(tracked, state, tags, status["heartbeat"])
        parent.state = ""
        return state == DONE

    def _ensure_run(self, cell: Cell, folder: RunFolder, identity: tuple[str, ...]) -> TrackedRun:
        spec = folder.spec()
        tags = spec_tags(spec) | {
            "mlflow.parentRunId": self._cells[cell.key].run_id,
            "mlflow.source.name": "experiments.launch.worker",
            "seed": str(spec.seed),
            "comparable": json.dumps(spec.comparable),
            "comparable_reason": spec.comparable_reason,
            "hyperparameter_source": cell.hyperparameter_source,
            "tuned": cell.tuned,
            "data_complete": json.dumps(spec.data_complete),
            "data_source": spec.data_source,
        }
        keys = {"kind": "run"} | dict(zip(IDENTITY, identity, strict=True))
        started = int(folder.starts()[0]["started"] * 1000)
        return TrackedRun.of(self.experiment.ensure_run(run_name(spec.cell, spec.seed), keys, tags, started))

    def _summarise(self, cell: Cell, everything: bool) -> None:
        """Log the statistics and curves of the cell's finished seeds on the parent run.

        This is done when the cell is complete, and if ``everything`` is uploaded. A mean has one value then, and MLflow
        does not chart it against the number of seeds. A cell that was extended has the values of its most seeds.
        """
        parent = self._cells[cell.key]
        folders = [RunFolder(self.runs_dir / key) for key in cell.runs.values()]
        states = [folder.state()["state"] for folder in folders]
        is_complete = all(state == DONE for state in states)
        histories = [folder.epochs() for folder, state in zip(folders, states, strict=True) if state == DONE]
        if histories and (everything or is_complete):
            timestamp = max(history[-1]["timestamp"] for history in histories)
            self.experiment.log_values(parent, seed_statistics(histories), timestamp, step=len(histories))
            self.client.log_figure(parent.run_id, seed_curves(cell.name, histories), "curves.png")
        self.client.update_run(parent.run_id, status=cell_status(states))
        parent.state = DONE if is_complete else ""


def sync_plan(uri: str, plan: Plan, runs_dir: Path) -> None:
    """Upload all cells and runs of a plan. Raises UserError if the store fails."""
    with store_errors(uri, f"upload {plan.experiment}"):
        GridTracker(uri, plan.experiment, runs_dir).update(everything=True)
