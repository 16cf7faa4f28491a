"""Mean and standard deviation over seeds."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Summary:
    """Mean, sample standard deviation and number of seeds."""

    mean: float
    std: float
    n: int


def summary(values) -> Summary:
    """Return mean, std (ddof=1) and number of the finite values; an undefined mean or std is NaN."""
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    n = len(values)
    return Summary(float(values.mean()) if n else math.nan, float(values.std(ddof=1)) if n > 1 else math.nan, n)


def relative_change(value: float, baseline: float) -> float:
    """Return (value - baseline) / baseline; NaN for a baseline of 0."""
    return (value - baseline) / baseline if baseline else math.nan
