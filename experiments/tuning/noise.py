"""How well the result of a trial is known: standard errors, and whether a study's trials differ by more than chance."""

import math

import numpy as np
from scipy.stats import chi2

from cskd.evaluate.bootstrap import bootstrap_metrics, resampling_weights
from cskd.evaluate.predictions import load_predictions
from experiments.runs.folder import RunFolder
from experiments.tuning.trial import COMPLETE, OBJECTIVES, Trial

RESAMPLES = 100  # of the validation images; the standard error from them has a relative error of 7 %
MIN_TRIALS = 3
LEVEL = 0.05


def standard_errors(folders: list[RunFolder]) -> dict[str, float]:
    """Return the standard error of a trial's metrics by name, {} if a run's predictions were deleted or are damaged.

    It is over the validation images, and over the seeds if there are several.
    """
    try:
        stored = [load_predictions(folder.predictions) for folder in folders]
    except (OSError, ValueError):
        return {}
    seeds = []
    for predictions in stored:
        whole = np.ones((1, len(predictions.labels)), np.uint8)
        weights = np.concatenate([whole, resampling_weights(predictions.labels, RESAMPLES)])
        seeds.append(bootstrap_metrics(predictions.logits, predictions.labels, weights))
    errors = {}
    for name in seeds[0]:
        values = np.stack([metrics[name] for metrics in seeds])  # (seeds, 1 + RESAMPLES)
        over_images = values[:, 1:].mean(axis=0).std(ddof=1)
        over_seeds = values[:, 0].std(ddof=1) / math.sqrt(len(seeds)) if len(seeds) > 1 else 0.0
        errors[name] = math.hypot(over_images, over_seeds)
    return errors


def spread_within_noise(objective: str, trials: list[Trial]) -> tuple[float, float] | None:
    """Return (standard deviation of the trials' values, standard error of one) if they differ by no more than chance.

    None if they differ by more, or if fewer than MIN_TRIALS have a standard error.
    """
    name = OBJECTIVES[objective].name
    known = [trial for trial in trials if trial.state == COMPLETE and name in trial.standard_errors]
    if len(known) < MIN_TRIALS:
        return None
    spread = np.std([trial.metrics[name] for trial in known], ddof=1)
    error = math.sqrt(np.mean([trial.standard_errors[name] ** 2 for trial in known]))
    freedom = len(known) - 1
    is_noise = freedom * spread**2 <= chi2.ppf(1 - LEVEL, freedom) * error**2
    return (float(spread), error) if is_noise else None
