"""Calibration beyond the paper: further metrics with intervals, temperature scaling, further measures."""

from collections.abc import Iterable

import pandas as pd

from analysis.load.frames import NAME
from analysis.load.pools import Pool
from analysis.stats.intervals import mean_interval
from analysis.stats.summary import summary
from analysis.tables.format import interval_text
from analysis.tables.model import Column, Table, plain_table
from analysis.tables.provenance import footer
from cskd.evaluate.evaluation import RAW, RESAMPLES, SCALINGS, Evaluation, Evaluations
from cskd.evaluate.metrics import RESCALED, UNSCALED, Metric
from cskd.utils.numbers import MEAN_STD, mean_std_text, number_text

# A temperature does not change the top-1 error.
METRICS = tuple(metric for metric in RESCALED if metric.name != "top1_error")
INTERVALS = (
    "Mean over n seeds after the last epoch. In brackets: the 95 % interval over seeds and test images, by "
    f"Satterthwaite's t, with the variance of the images from {RESAMPLES} bootstrap resamples stratified by class. One "
    "seed has no interval."
)
DEFINITIONS = (
    "ECE: 20 bins of equal width. Adaptive ECE: 20 bins of equally many images. Class-wise ECE: the mean over classes "
    "of the ECE of that class's probability."
)
SCALED = (
    f"{MEAN_STD.capitalize()} over n seeds. None: unscaled. T > 1 softens, T < 1 sharpens. Training split: T is fitted "
    "to the run's own training images without augmentation, on which the network over-fits. Cross-fitted: T is fitted "
    "to one half of the test images and used on the other half, and vice versa. No image is scaled by a temperature "
    "that was fitted to it, but the test set has been used."
)
MEASURES = (
    "Feature spread: mean distance of a test image's features to the mean of its class, over the mean distance "
    "between class means; a lower value means tighter classes. Prediction variance: mean squared distance of a class's "
    "probability vectors to their mean (0 to 1). NLL after temperature scaling: the temperature is fitted to training "
    "images that the run did not use; without such images it is cross-fitted. ECE of a calibrated network: of the same "
    "confidences, with labels drawn from the predicted probabilities. AURC: the error of the n most confident images, "
    "averaged over all n. AUROC of error detection: how often a right prediction is more confident than a wrong one. "
    "AUROC of unknown classes: how often a test image is more confident than one of a class that was left out. "
    "Errors within the superclass: CIFAR-100 only; by chance they are 4 % of the errors. "
    f"{MEAN_STD} over n seeds."
)


def calibration_table(pool: Pool, evaluations: Evaluations) -> Table:
    """Return one row per cell with evaluated runs: each metric with its interval."""
    rows = []
    for cell, runs in _evaluated(pool, evaluations):
        record, texts = cell | {"n": len(runs)}, []
        for metric in METRICS:
            values = [run.metrics[RAW][metric.name] for run in runs]
            replicates = [run.replicates[metric.name] for run in runs if metric.name in run.replicates]
            estimate = mean_interval(values, replicates if len(replicates) == len(runs) else None)
            low, high = estimate.interval
            record |= {metric.name: estimate.value, f"{metric.name}_low": low, f"{metric.name}_high": high}
            mean, interval = number_text(estimate.value, metric.decimals), interval_text((low, high), metric.decimals)
            texts.append(f"{mean} {interval}".rstrip())
        rows.append((record, texts))
    return _table("Calibration", pool, ("n",), _headers(METRICS), rows, (INTERVALS, DEFINITIONS))


def scaling_table(pool: Pool, evaluations: Evaluations) -> Table:
    """Return one row per cell and scaling: every metric before and after temperature scaling."""
    rows = []
    for cell, runs in _evaluated(pool, evaluations):
        for scaling in SCALINGS:
            scaled = [run for run in runs if scaling in run.metrics]
            if not scaled:
                continue
            record = cell | {"temperature": scaling, "n": len(scaled)}
            temperatures = [run.temperatures[scaling] for run in scaled] if scaling != RAW else []
            texts = [_mean_std(record, "T", temperatures, 2)]
            for metric in METRICS:
                values = [run.metrics[scaling][metric.name] for run in scaled]
                texts.append(_mean_std(record, metric.name, values, metric.decimals))
            rows.append((record, texts))
    headers = ("T", *_headers(METRICS))
    return _table("After temperature scaling", pool, ("temperature", "n"), headers, rows, (SCALED,))


def measures_table(pool: Pool, evaluations: Evaluations) -> Table:
    """Return one row per cell: the measures that are computed from stored predictions, without scaling."""
    rows = []
    for cell, runs in _evaluated(pool, evaluations):
        record, texts = cell | {"n": len(runs)}, []
        for metric in UNSCALED:
            values = [run.stored[metric.name] for run in runs]
            texts.append(_mean_std(record, metric.name, values, metric.decimals))
        rows.append((record, texts))
    return _table("Further measures", pool, ("n",), _headers(UNSCALED), rows, (MEASURES,))


def _mean_std(record: dict, name: str, values: list[float], decimals: int) -> str:
    """Add the mean and std of the finite values to the record; return them as text."""
    seeds = summary(values)
    record |= {name: seeds.mean, f"{name}_std": seeds.std}
    return mean_std_text(seeds.mean, seeds.std, decimals)


def _evaluated(pool: Pool, evaluations: Evaluations) -> Iterable[tuple[dict[str, str], list[Evaluation]]]:
    """Yield (dataset, architecture and method by name, evaluations by seed) of each cell that has any."""
    for cell in pool.cells[NAME].to_dict("records"):
        runs = [evaluations[key] for key in pool.runs_of(**cell).run_key if key in evaluations]
        if runs:
            yield cell, runs


def _headers(metrics: Iterable[Metric]) -> list[str]:
    return [metric.label for metric in metrics]


def _table(title: str, pool: Pool, names, numbers, rows, notes) -> Table:
    """Return the table of rows (record, texts): the record's cell and ``names`` as columns, then the texts."""
    columns = [Column(name) for name in ("dataset", "network", "method", *names)]
    columns += [Column(name, number=True) for name in numbers]
    lines = [(*(str(record[name]) for name in (*NAME, *names)), *texts) for record, texts in rows]
    frame = pd.DataFrame([record for record, _ in rows])
    return plain_table(f"{title}, {pool.title}", columns, lines, frame, (*notes, *footer(pool)))
