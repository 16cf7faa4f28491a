"""The tables of calibration, temperature scaling and variation inside a class, from evaluated made-up runs."""

import numpy as np
import pytest
from made_up_pool import made_up_pool

from analysis.stats.evaluation import CROSS_FITTED, RAW, TRAINING_SPLIT, Evaluation
from analysis.stats.intervals import mean_interval
from analysis.tables.calibration import MEASURES, calibration_table, scaling_table, separation_table
from cskd.evaluate.scores import reliability_bins

CELLS = {
    "cifar100/resnet18/cross-entropy": {0: 24.0, 1: 25.0, 2: 26.0},
    "cifar100/resnet18/cs-kd": {0: 22.0},
    "cub200/resnet18/cs-kd": {0: "failed"},
}


@pytest.fixture
def pool():
    return made_up_pool(CELLS)


def evaluated(pool, *, training=True):
    """Values that tell where they come from: 10 for ECE, 20 for NLL, ... plus the seed; a tenth of it once scaled."""
    found = {}
    for run in pool.done.itertuples():
        random = np.random.default_rng(run.seed)
        raw = {name: 10.0 * (1 + place) + run.seed for place, name in enumerate(MEASURES)}
        scalings = [CROSS_FITTED, *([TRAINING_SPLIT] if training else [])]
        found[run.run_key] = Evaluation(
            run.run_key,
            {RAW: raw} | {scaling: {name: value / 10 for name, value in raw.items()} for scaling in scalings},
            {scaling: 2.0 + run.seed for scaling in scalings},
            {name: value + random.normal(size=100) for name, value in raw.items()},
            reliability_bins(np.eye(2), [0, 1]),
            *[np.empty(0)] * 2,
            {"feature_spread": 0.5 + run.seed, "prediction_variance": 0.25},
        )
    return found


def rows(table):
    return [row for block in table.blocks for group in block.groups for row in group]


def test_measures_have_the_interval_over_seeds_and_images(pool):
    found = evaluated(pool)
    table = calibration_table(pool, found)
    first = table.frame.iloc[0]
    runs = [found[key] for key in pool.runs_of("cifar100", "resnet18", "cross-entropy").run_key]
    expected = mean_interval([10.0, 11.0, 12.0], [one.replicates["ece"] for one in runs])
    assert (first.ece, first.ece_low, first.ece_high) == (11.0, *expected.interval)
    assert first.ece_low < 11 < first.ece_high
    assert rows(table)[0][:5] == (
        *("cifar100", "resnet18", "cross-entropy", "3"),
        f"11.00 [{first.ece_low:.2f}, {first.ece_high:.2f}]",
    )


def test_one_seed_has_no_interval_and_a_cell_without_runs_no_row(pool):
    table = calibration_table(pool, evaluated(pool))
    assert len(rows(table)) == len(table.frame) == 2
    assert rows(table)[1][:5] == ("cifar100", "resnet18", "cs-kd", "1", "10.00")
    assert np.isnan(table.frame.iloc[1].ece_low)


def test_every_measure_is_told_as_it_is_and_with_each_temperature(pool):
    none, training, crossed, *_ = rows(scaling_table(pool, evaluated(pool)))
    assert none[3:7] == ("none", "3", "\N{EN DASH}", "11.00 ± 1.00")
    assert none[7:] == ("21.00 ± 1.00", "31.00 ± 1.00", "41.000 ± 1.000", "51.000 ± 1.000")
    assert training[3:7] == ("training split", "3", "3.00 ± 1.00", "1.10 ± 0.10")
    assert crossed[3:7] == ("cross-fitted", "3", "3.00 ± 1.00", "1.10 ± 0.10")
    assert crossed[7:] == ("2.10 ± 0.10", "3.10 ± 0.10", "4.100 ± 0.100", "5.100 ± 0.100")


def test_runs_of_earlier_versions_have_no_training_split(pool):
    found = evaluated(pool, training=False)
    assert [row[3] for row in rows(scaling_table(pool, found))] == 2 * ["none", "cross-fitted"]
    found |= dict(list(evaluated(pool).items())[:1])  # one run kept its training images
    [row] = [row for row in rows(scaling_table(pool, found)) if row[3] == "training split"]
    assert row[4:7] == ("1", "2.00", "1.00")


def test_separation(pool):
    table = separation_table(pool, evaluated(pool))
    assert rows(table)[0][3:] == ("3", "1.500 ± 1.000", "0.250 ± 0.000")
    assert rows(table)[1][3:] == ("1", "0.500", "0.250")


def test_no_evaluated_run_makes_tables_without_rows(pool):
    for make in (calibration_table, scaling_table, separation_table):
        table = make(pool, {})
        assert (table.blocks, len(table.frame)) == ((), 0)
        assert "Not finished: cub200/resnet18/cs-kd/seed0 failed." in table.notes
