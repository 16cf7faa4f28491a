"""Our means of every cell beside the paper's."""

import math

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from analysis.load.frames import CELL_MARKS, DONE, NAME, Experiment
from analysis.load.pools import PAPER, Pool
from analysis.paper.published import BASELINE, published
from analysis.stats.comparability import comparability
from analysis.stats.intervals import QUANTILE, Estimate
from analysis.stats.summary import relative_change, summary
from cskd.evaluate.metrics import TRACKED, Metric

PAPER_SEEDS = 3
AGREES, DIFFERS = "agrees", "differs"
NO_STD = "the paper has no std: not judged"
NO_VALUE = "no value"  # the status of a cell whose finished runs have no finite value
COLUMNS = (
    *(*NAME, "metric", "paper_mean", "paper_std"),
    *(f"{epoch}_{part}" for epoch in ("last", "best") for part in ("mean", "std", "n", "difference", "judgement")),
)


def cell_means(experiment: Experiment, *metrics: Metric) -> pd.DataFrame:
    """Return one row per metric and cell: mean, std and number of seeds, at the last and at the best test epoch.

    ``paper_mean``, ``paper_std``: NaN unless the cell is comparable; the columns are absent if the paper has no number
    for any cell. ``relative_change``: of the last epoch against cross-entropy, if the settings are equal. ``status``:
    why a cell has no number.
    """
    compared = comparability(experiment)
    columns = ["cell_key", "state", "seed", *(name for metric in metrics for name in (metric.last, metric.best))]
    values = experiment.runs.filter(items=columns)  # a selection of a few columns is much faster to divide
    runs = dict(list(values.groupby("cell_key", sort=False)))
    records = []
    for cell in experiment.cells.itertuples():
        seeds = runs.get(cell.cell_key, values[:0])
        done = seeds[seeds.state == DONE]
        is_comparable, reason = compared.loc[cell.cell_key]
        planned = len({*cell.seeds_planned, *seeds.seed})
        for metric in metrics:
            number = published(cell.architecture, cell.dataset, cell.method, metric.name) if is_comparable else None
            record = {part: getattr(cell, part) for part in ("profile", "architecture", "dataset", "method")}
            record |= {"metric": metric.name}
            record |= dict(zip(("paper_mean", "paper_std"), number or (np.nan, np.nan), strict=True))
            record |= {mark: getattr(cell, mark) for mark in CELL_MARKS}
            last = summary(done.get(metric.last, []))
            record |= {"last_mean": last.mean, "last_std": last.std, "n": last.n}
            best = summary(done.get(metric.best, []) if metric.at_best_epoch else [])
            record |= {"best_mean": best.mean, "best_std": best.std, "best_n": best.n}
            record |= {"seeds_planned": planned, "relative_change": np.nan, "status": _status(seeds, last.n)}
            records.append(
                record
                | {
                    "comparable": is_comparable,
                    "comparable_reason": reason,
                    "settings": experiment.settings.get(cell.cell_key, {}),
                }
            )
    frame = _with_relative_changes(pd.DataFrame(records))
    unused = [mark for mark in CELL_MARKS if (frame[mark] == "").all()]
    unused += ["paper_mean", "paper_std"] if frame.paper_mean.isna().all() else []
    unused += [] if any(metric.at_best_epoch for metric in metrics) else ["best_mean", "best_std", "best_n"]
    return frame.drop(columns=unused)


def _status(seeds: pd.DataFrame, n: int) -> str:
    """Return "done" if the cell has a number, else the state of its most advanced seed."""
    if n:
        return DONE
    if (seeds.state == DONE).any():
        return NO_VALUE
    return next((state for state in ("running", "failed", "interrupted") if (seeds.state == state).any()), "not run")


def _with_relative_changes(frame: pd.DataFrame) -> pd.DataFrame:
    baselines = {
        (row.metric, row.architecture, row.dataset): row for row in frame.itertuples() if row.method == BASELINE
    }
    for row in frame[frame.method != BASELINE].itertuples():
        baseline = baselines.get((row.metric, row.architecture, row.dataset))
        if baseline is not None and row.settings == baseline.settings:
            frame.loc[row.Index, "relative_change"] = relative_change(row.last_mean, baseline.last_mean)
    return frame.drop(columns="settings")


def against_paper(pool: Pool) -> pd.DataFrame:
    """Return one row per cell and metric that the paper reports; no row unless the pool is the paper's recipe.

    ``last_...`` is our last epoch. ``best_...`` is the best test epoch, the protocol of the paper's released code (NaN
    and "" if the metric is not computed at every epoch). Difference: ours minus the paper's. Judgement: AGREES or
    DIFFERS at the 95 % level, from the mean and std (ddof=1) of both.
    """
    frame = cell_means(pool, *TRACKED) if pool.name == PAPER else pd.DataFrame()
    if "paper_mean" not in frame:
        return pd.DataFrame(columns=list(COLUMNS))
    frame = frame.rename(columns={"n": "last_n"})
    frame = frame[frame.status.isin([DONE, NO_VALUE]) & frame.paper_mean.notna()].copy()
    for epoch in ("last", "best"):
        frame[f"{epoch}_difference"] = frame[f"{epoch}_mean"] - frame.paper_mean
        numbers = [f"{epoch}_n", f"{epoch}_std", f"{epoch}_difference", "paper_std"]
        frame[f"{epoch}_judgement"] = [_judgement(*row) for row in frame[numbers].itertuples(index=False)]
    return frame[list(COLUMNS)].reset_index(drop=True)


def _judgement(n: int, std: float, difference: float, paper_std: float) -> str:
    """Return whether our mean of n seeds agrees with the paper's: the 95 % interval of the difference includes 0.

    It is Welch's interval; for one seed, the prediction interval of one more run of the paper's.
    """
    if not n:
        return ""
    if math.isnan(paper_std):
        return NO_STD
    if n == 1:
        half = stdtrit(PAPER_SEEDS - 1, QUANTILE) * paper_std * math.sqrt(1 + 1 / PAPER_SEEDS)
        return AGREES if abs(difference) <= half else DIFFERS
    return DIFFERS if Estimate(difference, (std**2, paper_std**2), (n, PAPER_SEEDS)).excludes_zero else AGREES
