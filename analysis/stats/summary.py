"""What is computed over seeds."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Summary:
    """Mean, std and number of the seeds of a cell."""

    mean: float
    std: float
    n: int


def summary(values) -> Summary:
    """Mean and sample standard deviation (ddof=1) of ``values`` (n,), all finite.

    One value has no std: it is NaN. No value has no mean either.
    Raises ValueError for NaN or infinite values: what to leave out is the caller's to decide and to say.
    """
    values = np.asarray(values, dtype=float)
    if not np.isfinite(values).all():
        raise ValueError("NaN or infinite values have no mean")
    n = len(values)
    mean = float(values.mean()) if n else float("nan")
    return Summary(mean, float(values.std(ddof=1)) if n > 1 else float("nan"), n)


def finite(values) -> np.ndarray:
    """``values`` (n,) without those that are NaN or infinite."""
    values = np.asarray(values, dtype=float)
    return values[np.isfinite(values)]


def relative_change(value: float, baseline: float) -> float:
    """(value - baseline) / baseline: -0.1 where ``value`` is a tenth lower. NaN for a baseline of 0."""
    return (value - baseline) / baseline if baseline else float("nan")
