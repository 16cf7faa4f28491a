"""AURC, AUROC of error detection and superclass errors against their definitions."""

import numpy as np
import pytest
from arrays import random_predictions
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from cskd.evaluate.confidence import (
    CIFAR100_SUPERCLASSES,
    SUPERCLASS_OF,
    error_detection_auroc,
    near_ood_auroc,
    risk_coverage_area,
    superclass_error_share,
)

RIGHT, WRONG = [2.0, 0.0], [0.0, 2.0]  # of label 0; their confidences are equal


def confidence_and_wrong(logits, labels):
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return probabilities.max(1), logits.argmax(1) != labels


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), samples=st.integers(2, 60))
def test_aurc_and_auroc_are_their_definitions(seed, samples):
    logits, labels = random_predictions(seed, samples, classes=4)
    confidence, wrong = confidence_and_wrong(logits, labels)
    ordered = wrong[np.argsort(-confidence)]
    risks = [ordered[:count].mean() for count in range(1, samples + 1)]
    assert risk_coverage_area(logits, labels) == pytest.approx(np.mean(risks))
    if 0 < wrong.sum() < samples:
        assert error_detection_auroc(logits, labels) == pytest.approx(roc_auc_score(~wrong, confidence))


def test_equal_confidences_count_as_in_random_order():
    logits, labels = np.array([RIGHT, WRONG, WRONG]), np.zeros(3, int)
    assert risk_coverage_area(logits, labels) == pytest.approx(2 / 3)
    assert error_detection_auroc(logits, labels) == 0.5


def test_limits():
    sure_and_right = np.array([[5.0, 0.0], [4.0, 0.0], WRONG])
    assert risk_coverage_area(sure_and_right, np.zeros(3, int)) == pytest.approx((0 + 0 + 1 / 3) / 3)
    assert error_detection_auroc(sure_and_right, np.zeros(3, int)) == 1
    with pytest.raises(ValueError, match="right and wrong"):
        error_detection_auroc(np.array([RIGHT]), np.array([0]))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), samples=st.integers(1, 60), unknown=st.integers(1, 60))
def test_auroc_of_unknown_classes_is_scikit_learns(seed, samples, unknown):
    logits, labels = random_predictions(seed, samples, classes=4)
    others, _ = random_predictions(seed + 1, unknown, classes=4)
    others[0] = logits[0]  # equal confidences
    scores = np.concatenate([confidence_and_wrong(part, np.zeros(len(part)))[0] for part in (logits, others)])
    expected = roc_auc_score(np.arange(samples + unknown) < samples, scores)
    assert near_ood_auroc(logits, labels, others) == pytest.approx(expected)


def test_auroc_of_unknown_classes_has_its_limits():
    sure, unsure, labels = np.array([[5.0, 0.0], [0.0, 4.0]]), np.array([[0.1, 0.0]] * 3), np.zeros(2, int)
    assert near_ood_auroc(sure, labels, unsure) == 1
    assert near_ood_auroc(unsure[:2], labels, sure) == 0
    assert near_ood_auroc(unsure[:2], labels, unsure) == 0.5
    with pytest.raises(ValueError, match="no predictions of images of other classes"):
        near_ood_auroc(sure, labels, None)


def test_superclass_errors_are_counted_among_the_errors():
    classes = ("apple", "orange", "whale")
    logits = np.eye(3)[[0, 1, 2, 2]]  # right, in the superclass, outside, right
    assert superclass_error_share(logits, np.array([0, 0, 0, 2]), classes) == 0.5
    with pytest.raises(ValueError, match="CIFAR-100"):
        superclass_error_share(logits, np.array([0, 0, 0, 2]), ("apple", "orange", "digit 3"))


def test_every_superclass_has_five_classes():
    assert (len(CIFAR100_SUPERCLASSES), len(SUPERCLASS_OF)) == (20, 100)
    assert {len(names.split()) for names in CIFAR100_SUPERCLASSES.values()} == {5}
