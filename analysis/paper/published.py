"""The numbers of the paper: Yun et al., CVPR 2020, arXiv 2003.13964, tables 1 to 6 and figure 4."""

import functools
from pathlib import Path

import pandas as pd

PUBLISHED = Path(__file__).with_name("published.csv")
FIGURE4 = "figure4"
BASELINE, CS_KD = "cross-entropy", "cs-kd"


@functools.cache
def _numbers() -> pd.DataFrame:
    return pd.read_csv(PUBLISHED, dtype={"table": str})


@functools.cache
def published_numbers() -> pd.DataFrame:
    """Return the numbers of tables "1" to "6": table, architecture, method, dataset, metric, mean, std.

    Values are in percent, the std is over 3 seeds. ImageNet has single values: its std is NaN. A cell may be in
    several tables.
    """
    return _numbers()[_numbers().table != FIGURE4]


@functools.cache
def figure4_numbers() -> pd.DataFrame:
    """Return the numbers printed in figure 4, with the columns of ``published_numbers``; every std is NaN."""
    return _numbers()[_numbers().table == FIGURE4]


@functools.cache
def published_methods() -> frozenset[str]:
    """Return the methods of the tables, composite methods included."""
    return frozenset(published_numbers().method)


@functools.cache
def _by_cell() -> dict[tuple[str, ...], tuple[float, float]]:
    numbers = _numbers()
    keys = zip(numbers.architecture, numbers.dataset, numbers.method, numbers.metric, strict=True)
    return dict(zip(keys, zip(numbers["mean"], numbers["std"], strict=True), strict=True))


def published(architecture: str, dataset: str, method: str, metric: str) -> tuple[float, float] | None:
    """Return (mean, std) of a cell, or None if the paper has no such number."""
    return _by_cell().get((architecture, dataset, method, metric))
