"""The p-values of two tests, equal to those of ``scipy.stats``, which takes half a second to import."""

from collections.abc import Sequence

import numpy as np
from scipy.special import betaincc, chdtrc


def bartlett_p(groups: Sequence[np.ndarray]) -> float:
    """Return the p-value of Bartlett's test of equal variances. groups: of two values or more, with spread."""
    df = np.array([len(values) - 1 for values in groups])
    variances = np.array([values.var(ddof=1) for values in groups])
    pooled = (df * variances).sum() / df.sum()
    statistic = df.sum() * np.log(pooled) - (df * np.log(variances)).sum()
    correction = 1 + ((1 / df).sum() - 1 / df.sum()) / (3 * (len(groups) - 1))
    return float(chdtrc(len(groups) - 1, statistic / correction))


def correlation_p(first: np.ndarray, second: np.ndarray) -> float:
    """Return the one-sided p-value of a correlation of at most 0 (Pearson's) of pairs. Both have spread."""
    correlation = float(np.corrcoef(first, second)[0, 1])
    return float(betaincc(len(first) / 2 - 1, len(first) / 2 - 1, min((correlation + 1) / 2, 1)))
