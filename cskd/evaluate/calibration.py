"""Calibration beyond the paper's ECE: bins of equal mass, class-wise errors, and temperature scaling.

Inputs and errors are those of ``cskd.evaluate.scores``: logits (N, C), labels (N,), ValueError for undefined input.
"""

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import ndtr

from cskd.evaluate.scores import (
    BINS,
    check_bins,
    confidence_and_correct,
    equal_width_bin,
    negative_log_likelihood,
    validate,
)
from cskd.utils.seeding import generator

TEMPERATURE_RANGE = (0.01, 100.0)
FLOOR_DRAWS = 1000  # of labels; the standard error of the floor is then a thirtieth of its spread


def confidence_and_deviation(logits, labels) -> tuple[np.ndarray, np.ndarray]:
    """Return each image's confidence (N,), and its deviation (N,): 1 if correct, else 0, minus the confidence."""
    confidence, correct = confidence_and_correct(logits, labels)
    return confidence, correct - confidence


def debiased_gaps(count: np.ndarray, accuracy: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Return |accuracy - confidence| of each bin minus its bias, with any shape. Empty bins (count 0) give 0.

    The bias of the plug-in value is estimated by drawing the accuracy again from a normal distribution around it, with
    the variance accuracy (1 - accuracy) / count: the mean of the folded normal distribution is known.
    """
    gap = accuracy - confidence
    variance = np.maximum(accuracy * (1 - accuracy), 0)  # rounding can put an accuracy above 1
    std = np.sqrt(variance / np.maximum(count, 1))
    ratio = np.divide(gap, std, out=np.zeros_like(gap), where=std > 0)
    folded = std * np.sqrt(2 / np.pi) * np.exp(-(ratio**2) / 2) + gap * (1 - 2 * ndtr(-ratio))
    return np.where(std > 0, 2 * np.abs(gap) - folded, np.abs(gap)) * (count > 0)


def debiased_calibration_error(logits, labels, bins: int = BINS) -> float:
    """Return the ECE (L1, top label, bins of equal width) minus its estimated bias, 0 to 1; at least 0.

    A binned ECE of few images is too high, since noise in a bin's accuracy counts as an error. For a calibrated network
    some of the bias remains. Raises ValueError for undefined input and bins < 1.
    Source: Kumar, Liang and Ma, NeurIPS 2019 (appendix; in their library for the L1 error).
    """
    confidence, deviation = confidence_and_deviation(logits, labels)
    index = equal_width_bin(confidence, bins)
    count, confidences, deviations = (
        np.bincount(index, weights, minlength=bins) for weights in (None, confidence, deviation)
    )
    in_bin = np.maximum(count, 1)
    gaps = debiased_gaps(count, (confidences + deviations) / in_bin, confidences / in_bin)
    return max(0.0, float(count @ gaps / len(confidence)))


def calibration_floor(logits, labels, quantile: float | None = None) -> float:
    """Return the ECE, 0 to 1, that a perfectly calibrated network with the same confidences has on as many images.

    The labels are drawn from the network's own probabilities; the given labels are not used. The result is the mean
    over the draws, or a quantile of them. Raises ValueError for undefined input.
    """
    confidence, _ = confidence_and_deviation(logits, labels)
    index = equal_width_bin(confidence, BINS)
    draws = np.random.default_rng(0)
    errors = [
        np.abs(np.bincount(index, (draws.random(len(index)) < confidence) - confidence)).sum() / len(index)
        for _ in range(FLOOR_DRAWS)
    ]
    return float(np.mean(errors) if quantile is None else np.quantile(errors, quantile))


def class_deviation(logits, labels) -> tuple[np.ndarray, np.ndarray]:
    """Return the probabilities (N, C), and the one-hot labels minus the probabilities (N, C)."""
    logits, labels = validate(logits, labels)
    probabilities = logits.softmax(1)
    deviation = -probabilities
    deviation[torch.arange(len(labels)), labels] += 1
    return probabilities.cpu().numpy(), deviation.cpu().numpy()


def equal_mass_bin(confidence: np.ndarray, bins: int) -> np.ndarray:
    """Return the bin of each confidence (N,): floor(bins * rank / N), so that all bins have about as many images.

    The rank is the number of images with a lower confidence. Equal confidences therefore share a bin, and the order of
    the images does not matter. Raises ValueError for bins < 1.
    """
    check_bins(bins)
    rank = np.searchsorted(np.sort(confidence), confidence, side="left")
    return bins * rank // len(confidence)


def adaptive_calibration_error(logits, labels, bins: int = BINS) -> float:
    """Return the ECE with bins of equal mass instead of equal width (L1, top label), 0 to 1.

    See ``equal_mass_bin`` for equal confidences. Raises ValueError for undefined input and bins < 1.
    Source: Nguyen and O'Connor, EMNLP 2015; Nixon et al., CVPR workshops 2019.
    """
    confidence, deviation = confidence_and_deviation(logits, labels)
    sums = np.bincount(equal_mass_bin(confidence, bins), weights=deviation)
    return float(np.abs(sums).sum() / deviation.size)


def above_first_bin(
    probabilities: np.ndarray, deviation: np.ndarray, bins: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (image, row, deviation) of the probabilities above the first bin; the row is bins * class + bin.

    With many classes, few probabilities are above the first bin. The sum over a class's first bin follows from them:
    it is the sum over the class minus the sums over its other bins.
    """
    check_bins(bins)
    position = np.flatnonzero(probabilities > 1 / bins)
    image, label = np.divmod(position, probabilities.shape[1])
    row = bins * label + equal_width_bin(probabilities.ravel()[position], bins)
    return image, row, deviation.ravel()[position]


def classwise_calibration_error(logits, labels, bins: int = BINS) -> float:
    """Return the mean over classes of the ECE of the class's probability as a prediction of that class, 0 to 1.

    The bins have equal width. Classes absent from the test set are included: all probability assigned to them is error.
    With many classes the value is small, at most 2 / C, since most probabilities are near 0.
    Raises ValueError for undefined input and bins < 1.
    Source: Kull et al., NeurIPS 2019 (class-wise ECE); Nixon et al. 2019 (static calibration error).
    """
    probabilities, deviation = class_deviation(logits, labels)
    classes = deviation.shape[1]
    _, row, above = above_first_bin(probabilities, deviation, bins)
    sums = np.bincount(row, weights=above, minlength=bins * classes).reshape(classes, bins)
    first = deviation.sum(axis=0) - sums.sum(axis=1)
    return float((np.abs(sums).sum() + np.abs(first).sum()) / deviation.size)


def fit_temperature(logits, labels) -> float:
    """Return the temperature T in TEMPERATURE_RANGE that minimises the negative log-likelihood of softmax(logits / T).

    The result is the lower end of the range if all predictions are correct, and the upper end if the true class's logit
    is on average not above the mean of all logits. It is 1 if each image's logits are all equal.

    The NLL is convex in 1/T, so its slope has one root; the relative error of T is below 1e-8. Raises ValueError for
    undefined input. Source: Guo et al., ICML 2017.
    """
    logits, labels = (values.cpu().numpy() for values in validate(logits, labels))
    below = logits - logits.max(axis=1, keepdims=True)
    target = below[np.arange(len(labels)), labels].mean()
    if not below.any():
        return 1.0

    def slope(inverse: float) -> float:
        """Return the derivative of the NLL by 1/T: the mean logit under the prediction minus the true class's logit."""
        weights = np.exp(inverse * below)
        return float((np.einsum("nc,nc->n", weights, below) / weights.sum(axis=1)).mean() - target)

    minimum, maximum = TEMPERATURE_RANGE
    if slope(1 / minimum) <= 0:
        return minimum
    if slope(1 / maximum) >= 0:
        return maximum
    return 1 / brentq(slope, 1 / maximum, 1 / minimum, xtol=1e-12, rtol=1e-10)


def stratified_halves(labels, seed: int = 0) -> np.ndarray:
    """Return the half, 0 or 1, of each image (N,): a random split of each class into equal parts.

    If a class has an odd number of images, its extra image goes to the halves in turn, so that the sizes of the halves
    differ by at most one. The split depends on the labels and the seed only.
    """
    labels = torch.as_tensor(labels).cpu()
    drawn = torch.randperm(len(labels), generator=generator(seed, "cross-fitting"))
    by_class = drawn[labels[drawn].argsort(stable=True)]
    halves = np.empty(len(labels), dtype=np.int8)
    halves[by_class.numpy()] = np.arange(len(labels)) % 2
    return halves


def cross_fitted_logits(logits, labels, seed: int = 0) -> tuple[np.ndarray, tuple[float, float]]:
    """Return the logits (N, C), each half divided by the temperature fitted on the other, and both temperatures.

    So no image is scaled by a temperature that its own label influenced. The halves are those of
    ``stratified_halves``; the first temperature is that of half 0. Raises ValueError for undefined input or one sample.
    """
    logits, labels = (values.cpu().numpy() for values in validate(logits, labels))
    if len(labels) < 2:
        raise ValueError("cross-fitting needs at least two samples")
    halves = stratified_halves(labels, seed)
    first, second = halves == 0, halves == 1
    temperatures = fit_temperature(logits[second], labels[second]), fit_temperature(logits[first], labels[first])
    return logits / np.array(temperatures)[halves][:, None], temperatures


def scaled_nll(logits, labels) -> float:
    """Return the negative log-likelihood after cross-fitted temperature scaling, in nats.

    Raises as ``cross_fitted_logits``.
    """
    return negative_log_likelihood(cross_fitted_logits(logits, labels)[0], labels)
