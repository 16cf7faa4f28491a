"""What must hold of the metrics whatever the predictions are."""

import math

import numpy as np
import pytest
from arrays import random_predictions
from hypothesis import given, settings
from hypothesis import strategies as st

from cskd.evaluate.metrics import evaluate_predictions
from cskd.evaluate.scores import expected_calibration_error, reliability_bins, top_k_error

PROBABILISTIC = ("nll", "brier", "ece")
every = settings(max_examples=60, deadline=None, derandomize=True)
# Few decimals make ties, within an image and between images.
drawn = st.builds(
    random_predictions,
    seed=st.integers(0, 2**31),
    samples=st.integers(1, 50),
    classes=st.integers(2, 9),
    scale=st.sampled_from([0.01, 1.0, 30.0]),
    decimals=st.sampled_from([0, 1, 8]),
)


def without_ties(predictions) -> tuple[np.ndarray, np.ndarray]:
    """The same with logits that all differ within an image: what follows may depend on which class comes first."""
    logits, labels = predictions
    return logits + np.random.default_rng(0).permutation(logits.shape[1]) * 1e-6, labels


@every
@given(predictions=drawn, k=st.integers(1, 10))
def test_the_top_k_error_is_its_definition_counted_image_by_image(predictions, k):
    wrong = 0
    for row, label in zip(predictions[0].tolist(), predictions[1].tolist(), strict=True):
        ranked = sorted(range(len(row)), key=lambda index: (-row[index], index))
        wrong += label not in ranked[:k]
    assert top_k_error(*predictions, k) == pytest.approx(wrong / len(predictions[1]), abs=1e-12)


@every
@given(predictions=drawn)
def test_they_stay_within_their_bounds(predictions):
    metrics = evaluate_predictions(*predictions)
    assert 0 <= metrics["top5_error"] <= metrics["top1_error"] <= 100
    assert 0 <= metrics["ece"] <= 100
    assert 0 <= metrics["brier"] <= 2
    assert 0 <= metrics["nll"] < math.inf
    errors = [top_k_error(*predictions, k) for k in range(1, predictions[0].shape[1] + 1)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == 0


@every
@given(predictions=drawn, seed=st.integers(0, 2**31))
def test_the_order_of_the_images_is_of_no_matter(predictions, seed):
    order = np.random.default_rng(seed).permutation(len(predictions[1]))
    other = evaluate_predictions(predictions[0][order], predictions[1][order])
    assert other == pytest.approx(evaluate_predictions(*predictions), abs=1e-9)


@every
@given(predictions=drawn.map(without_ties), seed=st.integers(0, 2**31))
def test_nor_is_which_class_has_which_number(predictions, seed):
    logits, labels = predictions
    number = np.random.default_rng(seed).permutation(logits.shape[1])
    renamed = np.empty_like(logits)
    renamed[:, number] = logits
    assert evaluate_predictions(renamed, number[labels]) == pytest.approx(evaluate_predictions(*predictions), abs=1e-6)


@every
@given(predictions=drawn, shift=st.floats(-50, 50))
def test_nor_is_a_constant_added_to_the_logits_of_an_image(predictions, shift):
    logits, labels = predictions
    one, two = evaluate_predictions(logits, labels), evaluate_predictions(logits + shift, labels)
    assert [two[name] for name in PROBABILISTIC] == pytest.approx([one[name] for name in PROBABILISTIC], abs=1e-6)


@every
@given(
    bins=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=5),
    others=st.integers(1, 6),
    count=st.integers(1, 40),
)
def test_predictions_that_are_right_as_often_as_they_say_have_no_calibration_error(bins, others, count):
    logits, labels = [], []
    for right, wrong in bins:
        # The first class has right / (right + wrong) of the probability, if that is more than any other has.
        if right * others <= wrong:
            continue
        confident = math.log(right * others / wrong)
        logits += [[confident] + [0.0] * others] * (right + wrong)
        labels += [0] * right + [1] * wrong
    if logits:
        assert expected_calibration_error(np.array(logits), labels, count) == pytest.approx(0, abs=1e-12)


@every
@given(predictions=drawn, cut=st.integers(0, 50), count=st.integers(1, 25))
def test_the_parts_of_a_test_set_come_to_the_whole(predictions, cut, count):
    logits, labels = predictions
    parts = [(logits[rows], labels[rows]) for rows in (slice(cut), slice(cut, None)) if len(labels[rows])]
    weights = [len(part) / len(labels) for _, part in parts]
    for name in ("top1_error", "top5_error", "nll", "brier"):
        whole = sum(weight * evaluate_predictions(*part)[name] for weight, part in zip(weights, parts, strict=True))
        assert evaluate_predictions(logits, labels)[name] == pytest.approx(whole, abs=1e-9)
    # ECE is of the bins of all images together, and never above the mean of the parts' own.
    tables = [reliability_bins(*part, bins=count) for part in parts]
    counts = sum(table.count for table in tables)
    gaps = sum(table.count * np.nan_to_num(table.gap) for table in tables)
    assert np.array_equal(counts, reliability_bins(logits, labels, bins=count).count)
    whole = expected_calibration_error(logits, labels, count)
    assert whole == pytest.approx(np.abs(gaps).sum() / len(labels), abs=1e-12)
    own = [expected_calibration_error(*part, count) for part in parts]
    assert whole <= np.dot(weights, own) + 1e-12
