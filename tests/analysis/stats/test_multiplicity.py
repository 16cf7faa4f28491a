"""Corrections for the number of tests."""

import pytest

from analysis.stats.multiplicity import holm


def test_holm_corrects_for_the_number_of_p_values():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # Holm 1979's step-down, by hand
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []
