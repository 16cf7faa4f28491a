"""Evaluation of stored predictions: values, cache, and runs that cannot be evaluated."""

import dataclasses
import os

import numpy as np
import pandas as pd
import pytest
from builders import predictions_of

from analysis.stats.run_evaluations import evaluations
from cskd.evaluate import evaluate_run, evaluation
from cskd.evaluate.bootstrap import resampling_weights
from cskd.evaluate.calibration import fit_temperature
from cskd.evaluate.confidence import near_ood_auroc
from cskd.evaluate.evaluate_run import evaluate
from cskd.evaluate.evaluation import CROSS_FITTED, RAW, RESAMPLES, TRAINING_SPLIT, UNUSED, save_evaluation
from cskd.evaluate.metrics import evaluate_calibration
from cskd.evaluate.predictions import save_predictions

SHARPENED = 3  # a temperature of about 2 is right for logits of this scale
PREDICTIONS = predictions_of(0, SHARPENED)
WEIGHTS = resampling_weights(PREDICTIONS.labels, 50)


def test_evaluation_has_the_metrics_of_every_scaling():
    training = predictions_of(1, SHARPENED)
    one = evaluate(dataclasses.replace(PREDICTIONS, training=(training.logits, training.labels)), WEIGHTS)
    assert one.metrics[RAW] == evaluate_calibration(PREDICTIONS.logits, PREDICTIONS.labels)
    scaled = PREDICTIONS.logits / one.temperatures[TRAINING_SPLIT]
    assert one.metrics[TRAINING_SPLIT] == evaluate_calibration(scaled, PREDICTIONS.labels)
    assert 1.6 < one.temperatures[TRAINING_SPLIT] < 2.4  # 2 makes these logits right
    assert one.metrics[CROSS_FITTED]["nll"] < one.metrics[RAW]["nll"]
    for scaling in (TRAINING_SPLIT, CROSS_FITTED):  # a temperature changes no prediction
        assert one.metrics[scaling]["top1_error"] == one.metrics[RAW]["top1_error"]
    assert one.bins.count.sum() == 200
    assert one.replicates["ece"].shape == (50,)


def test_temperature_of_unused_images_replaces_the_cross_fitted_one():
    unused = predictions_of(2, SHARPENED)
    crossed = evaluate(PREDICTIONS, WEIGHTS)
    one = evaluate(dataclasses.replace(PREDICTIONS, unused=(unused.logits, unused.labels)), WEIGHTS)
    temperature = fit_temperature(unused.logits, unused.labels)
    assert one.temperatures[UNUSED] == temperature
    assert one.metrics[UNUSED] == evaluate_calibration(PREDICTIONS.logits / temperature, PREDICTIONS.labels)
    assert one.stored["scaled_nll"] == one.metrics[UNUSED]["nll"] != crossed.stored["scaled_nll"]
    assert crossed.stored["scaled_nll"] == pytest.approx(crossed.metrics[CROSS_FITTED]["nll"])
    assert (one.unused, crossed.unused) == (evaluate_calibration(unused.logits, unused.labels), {})
    for run in (one, crossed):
        error = run.replicates["scaled_nll"].std() / run.replicates["nll"].std()
        assert run.replicates["scaled_nll"].mean() == pytest.approx(run.stored["scaled_nll"], rel=0.1)
        assert 0.2 < error < 1  # softer predictions vary less


def test_auroc_of_unknown_classes_needs_their_predictions():
    others = predictions_of(3, SHARPENED).logits / 9
    one = evaluate(dataclasses.replace(PREDICTIONS, near_ood=others), WEIGHTS)
    assert one.stored["near_ood_auroc"] == 100 * near_ood_auroc(PREDICTIONS.logits, PREDICTIONS.labels, others) > 60
    assert np.isnan(evaluate(PREDICTIONS, WEIGHTS).stored["near_ood_auroc"])


def test_log_probabilities_are_those_of_misclassified_images_and_undefined_metrics_are_nan():
    one = evaluate(dataclasses.replace(PREDICTIONS, features=np.zeros((200, 3), "f4")), WEIGHTS)
    assert np.isnan(one.stored["feature_spread"])
    assert set(one.metrics) == {RAW, CROSS_FITTED}  # no predictions of training images
    expected = []
    for logits, label in zip(PREDICTIONS.logits.astype(float), PREDICTIONS.labels, strict=True):
        probabilities = np.exp(logits) / np.exp(logits).sum()
        if probabilities.argmax() != label:
            expected.append((np.log(probabilities.max()), np.log(probabilities[label])))
    assert len(expected) > 10
    found = np.stack([one.predicted_log_probability, one.true_log_probability], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.fixture
def runs(tmp_path):
    """A frame of four runs: two with predictions on this machine, one without, and one with invalid ones."""
    records = []
    for seed in range(4):
        folder = tmp_path / f"run{seed}"
        folder.mkdir()
        predictions = predictions_of(seed, SHARPENED)
        predictions.logits[3, 1] = np.nan if seed == 3 else 0
        if seed != 2:
            save_predictions(folder / "predictions.npz", predictions, PREDICTIONS)
        records.append({"run": f"run{seed}", "run_id": f"{seed}", "run_key": f"k{seed}", "artifact_uri": str(folder)})
    return pd.DataFrame(records)


def test_cached_evaluations_are_computed_again_only_if_something_changed(runs, store, tmp_path, monkeypatch):
    computed = []
    monkeypatch.setattr(evaluate_run, "evaluate", lambda predictions: computed.append(1) or evaluate(predictions))

    def found(advance=lambda: None):
        computed.clear()
        return evaluations(pd.concat([runs, runs]), store, tmp_path / "cache", tmp_path, advance)

    advanced = []
    first, notes = found(lambda: advanced.append(1))
    assert (sorted(first), len(computed), len(advanced)) == (["k0", "k1"], 2, 4)
    assert notes == [
        "run2 has no predictions.npz: not evaluated.",
        "run3 has predictions with NaN or infinite values: not evaluated.",
    ]
    os.utime(tmp_path / "run0" / "predictions.npz", (1, 1))  # a copy of the same run
    again, _ = found()
    assert computed == []
    with np.printoptions(threshold=10_000, precision=17):
        assert all(str(dataclasses.astuple(first[key])) == str(dataclasses.astuple(again[key])) for key in first)
    save_predictions(tmp_path / "run0" / "predictions.npz", predictions_of(99, SHARPENED, images=160))
    cached = tmp_path / "cache" / "k1.npz"
    cached.write_bytes(cached.read_bytes()[:300])
    again, _ = found()
    assert len(computed) == 2
    assert again["k0"].metrics != first["k0"].metrics and again["k1"].metrics == first["k1"].metrics
    monkeypatch.setattr(evaluation, "VERSION", evaluation.VERSION + 1)
    found()
    assert len(computed) == 2


def test_evaluation_beside_its_predictions_is_not_computed_again(runs, store, tmp_path, monkeypatch):
    for run, of in (("run0", "run0"), ("run1", "run0")):
        path = tmp_path / run / "evaluation.npz"
        save_evaluation(path, evaluate(PREDICTIONS, WEIGHTS), tmp_path / of / "predictions.npz")
    computed = []
    monkeypatch.setattr(evaluate_run, "evaluate", lambda data: computed.append(data) or evaluate(data))
    found, _ = evaluations(runs, store, tmp_path / "cache", tmp_path)
    assert len(computed) == 1
    assert [len(found[key].replicates["ece"]) for key in ("k0", "k1")] == [len(WEIGHTS), RESAMPLES]
