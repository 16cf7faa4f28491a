"""Calibration beyond the paper: further metrics with intervals, temperature scaling, further measures."""

from collections.abc import Iterable

import pandas as pd

from analysis.load.frames import NAME
from analysis.load.pools import Pool
from analysis.stats.evaluation import RAW, RESAMPLES, SCALINGS, Evaluation
from analysis.stats.intervals import mean_interval
from analysis.stats.summary import finite, summary
from analysis.tables.format import interval_text
from analysis.tables.model import Column, Table, plain_table
from analysis.tables.provenance import footer
from cskd.evaluate.metrics import RESCALED, UNSCALED, Metric
from cskd.utils.numbers import MEAN_STD, mean_std_text, number_text

TOP1_ERROR = "top1_error"  # is equal at every temperature
INTERVALS = (
    "Mean over n seeds, last epoch [95 % interval over seeds and test images: Satterthwaite's t, the images' part by "
    f"{RESAMPLES} bootstrap resamples stratified by class]. One seed has no interval."
)
DEFINITIONS = (
    "ECE: 20 bins of equal width. Adaptive ECE: 20 bins of equally many images. Class-wise ECE: the mean over classes "
    "of the ECE of that class's probability."
)
SCALED = (
    f"{MEAN_STD.capitalize()} over n seeds. None: unscaled. T > 1 softens, T < 1 sharpens. Training split: T is fitted "
    "to the run's own training images without augmentation, which the network has learnt. Cross-fitted: T is fitted to "
    "one half of the test images and used on the other half, and vice versa. No image is scaled by a temperature that "
    "was fitted to it, but the test set has been used."
)
MEASURES = (
    "Feature spread: mean distance of a test image's features to the mean of its class, over the mean distance "
    "between class means; lower: tighter classes. Prediction variance: mean squared distance of a class's probability "
    "vectors to their mean (0 to 1). NLL after temperature scaling: the temperature is fitted to training images that "
    "the run did not use, or else cross-fitted. ECE of a calibrated network: with the same confidences, and labels "
    "drawn from the predicted probabilities. AURC: the error of the n most confident images, averaged over all n. "
    "AUROC of error detection: how often a right prediction is more confident than a wrong one. Errors within the "
    "superclass: CIFAR-100 only; by chance they are 4 % of the errors. "
    f"{MEAN_STD} over n seeds."
)

Evaluations = dict[str, Evaluation]


def calibration_metrics(evaluations: Evaluations) -> list[Metric]:
    """Return the metrics of the evaluations that temperature scaling can change."""
    names = {name for evaluation in evaluations.values() for name in evaluation.metrics[RAW]}
    return [metric for metric in RESCALED if metric.name in names and metric.name != TOP1_ERROR]


def calibration_table(pool: Pool, evaluations: Evaluations) -> Table:
    """Return one row per cell with evaluated runs: each metric with its interval."""
    metrics = calibration_metrics(evaluations)
    rows, records = [], []
    for cell, runs in _evaluated(pool, evaluations):
        texts, record = [], dict(zip(NAME, cell, strict=True)) | {"n": len(runs)}
        for metric in metrics:
            values = [run.metrics[RAW][metric.name] for run in runs]
            replicates = [run.replicates[metric.name] for run in runs if metric.name in run.replicates]
            estimate = mean_interval(values, replicates if len(replicates) == len(runs) else None)
            low, high = estimate.interval
            record |= {metric.name: estimate.value, f"{metric.name}_low": low, f"{metric.name}_high": high}
            mean, interval = number_text(estimate.value, metric.decimals), interval_text((low, high), metric.decimals)
            texts.append(f"{mean} {interval}".rstrip())
        rows.append((*cell, str(len(runs)), *texts))
        records.append(record)
    return _table("Calibration", pool, ("n",), _headers(metrics), rows, records, (INTERVALS, DEFINITIONS))


def scaling_table(pool: Pool, evaluations: Evaluations) -> Table:
    """Return one row per cell and scaling: every metric before and after temperature scaling."""
    metrics = calibration_metrics(evaluations)
    rows, records = [], []
    for cell, runs in _evaluated(pool, evaluations):
        for scaling in SCALINGS:
            scaled = [run for run in runs if scaling in run.metrics]
            if not scaled:
                continue
            record = dict(zip(NAME, cell, strict=True)) | {"temperature": scaling, "n": len(scaled)}
            temperatures = [run.temperatures[scaling] for run in scaled] if scaling != RAW else []
            texts = [_mean_std(record, "T", temperatures, 2)]
            for metric in metrics:
                values = [run.metrics[scaling][metric.name] for run in scaled]
                texts.append(_mean_std(record, metric.name, values, metric.decimals))
            rows.append((*cell, scaling, str(len(scaled)), *texts))
            records.append(record)
    headers = ("T", *_headers(metrics))
    return _table("After temperature scaling", pool, ("temperature", "n"), headers, rows, records, (SCALED,))


def measures_table(pool: Pool, evaluations: Evaluations) -> Table:
    """Return one row per cell: the measures that are computed from stored predictions, without scaling."""
    rows, records = [], []
    for cell, runs in _evaluated(pool, evaluations):
        record = dict(zip(NAME, cell, strict=True)) | {"n": len(runs)}
        texts = [
            _mean_std(record, metric.name, [run.stored[metric.name] for run in runs], metric.decimals)
            for metric in UNSCALED
        ]
        rows.append((*cell, str(len(runs)), *texts))
        records.append(record)
    headers = [metric.label for metric in UNSCALED]
    return _table("Further measures", pool, ("n",), headers, rows, records, (MEASURES,))


def _mean_std(record: dict, name: str, values: list[float], decimals: int) -> str:
    """Add the mean and std of the finite values to the record; return them as text."""
    seeds = summary(finite(values))
    record |= {name: seeds.mean, f"{name}_std": seeds.std}
    return mean_std_text(seeds.mean, seeds.std, decimals)


def _evaluated(pool: Pool, evaluations: Evaluations) -> Iterable[tuple[tuple[str, ...], list[Evaluation]]]:
    """Yield ((dataset, architecture, method), evaluations by seed) of each cell that has any."""
    for cell in pool.cells[NAME].itertuples(index=False, name=None):
        runs = [evaluations[key] for key in pool.runs_of(*cell).run_key if key in evaluations]
        if runs:
            yield cell, runs


def _headers(metrics: list[Metric]) -> list[str]:
    return [metric.label for metric in metrics]


def _table(title: str, pool: Pool, texts, numbers, rows, records, notes) -> Table:
    columns = [Column(name) for name in ("dataset", "network", "method", *texts)]
    columns += [Column(name, number=True) for name in numbers]
    return plain_table(f"{title}, {pool.name}", columns, rows, pd.DataFrame(records), (*notes, *footer(pool)))
