"""The paper's figure 4 as a table: one network on several domains merged, how often it stays within an image's own."""

import dataclasses

import numpy as np

from analysis.metrics import Metric
from analysis.panels import Panel
from analysis.pool import PAPER, Pool
from analysis.published import figure4_numbers
from analysis.stacked import stacked_table
from analysis.table import Table

DOMAINS = {"cub200": "bird (cub200)", "dogs": "dog (dogs)", "mit67": "indoor (mit67)"}
ACCURACY = "Domain accuracy (%): the predicted class is one of the image's domain"
ERROR = "Top-1 error (%) of the images of a domain"


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
            f"{title}, {architecture}",
            methods,
            {header: (metrics[domain], architecture, dataset) for domain, header in DOMAINS.items()},
        )
        for architecture in architectures
        for title, metrics in ((ACCURACY, _metrics("domain_accuracy", True)), (ERROR, _metrics("top1_error", False)))
    ]
    untracked = [
        name
        for panel in panels
        for metric, _, _ in panel.columns.values()
        for name in (metric.last, metric.best)
        if name not in pool.runs
    ]
    pool = dataclasses.replace(pool, runs=pool.runs.assign(**dict.fromkeys(untracked, np.nan)))
    return stacked_table("Figure 4: Merged domains", panels, pool)


def _metrics(name: str, is_accuracy: bool) -> dict[str, Metric]:
    """By domain. The paper gives the accuracies with one decimal."""
    decimals = 1 if is_accuracy else 2
    return {
        domain: Metric(f"{name}_{domain}", f"{name} {domain}", "figure4", decimals, higher_is_better=is_accuracy)
        for domain in DOMAINS
    }
