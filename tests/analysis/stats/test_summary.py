"""Mean and standard deviation over seeds."""

import math
import statistics

import pytest

from analysis.stats.summary import relative_change, summary


def test_summary_has_the_sample_standard_deviation():
    values = [24.1, 25.3, 24.6, 26.0]
    result = summary(values)
    expected = (statistics.mean(values), statistics.stdev(values), 4)
    assert (result.mean, result.std, result.n) == pytest.approx(expected)


def test_one_value_has_no_std_and_none_has_no_mean():
    assert (summary([3.0]).mean, summary([3.0]).n) == (3.0, 1)
    assert math.isnan(summary([3.0]).std)
    assert math.isnan(summary([]).mean)
    with pytest.raises(ValueError, match="NaN or infinite"):
        summary([1.0, math.inf])


def test_relative_change_is_negative_for_a_lower_value():
    assert relative_change(18.0, 20.0) == pytest.approx(-0.1)
    assert math.isnan(relative_change(1.0, 0.0))
