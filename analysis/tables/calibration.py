"""Calibration beyond the paper: other measures of it, intervals, and what is left of a difference after scaling."""

import math

import pandas as pd

from analysis.load.frames import NAME
from analysis.load.pools import Pool
from analysis.stats.evaluation import RAW, RESAMPLES, SCALINGS, Evaluation
from analysis.stats.intervals import Estimate, mean_interval
from analysis.stats.summary import Summary, finite, summary
from analysis.tables.model import ABSENT, Block, Column, Table
from analysis.tables.provenance import footer

MEASURES = {
    "ece": ("ECE", 2),
    "adaptive_ece": ("adaptive ECE", 2),
    "classwise_ece": ("class-wise ECE", 2),
    "nll": ("NLL", 3),
    "brier": ("Brier", 3),
}
INTERVALS = (
    "Mean over n seeds, last epoch [95 % interval over seeds and test images: Satterthwaite's t, the images' part by "
    f"{RESAMPLES} bootstrap resamples stratified by class]. One seed has no interval."
)
DEFINITIONS = (
    "ECE: 20 bins of equal width. Adaptive ECE: 20 bins of equally many images. Class-wise ECE: the mean over classes "
    "of the ECE of that class's probability. ECEs in percent, NLL in nats, Brier from 0 to 2."
)
SCALED = (
    "Mean ± std (ddof=1) over n seeds. None: as it is. T > 1 softens, T < 1 sharpens. Training split: T fitted to the "
    "run's own training images without augmentation, which the network has learnt. Cross-fitted: T fitted to one half "
    "of the test images and used on the other, and the other way round: no image is scaled by a temperature that was "
    "fitted to it, yet the test set has been used."
)
TIGHTNESS = (
    "Feature spread: mean distance of a test image's features to the mean of its class, over the mean distance "
    "between class means; lower: tighter classes. Prediction variance: mean squared distance of a class's probability "
    "vectors to their mean (0 to 1). Mean ± std (ddof=1) over n seeds."
)

Evaluations = dict[str, Evaluation]


def calibration_table(pool: Pool, found: Evaluations) -> Table:
    """A row a cell with evaluated runs: each measure with its interval."""
    columns = [*_columns("n"), *(Column(title, number=True) for title, _ in MEASURES.values())]
    rows, records = [], []
    for name, runs in _evaluated(pool, found):
        texts, record = [], dict(zip(NAME, name, strict=True)) | {"n": len(runs)}
        for measure, (_, decimals) in MEASURES.items():
            values = [one.metrics[RAW][measure] for one in runs]
            estimate = mean_interval(values, [one.replicates[measure] for one in runs])
            low, high = estimate.interval
            record |= {measure: estimate.value, f"{measure}_low": low, f"{measure}_high": high}
            texts.append(_interval_text(estimate, decimals))
        rows.append((*name, str(len(runs)), *texts))
        records.append(record)
    return _table("Calibration", pool, columns, rows, records, (INTERVALS, DEFINITIONS))


def scaling_table(pool: Pool, found: Evaluations) -> Table:
    """A row a cell and scaling: every measure as it is, and after temperature scaling: is it only the temperature?"""
    columns = [*_columns("temperature", "n"), Column("T", number=True)]
    columns += [Column(title, number=True) for title, _ in MEASURES.values()]
    rows, records = [], []
    for name, runs in _evaluated(pool, found):
        for scaling in SCALINGS:
            scaled = [one for one in runs if scaling in one.metrics]
            if not scaled:  # a run of an earlier version kept no training images
                continue
            fitted = summary([one.temperatures[scaling] for one in scaled] if scaling != RAW else [])
            texts = [_summary_text(fitted, 2)]
            record = dict(zip(NAME, name, strict=True)) | {"temperature": scaling, "n": len(scaled)}
            record |= {"T": fitted.mean, "T_std": fitted.std}
            for measure, (_, decimals) in MEASURES.items():
                of_seeds = summary([one.metrics[scaling][measure] for one in scaled])
                record |= {measure: of_seeds.mean, f"{measure}_std": of_seeds.std}
                texts.append(_summary_text(of_seeds, decimals))
            rows.append((*name, scaling, str(len(scaled)), *texts))
            records.append(record)
    return _table("After temperature scaling", pool, columns, rows, records, (SCALED,))


def separation_table(pool: Pool, found: Evaluations) -> Table:
    """A row a cell: how close together a class's features and predictions are."""
    columns = [*_columns("n"), Column("feature spread", number=True), Column("prediction variance", number=True)]
    rows, records = [], []
    for name, runs in _evaluated(pool, found):
        texts, record = [], dict(zip(NAME, name, strict=True)) | {"n": len(runs)}
        for measure in ("feature_spread", "prediction_variance"):
            of_seeds = summary(finite([one.separation[measure] for one in runs]))
            record |= {measure: of_seeds.mean, f"{measure}_std": of_seeds.std}
            texts.append(_summary_text(of_seeds, 3))
        rows.append((*name, str(len(runs)), *texts))
        records.append(record)
    return _table("Variation inside a class", pool, columns, rows, records, (TIGHTNESS,))


def _evaluated(pool: Pool, found: Evaluations) -> list[tuple[tuple[str, ...], list[Evaluation]]]:
    """((dataset, architecture, method), evaluations by seed) of each cell that has any, in the pool's order."""
    keys = pool.done.groupby("cell_key", sort=False).run_key.agg(list)
    cells = []
    for cell in pool.cells.itertuples():
        runs = [found[key] for key in keys.get(cell.cell_key, []) if key in found]
        if runs:
            cells.append(((cell.dataset, cell.architecture, cell.method), runs))
    return cells


def _columns(*more: str) -> list[Column]:
    return [Column(name) for name in ("dataset", "network", "method", *more)]


def _table(title: str, pool: Pool, columns, rows, records, notes) -> Table:
    blocks = (Block("", (tuple(rows),)),) if rows else ()
    return Table(f"{title}, {pool.name}", tuple(columns), blocks, pd.DataFrame(records), (), (*notes, *footer(pool)))


def _interval_text(estimate: Estimate, decimals: int) -> str:
    text = f"{estimate.value:.{decimals}f}"
    low, high = estimate.interval
    return text if math.isnan(low) else f"{text} [{low:.{decimals}f}, {high:.{decimals}f}]"


def _summary_text(of_seeds: Summary, decimals: int) -> str:
    if not of_seeds.n:
        return ABSENT
    text = f"{of_seeds.mean:.{decimals}f}"
    return text if math.isnan(of_seeds.std) else f"{text} ± {of_seeds.std:.{decimals}f}"
