"""One tracking store of made-up runs for all tests of the analysis."""

import shutil
import sqlite3

import pytest
from builders import COMMIT, HOSTILE, MINI_SETTINGS, OTHER_COMMIT, Grid, empty_store
from mlflow import MlflowClient
from run_folders import make_run, make_spec, upload

from analysis.load.store import Store
from cskd import plots

plots.PDF_FONT_TYPE = 3  # embedding fonts of type 42 takes longer than all else in these tests


def paper_grid() -> Grid:
    """The paper's profile, with every state that a cell can have."""
    grid = Grid("table1", "paper")
    cross_entropy = grid.cell("cifar100", "cross-entropy")
    cs_kd = grid.cell("cifar100", "cs-kd", hyperparameter_source="paper")
    for seed in range(3):
        grid.trained(cross_entropy, seed, 24.5 + 0.25 * seed, 15 + 0.5 * seed)
        grid.trained(cs_kd, seed, 22 + 0.25 * seed, 5 + 0.5 * seed)
    incomplete, failed = grid.cell("cub200", "cross-entropy"), grid.cell("cub200", "cs-kd")
    grid.trained(incomplete, 0, 46.5, 18, git_commit=f"{COMMIT} {OTHER_COMMIT}", git_dirty="true")
    grid.trained(incomplete, 1, 45.5, 19, git_commit=OTHER_COMMIT)
    grid.run(incomplete, 2, state="running")
    grid.run(failed, 0, state="failed", reason="the loss is NaN & 100% lost at epoch_3")
    small = "the dataset is incomplete"
    grid.trained(grid.cell("mit67", "cross-entropy", seeds="0", comparable_reason=small), 0, 40, 12)
    grid.cell("mit67", "cs-kd", comparable_reason=small)
    grid.cell("dogs", "cross-entropy")
    grid.run(grid.cell("dogs", "cs-kd", seeds="0 1", hyperparameter_source="ours"), 0, state="interrupted")
    grid.trained(grid.cell("cifar100", "cs-kd", version="-old", superseded="true"), 0, 99, 99)
    grid.trained(grid.cell("cifar100", "cs-kd", architecture="resnet10"), 0, 26, 6)
    return grid


def mini_grid() -> Grid:
    """The mini profile, with predictions, training curves, and missing and invalid values."""
    grid = Grid("table1-mini", "mini", MINI_SETTINGS)
    cross_entropy, cs_kd = (
        grid.cell("cifar100", method, architecture="resnet10") for method in ("cross-entropy", "cs-kd")
    )
    for seed in range(3):
        grid.trained(cross_entropy, seed, 50 + seed, 17 + seed)
    grid.trained(cs_kd, 0, 48, 4, metrics={"test/ece": float("nan")})
    grid.trained(cs_kd, 1, 49, 5, without=("test/top1_error", "best/nll"), predictions=False)
    grid.trained(cs_kd, 2, 50, 6, metrics={"test/nll": float("inf")})
    for run in grid.runs:
        run.metrics += [("train/loss", 1.0, 0), ("train/loss", 0.5, 1)]
    dogs = grid.cell("dogs", "cs-kd", architecture="resnet10")
    grid.trained(dogs, 0, 40, 12, git_dirty="true", predictions=False)
    grid.run(dogs, 1, state="failed", reason=f"NaN in {HOSTILE}")
    return grid


@pytest.fixture(scope="session")
def store_uri(tmp_path_factory):
    """A store with the two grids above, a demo without runs, and an experiment that is no grid."""
    folder = tmp_path_factory.mktemp("tracked")
    uri = empty_store(folder)
    paper_grid().log(uri, folder, predictions=False)
    mini_grid().log(uri, folder, label="renamed by a user")
    demo = Grid("demo", "demo", MINI_SETTINGS)
    demo.cell("digits", "cs-kd")
    demo.log(uri, folder)
    client = MlflowClient(uri)
    client.create_run(client.create_experiment("notes"), run_name="by hand")
    return uri


@pytest.fixture(scope="session")
def store(store_uri):
    return Store(store_uri)


@pytest.fixture
def call_stored(call, store_uri, monkeypatch):
    """Calls a command as ``call`` does, on the store of made-up runs."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri)
    return call


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """A folder with runs, a database and artifacts, moved after the upload by processes that have ended."""
    folder = tmp_path_factory.mktemp("project")
    before, after = folder / "before", folder / "after"
    before.mkdir()
    uri = empty_store(before)
    upload(uri, before / "runs", *(make_run(before / "runs", make_spec(seed)) for seed in range(2)))
    with sqlite3.connect(before / "mlflow.db") as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copytree(before, after, ignore=shutil.ignore_patterns("mlflow.db-*"))
    shutil.rmtree(before)
    return after
