"""Temperature scaling against SciPy and the sampling error; cross-fitting leaks no labels."""

import itertools

import numpy as np
import pytest
import torch
from arrays import random_predictions
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from cskd.evaluate.calibration import TEMPERATURE_RANGE, cross_fitted_logits, fit_temperature, stratified_halves
from cskd.evaluate.scores import negative_log_likelihood


@settings(max_examples=15, deadline=None)
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


@pytest.mark.parametrize("true", [0.3, 2.5])
def test_temperature_of_drawn_labels_is_recovered_within_the_sampling_error(true):
    """The standard error of 1/T is 1 / sqrt(N Var); Var is the mean variance of an image's logits."""
    random = np.random.default_rng(0)
    logits = 2 * random.normal(size=(20000, 10))
    probabilities = torch.tensor(logits / true).softmax(1).numpy()
    labels = (probabilities.cumsum(1) < random.random((20000, 1))).sum(1).clip(max=9)
    mean = (probabilities * logits).sum(1)
    variance = ((probabilities * logits**2).sum(1) - mean**2).mean()
    error = (20000 * variance) ** -0.5
    assert error * true < 0.02
    assert abs(1 / fit_temperature(logits, labels) - 1 / true) < 3 * error


def test_temperature_at_its_limits():
    minimum, maximum = TEMPERATURE_RANGE
    certain = 5 * np.eye(4)
    assert fit_temperature(certain, np.arange(4)) == minimum  # all right
    assert fit_temperature(certain[:1], [0]) == minimum  # a single image, right
    assert fit_temperature(certain, (np.arange(4) + 1) % 4) == maximum  # all wrong
    assert fit_temperature(certain, [0, 1, 3, 2]) < maximum  # half are correct, and chance is 1 in 4
    assert fit_temperature(np.arange(5.0)[:, None], np.zeros(5)) == 1  # a single class
    assert fit_temperature(np.full((5, 3), 7.0), [0, 1, 2, 0, 1]) == 1  # every temperature is the same
    assert fit_temperature(1e6 * certain, np.arange(4)) == minimum  # no overflow, no 0 / 0
    assert (
        fit_temperature(np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]), [0, 2]) == minimum
    )  # a tie for the highest logit


@settings(max_examples=30)
@given(seed=st.integers(0, 100), counts=st.lists(st.integers(0, 9), min_size=1, max_size=8))
def test_halves_have_equal_parts_of_each_class(seed, counts):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    halves = stratified_halves(labels, seed)
    assert set(halves) <= {0, 1}
    for label in range(len(counts)):
        first = (halves[labels == label] == 0).sum()
        assert first in (counts[label] // 2, (counts[label] + 1) // 2)
    assert (halves == 0).sum() - (halves == 1).sum() in (0, 1)


def test_halves_depend_on_the_seed_and_are_pinned():
    labels = np.arange(16) % 4
    # Another split would change every reported cross-fitted value.
    pinned = [1, 0, 0, 0, 1, 1, 1, 1, 0, 1, 0, 1, 0, 0, 1, 0]
    assert stratified_halves(labels).tolist() == stratified_halves(labels, 0).tolist() == pinned
    assert any(stratified_halves(labels, seed).tolist() != pinned for seed in (1, 2))
    frequency = np.mean([stratified_halves(labels, seed) for seed in range(200)], axis=0)
    assert (abs(frequency - 0.5) < 0.15).all()  # 4 standard errors


def test_each_half_is_scaled_by_the_other_halfs_temperature():
    logits, labels = random_predictions(6)
    scaled, temperatures = cross_fitted_logits(logits, labels, seed=3)
    halves = stratified_halves(labels, seed=3)
    for half in (0, 1):
        inside, outside = halves == half, halves != half
        assert temperatures[half] == fit_temperature(logits[outside], labels[outside])
        assert np.array_equal(scaled[inside], logits[inside] / temperatures[half])
    assert temperatures[0] != temperatures[1]
    assert np.array_equal(scaled.argmax(1), logits.argmax(1))


def test_no_image_influences_its_own_temperature():
    logits, labels = random_predictions(7, samples=60, classes=4)
    halves = stratified_halves(labels)
    _, before = cross_fitted_logits(logits, labels)
    changed = logits.copy()
    changed[halves == 0] *= 3
    _, after = cross_fitted_logits(changed, labels)
    assert after[0] == before[0]
    assert after[1] == pytest.approx(3 * before[1])

    # Labels also decide the halves, so exchange only labels of the first half that leave the halves unchanged.
    members = np.flatnonzero(halves == 0)
    for first, second in itertools.combinations(members, 2):
        exchanged = labels.copy()
        exchanged[[first, second]] = exchanged[[second, first]]
        if labels[first] != labels[second] and np.array_equal(stratified_halves(exchanged), halves):
            break
    _, after = cross_fitted_logits(logits, exchanged)
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_cross_fitting_rejects_a_single_sample():
    with pytest.raises(ValueError, match="at least two samples"):
        cross_fitted_logits([[1.0, 0.0]], [0])
