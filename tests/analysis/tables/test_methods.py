"""Every tracked method beside cross-entropy and CS-KD."""

import numpy as np
import pytest
from builders import make_evaluations, make_pool

from analysis.stats.multiplicity import many_to_one
from analysis.tables.methods import DIFFERENT, methods_table

VALUES = {
    "cross-entropy": {0: 24.2, 1: 24.9, 2: 24.4},
    "cs-kd": {0: 22.1, 1: 21.8, 2: 22.2},
    "my-own": {0: 23.0, 1: 23.4, 2: 23.3, 3: 22.9},
    "mixup": {0: 23.0},
    "other-width": {0: 23.0, 1: 23.3, 2: 22.9},
}


def test_each_method_with_equal_settings_is_compared_with_both_controls():
    cells = {f"cifar100/resnet18/{method}": values for method, values in VALUES.items()}
    pool = make_pool(cells, settings={"cifar100/resnet18/other-width": {"width": "32"}})
    table = methods_table(pool, make_evaluations(pool, 0.1))
    errors = table.frame[table.frame.metric == "top1_error"].set_index("method")
    assert list(errors.index) == ["cross-entropy", "cs-kd", "my-own", "mixup"]
    mixup = errors.loc["mixup"]  # one seed: no interval
    assert (mixup.minus_cross_entropy, np.isnan(mixup.minus_cross_entropy_low)) == (pytest.approx(23 - 24.5), True)
    values = {method: list(seeds.values()) for method, seeds in VALUES.items()}
    expected = many_to_one(values["cross-entropy"], {name: values[name] for name in ("cs-kd", "my-own", "mixup")})
    own = errors.loc["my-own"]
    assert (own.n, own.minus_cross_entropy) == (4, pytest.approx(expected["my-own"].effect))
    assert (own.minus_cross_entropy_low, own.minus_cross_entropy_high) == pytest.approx(expected["my-own"].interval)
    assert np.isnan(errors.loc["cs-kd"].minus_cs_kd)
    assert errors.loc["cs-kd"].minus_cross_entropy == pytest.approx(-errors.loc["cross-entropy"].minus_cs_kd)
    assert set(table.frame.metric) == {"top1_error", "scaled_nll", "debiased_ece"}  # ECE is not in these runs


def test_different_spreads_are_marked_unless_the_methods_are_not_compared():
    cells = {f"cifar100/resnet18/{name}": VALUES[name] for name in ("cross-entropy", "cs-kd")}
    cells["cifar100/resnet18/wide"] = {0: 10.0, 1: 23.3, 2: 40.9}
    for settings, is_marked in ({}, True), ({"cifar100/resnet18/wide": {"width": "32"}}, False):
        table = methods_table(make_pool(cells, settings=settings), {})
        assert table.frame.minus_cross_entropy_spreads_differ[table.frame.method == "cs-kd"].tolist() == [is_marked]
        assert table.blocks[0].groups[0][1][-2].endswith(DIFFERENT) == is_marked


def test_pool_without_two_methods_has_no_table():
    assert methods_table(make_pool({"cifar100/resnet18/cs-kd": VALUES["cs-kd"]}), {}) is None
