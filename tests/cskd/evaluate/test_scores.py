"""The scores against scikit-learn, torchmetrics and direct definitions, and at their limits."""

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


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
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


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), k=st.integers(1, 10), samples=st.integers(1, 50), decimals=st.integers(0, 2))
def test_top_k_error_is_its_definition_with_ties_to_the_lower_class(seed, k, samples, decimals):
    logits, labels = random_predictions(seed, samples, classes=6, decimals=decimals)
    wrong = 0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        ranked = sorted(range(len(row)), key=lambda index: (-row[index], index))
        wrong += label not in ranked[:k]
    assert top_k_error(logits, labels, k) == pytest.approx(wrong / samples, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), bins=st.integers(1, 40), samples=st.integers(1, 60))
def test_ece_is_its_definition(seed, bins, samples):
    logits, labels = random_predictions(seed, samples, classes=4)
    members = [[] for _ in range(bins)]
    for row, label in zip(torch.tensor(logits).softmax(1).tolist(), labels.tolist(), strict=True):
        confidence = max(row)
        index = next(b for b in range(bins) if confidence <= (b + 1) / bins or b == bins - 1)
        members[index].append((confidence, row.index(confidence) == label))
    expected = sum(abs(sum(c for c, _ in part) - sum(right for _, right in part)) for part in members) / samples
    assert expected_calibration_error(logits, labels, bins) == pytest.approx(expected, abs=1e-12)


def test_confidence_on_a_bin_edge_belongs_to_the_bin_that_ends_there():
    bins = reliability_bins(torch.zeros(3, 4), torch.tensor([0, 1, 2]), bins=20)
    assert np.flatnonzero(bins.count).tolist() == [4]  # (0.20, 0.25]
    assert np.isnan(bins.accuracy[0])
    assert bins.gap[4] == pytest.approx(1 / 3 - 0.25)
    bins = reliability_bins(torch.tensor([[1000.0, 0.0], [1000.0, 0.0], [0.0, 0.1]]), torch.tensor([0, 1, 1]), bins=20)
    assert (bins.count[-1], bins.confidence[-1], bins.accuracy[-1]) == (2, 1.0, 0.5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), samples=st.integers(1, 60), domains=st.lists(st.sampled_from("abc"), min_size=4))
def test_domain_metrics_are_their_definition(seed, samples, domains):
    logits, labels = random_predictions(seed, samples, len(domains), decimals=0)
    images, inside, wrong = (dict.fromkeys(domains, 0) for _ in range(3))
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        predicted, domain = row.index(max(row)), domains[label]
        images[domain] += 1
        inside[domain] += domains[predicted] == domain
        wrong[domain] += predicted != label
    expected = {}
    for name in filter(images.get, images):
        expected[f"domain_accuracy_{name}"] = 100 * inside[name] / images[name]
        expected[f"top1_error_{name}"] = 100 * wrong[name] / images[name]
    assert domain_metrics(logits, labels, domains) == pytest.approx(expected)


def test_domain_metrics_need_a_domain_for_each_class():
    with pytest.raises(ValueError, match="each of the 4 classes needed, not 3"):
        domain_metrics(torch.eye(4), torch.arange(4), ("bird", "bird", "dog"))


@pytest.mark.parametrize("seed", range(2))
def test_recall_at_1_agrees_with_a_search_in_float64(seed):
    random = np.random.default_rng(seed)
    labels = random.integers(5, size=200)
    features = random.normal(size=(200, 16)) + 0.6 * labels[:, None] + 50
    neighbour = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(features).kneighbors()[1][:, 0]
    expected = (labels[neighbour] == labels).mean()
    assert recall_at_1(features, labels, chunk=64) == pytest.approx(expected)


def test_recall_at_1_does_not_count_the_sample_itself():
    features = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
    assert recall_at_1(features, torch.tensor([0, 1, 2, 3])) == 0
    assert recall_at_1(features, torch.tensor([0, 0, 1, 1])) == 1
