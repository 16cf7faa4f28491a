"""Mean and standard deviation over seeds."""

import math
import statistics

import pytest

from analysis.stats.summary import relative_change, summary


def test_summary_has_the_sample_standard_deviation_of_the_finite_values():
    values = [24.1, 25.3, 24.6, 26.0]
    result = summary([*values, math.nan, math.inf])
    expected = (statistics.mean(values), statistics.stdev(values), 4)
    assert (result.mean, result.std, result.n) == pytest.approx(expected)
    one, none = summary([3.0]), summary([])
    assert (one.mean, one.n, none.n) == (3.0, 1, 0)
    assert math.isnan(one.std) and math.isnan(none.mean) and math.isnan(none.std)


def test_relative_change_is_negative_for_a_lower_value():
    assert relative_change(18.0, 20.0) == pytest.approx(-0.1)
    assert math.isnan(relative_change(1.0, 0.0))
