"""Statistics over seeds."""

import math
import statistics

import pytest

from analysis.stats.summary import relative_change, summary


def test_the_std_is_that_of_a_sample():
    values = [24.1, 25.3, 24.6, 26.0]
    result = summary(values)
    assert result.mean == pytest.approx(statistics.mean(values))
    assert result.std == pytest.approx(statistics.stdev(values))
    assert result.n == 4


def test_one_seed_has_no_std_and_none_has_no_mean():
    assert (summary([3.0]).mean, summary([3.0]).n) == (3.0, 1)
    assert math.isnan(summary([3.0]).std)
    assert math.isnan(summary([]).mean)
    assert summary([]).n == 0


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_broken_values_are_refused(broken):
    with pytest.raises(ValueError, match="NaN or infinite"):
        summary([1.0, broken])


def test_relative_change_is_negative_where_the_value_is_lower():
    assert relative_change(18.0, 20.0) == pytest.approx(-0.1)
    assert math.isnan(relative_change(1.0, 0.0))
