"""The bootstrap over test images: how much a metric would differ had other images of the same classes been drawn.

It says nothing of what another training seed would give: that is the spread over seeds.
"""

import numpy as np
import torch
from scipy.sparse import csr_array

from cskd.evaluate.calibration import BINS, Outcomes, above_lowest_bin, equal_mass_bin, outcomes
from cskd.evaluate.scores import equal_width_bin
from cskd.utils.seeding import generator

BLOCK = 250  # resamples at a time: their weights take 20 MB for 10,000 images


def resampling_weights(labels, resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """How often each image is drawn in each bootstrap resample: (R, N), uint8.

    Drawn with replacement within each class, which keeps its number of images. Depends on the labels, the number
    of resamples and the seed alone: two networks on the same test set are resampled alike, and their replicates can be
    compared pair by pair. (More than 255 draws of one image have a probability below 1e-500.)
    Raises ValueError for no images, and for resamples < 1.
    """
    labels = np.asarray(torch.as_tensor(labels).cpu())
    if labels.ndim != 1 or len(labels) == 0:
        raise ValueError(f"labels (N,) of at least one sample needed, not {labels.shape}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}")
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
    """The metrics of ``evaluate_calibration`` in each resample, (R,) each: those of the images, each so often repeated.

    logits: (N, C); labels: (N,); weights: (R, N) non-negative integers, as from ``resampling_weights``.
    Exact but for adaptive_ece, whose bins keep the images that they have in the whole sample.
    On average a resample's calibration errors lie above the sample's, as the sample's lie above the truth: a sum of
    absolute values rises with the noise in it, and most where the network is well calibrated. So take the spread of
    the replicates for a standard error, and not their percentiles for an interval: these may leave the estimate out.
    Raises ValueError for undefined input and for a resample without images.
    """
    return bootstrap(outcomes(logits, labels), weights)


def bootstrap(found: Outcomes, weights: np.ndarray) -> dict[str, np.ndarray]:
    """``bootstrap_metrics`` of outcomes that are there already."""
    samples, classes = found.probabilities.shape
    if weights.ndim != 2 or weights.shape[1] != samples or not np.issubdtype(weights.dtype, np.integer):
        raise ValueError(f"integer weights (R, {samples}) needed, not {weights.dtype} {weights.shape}")
    if len(weights) == 0:
        raise ValueError("no resamples: at least one is needed")
    drawn = weights.sum(axis=1, dtype=np.int64)
    if weights.min() < 0 or drawn.min() < 1:
        raise ValueError("weights must not be negative, and every resample needs an image")
    means = np.stack([100 * found.wrong, found.nll, found.brier])
    image, row, deviation = above_lowest_bin(found, BINS)
    above = csr_array((deviation, (row, image)), shape=(classes * BINS, samples))
    gaps = (
        _in_bins(equal_width_bin(found.confidence, BINS), found.deviation),
        _in_bins(equal_mass_bin(found.confidence, BINS), found.deviation),
    )
    blocks = []
    for start in range(0, len(weights), BLOCK):
        rows = slice(start, start + BLOCK)
        block = weights[rows].T.astype(np.float64, order="C")
        ece, adaptive_ece = (100 * np.abs(gap @ block).sum(axis=0) for gap in gaps)
        of_class = (above @ block).reshape(classes, BINS, -1)
        of_class[:, 0] = found.class_deviation.T @ block - of_class.sum(axis=1)
        classwise_ece = 100 * np.abs(of_class, out=of_class).sum(axis=(0, 1)) / classes
        top1_error, nll, brier = means @ block
        blocks.append(np.stack([top1_error, ece, adaptive_ece, classwise_ece, nll, brier]) / drawn[rows])
    names = ("top1_error", "ece", "adaptive_ece", "classwise_ece", "nll", "brier")
    return dict(zip(names, np.concatenate(blocks, axis=1), strict=True))


def _in_bins(index: np.ndarray, deviation: np.ndarray) -> csr_array:
    """(BINS, N): each image's deviation in the row of its bin, so that a product with weights sums over each bin."""
    return csr_array((deviation, (index, np.arange(len(index)))), shape=(BINS, len(index)))
