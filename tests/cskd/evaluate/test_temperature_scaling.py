"""Temperature scaling against SciPy; cross-fitting uses no image's own label."""

import numpy as np
import pytest
from arrays import random_predictions
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from cskd.evaluate.calibration import TEMPERATURE_RANGE, cross_fitted_logits, fit_temperature, stratified_halves
from cskd.evaluate.scores import negative_log_likelihood


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(0.1, 30), samples=st.integers(30, 200), classes=st.integers(2, 8))
def test_temperature_minimises_the_nll(seed, scale, samples, classes):
    logits, labels = random_predictions(seed, samples, classes, scale)
    minimum = minimize_scalar(
        lambda log_temperature: negative_log_likelihood(logits / np.exp(log_temperature), labels),
        bounds=np.log(TEMPERATURE_RANGE),
        method="bounded",
        options={"xatol": 1e-9},
    )
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(np.exp(minimum.x), rel=1e-5)
    assert negative_log_likelihood(logits / temperature, labels) <= minimum.fun + 1e-14


def test_temperature_at_its_limits():
    minimum, maximum = TEMPERATURE_RANGE
    certain = 5 * np.eye(4)
    assert fit_temperature(certain, np.arange(4)) == minimum  # all right
    assert fit_temperature(1e6 * certain, np.arange(4)) == minimum  # no overflow, no 0 / 0
    assert fit_temperature(certain, (np.arange(4) + 1) % 4) == maximum  # all wrong
    assert fit_temperature(np.full((5, 3), 7.0), [0, 1, 2, 0, 1]) == 1  # every temperature is the same


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 100), counts=st.lists(st.integers(0, 9), min_size=1, max_size=8))
def test_halves_have_equal_parts_of_each_class_and_are_pinned(seed, counts):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    halves = stratified_halves(labels, seed)
    for label, count in enumerate(counts):
        assert (halves[labels == label] == 0).sum() in (count // 2, (count + 1) // 2)
    assert (halves == 0).sum() - (halves == 1).sum() in (0, 1)
    # Another split would change every reported cross-fitted value.
    pinned = [1, 0, 0, 0, 1, 1, 1, 1, 0, 1, 0, 1, 0, 0, 1, 0]
    assert stratified_halves(np.arange(16) % 4).tolist() == pinned


def test_each_half_is_scaled_by_the_other_halfs_temperature():
    logits, labels = random_predictions(6)
    scaled, temperatures = cross_fitted_logits(logits, labels, seed=3)
    halves = stratified_halves(labels, seed=3)
    for half in (0, 1):
        inside, outside = halves == half, halves != half
        assert temperatures[half] == fit_temperature(logits[outside], labels[outside])
        assert np.array_equal(scaled[inside], logits[inside] / temperatures[half])
    assert temperatures[0] != temperatures[1]
    with pytest.raises(ValueError, match="at least two samples"):
        cross_fitted_logits([[1.0, 0.0]], [0])
