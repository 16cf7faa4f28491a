"""The numbers of a table of the paper: every cell that it has, ours and the paper's, whether it was run or not."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.load.frames import CELL_MARKS
from analysis.load.pools import PAPER, Pool
from analysis.paper.published import published
from analysis.stats.summary import relative_change
from analysis.tables.metrics import BASELINE, metric_frame
from cskd.evaluate.metrics import Metric

COLUMN = ["metric", "architecture", "dataset"]
CELL = [*COLUMN, "method"]
NUMBERS = ["last_mean", "last_std", "n", "best_mean", "best_std", "best_n", "relative_change", "seeds_planned"]


@dataclass(frozen=True)
class Panel:
    """One block of a table: its methods, and by header what each of its columns is of."""

    heading: str
    methods: tuple[str, ...]
    columns: dict[str, tuple[Metric, str, str]]  # metric, architecture, dataset


def metrics_of(panels: Iterable[Panel]) -> dict[str, Metric]:
    """By name, in the order of the panels."""
    return {metric.name: metric for panel in panels for metric, _, _ in panel.columns.values()}


def part_of(pool: Pool, panels: Iterable[Panel]) -> Pool:
    """The cells and runs of a pool that the panels show."""
    wanted = {
        (architecture, dataset, method)
        for panel in panels
        for _, architecture, dataset in panel.columns.values()
        for method in panel.methods
    }
    names = zip(pool.cells.architecture, pool.cells.dataset, pool.cells.method, strict=True)
    return pool.part(pool.cells[np.array([name in wanted for name in names], dtype=bool)])


def panel_frame(panels: list[Panel], pool: Pool) -> pd.DataFrame:
    """A row a cell of the panels, in their order and in plain numbers; ``pool`` is the part of them.

    ``difference`` and ``best_difference``: last and best test epoch minus the paper's mean, in the metric's unit.
    ``relative_change``, ``paper_relative_change``: against cross-entropy, as fractions. ``bold``, ``paper_bold``:
    whether the mean, as printed, is the best of a column with several. What speaks of the paper is there only in the
    pool of its recipe, and its number only beside a cell that can be compared or that no grid has launched.
    """
    metrics = metrics_of(panels)
    cells = [
        (metric.name, architecture, dataset, method)
        for panel in panels
        for method in panel.methods
        for metric, architecture, dataset in panel.columns.values()
    ]
    frame = pd.DataFrame(cells, columns=CELL)
    if len(pool.cells):
        tracked = pd.concat([metric_frame(pool, metric) for metric in metrics.values()])
        frame = frame.merge(tracked, how="left", on=CELL)
    frame = frame.reindex(columns=[*CELL, *CELL_MARKS, *NUMBERS, "status", "comparable", "comparable_reason"])
    absent = {"n": 0, "best_n": 0, "status": "not run", "comparable": True, "comparable_reason": ""}
    absent |= dict.fromkeys(CELL_MARKS, "")
    kinds = dict.fromkeys(frame.columns, object) | dict.fromkeys(NUMBERS, float)
    frame = frame.astype(kinds).fillna(absent).astype({"n": int, "best_n": int})
    frame.insert(0, "pool", pool.name)
    frame["bold"] = _is_best(frame, frame.last_mean, metrics)
    if pool.name == PAPER:
        _add_paper(frame, metrics)
    return frame.drop(columns=[mark for mark in CELL_MARKS if (frame[mark] == "").all()])


def _add_paper(frame: pd.DataFrame, metrics: dict[str, Metric]) -> None:
    def numbers(methods: Iterable[str]) -> np.ndarray:
        cells = zip(frame.architecture, frame.dataset, methods, frame.metric, strict=True)
        return np.array([published(*cell) or (np.nan, np.nan) for cell in cells]).T

    (mean, std), (baseline, _) = numbers(frame.method), numbers([BASELINE] * len(frame))
    change = [relative_change(*pair) for pair in zip(mean, baseline, strict=True)]
    shown = frame.comparable.astype(bool)
    place = frame.columns.get_loc("method") + 1
    frame.insert(place, "paper_mean", np.where(shown, mean, np.nan))
    frame.insert(place + 1, "paper_std", np.where(shown, std, np.nan))
    place = frame.columns.get_loc("relative_change")
    frame.insert(place, "difference", frame.last_mean - frame.paper_mean)
    frame.insert(place + 1, "best_difference", frame.best_mean - frame.paper_mean)
    frame.insert(place + 3, "paper_relative_change", np.where(shown & (frame.method != BASELINE), change, np.nan))
    # the best of all that the paper has, not of those alone that stand beside ours
    frame["paper_bold"] = _is_best(frame, mean, metrics) & shown


def _is_best(frame: pd.DataFrame, means: Iterable[float], metrics: dict[str, Metric]) -> pd.Series:
    """Whether a mean (NaN: none) is the best of its column; all of those that print the same are."""
    printed = [float(f"{mean:.{metrics[name].decimals}f}") for mean, name in zip(means, frame.metric, strict=True)]
    signs = frame.metric.map({name: 1 if metric.higher_is_better else -1 for name, metric in metrics.items()})
    scores = signs * printed
    columns = scores.groupby([frame[name] for name in COLUMN], sort=False)
    return (scores == columns.transform("max")) & (columns.transform("count") > 1)
