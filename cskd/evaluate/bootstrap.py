"""The bootstrap over test images: how much a metric varies if other images of the same classes are drawn.

It does not include the variation between training seeds.
"""

import numpy as np
import torch
from scipy.sparse import csr_array
from torch.nn.functional import cross_entropy

from cskd.evaluate.calibration import (
    above_first_bin,
    class_deviation,
    confidence_and_deviation,
    debiased_gaps,
    equal_mass_bin,
)
from cskd.evaluate.scores import BINS, equal_width_bin, validate
from cskd.utils.seeding import generator

BLOCK = 250  # resamples that are computed at once: their weights take 20 MB for 10,000 images


def resampling_weights(labels, resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """Return how often each bootstrap resample contains each image: (R, N), uint8.

    Images are drawn with replacement within each class, so every class keeps its number of images. The draws depend
    on the labels, the number of resamples and the seed only. So the replicates of two networks on one test set can be
    compared in pairs. (More than 255 draws of one image have a probability below 1e-500.)
    """
    labels = np.asarray(torch.as_tensor(labels).cpu())
    source = generator(seed, "bootstrap")
    weights = np.empty((resamples, len(labels)), dtype=np.uint8)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        drawn = torch.randint(len(members), (resamples, len(members)), generator=source).numpy()
        drawn += len(members) * np.arange(resamples)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=drawn.size)
        weights[:, members] = counts.reshape(drawn.shape)
    return weights


def bootstrap_metrics(logits, labels, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return metrics of ``metrics.evaluate_calibration`` for each resample, (R,) values per metric.

    The replicates are exact, except for adaptive_ece, whose bins keep the images of the full sample.

    Calibration errors are on average higher in a resample than in the sample, since noise increases a sum of absolute
    values. So use the replicates' standard deviation as a standard error, not their percentiles as an interval.

    Args:
        logits: (N, C).
        labels: (N,).
        weights: (R, N) non-negative integers, as from ``resampling_weights``.

    Raises ValueError for undefined input.
    """
    confidence, deviation = confidence_and_deviation(logits, labels)
    probabilities, deviation_of_class = class_deviation(logits, labels)
    samples, classes = probabilities.shape
    drawn = weights.sum(axis=1, dtype=np.int64)  # images in each resample
    double, index = validate(logits, labels)
    wrong = (double.argmax(1) != index).cpu().numpy()
    nll = cross_entropy(double, index, reduction="none").cpu().numpy()
    means = np.stack([100 * wrong, nll, np.square(deviation_of_class).sum(1)])
    image, row, above = above_first_bin(probabilities, deviation_of_class, BINS)
    above = csr_array((above, (row, image)), shape=(classes * BINS, samples))
    index_of_bin = equal_width_bin(confidence, BINS)
    in_bins, confidences, deviations = (
        _in_bins(index_of_bin, values) for values in (np.ones(samples), confidence, deviation)
    )
    of_equal_mass = _in_bins(equal_mass_bin(confidence, BINS), deviation)
    blocks = []
    for start in range(0, len(weights), BLOCK):
        rows = slice(start, start + BLOCK)
        block = weights[rows].T.astype(np.float64, order="C")
        count, confidence_sum, gap = in_bins @ block, confidences @ block, deviations @ block
        ece, adaptive_ece = (100 * np.abs(sums).sum(axis=0) for sums in (gap, of_equal_mass @ block))
        per_image = 1 / np.maximum(count, 1)
        debiased = debiased_gaps(count, (confidence_sum + gap) * per_image, confidence_sum * per_image)
        debiased_ece = 100 * np.maximum(0, (count * debiased).sum(axis=0))
        by_class = (above @ block).reshape(classes, BINS, -1)
        by_class[:, 0] = deviation_of_class.T @ block - by_class.sum(axis=1)
        classwise_ece = 100 * np.abs(by_class, out=by_class).sum(axis=(0, 1)) / classes
        top1_error, nll, brier = means @ block
        blocks.append(np.stack([top1_error, ece, adaptive_ece, classwise_ece, nll, brier, debiased_ece]) / drawn[rows])
    names = ("top1_error", "ece", "adaptive_ece", "classwise_ece", "nll", "brier", "debiased_ece")
    return dict(zip(names, np.concatenate(blocks, axis=1), strict=True))


def _in_bins(index: np.ndarray, deviation: np.ndarray) -> csr_array:
    """Return (BINS, N) with each image's deviation in the row of its bin: a product with weights sums each bin."""
    return csr_array((deviation, (index, np.arange(len(index)))), shape=(BINS, len(index)))
