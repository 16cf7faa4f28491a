"""Make a tracking store of many made-up runs of CIFAR-100's size, to time the analysis. Not a test.

    PYTHONPATH=.:tests .venv/bin/python tests/analysis/large_store.py FOLDER --runs 300
    MLFLOW_TRACKING_URI=sqlite:///FOLDER/mlflow.db .venv/bin/python -m analysis report --results-dir FOLDER/results

With ``--without-predictions`` the store is for the tables only. All runs share ten files of predictions (260 MB).
"""

import argparse
import os
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
from builders import Grid, empty_store

from analysis.load.store import Store
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
    grid = Grid("table1", "paper", SETTINGS)
    seeds = range(-(-options.runs // (len(DATASETS) * len(METHODS))))
    cells = [grid.cell(dataset, method, seeds=" ".join(map(str, seeds))) for dataset in DATASETS for method in METHODS]
    random = np.random.default_rng(0)
    for cell, seed in [(cell, seed) for seed in seeds for cell in cells][: options.runs]:
        run = grid.trained(cell, seed, 20 + 5 * random.random(), 10 * random.random())
        histories = [
            ("train/loss", range(EPOCHS)),
            ("test/top1_error", range(2, EPOCHS)),
            ("test/ece", range(2, EPOCHS)),
        ]
        run.metrics += [(name, float(random.random()), epoch) for name, epochs in histories for epoch in epochs]
    uri = empty_store(options.folder)
    grid.log(uri, options.folder, predictions=False)
    if options.without_predictions:
        return
    files = [predictions(options.folder, number) for number in range(FILES)]
    [experiment] = Store(uri).load()
    for number, run in enumerate(experiment.done.itertuples()):
        folder = Path(urlparse(run.artifact_uri).path)
        folder.mkdir(parents=True)
        os.link(files[number % FILES], folder / "predictions.npz")


def predictions(folder: Path, number: int) -> Path:
    random = np.random.default_rng(number)
    parts = []
    for count in (IMAGES, TRAINING):
        labels = np.arange(count) % CLASSES
        logits = 2 * random.normal(size=(count, CLASSES)) + 6 * np.eye(CLASSES)[labels]
        features = random.normal(size=(count, FEATURES))
        parts.append(Predictions(logits.astype("f4"), features.astype("f4"), labels, np.arange(count)))
    path = folder / f"predictions-{number}.npz"
    save_predictions(path, *parts)
    return path


if __name__ == "__main__":
    main()
