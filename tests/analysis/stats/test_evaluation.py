"""Evaluation of stored predictions: values, cache, and runs that cannot be evaluated."""

import dataclasses
import os

import numpy as np
import pandas as pd
import pytest

from analysis.stats import evaluation
from analysis.stats.evaluation import CROSS_FITTED, RAW, TRAINING_SPLIT, UNUSED, evaluate, evaluations
from cskd.evaluate.bootstrap import resampling_weights
from cskd.evaluate.calibration import fit_temperature
from cskd.evaluate.metrics import evaluate_calibration
from cskd.evaluate.predictions import Predictions, save_predictions


def predictions_of(seed=0, count=120, classes=4):
    """Return predictions that are right with log-odds 1.5 times the unscaled logits, then sharpened by 3."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    logits = random.normal(size=(count, classes)) + 1.5 * np.eye(classes)[labels]
    return Predictions((3.0 * logits).astype("f4"), random.normal(size=(count, 3)).astype("f4"), labels)


def test_evaluation_has_the_metrics_of_every_scaling():
    training = predictions_of(1)
    predictions = dataclasses.replace(predictions_of(), training=(training.logits, training.labels))
    one = evaluate("key", predictions, resampling_weights(predictions.labels, 50))
    assert one.metrics[RAW] == evaluate_calibration(predictions.logits, predictions.labels)
    scaled = predictions.logits / one.temperatures[TRAINING_SPLIT]
    assert one.metrics[TRAINING_SPLIT] == evaluate_calibration(scaled, predictions.labels)
    assert 1.6 < one.temperatures[TRAINING_SPLIT] < 2.4  # 2 makes these logits right
    assert one.metrics[CROSS_FITTED]["nll"] < one.metrics[RAW]["nll"]
    for scaling in (TRAINING_SPLIT, CROSS_FITTED):  # a temperature changes no prediction
        assert one.metrics[scaling]["top1_error"] == one.metrics[RAW]["top1_error"]
    assert one.bins.count.sum() == 120
    assert one.replicates["ece"].shape == (50,)


def test_temperature_of_unused_images_replaces_the_cross_fitted_one():
    predictions, unused = predictions_of(), predictions_of(2)
    weights = resampling_weights(predictions.labels, 50)
    crossed = evaluate("key", predictions, weights)
    one = evaluate("key", dataclasses.replace(predictions, unused=(unused.logits, unused.labels)), weights)
    temperature = fit_temperature(unused.logits, unused.labels)
    assert one.temperatures[UNUSED] == temperature
    assert one.metrics[UNUSED] == evaluate_calibration(predictions.logits / temperature, predictions.labels)
    assert one.stored["scaled_nll"] == one.metrics[UNUSED]["nll"] != crossed.stored["scaled_nll"]
    assert crossed.stored["scaled_nll"] == pytest.approx(crossed.metrics[CROSS_FITTED]["nll"])
    for run in (one, crossed):
        error = run.replicates["scaled_nll"].std() / run.replicates["nll"].std()
        assert run.replicates["scaled_nll"].mean() == pytest.approx(run.stored["scaled_nll"], rel=0.1)
        assert 0.2 < error < 1  # softer predictions vary less


def test_log_probabilities_are_those_of_misclassified_images():
    predictions = predictions_of()
    one = evaluate("key", predictions, resampling_weights(predictions.labels, 5))
    expected = []
    for logits, label in zip(predictions.logits.astype(float), predictions.labels, strict=True):
        probabilities = np.exp(logits) / np.exp(logits).sum()
        if probabilities.argmax() != label:
            expected.append((np.log(probabilities.max()), np.log(probabilities[label])))
    assert len(expected) > 10
    found = np.stack([one.predicted_log_probability, one.true_log_probability], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_collapsed_features_leave_the_other_metrics():
    predictions = dataclasses.replace(predictions_of(), features=np.zeros((120, 3), "f4"))
    one = evaluate("key", predictions, resampling_weights(predictions.labels, 5))
    assert np.isnan(one.stored["feature_spread"])
    assert one.metrics[RAW]["ece"] > 0
    assert set(one.metrics) == {RAW, CROSS_FITTED}  # no predictions of training images


@pytest.fixture
def runs(tmp_path):
    """A frame of four runs with predictions on this machine."""
    records = []
    for seed in range(4):
        folder = tmp_path / f"run{seed}"
        folder.mkdir()
        save_predictions(folder / "predictions.npz", predictions_of(seed), predictions_of(10 + seed))
        records.append({"run": f"run{seed}", "run_id": f"{seed}", "run_key": f"k{seed}", "artifact_uri": str(folder)})
    return pd.DataFrame(records)


def test_cached_evaluations_are_not_computed_again(runs, store, tmp_path, monkeypatch):
    first, notes = evaluations(pd.concat([runs, runs]), store, tmp_path / "cache", tmp_path)
    assert (sorted(first), notes) == (["k0", "k1", "k2", "k3"], [])
    monkeypatch.setattr(evaluation, "evaluate", lambda *_: pytest.fail("computed again"))
    os.utime(tmp_path / "run0" / "predictions.npz", (1, 1))  # a copy of the same run
    again, _ = evaluations(runs, store, tmp_path / "cache", tmp_path)
    with np.printoptions(threshold=10_000, precision=17):
        assert all(str(dataclasses.astuple(first[key])) == str(dataclasses.astuple(again[key])) for key in first)


@pytest.mark.parametrize("change", ["version", "resamples", "predictions", "damage"])
def test_outdated_or_damaged_cache_is_computed_again(runs, store, tmp_path, monkeypatch, change):
    first, _ = evaluations(runs, store, tmp_path / "cache", tmp_path)
    cached = tmp_path / "cache" / "k0.npz"
    if change == "version":
        monkeypatch.setattr(evaluation, "VERSION", evaluation.VERSION + 1)
    elif change == "resamples":
        monkeypatch.setattr(evaluation, "RESAMPLES", 500)
    elif change == "predictions":
        save_predictions(tmp_path / "run0" / "predictions.npz", predictions_of(99, count=160))
    else:
        cached.write_bytes(cached.read_bytes()[:300])
    before = cached.read_bytes()
    again, _ = evaluations(runs, store, tmp_path / "cache", tmp_path)
    assert cached.read_bytes() != before
    assert (again["k0"].metrics != first["k0"].metrics) == (change == "predictions")
    assert len(again["k0"].replicates["ece"]) == (500 if change == "resamples" else 400)


def test_runs_that_cannot_be_evaluated_have_a_note(runs, store, tmp_path):
    files = [tmp_path / f"run{seed}" / "predictions.npz" for seed in range(3)]
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:500])
    invalid = predictions_of(2)
    invalid.logits[3, 1] = np.nan
    save_predictions(files[2], invalid)
    advanced = []
    found, notes = evaluations(runs, store, tmp_path / "cache", tmp_path, lambda: advanced.append(1))
    assert list(found) == ["k3"]
    assert notes[0] == "run0 has no predictions.npz: not evaluated."
    assert notes[1].startswith("run1 has a predictions.npz that cannot be read (")
    assert notes[2] == "run2 has predictions with NaN or infinite values: not evaluated."
    assert len(advanced) == 4
