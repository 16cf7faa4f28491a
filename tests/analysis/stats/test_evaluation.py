"""What runs' predictions come to: the numbers, what is kept of them, and what cannot be evaluated."""

import dataclasses
import os

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType

from analysis.load.store import Store
from analysis.stats import evaluation
from analysis.stats.evaluation import CROSS_FITTED, RAW, TRAINING_SPLIT, evaluate, evaluations
from cskd.evaluate.bootstrap import resampling_weights
from cskd.evaluate.metrics import evaluate_calibration
from cskd.evaluate.predictions import Predictions, save_predictions


def made_up(seed=0, count=120, classes=4, sharpness=3.0):
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    logits = random.normal(size=(count, classes)) + 1.5 * np.eye(classes)[labels]
    return Predictions((sharpness * logits).astype("f4"), random.normal(size=(count, 3)).astype("f4"), labels)


def test_numbers_are_those_of_the_metrics():
    training = made_up(1)
    predictions = dataclasses.replace(made_up(), training=(training.logits, training.labels))
    one = evaluate("key", predictions, resampling_weights(predictions.labels, 50))
    assert one.metrics[RAW] == evaluate_calibration(predictions.logits, predictions.labels)
    scaled = predictions.logits / one.temperatures[TRAINING_SPLIT]
    assert one.metrics[TRAINING_SPLIT] == evaluate_calibration(scaled, predictions.labels)
    # by construction the classes' log-odds are 1.5 times the unscaled values: divided by 2, the logits are right
    assert 1.6 < one.temperatures[TRAINING_SPLIT] < 2.4
    assert one.metrics[CROSS_FITTED]["nll"] < one.metrics[RAW]["nll"]
    for scaling in (TRAINING_SPLIT, CROSS_FITTED):  # a temperature changes no prediction
        assert one.metrics[scaling]["top1_error"] == one.metrics[RAW]["top1_error"]
    assert one.bins.count.sum() == 120
    assert one.replicates["ece"].shape == (50,)


def test_log_probabilities_are_those_of_the_misclassified_images():
    predictions = made_up()
    one = evaluate("key", predictions, resampling_weights(predictions.labels, 5))
    expected = []
    for logits, label in zip(predictions.logits.astype(float), predictions.labels, strict=True):
        probabilities = np.exp(logits) / np.exp(logits).sum()
        if probabilities.argmax() != label:
            expected.append((np.log(probabilities.max()), np.log(probabilities[label])))
    assert len(expected) > 10
    found = np.stack([one.predicted_log_probability, one.true_log_probability], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_run_of_an_earlier_version_lacks_what_was_fitted_on_training_images():
    predictions = made_up()
    one = evaluate("key", predictions, resampling_weights(predictions.labels, 5))
    assert set(one.metrics) == {RAW, CROSS_FITTED}
    assert set(one.temperatures) == {CROSS_FITTED}


def test_collapsed_features_have_no_spread_and_all_else():
    predictions = dataclasses.replace(made_up(), features=np.zeros((120, 3), "f4"))
    one = evaluate("key", predictions, resampling_weights(predictions.labels, 5))
    assert np.isnan(one.separation["feature_spread"])
    assert one.metrics[RAW]["ece"] > 0


@pytest.fixture
def tracked(tmp_path):
    """A store with four runs' predictions, and the frame of these runs."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(uri)
    experiment = client.create_experiment("e", artifact_location=(tmp_path / "artifacts").as_uri())
    records = []
    for seed in range(4):
        run = client.create_run(experiment, run_name=f"run{seed}", tags={"kind": "run"})
        folder = tmp_path / "artifacts" / run.info.run_id / "artifacts"
        folder.mkdir(parents=True)
        save_predictions(folder / "predictions.npz", made_up(seed), made_up(10 + seed))
        info = run.info
        records.append(
            {"run": f"run{seed}", "run_id": info.run_id, "artifact_uri": info.artifact_uri, "run_key": f"k{seed}"}
        )
    assert len(client.search_runs([experiment], run_view_type=ViewType.ACTIVE_ONLY)) == 4
    return Store(uri), pd.DataFrame(records), tmp_path


def same(one, two) -> bool:
    pairs = zip(dataclasses.astuple(one), dataclasses.astuple(two), strict=True)
    return all(str(a) == str(b) for a, b in pairs)


def test_what_was_computed_is_kept_and_read_again(tracked, monkeypatch):
    store, runs, folder = tracked
    first, notes = evaluations(runs, store, folder / "kept", folder / "cache")
    assert (sorted(first), notes) == (["k0", "k1", "k2", "k3"], [])
    monkeypatch.setattr(evaluation, "evaluate", lambda *_: pytest.fail("computed again"))
    # another experiment's copy of the same run, written later
    file = store.predictions_file(runs.iloc[0], folder)
    os.utime(file, (1, 1))
    again, _ = evaluations(runs, store, folder / "kept", folder / "cache")
    with np.printoptions(threshold=10_000, precision=17):
        assert all(same(first[key], again[key]) for key in first)


@pytest.mark.parametrize("reason", ["another version", "more resamples", "other predictions", "a damaged file"])
def test_what_no_longer_holds_is_computed_anew(tracked, monkeypatch, reason):
    store, runs, folder = tracked
    first, _ = evaluations(runs, store, folder / "kept", folder / "cache")
    if reason == "another version":
        monkeypatch.setattr(evaluation, "VERSION", evaluation.VERSION + 1)
    elif reason == "more resamples":
        monkeypatch.setattr(evaluation, "RESAMPLES", 500)
    elif reason == "other predictions":
        file = store.predictions_file(runs.iloc[0], folder)
        save_predictions(file, made_up(99, count=160))
    else:
        path = folder / "kept" / "k0.npz"
        path.write_bytes(path.read_bytes()[:300])
    again, _ = evaluations(runs, store, folder / "kept", folder / "cache")
    changed = reason == "other predictions"
    assert (again["k0"].metrics[RAW] != first["k0"].metrics[RAW]) == changed
    assert again["k1"].metrics == first["k1"].metrics
    assert len(again["k1"].replicates["ece"]) == (500 if reason == "more resamples" else 400)


def test_runs_that_cannot_be_evaluated_are_named_and_the_others_are(tracked):
    store, runs, folder = tracked
    files = [store.predictions_file(run, folder) for _, run in runs.iterrows()]
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:500])
    broken = made_up(2)
    broken.logits[3, 1] = np.nan
    save_predictions(files[2], broken)
    advanced = []
    found, notes = evaluations(runs, store, folder / "kept", folder / "cache", lambda: advanced.append(1))
    assert list(found) == ["k3"]
    assert notes[0] == "run0 has no predictions.npz: not evaluated."
    assert notes[1].startswith("run1 has a predictions.npz that cannot be read (")
    assert notes[2] == "run2 has predictions with NaN or infinite values: not evaluated."
    assert len(advanced) == 4


def test_a_run_that_is_tracked_twice_is_evaluated_once(tracked):
    store, runs, folder = tracked
    found, _ = evaluations(pd.concat([runs, runs]), store, folder / "kept", folder / "cache")
    assert len(found) == 4
