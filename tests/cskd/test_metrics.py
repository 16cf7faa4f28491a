"""The metrics against scikit-learn, torchmetrics and brute force, and at their limits."""

import numpy as np
import pytest
import sklearn.metrics
import torch
import torchmetrics.functional.classification as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from cskd.evaluate.metrics import evaluate_predictions
from cskd.evaluate.scores import (
    brier_score,
    domain_metrics,
    expected_calibration_error,
    negative_log_likelihood,
    recall_at_1,
    reliability_bins,
    top_k_error,
)


def predictions(seed: int, samples: int = 300, classes: int = 12, scale: float = 2.0):
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=samples)
    logits = scale * random.normal(size=(samples, classes))
    logits[np.arange(samples), labels] += scale * 0.7
    return torch.tensor(logits), torch.tensor(labels)


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("seed", range(3))
def test_metrics_agree_with_independent_ones(seed, scale):
    logits, labels = predictions(seed, scale=scale)
    probabilities = logits.softmax(1)
    every = list(range(logits.shape[1]))
    assert top_k_error(logits, labels) == pytest.approx(1 - sklearn.metrics.accuracy_score(labels, logits.argmax(1)))
    accuracy = sklearn.metrics.top_k_accuracy_score(labels, logits, k=5, labels=every)
    assert top_k_error(logits, labels, 5) == pytest.approx(1 - accuracy)
    loss = sklearn.metrics.log_loss(labels, probabilities, labels=every)
    assert negative_log_likelihood(logits, labels) == pytest.approx(loss)
    brier = sklearn.metrics.brier_score_loss(labels, probabilities, labels=every, scale_by_half=False)
    assert brier_score(logits, labels) == pytest.approx(brier)
    ece = reference.multiclass_calibration_error(probabilities, labels, num_classes=len(every), n_bins=20, norm="l1")
    assert expected_calibration_error(logits, labels) == pytest.approx(ece.item(), abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), bins=st.integers(1, 40), samples=st.integers(1, 60))
def test_ece_is_its_definition_summed_sample_by_sample(seed, bins, samples):
    logits, labels = predictions(seed, samples=samples, classes=4)
    members = [[] for _ in range(bins)]
    for row, label in zip(logits.softmax(1).tolist(), labels.tolist(), strict=True):
        confidence = max(row)
        edge = next(b for b in range(bins) if confidence <= (b + 1) / bins or b == bins - 1)
        members[edge].append((confidence, row.index(confidence) == label))
    expected = sum(abs(sum(c for c, _ in part) - sum(right for _, right in part)) for part in members) / samples
    assert expected_calibration_error(logits, labels, bins) == pytest.approx(expected, abs=1e-12)


def test_confidence_of_exactly_one_falls_into_the_last_bin():
    logits = torch.tensor([[1000.0, 0.0], [1000.0, 0.0], [0.0, 0.1]])
    bins = reliability_bins(logits, torch.tensor([0, 1, 1]), bins=20)
    assert bins.count[-1] == 2
    assert bins.confidence[-1] == 1.0
    assert bins.accuracy[-1] == 0.5
    confidence = torch.tensor([0.0, 0.1]).double().softmax(0).max().item()
    assert expected_calibration_error(logits, torch.tensor([0, 1, 1])) == pytest.approx((1 + (1 - confidence)) / 3)


def test_a_confidence_on_an_edge_falls_into_the_bin_that_ends_there():
    bins = reliability_bins(torch.zeros(3, 4), torch.tensor([0, 1, 2]), bins=20)
    assert np.flatnonzero(bins.count).tolist() == [4]  # (0.20, 0.25]
    assert np.isnan(bins.accuracy[0])
    assert bins.gap[4] == pytest.approx(1 / 3 - 0.25)


def test_perfect_and_worst_predictions():
    right = 1000 * torch.eye(6)
    assert evaluate_predictions(right, torch.arange(6)) == {
        "top1_error": 0.0, "top5_error": 0.0, "nll": 0.0, "brier": 0.0, "ece": 0.0,
    }  # fmt: skip
    wrong = evaluate_predictions(right, (torch.arange(6) + 1) % 6)
    assert (wrong["top1_error"], wrong["ece"], wrong["brier"]) == (100.0, 100.0, 2.0)


def test_ties_go_to_the_lower_class_as_with_argmax():
    logits = torch.zeros(1, 6)
    assert top_k_error(logits, torch.tensor([0])) == 0
    assert top_k_error(logits, torch.tensor([1])) == 1
    assert top_k_error(logits, torch.tensor([4]), 5) == 0
    assert top_k_error(logits, torch.tensor([5]), 5) == 1


def test_top5_error_is_zero_with_five_classes_or_fewer():
    logits, labels = predictions(0, classes=4)
    assert top_k_error(logits, labels, 5) == 0


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), samples=st.integers(1, 60), domains=st.lists(st.sampled_from("abc"), min_size=4))
def test_domain_metrics_are_their_definition_counted_image_by_image(seed, samples, domains):
    logits, labels = predictions(seed, samples=samples, classes=len(domains))
    logits = logits.round()  # with ties
    images, inside, wrong = (dict.fromkeys(domains, 0) for _ in range(3))
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        predicted, own = row.index(max(row)), domains[label]
        images[own] += 1
        inside[own] += domains[predicted] == own
        wrong[own] += predicted != label
    expected = {}
    for name in filter(images.get, images):
        expected[f"domain_accuracy_{name}"] = 100 * inside[name] / images[name]
        expected[f"top1_error_{name}"] = 100 * wrong[name] / images[name]
    assert domain_metrics(logits, labels, domains) == pytest.approx(expected)


def test_domain_metrics_at_their_limits():
    labels, domains = torch.arange(4), ("bird", "bird", "dog", "dog")
    right = torch.eye(4)
    for rows, accuracy, error in (
        ([0, 1, 2, 3], 100, 0),
        ([2, 3, 0, 1], 0, 100),  # all in the other domain
        ([1, 0, 3, 2], 100, 100),  # all wrong, within the domain
    ):
        assert domain_metrics(right[rows], labels, domains) == {
            "domain_accuracy_bird": accuracy, "top1_error_bird": error,
            "domain_accuracy_dog": accuracy, "top1_error_dog": error,
        }  # fmt: skip


def test_in_a_single_domain_the_error_is_the_whole_one():
    logits, labels = predictions(0)
    measured = domain_metrics(logits, labels, ("all",) * 12)
    assert measured == {"domain_accuracy_all": 100, "top1_error_all": 100 * top_k_error(logits, labels)}


def test_domain_metrics_need_a_domain_for_each_class():
    with pytest.raises(ValueError, match="each of the 4 classes needed, not 3"):
        domain_metrics(torch.eye(4), torch.arange(4), ("bird", "bird", "dog"))


def test_domains_add_their_metrics_to_the_others():
    logits, labels = predictions(0)
    domains = ("a",) * 5 + ("b",) * 7
    measured = evaluate_predictions(logits, labels, domains=domains)
    assert measured == evaluate_predictions(logits, labels) | domain_metrics(logits, labels, domains)


@pytest.mark.parametrize("seed", range(3))
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


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(0, 3), torch.zeros(0), "no samples"),
        (torch.tensor([[float("nan"), 0.0]]), torch.tensor([0]), "NaN"),
        (torch.tensor([[float("inf"), 0.0]]), torch.tensor([0]), "infinite"),
        (torch.zeros(1, 3), torch.tensor([3]), "0..2"),
        (torch.zeros(2, 3), torch.tensor([0]), r"\(2, 3\)"),
    ],
)
def test_undefined_input_is_refused(logits, labels, message):
    for metric in (top_k_error, negative_log_likelihood, brier_score, expected_calibration_error):
        with pytest.raises(ValueError, match=message):
            metric(logits, labels)


def test_bins_below_one_are_refused():
    with pytest.raises(ValueError, match="bins"):
        expected_calibration_error(torch.zeros(1, 2), torch.tensor([0]), bins=0)
