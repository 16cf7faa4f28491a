"""The paper's figure 4 as a table: one network on several domains merged, how often it stays within an image's own."""

import dataclasses

import numpy as np

from analysis.load.pools import PAPER, Pool
from analysis.paper.panels import Panel
from analysis.paper.published import figure4_numbers
from analysis.paper.stacked import stacked_table
from analysis.tables.model import Table
from cskd.evaluate.metrics import DOMAIN_ACCURACIES, DOMAIN_ERRORS, DOMAINS

HEADERS = {"cub200": "bird (cub200)", "dogs": "dog (dogs)", "mit67": "indoor (mit67)"}
MEANING = (
    "Domain accuracy: the share of a domain's images whose predicted class, of all classes, is one of the domain's."
)
BLOCKS = (DOMAIN_ACCURACIES, DOMAIN_ERRORS)


def domain_table(pool: Pool) -> Table | None:
    """Domain accuracy and error of each domain of the merged set, the paper's beside where the pool is of its recipe.

    A block for each metric and architecture. None where another pool than the paper's has launched nothing of it.
    """
    numbers = figure4_numbers()
    [dataset], methods = numbers.dataset.unique(), tuple(numbers.method.unique())
    architectures = numbers.architecture.unique()
    if pool.name != PAPER:
        cells = pool.cells[(pool.cells.dataset == dataset) & pool.cells.method.isin(methods)]
        architectures = cells.architecture.unique()
        if not len(architectures):
            return None
    panels = [
        Panel(
            f"{metrics[DOMAINS[0]].label}, {architecture}",
            methods,
            {header: (metrics[domain], architecture, dataset) for domain, header in HEADERS.items()},
        )
        for architecture in architectures
        for metrics in BLOCKS
    ]
    return stacked_table("Figure 4: Merged domains", panels, _with_metrics(pool), (MEANING,))


def _with_metrics(pool: Pool) -> Pool:
    """With a column for every metric, NaN where no run has it: runs of other datasets have no domains."""
    names = [name for metrics in BLOCKS for metric in metrics.values() for name in (metric.last, metric.best)]
    untracked = [name for name in names if name not in pool.runs]
    return dataclasses.replace(pool, runs=pool.runs.assign(**dict.fromkeys(untracked, np.nan)))
