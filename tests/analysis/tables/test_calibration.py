"""The tables of calibration, temperature scaling and further measures, from evaluated made-up runs."""

import numpy as np
import pytest
from builders import make_pool

from analysis.stats.evaluation import CROSS_FITTED, RAW, TRAINING_SPLIT, Evaluation
from analysis.stats.intervals import mean_interval
from analysis.tables.calibration import calibration_table, measures_table, scaling_table
from cskd.evaluate.metrics import UNSCALED
from cskd.evaluate.scores import reliability_bins
from cskd.utils.numbers import mean_std_text

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
            {metric.name: 0.25 * index + run.seed for index, metric in enumerate(UNSCALED)},
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
    assert none[3:7] == ("none", "3", "\N{EN DASH}", mean_std_text(11, 1, 2))
    assert none[7:] == (
        mean_std_text(21, 1, 3),
        mean_std_text(31, 1, 3),
        mean_std_text(41, 1, 2),
        mean_std_text(51, 1, 2),
    )
    assert training[3:7] == ("training split", "3", mean_std_text(3, 1, 2), mean_std_text(1.1, 0.1, 2))
    assert crossed[3:] == (
        *("cross-fitted", "3", mean_std_text(3, 1, 2), mean_std_text(1.1, 0.1, 2)),
        *(
            mean_std_text(2.1, 0.1, 3),
            mean_std_text(3.1, 0.1, 3),
            mean_std_text(4.1, 0.1, 2),
            mean_std_text(5.1, 0.1, 2),
        ),
    )


def test_measures_table(pool, evaluations):
    table = measures_table(pool, evaluations)
    first, second = rows(table)
    assert first[3:5] == ("3", mean_std_text(1.0, 1.0, UNSCALED[0].decimals))
    assert second[3:6] == ("1", *(mean_std_text(0.25 * index, np.nan, UNSCALED[index].decimals) for index in (0, 1)))
    assert table.columns[4].header == UNSCALED[0].label


def test_tables_without_evaluated_runs_have_no_rows(pool):
    for make in (calibration_table, measures_table, scaling_table):
        table = make(pool, {})
        assert (table.blocks, len(table.frame)) == ((), 0)
        assert "Not finished: cub200/resnet18/cs-kd/seed0 failed." in table.notes
