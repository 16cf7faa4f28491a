"""Corrections for the number of tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.special import gammaincinv, ndtr

from analysis.stats.intervals import LEVEL, has_spread, spreads_differ


@dataclass(frozen=True)
class Simultaneous:
    """The difference of a method's mean from a control's, with its simultaneous 95 % interval and corrected p-value.

    spreads_differ: Bartlett's test finds that the spreads differ, which the interval takes as equal.
    """

    effect: float
    interval: tuple[float, float]
    p_value: float
    spreads_differ: bool = False


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values corrected for their number by Holm's method. Source: Holm 1979, Scand. J. Statistics 6."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, (len(p_values) - rank) * float(p_values[index]))
        corrected[index] = min(1.0, largest)
    return corrected


def many_to_one(control: Sequence[float], methods: Mapping[str, Sequence[float]]) -> dict[str, Simultaneous]:
    """Return each method's difference from the control, by Dunnett's test: all intervals hold at once in 95 %.

    A method with one seed or equal values has no spread and is left out, and so are all if the control has none.
    Seeds are not paired, and spreads are taken as equal.
    Source: Dunnett 1955, Journal of the American Statistical Association 50.
    """
    control = np.asarray(control, dtype=float)
    arrays = {name: np.asarray(values, dtype=float) for name, values in methods.items()}
    usable = {name: values for name, values in arrays.items() if has_spread(values)}
    if not usable or not has_spread(control):
        return {}
    groups = [control, *usable.values()]
    df = sum(len(values) - 1 for values in groups)
    variance = sum(values.var(ddof=1) * (len(values) - 1) for values in groups) / df
    sizes = np.array([len(values) for values in usable.values()])
    # The statistics share the control: T_i and T_j have the correlation loading_i * loading_j.
    loadings = tuple(np.sqrt(sizes / (sizes + len(control))).tolist())
    critical, differ = _critical_value(loadings, df), spreads_differ(groups)
    found = {}
    for (name, values), size in zip(usable.items(), sizes, strict=True):
        effect, error = float(values.mean() - control.mean()), float(np.sqrt(variance * (1 / size + 1 / len(control))))
        interval = (effect - critical * error, effect + critical * error)
        found[name] = Simultaneous(effect, interval, 1 - _all_below(abs(effect) / error, loadings, df), differ)
    return found


@cache
def _critical_value(loadings: tuple[float, ...], df: int) -> float:
    from scipy.optimize import brentq  # noqa: PLC0415 - holm, which more commands use, does not need it

    return brentq(lambda bound: _all_below(bound, loadings, df) - LEVEL, 0, 1000, xtol=1e-5)


def _all_below(bound: float, loadings: tuple[float, ...], df: int) -> float:
    """Return the probability that all |T_i| are at most ``bound``, for Dunnett's statistics with ``df``.

    Given the control's mean z and the pooled standard deviation s, the statistics are independent and normal. Both are
    integrated numerically: z by Gauss-Hermite quadrature, s over the quantiles of its chi distribution.
    SciPy's ``dunnett`` draws this probability at random, and its intervals do not converge.
    """
    z, z_weights = np.polynomial.hermite_e.hermegauss(48)
    quantile, s_weights = np.polynomial.legendre.leggauss(48)
    s = np.sqrt(2 * gammaincinv(df / 2, (quantile + 1) / 2) / df)
    scale = np.sqrt(1 - np.square(loadings))
    shift = np.array(loadings) * z[:, None, None]
    limit = bound * s[:, None]
    inside = (ndtr((limit - shift) / scale) - ndtr((-limit - shift) / scale)).prod(axis=2)
    return float((z_weights / z_weights.sum()) @ inside @ (s_weights / 2))
