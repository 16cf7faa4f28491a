"""A tracking store of many made-up runs of CIFAR-100's size, to time the analysis on; not a test.

    PYTHONPATH=. .venv/bin/python tests/analysis/large_store.py FOLDER --runs 300
    MLFLOW_TRACKING_URI=sqlite:///FOLDER/mlflow.db .venv/bin/python -m analysis report --results-dir FOLDER/results

``--without-predictions`` is for the tables alone. The predictions of ten runs are shared by all: 260 MB of disk.
"""

import argparse
import os
from pathlib import Path

import numpy as np
from conftest import MadeUp
from mlflow import MlflowClient
from mlflow.entities import Metric

from cskd.evaluate.predictions import Predictions, save_predictions

DATASETS = ("cifar100", "tinyimagenet", "cub200", "dogs", "mit67")
METHODS = (
    *("cross-entropy", "adacos", "virtual-softmax", "max-entropy", "label-smoothing"),
    *("cs-kd", "cs-kd-e", "mixup", "mixup+cs-kd", "ddgsd"),
)
IMAGES, CLASSES, FEATURES, TRAINING, EPOCHS, FILES = 10_000, 100, 512, 5_000, 200, 10
SETTINGS = {"schedule.epochs": EPOCHS, "schedule.milestones": "[100, 150]", "numerics_version": 1, "width": 64}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--without-predictions", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    files = [] if options.without_predictions else [predictions(options.folder, number) for number in range(FILES)]
    grid = MadeUp(MlflowClient(f"sqlite:///{options.folder}/mlflow.db"), options.folder, "table1", "paper", SETTINGS)
    seeds = range(-(-options.runs // (len(DATASETS) * len(METHODS))))
    cells = [grid.cell(dataset, method, seeds=" ".join(map(str, seeds))) for dataset in DATASETS for method in METHODS]
    random = np.random.default_rng(0)
    made = [(cell, seed) for seed in seeds for cell in cells][: options.runs]
    for number, (cell, seed) in enumerate(made):
        run_id = grid.run(cell, seed, 20 + 5 * random.random(), 10 * random.random(), predictions=False)
        if not files:
            continue
        points = [
            Metric(name, float(random.random()), epoch, epoch)
            for name in ("test/top1_error", "test/ece", "train/loss")
            for epoch in range(2, EPOCHS)  # MadeUp tracks the first two
        ]
        points += [Metric("train/loss", 1.0, epoch, epoch) for epoch in range(2)]
        grid.client.log_batch(run_id, metrics=points)
        path = options.folder / "mlartifacts" / "table1" / run_id / "artifacts" / "predictions.npz"
        path.parent.mkdir(parents=True)
        os.link(files[number % FILES], path)


def predictions(folder: Path, number: int) -> Path:
    random = np.random.default_rng(number)
    parts = {}
    for name, count in (("tested", IMAGES), ("training", TRAINING)):
        labels = np.arange(count) % CLASSES
        logits = 2 * random.normal(size=(count, CLASSES)) + 6 * np.eye(CLASSES)[labels]
        features = random.normal(size=(count, FEATURES))
        parts[name] = Predictions(logits.astype("f4"), features.astype("f4"), labels, np.arange(count))
    path = folder / f"predictions-{number}.npz"
    save_predictions(path, parts["tested"], parts["training"])
    return path


if __name__ == "__main__":
    main()
