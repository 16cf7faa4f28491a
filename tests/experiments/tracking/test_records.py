"""The tags, parameters, metrics and artifacts of cells and seeds."""

import json

import numpy as np
import pytest
from mlflow import MlflowClient
from run_folders import START, make_epoch, make_run, make_spec, tracked, upload

from experiments.runs.folder import DONE, RunFolder
from experiments.tracking.cells import seed_statistics

RESULTS = {"predictions.npz", "weights.pt", "environment.json", "spec.json", "reliability.png"}


def test_cell_has_mean_std_and_number_of_its_seeds(uri, tmp_path):
    upload(uri, tmp_path, *(make_run(tmp_path, make_spec(seed), ece=10.0 + seed) for seed in (0, 1)))
    (cell,) = tracked(uri, kind="cell")
    assert (cell.info.run_name, cell.info.status) == ("cs-kd · digits · resnet10", "FINISHED")
    metrics = cell.data.metrics
    assert (metrics["seeds"], metrics["test/ece_mean"], metrics["test/domain_accuracy_dogs_mean"]) == (2, 10.5, 92.0)
    assert metrics["test/top1_error_std"] == pytest.approx(np.std([30, 31], ddof=1))
    assert [file.path for file in MlflowClient(uri).list_artifacts(cell.info.run_id)] == ["curves.png"]
    assert cell.data.params["schedule.lr"] == "0.1"
    assert "seed" not in cell.data.params


def test_metric_that_an_earlier_seed_lacks_has_no_mean():
    new, old = make_epoch(0, 2), make_epoch(1, 2)
    new["metrics"]["test/new"] = 1.0
    statistics = seed_statistics([[new], [old]])
    assert (statistics["test/ece_mean"], "test/new_mean" in statistics) == (10.0, False)


def test_seed_has_its_facts_as_tags_and_the_results_of_its_summary(uri, tmp_path):
    spec = make_run(tmp_path, make_spec(1))
    changes = {"git_commit": "b" * 40, "git_dirty": None, "source_digest": "e" * 16}
    latest = START | {"device": "NVIDIA H200", "precision": "bf16", "compiled": True} | changes
    RunFolder.of(spec, tmp_path).write_environment("first-1", [START, latest])
    RunFolder.of(spec, tmp_path).finish()
    upload(uri, tmp_path, spec)
    ((cell,), (run,)) = tracked(uri, kind="cell"), tracked(uri, kind="run")
    expected = {
        "cell_key": spec.cell_key, "run_key": spec.run_key, "training_id": "first-1", "seed": "1",
        "mlflow.parentRunId": cell.info.run_id, "comparable": "false", "comparable_reason": "profile demo",
        "state": DONE, "reason": "all 3 epochs", "git_commit": f"{'c' * 40} {'b' * 40}", "git_dirty": "unknown",
        "source_digest": f"{'d' * 16} {'e' * 16}",
        "device": "NVIDIA H200", "threads": "2", "precision": "bf16", "compiled": "true", "package.torch": "2.15.0",
    }  # fmt: skip
    assert {name: run.data.tags[name] for name in expected} == expected
    metrics = run.data.metrics
    assert (metrics["test/top1_error"], metrics["minutes"]) == (31.0, 3.0)
    best = json.loads(run.data.tags["best_epoch"])
    assert (best["epoch"], best["top1_error"], best["domain_accuracy_dogs"]) == (1, 21.0, 91.0)
    assert run.data.params["seed"] == "1"
    assert run.inputs.dataset_inputs[0].dataset.digest == "d"
    assert {file.path for file in MlflowClient(uri).list_artifacts(run.info.run_id)} == RESULTS
