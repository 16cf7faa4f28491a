"""The tables of calibration, temperature scaling and variation inside a class, from evaluated made-up runs."""

import numpy as np
import pytest
from builders import make_pool

from analysis.stats.evaluation import CROSS_FITTED, RAW, TRAINING_SPLIT, Evaluation
from analysis.stats.intervals import mean_interval
from analysis.tables.calibration import calibration_table, scaling_table, separation_table
from cskd.evaluate.scores import reliability_bins

METRICS = ("ece", "nll", "brier", "adaptive_ece", "classwise_ece")
CELLS = {
    "cifar100/resnet18/cross-entropy": {0: 24.0, 1: 25.0, 2: 26.0},
    "cifar100/resnet18/cs-kd": {0: 22.0},
    "cub200/resnet18/cs-kd": {0: "failed"},
}


@pytest.fixture
def pool():
    return make_pool(CELLS)


@pytest.fixture
def evaluations(pool):
    """Each metric is 10, 20, ... plus the seed, and a tenth of it after scaling."""
    found = {}
    for run in pool.done.itertuples():
        random = np.random.default_rng(run.seed)
        raw = {name: 10.0 * (1 + index) + run.seed for index, name in enumerate(METRICS)}
        scaled = {name: value / 10 for name, value in raw.items()}
        found[run.run_key] = Evaluation(
            run.run_key,
            {RAW: raw | {"top1_error": 5.0}, TRAINING_SPLIT: scaled, CROSS_FITTED: scaled},
            {scaling: 2.0 + run.seed for scaling in (TRAINING_SPLIT, CROSS_FITTED)},
            {name: value + random.normal(size=100) for name, value in raw.items()},
            reliability_bins(np.eye(2), [0, 1]),
            *[np.empty(0)] * 2,
            {"feature_spread": 0.5 + run.seed, "prediction_variance": 0.25},
        )
    return found


def rows(table):
    return [row for block in table.blocks for group in block.groups for row in group]


def test_metrics_have_the_interval_over_seeds_and_images(pool, evaluations):
    table = calibration_table(pool, evaluations)
    first, second = table.frame.itertuples()
    runs = [evaluations[key] for key in pool.runs_of("cifar100", "resnet18", "cross-entropy").run_key]
    expected = mean_interval([10.0, 11.0, 12.0], [run.replicates["ece"] for run in runs])
    assert (first.ece, first.ece_low, first.ece_high) == (11.0, *expected.interval)
    assert first.ece_low < 11 < first.ece_high
    assert "top1_error" not in table.frame
    assert [row[:5] for row in rows(table)] == [
        ("cifar100", "resnet18", "cross-entropy", "3", f"11.00 [{first.ece_low:.2f}, {first.ece_high:.2f}]"),
        ("cifar100", "resnet18", "cs-kd", "1", "10.00"),
    ]
    assert np.isnan(second.ece_low)


def test_scaling_table_has_every_metric_at_each_temperature(pool, evaluations):
    none, training, crossed, *_ = rows(scaling_table(pool, evaluations))
    assert none[3:7] == ("none", "3", "\N{EN DASH}", "11.00 ± 1.00")
    assert none[7:] == ("21.000 ± 1.000", "31.000 ± 1.000", "41.00 ± 1.00", "51.00 ± 1.00")
    assert training[3:7] == ("training split", "3", "3.00 ± 1.00", "1.10 ± 0.10")
    assert crossed[3:] == (
        *("cross-fitted", "3", "3.00 ± 1.00", "1.10 ± 0.10"),
        *("2.100 ± 0.100", "3.100 ± 0.100", "4.10 ± 0.10", "5.10 ± 0.10"),
    )


def test_separation_table(pool, evaluations):
    table = separation_table(pool, evaluations)
    assert [row[3:] for row in rows(table)] == [("3", "1.500 ± 1.000", "0.250 ± 0.000"), ("1", "0.500", "0.250")]


def test_tables_without_evaluated_runs_have_no_rows(pool):
    for make in (calibration_table, scaling_table, separation_table):
        table = make(pool, {})
        assert (table.blocks, len(table.frame)) == ((), 0)
        assert "Not finished: cub200/resnet18/cs-kd/seed0 failed." in table.notes
