"""Reliability bins pooled over seeds."""

import numpy as np
import pytest

from analysis.stats.run_evaluations import evaluations
from analysis.tables.reliability import cell_reliabilities, coarser, pooled
from cskd.evaluate.scores import expected_calibration_error, reliability_bins


def test_pooled_bins_equal_the_bins_of_all_samples(store, tmp_path):
    [mini] = store.load(["table1-mini"])
    evaluated, notes = evaluations(mini.done, store, tmp_path / "cache", tmp_path)
    cells = cell_reliabilities(mini, evaluated)
    assert [cell.seeds for cell in cells] == [(0, 1, 2), (0, 2)]
    assert [note.partition(": ")[0] for note in notes] == [
        f"{run} has no predictions.npz" for run in ("cifar100/resnet10/cs-kd/seed1", "dogs/resnet10/cs-kd/seed0")
    ]
    predictions = [store.load_predictions(run, tmp_path) for _, run in mini.done.iloc[:3].iterrows()]
    logits, labels = (np.concatenate([getattr(run, name) for run in predictions]) for name in ("logits", "labels"))
    result = pooled(reliability_bins(run.logits, run.labels, 20) for run in predictions)
    for bins, number in ((result, 20), (cells[0].bins, 20), (coarser(result, 10), 10)):
        expected = reliability_bins(logits, labels, number)
        for name in ("lower", "upper", "count", "confidence", "accuracy"):
            np.testing.assert_allclose(getattr(bins, name), getattr(expected, name), rtol=1e-12, err_msg=name)
    errors = [expected_calibration_error(run.logits, run.labels) for run in predictions]
    assert cells[0].ece == pytest.approx(np.mean(errors), abs=1e-12)
