"""A tracking store of made-up runs, made once for all tests, in the very form that runs are tracked."""

import dataclasses
import os

import pytest

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from analysis.load.store import Store

START = 1_790_000_000_000  # milliseconds: 2026-09-21
COMMIT, LATER_COMMIT = "1111111111aaaaaaaaaa", "2222222222bbbbbbbbbb"
MACHINE = "Example CPU @ 2.00GHz, 2 cores"
PAPER_SETTINGS = {"width": 64, "inputs.image_size": 32, "schedule.epochs": 200, "subset": "None"}
MINI_SETTINGS = {
    "width": 16,
    "inputs.image_size": 32,
    "schedule.epochs": 60,
    "subset.classes": 20,
    "subset.images_per_class": 100,
}


@dataclasses.dataclass
class MadeUp:
    """Tracks cells and runs of one experiment, as a launched grid does."""

    client: MlflowClient
    folder: object
    name: str
    profile: str
    settings: dict
    incomparable: str = ""  # why its cells are not comparable with the paper

    def __post_init__(self):
        location = (self.folder / "mlartifacts" / self.name).as_uri()
        self.id = self.client.create_experiment(self.name, artifact_location=location)
        self.cells = 0

    def cell(self, dataset, method, *, seeds="0 1 2", architecture="resnet18", version="", incomparable=None, **tags):
        name = f"{dataset}/{architecture}/{method}"
        reason = self.incomparable if incomparable is None else incomparable
        tags = {
            "kind": "cell",
            "cell_key": f"{name}{version}",
            "grid": self.name.split("-")[0],
            "profile": self.profile,
            "dataset": dataset,
            "architecture": architecture,
            "method": method,
            "seeds_planned": seeds,
            "grid_order": str(self.cells),
            "comparable": "false" if reason else "true",
            "comparable_reason": reason,
            "superseded": "false",
        } | tags
        self.cells += 1
        run = self.client.create_run(self.id, start_time=START, run_name=name, tags=tags)
        return run.info.run_id, tags

    def run(self, cell, seed, error=None, ece=None, *, state="done", drop=(), metrics=None, predictions=True, **tags):
        """A run; one that is done has metrics of two epochs around ``error`` and ``ece``, and predictions."""
        parent, of_cell = cell
        shared = {
            tag: of_cell[tag]
            for tag in ("cell_key", "grid", "profile", "dataset", "architecture", "method")
            + ("comparable", "comparable_reason")
        }
        tags = (
            shared
            | {
                "kind": "run",
                "run_key": f"{shared['cell_key']}:{seed}",
                "mlflow.parentRunId": parent,
                "seed": str(seed),
                "state": state,
                "git_commit": COMMIT,
                "git_dirty": "false",
                "machine": MACHINE,
                "device": "cpu",
                "precision": "fp32",
            }
            | tags
        )
        name = f"{shared['dataset']}/{shared['architecture']}/{shared['method']}/seed{seed}"
        started = START + 3_600_000 * seed
        run_id = self.client.create_run(self.id, start_time=started, run_name=name, tags=tags).info.run_id
        params = [Param(key, str(value)) for key, value in self.settings.items()]
        tracked = []
        if state == "done":
            last = {"top1_error": error, "top5_error": error / 3, "nll": error / 20, "brier": error / 60, "ece": ece}
            epochs = [(0, {f"test/{key}": 2 * value for key, value in last.items()})]
            epochs.append(
                (1, {f"test/{key}": value for key, value in last.items()} | {"test/recall_at_1": 100 - error})
            )
            single = {f"best/{key}": value - 0.125 for key, value in last.items()}
            single |= {"best/epoch": 1, "minutes": 1.5 + seed}
            epochs.append((0, single))
            other = metrics or {}
            for step, values in epochs:
                tracked += [
                    Metric(key, other.get(key, value), started, step)
                    for key, value in values.items()
                    if key not in drop
                ]
        self.client.log_batch(run_id, metrics=tracked, params=params)
        if state == "done" and predictions:
            self.save_predictions(run_id, seed, scale=4 if shared["method"] == "cross-entropy" else 1.5)
        ended = {"done": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}.get(state)
        if ended:
            self.client.set_terminated(run_id, ended, started + 90_000)
        return run_id

    def save_predictions(self, run_id, seed, scale):
        """As log_artifact would have put them; the legacy generator gives the same numbers in every version."""
        random = np.random.RandomState(seed)
        labels = random.randint(10, size=200)
        logits = random.standard_normal((200, 10))
        logits[np.arange(200), labels] += 1.5
        folder = self.folder / "mlartifacts" / self.name / run_id / "artifacts"
        folder.mkdir(parents=True)
        arrays = {"logits": scale * logits, "features": random.standard_normal((200, 4))}
        arrays = {key: value.astype(np.float32) for key, value in arrays.items()}
        np.savez(folder / "predictions.npz", labels=labels, **arrays)


@pytest.fixture(scope="session")
def made_up():
    """``MadeUp``, for stores of a test module's own."""
    return MadeUp


@pytest.fixture(scope="session")
def store_uri(tmp_path_factory):
    """One store with four experiments: see the comments."""
    folder = tmp_path_factory.mktemp("tracked")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(uri)

    # paper profile, everything that can happen to a cell
    grid = MadeUp(client, folder, "table1", "paper", PAPER_SETTINGS)
    cross_entropy = grid.cell("cifar100", "cross-entropy")
    cs_kd = grid.cell("cifar100", "cs-kd", hyperparameter_source="paper")
    for seed in range(3):
        grid.run(cross_entropy, seed, 24.5 + 0.25 * seed, 15 + 0.5 * seed)
        grid.run(cs_kd, seed, 22 + 0.25 * seed, 5 + 0.5 * seed)
    incomplete, failed = grid.cell("cub200", "cross-entropy"), grid.cell("cub200", "cs-kd")
    grid.run(incomplete, 0, 46.5, 18, git_commit=f"{COMMIT} {LATER_COMMIT}", git_dirty="true")
    grid.run(incomplete, 1, 45.5, 19, git_commit=LATER_COMMIT)
    grid.run(incomplete, 2, state="running")
    grid.run(failed, 0, state="failed", reason="the loss is NaN & 100% lost at epoch_3")
    small = "the dataset is incomplete"
    one_seed = grid.cell("mit67", "cross-entropy", seeds="0", incomparable=small)
    grid.run(one_seed, 0, 40, 12)
    grid.cell("mit67", "cs-kd", incomparable=small)
    grid.cell("dogs", "cross-entropy")
    grid.run(grid.cell("dogs", "cs-kd", seeds="0 1", hyperparameter_source="ours"), 0, state="interrupted")
    old = grid.cell("cifar100", "cs-kd", version="-old", superseded="true")
    grid.run(old, 0, 99, 99)
    grid.run(grid.cell("cifar100", "cs-kd", architecture="resnet10"), 0, 26, 6)

    # mini profile: missing and broken values
    grid = MadeUp(client, folder, "table1-mini", "mini", MINI_SETTINGS, "profile mini")
    cross_entropy, cs_kd = (
        grid.cell("cifar100", method, architecture="resnet10") for method in ("cross-entropy", "cs-kd")
    )
    for seed in range(3):
        grid.run(cross_entropy, seed, 50 + seed, 17 + seed)
    grid.run(cs_kd, 0, 48, 4, metrics={"test/ece": float("nan")})
    grid.run(cs_kd, 1, 49, 5, drop=("test/top1_error", "best/nll"), predictions=False)
    grid.run(cs_kd, 2, 50, 6, metrics={"test/nll": float("inf")})

    # launched, and not a seed yet
    MadeUp(client, folder, "demo", "demo", MINI_SETTINGS, "profile demo").cell("digits", "cs-kd")
    # not a grid
    client.create_run(client.create_experiment("notes"), run_name="by hand")
    return uri


@pytest.fixture(scope="session")
def store(store_uri):
    return Store(store_uri)
