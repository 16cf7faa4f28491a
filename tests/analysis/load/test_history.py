"""The history of a run's metrics: read by epoch, cached once the run is finished."""

import numpy as np
import pytest

from analysis.load.pools import pools
from analysis.load.store import UnusableRun


def run_of(store, experiment, architecture, seed):
    [pool] = pools(store.load([experiment]))
    return pool.runs_of("cifar100", architecture, "cs-kd").iloc[seed].copy()


def test_history_is_by_epoch_and_cached(store, tmp_path, monkeypatch):
    run = run_of(store, "table1", "resnet18", 1)
    history = store.load_history(run, ["test/top1_error", "test/ece"], tmp_path)
    assert history.index.tolist() == [0, 1]
    assert history["test/top1_error"].tolist() == [44.5, 22.25] and history["test/ece"].tolist() == [11, 5.5]
    with pytest.raises(UnusableRun, match="seed1 has no history of train/loss"):
        store.load_history(run, ["test/ece", "train/loss"], tmp_path)
    store.load_history(run, ["test/nll"], tmp_path)
    monkeypatch.setattr(store, "client", None)  # no request is needed
    for name in ("test/nll", "test/ece", "test/top1_error"):
        assert store.load_history(run, [name], tmp_path).index.tolist() == [0, 1]


def test_infinite_epoch_stays_infinite_in_the_cache(store, tmp_path):
    run = run_of(store, "table1-mini", "resnet10", 2)
    for _ in range(2):
        assert store.load_history(run, ["test/nll"], tmp_path)["test/nll"].tolist() == [np.inf, np.inf]


def test_history_of_an_unfinished_run_is_not_cached(store, tmp_path):
    run = run_of(store, "table1", "resnet18", 0)
    run["state"] = "running"
    store.load_history(run, ["test/ece"], tmp_path)
    assert not list(tmp_path.rglob("*.npz"))
