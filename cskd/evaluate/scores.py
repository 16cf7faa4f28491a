"""The functions of the metrics: errors, proper scores, ECE and retrieval.

Logits are (N, C), labels (N,) class indices, features (N, D); torch tensors or NumPy arrays. All are computed in
float64 on the device of the logits or features, except the distances of R@1 on a CPU. Fractions are returned as
fractions (0.25, not 25 %). All functions raise ValueError for undefined input: no samples, NaN or infinite values,
labels outside the classes, other shapes.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cskd.evaluate.bins import ReliabilityBins

BINS = 20  # of the ECE in the paper


def validate(logits, labels) -> tuple[Tensor, Tensor]:
    """Return the logits in float64 and the labels as indices. Raises ValueError for undefined input."""
    logits = torch.as_tensor(logits).detach().double()
    labels = torch.as_tensor(labels, device=logits.device).long()
    if logits.dim() != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"logits (N, C) and labels (N,) needed, not {tuple(logits.shape)} and {tuple(labels.shape)}")
    if len(labels) == 0:
        raise ValueError("no samples: the metric is undefined")
    known = (labels.min() >= 0) & (labels.max() < logits.shape[1])
    finite, known = torch.stack([_all_finite(logits), known]).tolist()  # on a GPU, each read waits for the device
    if not finite:
        raise ValueError("logits hold NaN or infinite values")
    if not known:
        raise ValueError(f"labels must lie in 0..{logits.shape[1] - 1}, not {int(labels.min())}..{int(labels.max())}")
    return logits, labels


def validate_features(features, labels, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the features as ``dtype`` and the labels as indices. Raises ValueError for undefined input."""
    features = torch.as_tensor(features).detach().to(dtype)
    labels = torch.as_tensor(labels, device=features.device).long()
    if features.dim() != 2 or labels.shape != features.shape[:1]:
        raise ValueError(f"features (N, D) and labels (N,) needed, not {tuple(features.shape)}, {tuple(labels.shape)}")
    if not _all_finite(features):
        raise ValueError("features hold NaN or infinite values")
    return features, labels


def _all_finite(values: Tensor) -> Tensor:
    # aminmax returns NaN if any value is NaN, and is ten times as fast as isfinite on all values.
    extremes = torch.stack(values.aminmax()) if values.numel() else values
    return torch.isfinite(extremes).all()


def confidence_and_correct(logits, labels) -> tuple[np.ndarray, np.ndarray]:
    """Return each image's confidence (N,), its highest probability, and whether its prediction is correct (N,)."""
    logits, labels = validate(logits, labels)
    return logits.softmax(1).amax(1).cpu().numpy(), (logits.argmax(1) == labels).cpu().numpy()


def top_k_error(logits, labels, k: int = 1) -> float:
    """Return the fraction of samples whose true class is not among the k highest logits.

    If logits are equal, the lower class index comes first, as in argmax. With k >= C the error is 0.
    """
    logits, labels = validate(logits, labels)
    true = logits.gather(1, labels[:, None])
    index = torch.arange(logits.shape[1], device=logits.device)
    ahead = (logits > true) | ((logits == true) & (index < labels[:, None]))
    return float((ahead.sum(1) >= k).double().mean())


def negative_log_likelihood(logits, labels) -> float:
    """Return the mean of -log softmax(logits)[label], in nats."""
    logits, labels = validate(logits, labels)
    return float(torch.nn.functional.cross_entropy(logits, labels))


def brier_score(logits, labels) -> float:
    """Return the mean over samples of the squared distance between probabilities and one-hot label, 0 to 2.

    Source: Brier 1950, the multi-class form.
    """
    logits, labels = validate(logits, labels)
    probabilities = logits.softmax(1)
    one_hot = torch.nn.functional.one_hot(labels, logits.shape[1])
    return float((probabilities - one_hot).square().sum(1).mean())


def check_bins(bins: int) -> None:
    """Raise ValueError for fewer than one bin."""
    if bins < 1:
        raise ValueError(f"bins must be at least 1, not {bins}")


def equal_width_bin(probabilities: np.ndarray, bins: int) -> np.ndarray:
    """Return the bin of each probability, for an array of any shape.

    Bin b is (b/bins, (b+1)/bins], as in Guo et al., ICML 2017; 0 is in bin 0. Raises ValueError for bins < 1.
    """
    check_bins(bins)
    return np.searchsorted(np.arange(1, bins) / bins, probabilities, side="left")


def reliability_bins(logits, labels, bins: int = BINS) -> ReliabilityBins:
    """Return confidence and accuracy in equal-width bins, as drawn in a reliability diagram."""
    confidence, correct = confidence_and_correct(logits, labels)
    index = equal_width_bin(confidence, bins)
    edges = np.arange(bins + 1) / bins
    count = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(index, weights=confidence, minlength=bins) / count
        accuracy = np.bincount(index, weights=correct, minlength=bins) / count
    return ReliabilityBins(edges[:-1], edges[1:], count, mean_confidence, accuracy)


def expected_calibration_error(logits, labels, bins: int = BINS) -> float:
    """Return the ECE: the mean over samples of |accuracy - confidence| of the sample's bin (L1, top label), 0 to 1.

    Args:
        logits: (N, C).
        labels: (N,).
        bins: the number of equal-width bins of the top label's softmax probability.

    Raises ValueError for undefined input and bins < 1.
    Source: Naeini et al., AAAI 2015; Guo et al., ICML 2017, equation 3.
    """
    table = reliability_bins(logits, labels, bins)
    filled = table.count > 0
    return float((table.count[filled] * np.abs(table.gap[filled])).sum() / table.count.sum())


def recall_at_1(features, labels, chunk: int = 1024) -> float:
    """Return R@1: the fraction of samples whose nearest other sample (L2 on the features) has the same class.

    Args:
        features: (N, D) with N >= 2. Distances are computed in float32, on a GPU in float64; if equal, the lower index
            is nearest.
        labels: (N,).
        chunk: rows of the distance matrix that are computed at once.

    Source: the paper's table 6.
    """
    features = torch.as_tensor(features)
    # float32 products may be TF32 on a GPU, which is too coarse.
    features, labels = validate_features(features, labels, torch.float64 if features.is_cuda else torch.float32)
    if len(labels) < 2:
        raise ValueError("R@1 needs at least two samples")
    features = features - features.mean(0)  # the distances are the same, with less rounding error in float32
    squares = features.square().sum(1)
    hits = torch.zeros((), dtype=torch.long, device=features.device)
    for start in range(0, len(labels), chunk):
        rows = slice(start, start + chunk)
        # |a - b|^2 = |a|^2 - 2ab + |b|^2; |a|^2 is constant in a row, and left out
        distance = squares - 2 * features[rows] @ features.T
        index = torch.arange(start, min(start + chunk, len(labels)), device=features.device)
        distance[index - start, index] = torch.inf  # a sample is not its own neighbour
        hits += (labels[distance.argmin(1)] == labels[rows]).sum()
    return int(hits) / len(labels)


def domain_metrics(logits, labels, domains: Sequence[str]) -> dict[str, float]:
    """Return ``domain_accuracy_<domain>`` and ``top1_error_<domain>`` of each domain's images, in percent.

    Domain accuracy is the fraction of the domain's images whose predicted class is in the domain.
    Domains without images are left out.

    Args:
        logits: (N, C).
        labels: (N,).
        domains: the domain of each of the C classes.

    Source: the paper's figure 4.
    """
    logits, labels = validate(logits, labels)
    if len(domains) != logits.shape[1]:
        raise ValueError(f"a domain for each of the {logits.shape[1]} classes needed, not {len(domains)}")
    names = list(dict.fromkeys(domains))
    domain_of = torch.tensor([names.index(name) for name in domains], device=logits.device)
    predicted = logits.argmax(1)
    in_domain, wrong = (domain_of[predicted] == domain_of[labels]).double(), (predicted != labels).double()
    result = {}
    for number, name in enumerate(names):
        images = domain_of[labels] == number
        if images.any():
            result[f"domain_accuracy_{name}"] = 100 * float(in_domain[images].mean())
            result[f"top1_error_{name}"] = 100 * float(wrong[images].mean())
    return result
