"""Corrections for the number of tests: by hand, against published values, and in simulation."""

import numpy as np
import pytest
from scipy import stats

from analysis.stats.multiplicity import _all_below, holm, many_to_one


def test_holm_corrects_for_the_number_of_p_values():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # Holm 1979's step-down, by hand
    assert (holm([0.9, 0.8]), holm([0.03]), holm([])) == ([1.0, 1.0], [0.03], [])


def test_dunnetts_own_example():
    """Blood counts under no drug and under drugs A and B (Dunnett 1955, table 2, as in SciPy's documentation)."""
    control = [7.40, 8.50, 7.20, 8.24, 9.84, 8.32]
    drugs = {"A": [9.76, 8.80, 7.68, 9.36], "B": [12.80, 9.68, 12.16, 9.20, 10.55]}
    found = many_to_one(control, drugs)
    expected = stats.dunnett(*drugs.values(), control=control, rng=0).pvalue  # a Monte Carlo integral
    assert [one.p_value for one in found.values()] == pytest.approx(expected, abs=2e-3)
    assert found["B"].effect == pytest.approx(np.mean(drugs["B"]) - np.mean(control))
    assert found["B"].interval[0] > 0 > found["A"].interval[0]


@pytest.mark.parametrize(("df", "methods", "critical"), [(5, 2, 3.03), (10, 4, 2.89), (20, 9, 2.95)])
def test_critical_values_are_those_of_dunnetts_tables(df, methods, critical):
    """Two-sided 95 % values for groups of equal size (Dunnett 1964, Biometrics 20, table II)."""
    assert _all_below(critical, (0.5**0.5,) * methods, df) == pytest.approx(0.95, abs=1.5e-3)


def test_one_method_is_the_t_test():
    control, method = [22.1, 21.8, 22.6], [22.9, 22.7, 22.5, 23.1]
    found = many_to_one(control, {"method": method})["method"]
    expected = stats.ttest_ind(method, control)
    assert found.p_value == pytest.approx(expected.pvalue, abs=1e-4)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.95)), abs=1e-3)


def test_all_intervals_hold_at_once():
    random = np.random.default_rng(0)
    covered = []
    for _ in range(200):
        control, *methods = random.normal(0, 1, (5, 4))
        found = many_to_one(control, dict(enumerate(methods)))
        covered.append(all(one.interval[0] <= 0 <= one.interval[1] for one in found.values()))
    assert 0.9 <= np.mean(covered) <= 0.99


def test_methods_without_spread_are_left_out():
    values = [22.1, 21.8, 22.6]
    assert list(many_to_one(values, {"one seed": [20.0], "equal": [21.0, 21.0], "usable": values})) == ["usable"]
    assert many_to_one([22.0], {"usable": values}) == many_to_one(values, {}) == {}
