"""The functions behind the metrics: errors, proper scores, calibration, retrieval.

Logits are (N, C), labels (N,) class indices, features (N, D); torch tensors or NumPy arrays. Everything is
computed in float64 except the retrieval's distances. Fractions are returned as fractions (0.25, not 25 %).
Undefined input (no samples, NaN or infinite logits, labels outside the classes) raises ValueError: a metric
of broken predictions is not a number that should reach a table.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def checked(logits, labels) -> tuple[Tensor, Tensor]:
    """Logits in float64 and labels as indices. Raises ValueError where no metric is defined (see above)."""
    logits, labels = torch.as_tensor(logits).double(), torch.as_tensor(labels).long()
    if logits.dim() != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"logits (N, C) and labels (N,) needed, not {tuple(logits.shape)} and {tuple(labels.shape)}")
    if len(labels) == 0:
        raise ValueError("no samples: the metric is undefined")
    if not _all_finite(logits):
        raise ValueError("logits hold NaN or infinite values")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(f"labels must lie in 0..{logits.shape[1] - 1}, not {int(labels.min())}..{int(labels.max())}")
    return logits, labels


def checked_features(features, labels, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Features as ``dtype`` and labels as indices. Raises ValueError for other shapes, NaN and infinite values."""
    features, labels = torch.as_tensor(features).to(dtype), torch.as_tensor(labels).long()
    if features.dim() != 2 or labels.shape != features.shape[:1]:
        raise ValueError(f"features (N, D) and labels (N,) needed, not {tuple(features.shape)}, {tuple(labels.shape)}")
    if not _all_finite(features):
        raise ValueError("features hold NaN or infinite values")
    return features, labels


def _all_finite(values: Tensor) -> bool:
    # NaN is both the least and the greatest value; torch.isfinite takes ten times as long.
    return values.numel() == 0 or bool(torch.isfinite(torch.stack(values.aminmax())).all())


def top_k_error(logits, labels, k: int = 1) -> float:
    """The fraction of samples whose true class is not among the k highest logits.

    Ties count in favour of the lower class index, as argmax has it. With k >= C the error is 0.
    """
    logits, labels = checked(logits, labels)
    true = logits.gather(1, labels[:, None])
    index = torch.arange(logits.shape[1], device=logits.device)
    ahead = (logits > true) | ((logits == true) & (index < labels[:, None]))
    return float((ahead.sum(1) >= k).double().mean())


def negative_log_likelihood(logits, labels) -> float:
    """The mean of -log softmax(logits)[label], in nats."""
    logits, labels = checked(logits, labels)
    return float(torch.nn.functional.cross_entropy(logits, labels))


def brier_score(logits, labels) -> float:
    """The mean squared distance between probabilities and the one-hot label, summed over classes: 0..2.

    Source: Brier 1950, the multi-class form.
    """
    logits, labels = checked(logits, labels)
    probabilities = logits.softmax(1)
    one_hot = torch.nn.functional.one_hot(labels, logits.shape[1])
    return float((probabilities - one_hot).square().sum(1).mean())


@dataclass(frozen=True)
class ReliabilityBins:
    """Equal-width bins of top-label confidence; arrays of length ``bins``, NaN in the means of empty bins."""

    lower: np.ndarray
    upper: np.ndarray
    count: np.ndarray
    confidence: np.ndarray  # mean confidence of the bin's samples
    accuracy: np.ndarray  # fraction of them that are right

    @property
    def gap(self) -> np.ndarray:
        """Accuracy minus confidence: negative where the network is over-confident."""
        return self.accuracy - self.confidence


def equal_width_bin(probabilities: np.ndarray, bins: int) -> np.ndarray:
    """The bin of each probability, of any shape: b for those in (b/bins, (b+1)/bins], and 0 for 0 itself.

    Raises ValueError for bins < 1.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, not {bins}")
    return np.searchsorted(np.arange(1, bins) / bins, probabilities, side="left")


def reliability_bins(logits, labels, bins: int = 20) -> ReliabilityBins:
    """Confidence against accuracy, bin by bin: what a reliability diagram shows.

    Bin b holds the confidences in (b/bins, (b+1)/bins], the definition of Guo et al., ICML 2017: exactly 1
    falls into the last bin, and 1/bins into the first.
    """
    logits, labels = checked(logits, labels)
    confidence, correct = logits.softmax(1).amax(1), logits.argmax(1) == labels
    return binned(confidence.cpu().numpy(), correct.cpu().numpy(), bins)


def binned(confidence: np.ndarray, correct: np.ndarray, bins: int) -> ReliabilityBins:
    """``reliability_bins`` of confidences (N,), and of whether the prediction is right (N,)."""
    index = equal_width_bin(confidence, bins)
    edges = np.arange(bins + 1) / bins
    count = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(index, weights=confidence, minlength=bins) / count
        accuracy = np.bincount(index, weights=correct, minlength=bins) / count
    return ReliabilityBins(edges[:-1], edges[1:], count, mean_confidence, accuracy)


def expected_calibration_error(logits, labels, bins: int = 20) -> float:
    """ECE: the mean over samples of |accuracy - confidence| of the sample's bin (L1, top label), 0..1.

    logits: (N, C); labels: (N,); ``bins`` equal-width bins of the top label's softmax probability, 20 in the
    paper. Empty bins count for nothing.
    Raises ValueError for no samples, non-finite logits, labels outside the classes, or bins < 1.
    Source: Naeini et al., AAAI 2015; Guo et al., ICML 2017, equation 3.
    """
    table = reliability_bins(logits, labels, bins)
    filled = table.count > 0
    return float((table.count[filled] * np.abs(table.gap[filled])).sum() / table.count.sum())


def recall_at_1(features, labels, chunk: int = 1024) -> float:
    """R@1: the fraction of samples whose nearest other sample (L2 on the features) has the same class.

    features: (N, D) with N >= 2; computed in float32, ``chunk`` rows of the distance matrix at a time.
    Equal distances go to the lower index. Source: the paper's table 6.
    """
    features, labels = checked_features(features, labels, torch.float32)
    if len(labels) < 2:
        raise ValueError("R@1 needs at least two samples")
    features = features - features.mean(0)  # distances stay; their float32 evaluation below loses less
    squares = features.square().sum(1)
    hits = 0
    for start in range(0, len(labels), chunk):
        rows = slice(start, start + chunk)
        # |a - b|^2 = |a|^2 - 2ab + |b|^2, and |a|^2 does not change which b is nearest
        distance = squares - 2 * features[rows] @ features.T
        own = torch.arange(start, min(start + chunk, len(labels)), device=features.device)
        distance[own - start, own] = torch.inf
        hits += int((labels[distance.argmin(1)] == labels[rows]).sum())
    return hits / len(labels)


def domain_metrics(logits, labels, domains: Sequence[str]) -> dict[str, float]:
    """Of each domain's images: domain accuracy (predicted class in the domain) and top-1 error, in percent.

    domains: the domain of each of the C classes. Named ``domain_accuracy_<domain>`` and ``top1_error_<domain>``; a
    domain without images has neither. The prediction is the highest logit of all classes, ties as in top_k_error.
    Raises ValueError for undefined input, and for another number of domains than of classes.
    Source: the paper's figure 4.
    """
    logits, labels = checked(logits, labels)
    if len(domains) != logits.shape[1]:
        raise ValueError(f"a domain for each of the {logits.shape[1]} classes needed, not {len(domains)}")
    names = list(dict.fromkeys(domains))
    domain_of = torch.tensor([names.index(name) for name in domains], device=logits.device)
    predicted = logits.argmax(1)
    hit, wrong = (domain_of[predicted] == domain_of[labels]).double(), (predicted != labels).double()
    result = {}
    for number, name in enumerate(names):
        own = domain_of[labels] == number
        if own.any():
            result[f"domain_accuracy_{name}"] = 100 * float(hit[own].mean())
            result[f"top1_error_{name}"] = 100 * float(wrong[own].mean())
    return result
