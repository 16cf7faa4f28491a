"""Mean and standard deviation over seeds."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Summary:
    """Mean, sample standard deviation and number of seeds."""

    mean: float
    std: float
    n: int


def summary(values) -> Summary:
    """Return mean and std (ddof=1) of ``values`` (n,). The std of one value is NaN; without values the mean is NaN too.

    Raises ValueError for NaN or infinite values: the caller decides which runs to leave out.
    """
    values = np.asarray(values, dtype=float)
    if not np.isfinite(values).all():
        raise ValueError("NaN or infinite values have no mean")
    n = len(values)
    mean = float(values.mean()) if n else float("nan")
    return Summary(mean, float(values.std(ddof=1)) if n > 1 else float("nan"), n)


def finite(values) -> np.ndarray:
    """Return the finite values of ``values`` (n,)."""
    values = np.asarray(values, dtype=float)
    return values[np.isfinite(values)]


def relative_change(value: float, baseline: float) -> float:
    """Return (value - baseline) / baseline; NaN for a baseline of 0."""
    return (value - baseline) / baseline if baseline else float("nan")
