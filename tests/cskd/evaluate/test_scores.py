"""The scores against scikit-learn, torchmetrics and direct definitions."""

import numpy as np
import pytest
import sklearn.metrics
import torch
import torchmetrics.functional.classification as reference
from arrays import random_predictions
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from cskd.evaluate.scores import (
    brier_score,
    domain_metrics,
    expected_calibration_error,
    negative_log_likelihood,
    recall_at_1,
    reliability_bins,
    top_k_error,
)


@pytest.mark.parametrize("scale", [0.1, 5.0])
def test_scores_agree_with_other_libraries(scale):
    logits, labels = (torch.tensor(values) for values in random_predictions(1, scale=scale))
    probabilities, classes = logits.softmax(1), list(range(logits.shape[1]))
    assert top_k_error(logits, labels) == pytest.approx(1 - sklearn.metrics.accuracy_score(labels, logits.argmax(1)))
    accuracy = sklearn.metrics.top_k_accuracy_score(labels, logits, k=5, labels=classes)
    assert top_k_error(logits, labels, 5) == pytest.approx(1 - accuracy)
    loss = sklearn.metrics.log_loss(labels, probabilities, labels=classes)
    assert negative_log_likelihood(logits, labels) == pytest.approx(loss)
    brier = sklearn.metrics.brier_score_loss(labels, probabilities, labels=classes, scale_by_half=False)
    assert brier_score(logits, labels) == pytest.approx(brier)
    ece = reference.multiclass_calibration_error(probabilities, labels, num_classes=len(classes), n_bins=20, norm="l1")
    assert expected_calibration_error(logits, labels) == pytest.approx(ece.item(), abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), k=st.integers(1, 10), samples=st.integers(1, 50), decimals=st.integers(0, 2))
def test_top_k_error_ranks_the_lower_of_two_classes_with_equal_logits_first(seed, k, samples, decimals):
    logits, labels = random_predictions(seed, samples, classes=6, decimals=decimals)
    ranks = np.argsort(-logits, axis=1, kind="stable")
    missed = np.mean([label not in rank[:k] for rank, label in zip(ranks, labels, strict=True)])
    assert top_k_error(logits, labels, k) == pytest.approx(missed, abs=1e-12)


def test_confidence_on_a_bin_edge_belongs_to_the_bin_that_ends_there():
    bins = reliability_bins(torch.zeros(3, 4), torch.tensor([0, 1, 2]), bins=20)
    assert np.flatnonzero(bins.count).tolist() == [4]  # (0.20, 0.25]
    assert np.isnan(bins.accuracy[0])
    assert bins.gap[4] == pytest.approx(1 / 3 - 0.25)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), samples=st.integers(1, 60), domains=st.lists(st.sampled_from("abc"), min_size=4))
def test_domain_metrics_are_their_definition(seed, samples, domains):
    logits, labels = random_predictions(seed, samples, len(domains), decimals=0)
    domain_of, predicted = np.array(domains), logits.argmax(1)
    expected = {}
    for name in set(domain_of[labels]):
        images = domain_of[labels] == name
        expected[f"domain_accuracy_{name}"] = 100 * (domain_of[predicted[images]] == name).mean()
        expected[f"top1_error_{name}"] = 100 * (predicted[images] != labels[images]).mean()
    assert domain_metrics(logits, labels, domains) == pytest.approx(expected)


def test_recall_at_1_agrees_with_a_search_in_float64():
    random = np.random.default_rng(0)
    labels = random.integers(5, size=200)
    features = random.normal(size=(200, 16)) + 0.6 * labels[:, None] + 50
    neighbour = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(features).kneighbors()[1][:, 0]
    assert recall_at_1(features, labels, chunk=64) == pytest.approx((labels[neighbour] == labels).mean())
