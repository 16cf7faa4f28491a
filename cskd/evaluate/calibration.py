"""Calibration beyond the paper's ECE: bins of equal mass, every class, and temperature scaling.

Logits are (N, C), labels (N,) class indices; torch tensors or NumPy arrays. Everything is computed in float64.
Undefined input raises ValueError as in ``cskd.evaluate.scores``, whose bins and whose predicted class these are.
"""

import sys
from dataclasses import dataclass

import numpy as np
import torch

from cskd.evaluate.scores import checked, equal_width_bin
from cskd.utils.seeding import generator

BINS = 20
TEMPERATURE_RANGE = (0.01, 100.0)


@dataclass(frozen=True)
class Outcomes:
    """What N predictions came to, from one softmax. Every metric of calibration is a sum over these.

    confidence: (N,) the highest probability. wrong: (N,) whether another class than the true one has it.
    nll, brier: (N,) of each image. class_deviation: (N, C) one-hot label minus probabilities.
    """

    probabilities: np.ndarray
    confidence: np.ndarray
    wrong: np.ndarray
    nll: np.ndarray
    brier: np.ndarray
    class_deviation: np.ndarray

    @property
    def deviation(self) -> np.ndarray:
        """(N,): 1 where the prediction is right, else 0, minus its confidence."""
        return ~self.wrong - self.confidence


def outcomes(logits, labels) -> Outcomes:
    """The outcomes of logits (N, C) against labels (N,). Raises ValueError for undefined input."""
    logits, labels = checked(logits, labels)
    probabilities = logits.softmax(1)
    confidence = probabilities.amax(1)
    highest, predicted = logits.max(1)
    class_deviation = -probabilities
    class_deviation[torch.arange(len(labels)), labels] += 1
    # -log of the true class's probability, which may itself be too small for a float: the distance of its logit
    # to the highest one is not.
    below = highest - logits.gather(1, labels[:, None])[:, 0]
    values = (
        probabilities,
        confidence,
        predicted != labels,
        below - confidence.log(),
        class_deviation.square().sum(1),
        class_deviation,
    )
    return Outcomes(*(value.cpu().numpy() for value in values))


def equal_mass_bin(confidence: np.ndarray, bins: int) -> np.ndarray:
    """The bin of each confidence (N,), so that bins differ by at most one image: floor(bins * rank / N).

    The rank is the number of images with a lower confidence, so that the order of the images does not matter:
    equal confidences share a bin, the lowest of those that they would fill, and may leave others short or empty.
    Raises ValueError for bins < 1.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, not {bins}")
    rank = np.searchsorted(np.sort(confidence), confidence, side="left")
    return bins * rank // len(confidence)


def _mean_gap(index: np.ndarray, deviation: np.ndarray) -> float:
    """The mean over samples of |accuracy - confidence| of the sample's bin."""
    sums = np.bincount(index.ravel(), weights=deviation.ravel())
    return float(np.abs(sums).sum() / deviation.size)


def above_lowest_bin(found: Outcomes, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(image, row, class deviation) of each probability above the lowest of its class's bins: row bins * class + bin.

    Of many classes these are few: what is in a lowest bin is the whole class without them.
    Raises ValueError for bins < 1.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, not {bins}")
    place = np.flatnonzero(found.probabilities > 1 / bins)
    image, label = np.divmod(place, found.probabilities.shape[1])
    row = bins * label + equal_width_bin(found.probabilities.ravel()[place], bins)
    return image, row, found.class_deviation.ravel()[place]


def _classwise_error(found: Outcomes, bins: int) -> float:
    # the mean over classes and images of the gap in the class's own bins
    classes = found.class_deviation.shape[1]
    _, row, deviation = above_lowest_bin(found, bins)
    above = np.bincount(row, weights=deviation, minlength=bins * classes).reshape(classes, bins)
    lowest = found.class_deviation.sum(axis=0) - above.sum(axis=1)
    return float((np.abs(above).sum() + np.abs(lowest).sum()) / found.class_deviation.size)


def adaptive_calibration_error(logits, labels, bins: int = BINS) -> float:
    """The ECE over ``bins`` bins of equal mass in place of equal width (L1, top label), 0..1.

    See ``equal_mass_bin`` for equal confidences. With more bins than images each distinct confidence has its own.
    Raises ValueError for undefined input, and for bins < 1.
    Source: Nguyen and O'Connor, EMNLP 2015; Nixon et al., CVPR workshops 2019.
    """
    found = outcomes(logits, labels)
    return _mean_gap(equal_mass_bin(found.confidence, bins), found.deviation)


def classwise_calibration_error(logits, labels, bins: int = BINS) -> float:
    """The mean over the C classes of the ECE of that class's probability against whether it is the true class, 0..1.

    ``bins`` equal-width bins, as in ``cskd.evaluate.scores``. Classes without images count: what they are given is too much.
    Most probabilities are near 0 and so are their gaps: with many classes the value is small, at most 2 / C.
    Raises ValueError for undefined input, and for bins < 1.
    Source: Kull et al., NeurIPS 2019 (class-wise ECE); Nixon et al. 2019 (static calibration error).
    """
    return _classwise_error(outcomes(logits, labels), bins)


def evaluate_calibration(logits, labels) -> dict[str, float]:
    """top1_error, ece, adaptive_ece, classwise_ece (percent, 20 bins), nll (nats) and brier (0..2)."""
    return summed_up(outcomes(logits, labels))


def summed_up(found: Outcomes) -> dict[str, float]:
    """``evaluate_calibration`` of outcomes that are there already."""
    return {
        "top1_error": 100 * float(found.wrong.mean()),
        "ece": 100 * _mean_gap(equal_width_bin(found.confidence, BINS), found.deviation),
        "adaptive_ece": 100 * _mean_gap(equal_mass_bin(found.confidence, BINS), found.deviation),
        "classwise_ece": 100 * _classwise_error(found, BINS),
        "nll": float(found.nll.mean()),
        "brier": float(found.brier.mean()),
    }


def fit_temperature(logits, labels) -> float:
    """The temperature T in TEMPERATURE_RANGE for which softmax(logits / T) has the lowest negative log-likelihood.

    One that lies outside is the end of the range: 0.01 for predictions that are all right, which more confidence
    always improves; 100 where no confidence at all is better still (the true class's logit is, on average, not above
    the mean of all). Where every temperature is the same (each image's logits are all equal): 1.
    The NLL is convex in 1/T: Newton's method finds the root of its slope, within a bracket that shrinks, so that the
    search cannot fail; relative error of T below 1e-8. Raises ValueError for undefined input.
    Source: Guo et al., ICML 2017.
    """
    logits, labels = (each.cpu().numpy() for each in checked(logits, labels))
    below = logits - logits.max(axis=1, keepdims=True)
    target = below[np.arange(len(labels)), labels].mean()
    if not below.any():
        return 1.0
    if target == 0:
        return TEMPERATURE_RANGE[0]
    least, most = 1 / TEMPERATURE_RANGE[1], 1 / TEMPERATURE_RANGE[0]
    low, high = 0.0, np.inf  # of 1/T, between which the root lies
    inverse, before = 1.0, np.inf
    scratch = np.empty_like(below)
    while True:
        slope, curvature = _derivatives(below, target, inverse, scratch)
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        if low >= most or high <= least:
            return 1 / inverse
        step = inverse - slope / max(curvature, sys.float_info.min)
        if not low < step < high or abs(slope) > before / 2:
            step = np.sqrt(low * high)  # one of the ends, as long as the root may lie beyond it
        step = float(np.clip(step, least, most))
        if abs(step - inverse) <= 1e-9 * inverse:
            return 1 / step
        inverse, before = step, abs(slope)


def _derivatives(below: np.ndarray, target: float, inverse: float, scratch: np.ndarray) -> tuple[float, float]:
    """The NLL's first and second by 1/T: mean and variance of an image's logits under its prediction, averaged over
    the images; of the mean, the true class's logit is subtracted.
    """
    weights = np.exp(np.multiply(below, inverse, out=scratch), out=scratch)
    total = weights.sum(axis=1)
    weights *= below
    mean = weights.sum(axis=1) / total
    square = np.einsum("nc,nc->n", weights, below) / total
    return float(mean.mean() - target), float((square - mean * mean).mean())


def stratified_halves(labels, seed: int = 0) -> np.ndarray:
    """Which half, 0 or 1, each image is in, (N,): drawn at random, of each class as many in one as in the other.

    One more where a class has an odd number, the extra images in turn, so that the halves differ by at most one.
    Depends on the labels and the seed alone.
    """
    labels = torch.as_tensor(labels).cpu()
    drawn = torch.randperm(len(labels), generator=generator(seed, "cross-fitting"))
    by_class = drawn[labels[drawn].argsort(stable=True)]
    halves = np.empty(len(labels), dtype=np.int8)
    halves[by_class.numpy()] = np.arange(len(labels)) % 2
    return halves


def cross_fitted_logits(logits, labels, seed: int = 0) -> tuple[np.ndarray, tuple[float, float]]:
    """Each half of the images divided by the temperature that was fitted on the other: none by one fitted on itself.

    The halves are those of ``stratified_halves``. Returns the scaled logits (N, C) in float64, in the order given, and
    the temperatures by which halves 0 and 1 were divided. Raises ValueError for undefined input or a single sample.
    """
    logits, labels = (each.cpu().numpy() for each in checked(logits, labels))
    if len(labels) < 2:
        raise ValueError("cross-fitting needs at least two samples")
    halves = stratified_halves(labels, seed)
    first, second = halves == 0, halves == 1
    temperatures = fit_temperature(logits[second], labels[second]), fit_temperature(logits[first], labels[first])
    return logits / np.array(temperatures)[halves][:, None], temperatures
