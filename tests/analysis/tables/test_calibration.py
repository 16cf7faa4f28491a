"""The tables of calibration, temperature scaling and further measures, from evaluated made-up runs."""

import numpy as np
import pytest
from builders import make_pool, predictions_of

from analysis.stats.intervals import mean_interval
from analysis.tables.calibration import METRICS, calibration_table, measures_table, scaling_table
from cskd.evaluate.bootstrap import resampling_weights
from cskd.evaluate.evaluate_run import evaluate
from cskd.evaluate.evaluation import CROSS_FITTED, RAW
from cskd.evaluate.metrics import UNSCALED, all_metrics
from cskd.utils.numbers import ABSENT, mean_std_text


@pytest.fixture(scope="module")
def pool():
    cells = {"cifar100/resnet18/cross-entropy": {0: 24.0, 1: 25.0, 2: 26.0}, "cifar100/resnet18/cs-kd": {0: 22.0}}
    return make_pool(cells | {"cub200/resnet18/cs-kd": {0: "failed"}})


@pytest.fixture(scope="module")
def evaluations(pool):
    found = {}
    for number, key in enumerate(pool.done.run_key):
        predictions = predictions_of(number, scale=3)
        found[key] = evaluate(predictions, resampling_weights(predictions.labels, 50))
    return found


def rows(table):
    return [row for block in table.blocks for group in block.groups for row in group]


def mean_std(values, decimals):
    return mean_std_text(np.mean(values), np.std(values, ddof=1), decimals)


def test_metrics_have_the_interval_over_seeds_and_images(pool, evaluations):
    table = calibration_table(pool, evaluations)
    first, second = table.frame.itertuples()
    *runs, alone = evaluations.values()
    ece = [run.metrics[RAW]["ece"] for run in runs]
    expected = mean_interval(ece, [run.replicates["ece"] for run in runs])
    assert (first.ece, first.ece_low, first.ece_high) == (np.mean(ece), *expected.interval)
    assert first.ece_low < first.ece < first.ece_high
    assert "top1_error" not in table.frame
    interval = f"{first.ece:.2f} [{first.ece_low:.2f}, {first.ece_high:.2f}]"
    assert [row[:5] for row in rows(table)] == [
        ("cifar100", "resnet18", "cross-entropy", "3", interval),
        ("cifar100", "resnet18", "cs-kd", "1", f"{alone.metrics[RAW]['ece']:.2f}"),
    ]
    assert np.isnan(second.ece_low)


def test_scaling_and_measures_have_mean_and_std_over_seeds(pool, evaluations):
    runs = list(evaluations.values())[:3]

    def texts(scaling):
        return [mean_std([run.metrics[scaling][metric.name] for run in runs], metric.decimals) for metric in METRICS]

    none, crossed, *_ = rows(scaling_table(pool, evaluations))
    temperature = mean_std([run.temperatures[CROSS_FITTED] for run in runs], 2)
    assert none[3:] == ("none", "3", ABSENT, *texts(RAW))
    assert crossed[3:] == ("cross-fitted", "3", temperature, *texts(CROSS_FITTED))
    first, _ = rows(measures_table(pool, evaluations))
    measures = dict(zip((metric.name for metric in UNSCALED), first[4:], strict=True))
    for name in ("feature_spread", "scaled_nll"):
        assert measures[name] == mean_std([run.stored[name] for run in runs], all_metrics()[name].decimals)


@pytest.mark.parametrize("make", [calibration_table, measures_table, scaling_table])
def test_tables_without_evaluated_runs_have_no_rows(pool, make):
    table = make(pool, {})
    assert (table.blocks, len(table.frame)) == ((), 0)
    assert "Not finished: cub200/resnet18/cs-kd/seed0 failed." in table.notes
