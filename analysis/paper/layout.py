"""The layout of the paper's tables 1 to 6 and figure 4: which cells each has, filled from a pool of runs."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.load.frames import CELL_MARKS
from analysis.load.pools import PAPER, Pool
from analysis.paper.against_paper import cell_means
from analysis.paper.published import BASELINE, FIGURE4, figure4_numbers, published, published_numbers
from analysis.stats.summary import relative_change
from cskd.evaluate.metrics import DOMAIN_ACCURACIES, DOMAIN_ERRORS, Metric, all_metrics

TITLES = {
    "table1": "Output regularisation",
    "table2": "Self-distillation",
    "table3": "Mixup",
    "table4": "Knowledge distillation",
    "table5": "ImageNet",
    "table6": "Top-5 error, ECE and R@1",
    FIGURE4: "Merged domains",
}
IMAGENET = "table5"  # has its own dataset, and numbers with one decimal
DOMAIN_HEADERS = {"cub200": "bird (cub200)", "dogs": "dog (dogs)", "mit67": "indoor (mit67)"}

COLUMN = ["metric", "architecture", "dataset"]
CELL = [*COLUMN, "method"]
MEANS = ["last_mean", "last_std", "n", "best_mean", "best_std", "best_n", "relative_change", "seeds_planned"]
STATUS = ["status", "comparable", "comparable_reason"]


@dataclass(frozen=True)
class Panel:
    """One block of a table. ``columns``: (metric, architecture, dataset) by header. One row per method."""

    heading: str
    methods: tuple[str, ...]
    columns: dict[str, tuple[Metric, str, str]]


@dataclass(frozen=True)
class Layout:
    """A table of the paper; all panels have the same headers."""

    title: str
    panels: tuple[Panel, ...]

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metrics by name, in the order of the panels."""
        return {metric.name: metric for panel in self.panels for metric, _, _ in panel.columns.values()}

    @property
    def cells(self) -> pd.DataFrame:
        """One row per cell: panel by panel, row by row."""
        cells = [
            (metric.name, architecture, dataset, method)
            for panel in self.panels
            for method in panel.methods
            for metric, architecture, dataset in panel.columns.values()
        ]
        return pd.DataFrame(cells, columns=CELL)

    def part_of(self, pool: Pool) -> Pool:
        """Return the cells of the pool that the table shows, with their runs."""
        cells = pool.cells.merge(self.cells[CELL[1:]].drop_duplicates(), how="left", on=CELL[1:], indicator=True)
        return pool.part(pool.cells[(cells._merge == "both").to_numpy()])


def layouts(pool: Pool) -> dict[str, Layout]:
    """Return the tables that the pool fills, by name.

    The pool of the paper's own recipe fills all of them, run or not. Another pool fills a table with its own datasets
    and architectures, if it has a method of the table besides cross-entropy.
    """
    all_layouts = {name: _figure4(pool) if name == FIGURE4 else _table(name, pool) for name in TITLES}
    return {name: layout for name, layout in all_layouts.items() if layout.panels}


def _table(name: str, pool: Pool) -> Layout:
    number = name.removeprefix("table")
    numbers = published_numbers()[lambda rows: rows.table == number]
    methods, datasets, architectures = (tuple(numbers[part].unique()) for part in ("method", "dataset", "architecture"))
    if pool.name != PAPER:
        datasets, architectures = _launched(name, pool, methods, datasets)
    metrics = [all_metrics()[metric] for metric in numbers.metric.unique()]
    if name == IMAGENET:
        metrics = [dataclasses.replace(metric, decimals=1) for metric in metrics]
    panels = [
        Panel(
            f"{metric.label}, {architecture}",
            methods,
            {dataset: (metric, architecture, dataset) for dataset in datasets},
        )
        for metric in metrics
        for architecture in architectures
    ]
    return Layout(f"Table {number}: {TITLES[name]}", tuple(panels))


def _launched(
    name: str, pool: Pool, methods: tuple[str, ...], datasets: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the datasets (the paper's first) and the architectures of a pool that belong in a table.

    An architecture belongs in the table if the table's own grid launched cross-entropy with it. This excludes the
    teacher's architecture. If there is no such architecture, cross-entropy in any grid is enough.
    """
    cells = pool.cells[pool.cells.method.isin(methods) & ~pool.cells.dataset.isin(figure4_numbers().dataset)]
    if name == IMAGENET:
        cells = cells[cells.dataset.isin(datasets)]
    baselines = cells[cells.method == BASELINE]
    of_grid = baselines[[name in grids for grids in baselines.grids]]
    architectures = tuple(dict.fromkeys((of_grid if len(of_grid) else baselines).architecture))
    cells = cells[cells.architecture.isin(architectures)]
    if (cells.method == BASELINE).all():
        return (), ()
    present = set(cells.dataset)
    return tuple(dataset for dataset in dict.fromkeys([*datasets, *cells.dataset]) if dataset in present), architectures


def _figure4(pool: Pool) -> Layout:
    """Return figure 4 as a table: one panel per metric and architecture, one column per domain."""
    numbers = figure4_numbers()
    [dataset], methods, architectures = numbers.dataset.unique(), tuple(numbers.method.unique()), numbers.architecture
    if pool.name != PAPER:
        architectures = pool.cells[(pool.cells.dataset == dataset) & pool.cells.method.isin(methods)].architecture
    panels = [
        Panel(
            f"{metrics['cub200'].label}, {architecture}",
            methods,
            {header: (metrics[domain], architecture, dataset) for domain, header in DOMAIN_HEADERS.items()},
        )
        for architecture in architectures.unique()
        for metrics in (DOMAIN_ACCURACIES, DOMAIN_ERRORS)
    ]
    return Layout(f"Figure 4: {TITLES[FIGURE4]}", tuple(panels))


def layout_frame(layout: Layout, pool: Pool) -> pd.DataFrame:
    """Return one row per cell of the layout, as numbers. ``pool``: from ``layout.part_of``.

    ``difference``, ``best_difference``: our last and our best test epoch minus the paper's mean. ``relative_change``,
    ``paper_relative_change``: against cross-entropy, as fractions. ``bold``, ``paper_bold``: the mean, as printed, is
    the best of its column. The paper's numbers are present only in the pool of its recipe, for comparable cells and
    for cells that were not launched.
    """
    frame = layout.cells
    if len(pool.cells):
        frame = frame.merge(cell_means(pool, *layout.metrics.values()), how="left", on=CELL)
    frame = frame.reindex(columns=[*CELL, *CELL_MARKS, *MEANS, *STATUS])
    absent = {"n": 0, "best_n": 0, "status": "not run", "comparable": True, "comparable_reason": ""}
    kinds = dict.fromkeys(frame.columns, object) | dict.fromkeys(MEANS, float)
    frame = frame.astype(kinds).fillna(absent | dict.fromkeys(CELL_MARKS, ""))
    frame = frame.astype({"n": int, "best_n": int, "comparable": bool})
    frame.insert(0, "pool", pool.name)
    frame["bold"] = _is_best(frame, frame.last_mean, layout.metrics)
    if pool.name == PAPER:
        frame = _with_paper(frame, layout.metrics)
    return frame.drop(columns=[mark for mark in CELL_MARKS if (frame[mark] == "").all()])


def _with_paper(frame: pd.DataFrame, metrics: dict[str, Metric]) -> pd.DataFrame:
    def means(methods: Iterable[str]) -> np.ndarray:
        cells = zip(frame.architecture, frame.dataset, methods, frame.metric, strict=True)
        return np.array([published(*cell) or (np.nan, np.nan) for cell in cells]).T

    (mean, std), (baseline, _) = means(frame.method), means([BASELINE] * len(frame))
    change = np.array([relative_change(*pair) for pair in zip(mean, baseline, strict=True)])
    shown = frame.comparable
    frame = frame.assign(
        paper_mean=np.where(shown, mean, np.nan),
        paper_std=np.where(shown, std, np.nan),
        difference=lambda rows: rows.last_mean - rows.paper_mean,
        best_difference=lambda rows: rows.best_mean - rows.paper_mean,
        paper_relative_change=np.where(shown & (frame.method != BASELINE), change, np.nan),
        # the best of all the paper's numbers, including hidden ones
        paper_bold=_is_best(frame, mean, metrics) & shown,
    )
    first = ["pool", *CELL, "paper_mean", "paper_std", *CELL_MARKS, *MEANS[:6], "difference", "best_difference"]
    return frame[[*first, *(name for name in frame if name not in first)]]


def _is_best(frame: pd.DataFrame, means: Iterable[float], metrics: dict[str, Metric]) -> pd.Series:
    """Return whether each mean, as printed, is the best of two or more in its column (NaN: absent; ties are best)."""
    printed = [float(f"{mean:.{metrics[name].decimals}f}") for mean, name in zip(means, frame.metric, strict=True)]
    signs = frame.metric.map({name: 1 if metric.higher_is_better else -1 for name, metric in metrics.items()})
    scores = signs * printed
    columns = scores.groupby([frame[name] for name in COLUMN], sort=False)
    return (scores == columns.transform("max")) & (columns.transform("count") > 1)
