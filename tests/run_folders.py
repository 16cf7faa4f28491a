"""Made-up datasets, specs, plans and run folders, and what MLflow has of them after an upload."""

from pathlib import Path

import numpy as np
import torch
from arrays import random_split
from mlflow import MlflowClient
from mlflow.entities import Run

from cskd.data.store import Dataset
from cskd.evaluate.predictions import Predictions, save_predictions
from experiments.config.make_spec import make_spec as spec_of
from experiments.config.recipe import load_settings
from experiments.config.spec import RunSpec
from experiments.runs.folder import DONE, RUNNING, RunFolder
from experiments.runs.stored_plan import Cell, Plan
from experiments.tracking.grids import GridTracker

START = {
    "git_commit": "c" * 40, "git_dirty": False, "source_digest": "d" * 16,
    "machine": "a machine", "device": "cpu", "precision": "fp32",
    "threads": 2, "compiled": False, "python": "3.12.1", "packages": {"torch": "2.15.0"}, "started": 1_700_000_000.0,
}  # fmt: skip


def digits_data(images: int = 100, size: tuple[int, int] | None = (8, 8), **changes) -> Dataset:
    """Return a dataset of ten classes with noise images. size None: each image has its own size."""
    fields = {"digest": "d", "complete": True, "source": "made up", "short_side": 8} | changes
    train, test = random_split(images, 10, size), random_split(20, 10, size)
    return Dataset(name="digits", classes=tuple("0123456789"), train=train, test=test, **fields)


DIGITS = digits_data()


def digits_spec(
    *overrides: str, architecture: str = "resnet10", method: str = "cs-kd", seed: int = 0, **changes
) -> RunSpec:
    """Return the spec of a run of the digits recipe. changes: of the dataset's fields."""
    profile, settings = load_settings("digits", None, overrides)
    data = Dataset(**(vars(DIGITS) | changes))
    return spec_of("digits", data, profile, settings, architecture, method, seed)


def make_spec(seed: int, method: str = "cs-kd", epochs: int = 3) -> RunSpec:
    return digits_spec(f"schedule.epochs={epochs}", "schedule.milestones=[1]", method=method, seed=seed)


def plan_of(*specs: RunSpec) -> Plan:
    """Return a plan with one cell that has these seeds."""
    cell = Cell(
        name=specs[0].cell,
        key=specs[0].cell_key,
        order=0,
        comparable=specs[0].comparable,
        comparable_reason=specs[0].comparable_reason,
        runs={spec.seed: spec.run_key for spec in specs},
    )
    return Plan(experiment="demo", grid="demo", title="A title", profile="demo", cells=[cell])


def make_epoch(seed: int, epoch: int, ece: float = 10.0) -> dict:
    """Return an epoch's record; the second epoch is the best."""
    metrics = {
        "train/loss": 2.0 / (epoch + 1),
        "test/top1_error": {0: 50.0, 1: 20.0}.get(epoch, 30.0) + seed,
        "test/ece": ece,
        "test/domain_accuracy_dogs": 90.0 + epoch,
        "time/train_seconds": 40.0,
        "time/test_seconds": 20.0,
    }
    return {"epoch": epoch, "timestamp": 1_700_000_100.0 + epoch, "metrics": metrics}


def make_run(
    runs_dir: Path,
    spec: RunSpec,
    state: str = DONE,
    trained: int | None = None,
    *,
    training: str | None = "first",
    ece: float = 10.0,
) -> RunSpec:
    """Write the folder of a run after ``trained`` epochs. A second call with the same ``training`` resumes it.

    training: None leaves environment.json as it is.
    """
    folder, epochs = RunFolder.of(spec, runs_dir), spec.settings.schedule.epochs
    folder.create(spec)
    if training is not None:
        folder.write_environment(f"{training}-{spec.seed}", [START])
    folder.begin(0, epochs)
    folder.write_epochs([make_epoch(spec.seed, epoch, ece) for epoch in range(trained or epochs)])
    if state == DONE:
        random = np.random.default_rng(spec.seed)
        logits, features = random.normal(size=(30, 10)).astype("f4"), np.ones((30, 4), "f4")
        save_predictions(folder.predictions, Predictions(logits, features, np.arange(30) % 10))
        torch.save({}, folder.weights)
        folder.finish()
    elif state != RUNNING:
        folder.end(state, f"{state}: a reason")
    return spec


def make_grid(runs_dir: Path, method: str, seeds: int, epochs: int) -> None:
    """Write finished runs of one cell, and their plan."""
    plan_of(*(make_run(runs_dir, make_spec(seed, method, epochs)) for seed in range(seeds))).save(runs_dir)


def upload(uri: str, runs_dir: Path, *specs: RunSpec) -> GridTracker:
    """Upload a plan of these runs, as a new process does."""
    plan = plan_of(*specs)
    plan.save(runs_dir)
    tracker = GridTracker(uri, plan.experiment, runs_dir)
    tracker.update(everything=True)
    return tracker


def tracked(uri: str, **tags: str) -> list[Run]:
    """Return the active runs of all experiments that have these tags."""
    client = MlflowClient(uri)
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    query = " and ".join(f"tags.{name} = '{value}'" for name, value in tags.items())
    return list(client.search_runs(ids, filter_string=query))


def points(uri: str, run: Run, name: str) -> list[tuple[int, float]]:
    """Return (step, value) of a metric's history."""
    return [(point.step, point.value) for point in MlflowClient(uri).get_metric_history(run.info.run_id, name)]
