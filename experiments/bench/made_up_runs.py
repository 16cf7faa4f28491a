"""Made-up finished runs with predictions of CIFAR-100's size, for measurements of commands that only read runs."""

import os
from pathlib import Path

import numpy as np
import torch

from cskd.evaluate.evaluate_run import evaluate
from cskd.evaluate.evaluation import save_evaluation
from cskd.evaluate.metrics import LAST, TRACKED
from cskd.evaluate.predictions import Predictions, load_predictions, save_predictions
from experiments.config.datasets import expected_data
from experiments.config.grid import load_grid, load_grid_settings
from experiments.runs.folder import RunFolder
from experiments.runs.plan import PlannedRun, make_plan

GRID, PROFILE = "table1", "mini"
METHODS = ("cross-entropy", "label-smoothing", "max-entropy", "ddgsd", "byot", "cs-kd")
CELLS = 5 * len(METHODS)  # of five datasets
IMAGES, CLASSES, FEATURES = 10_000, 100, 512
START = 1_790_000_000.0
ENVIRONMENT = {
    **{"git_commit": "unknown", "git_dirty": None, "source_digest": "made up", "machine": "made up", "device": "cpu"},
    **{"threads": 1, "precision": "fp32", "compiled": False, "python": "", "packages": {}, "started": START},
}


def make_runs(runs: int, runs_dir: Path) -> list[PlannedRun]:
    """Write finished runs of table 1, without predictions, and their plan. runs: a multiple of CELLS."""
    grid = load_grid(GRID, methods=list(METHODS), seeds=list(range(runs // CELLS)))
    profile, settings = load_grid_settings(grid, PROFILE, ())
    data = {name: expected_data(name, settings[name].data, runs_dir / "no data") for name in grid.datasets}
    plan, planned = make_plan(GRID, grid, profile, settings, data, runs_dir)
    for run in planned:
        write_run(run)
    plan.save(runs_dir)
    return planned


def add_predictions(runs: list[PlannedRun], runs_dir: Path) -> None:
    """Add predictions and their evaluation to the runs. Those of a method share the files, by hard links."""
    shared = {method: _predictions(runs_dir / f"{method}.npz", number) for number, method in enumerate(METHODS)}
    for run in runs:
        for source, target in zip(shared[run.spec.method], _files(run.folder), strict=True):
            os.link(source, target)


def write_run(run: PlannedRun) -> None:
    """Write the folder of a finished run without predictions, with a noisy metric for every epoch."""
    draws, epochs = np.random.default_rng(run.spec.seed), run.spec.settings.schedule.epochs
    names = [metric.name for metric in TRACKED if metric.when != LAST]
    records = []
    for epoch in range(epochs):
        values = draws.uniform(20, 40, len(names)).tolist()
        metrics = {f"test/{name}": value for name, value in zip(names, values, strict=True)}
        times = {"time/train_seconds": 40.0, "time/test_seconds": 20.0}
        metrics |= {"train/loss": 1 / (epoch + 1), "train/lr": 0.1} | times
        records.append({"epoch": epoch, "timestamp": START + 60 * epoch, "metrics": metrics})
    run.folder.create(run.spec)
    run.folder.write_environment(f"training of {run.spec.run_key}", [ENVIRONMENT])
    run.folder.begin(0, epochs)
    run.folder.write_epochs(records)
    run.folder.finish()


def _predictions(path: Path, seed: int) -> tuple[Path, Path]:
    """Write made-up predictions and their evaluation; return both paths."""
    draws = np.random.default_rng(seed)
    labels = np.arange(IMAGES) % CLASSES
    logits = draws.normal(size=(IMAGES, CLASSES)) + 4 * np.eye(CLASSES)[labels]
    features = draws.normal(size=(IMAGES, FEATURES))
    training = Predictions(logits[:5000].astype("f4"), features[:5000].astype("f4"), labels[:5000])
    save_predictions(path, Predictions((1.5 * logits).astype("f4"), features.astype("f4"), labels), training)
    evaluation = path.with_suffix(".evaluation.npz")
    torch.set_num_threads(1)
    save_evaluation(evaluation, evaluate(load_predictions(path)), path)
    return path, evaluation


def _files(folder: RunFolder) -> tuple[Path, Path]:
    return folder.predictions, folder.evaluation
