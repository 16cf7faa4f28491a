"""Finished runs made by hand, for what happens to them afterwards."""

import numpy as np
import torch
from place import Place
from plans import plan_of

from cskd.evaluate.predictions import Predictions, save_predictions
from cskd.utils.integrity import write_archive
from experiments.config.recipe import load_settings
from experiments.config.spec import RunSpec
from experiments.runs.folder import RunFolder

START = {
    "git_commit": "c" * 40, "git_dirty": False, "machine": "a machine", "device": "cpu", "precision": "fp32",
    "threads": 1, "compiled": False, "python": "3.12.1", "packages": {}, "started": 1_700_000_000.0,
}  # fmt: skip
TESTED = ("top1_error", "top5_error", "nll", "brier", "ece")


def made_up_runs(place: Place, method: str, seeds: int, epochs: int) -> None:
    """Finished runs of one cell with long histories, and their plan: as much to send as a day of training leaves."""
    profile, settings = load_settings("digits")
    specs = [
        RunSpec(
            dataset="digits", profile=profile, architecture="resnet10", method=method, parameters={}, seed=seed,
            settings=settings, data_digest="d" * 64, data_complete=True, data_source="made up",
            numerics_version=1, comparable=False, comparable_reason="profile demo",
        )
        for seed in range(seeds)
    ]  # fmt: skip
    for spec in specs:
        random = np.random.default_rng(spec.seed)
        folder = RunFolder.of(spec, place.runs)
        folder.create(spec)
        folder.write_environment(f"training-{spec.seed}", [START])
        records = []
        for epoch in range(epochs):
            values = random.uniform(1, 50, 12).tolist()
            metrics = {f"test/{name}": values.pop() for name in TESTED}
            metrics |= {"train/loss": values.pop(), "train/lr": 0.1, "train/class_kl": values.pop()}
            metrics |= {"time/train_seconds": values.pop(), "time/test_seconds": values.pop()}
            records.append({"epoch": epoch, "timestamp": 1.7e9 + epoch, "metrics": metrics})
        folder.write_epochs(records)
        logits = random.normal(size=(30, 10)).astype("f4")
        save_predictions(folder.predictions, Predictions(logits, np.ones((30, 4), "f4"), np.arange(30) % 10))
        write_archive(folder.weights, lambda file: torch.save({}, file))
        folder.finish()
    plan_of(*specs).save(place.runs)
