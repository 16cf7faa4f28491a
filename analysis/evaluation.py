"""What a run's predictions come to: computed once and kept by run key."""

from dataclasses import dataclass

import numpy as np

from cskd.metrics import ReliabilityBins

RAW, TRAINING_SPLIT, CROSS_FITTED = "none", "training split", "cross-fitted"
SCALINGS = (RAW, TRAINING_SPLIT, CROSS_FITTED)


@dataclass(frozen=True)
class Evaluation:
    """One run's test predictions after the last epoch, evaluated beyond what was tracked while it trained.

    metrics: by scaling (``SCALINGS``), the value of each of top1_error, ece, adaptive_ece, classwise_ece (percent),
        nll, brier. A scaling is not there where it could not be fitted (a run of an earlier version).
    temperatures: of each scaling but RAW.
    replicates: of each unscaled metric (R,) values under resampling of the test images, stratified by class. The
        resamples depend on the labels alone: those of two runs on the same test set belong together pair by pair.
    bins: 20 equal-width bins of confidence.
    predicted_log_probability, true_log_probability: (M,) of the M misclassified images, natural logarithm.
    separation: feature_spread (mean within-class over between-class distance), prediction_variance.
    """

    run_key: str
    metrics: dict[str, dict[str, float]]
    temperatures: dict[str, float]
    replicates: dict[str, np.ndarray]
    bins: ReliabilityBins
    predicted_log_probability: np.ndarray
    true_log_probability: np.ndarray
    separation: dict[str, float]
