"""The paper's tables 1 to 6, put together from all runs of a pool, whatever grid launched them."""

import dataclasses

from analysis.load.pools import PAPER, Pool
from analysis.paper.panels import Panel
from analysis.paper.published import figure4_numbers, published_numbers
from analysis.paper.stacked import stacked_table
from analysis.tables.metrics import BASELINE
from analysis.tables.model import Table
from cskd.evaluate.metrics import TRACKED, Metric

TITLES = {
    1: "Output regularisation",
    2: "Self-distillation",
    3: "Mixup",
    4: "Knowledge distillation",
    5: "ImageNet",
    6: "Top-5 error, ECE and R@1",
}
IMAGENET = 5  # this table's dataset, and its numbers of one decimal


def paper_tables(pool: Pool) -> dict[int, Table]:
    """The tables by number; of another pool than the paper's those that ``paper_table`` has something of."""
    tables = {number: paper_table(number, pool) for number in TITLES}
    return {number: table for number, table in tables.items() if table is not None}


def paper_table(number: int, pool: Pool) -> Table | None:
    """A table of the paper, blocks, rows and columns as there.

    In the pool of the paper's recipe every cell is shown, beside the paper's number. Of another pool the datasets and
    architectures that it has are, without the paper's numbers; None where no method but cross-entropy was launched.
    """
    numbers = published_numbers()
    numbers = numbers[numbers.table == str(number)]
    methods, datasets, architectures = (tuple(numbers[name].unique()) for name in ("method", "dataset", "architecture"))
    if pool.name != PAPER:
        datasets, architectures = _launched(number, pool, methods, datasets)
        if not datasets:
            return None
    panels = [
        Panel(
            f"{metric.label}, {architecture}",
            methods,
            {dataset: (metric, architecture, dataset) for dataset in datasets},
        )
        for metric in _metrics(number, numbers.metric.unique())
        for architecture in architectures
    ]
    return stacked_table(f"Table {number}: {TITLES[number]}", panels, pool)


def _metrics(number: int, names: list[str]) -> list[Metric]:
    metrics = {metric.name: metric for metric in TRACKED}
    found = [metrics[name] for name in names]
    return [dataclasses.replace(metric, decimals=1) for metric in found] if number == IMAGENET else found


def _launched(
    number: int, pool: Pool, methods: tuple[str, ...], datasets: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The datasets, the paper's first, and architectures of a pool that stand in a table; none if there is no method.

    An architecture is one whose cross-entropy the table's own grid has launched (a teacher's was not); if there is
    none, one with cross-entropy in any grid.
    """
    cells = pool.cells[pool.cells.method.isin(methods)]
    cells = cells[~cells.dataset.isin(figure4_numbers().dataset)]  # that has a table of its own
    if number == IMAGENET:
        cells = cells[cells.dataset.isin(datasets)]
    baselines = cells[cells.method == BASELINE]
    own = baselines[[f"table{number}" in grids for grids in baselines.grids]]
    architectures = tuple(dict.fromkeys((own if len(own) else baselines).architecture))
    cells = cells[cells.architecture.isin(architectures)]
    if (cells.method == BASELINE).all():
        return (), ()
    found = set(cells.dataset)
    order = dict.fromkeys([*datasets, *cells.dataset])
    return tuple(dataset for dataset in order if dataset in found), architectures
