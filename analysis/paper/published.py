"""The numbers of the paper's tables and of its figure 4: Yun et al., CVPR 2020, arXiv 2003.13964.

The figure's are those printed in it: domain accuracy and error of one network on CUB, Dogs and MIT67
merged.
"""

import functools
from pathlib import Path

import pandas as pd

PUBLISHED = Path(__file__).parent / "published.csv"
PUBLISHED_FIGURE4 = Path(__file__).parent / "published_figure4.csv"
BASELINE, CS_KD = "cross-entropy", "cs-kd"


@functools.cache
def published_numbers() -> pd.DataFrame:
    """Every number of the tables: table, architecture, method, dataset, metric, mean, std (over 3 seeds; percent).

    ImageNet's are single values, with NaN for the std. The same cell may stand in several tables.
    """
    return pd.read_csv(PUBLISHED, dtype={"table": str})


@functools.cache
def published_methods() -> frozenset[str]:
    """The methods that the tables have, sums among them."""
    return frozenset(published_numbers().method)


@functools.cache
def figure4_numbers() -> pd.DataFrame:
    """Every number of figure 4, in percent: the columns of ``published_numbers`` with ``figure`` for ``table``.

    A domain's metric is named as it is tracked; all are single values, with NaN for the std.
    """
    return pd.read_csv(PUBLISHED_FIGURE4, dtype={"figure": str})


@functools.cache
def _by_cell() -> dict[tuple[str, ...], tuple[float, float]]:
    numbers = pd.concat([published_numbers(), figure4_numbers()])
    keys = zip(numbers.architecture, numbers.dataset, numbers.method, numbers.metric, strict=True)
    return dict(zip(keys, zip(numbers["mean"], numbers["std"], strict=True), strict=True))


def published(architecture: str, dataset: str, method: str, metric: str) -> tuple[float, float] | None:
    """(mean, std) of a cell in percent, None where the paper has no such number.

    No table has to be named: a cell that stands in several has the same number in all.
    """
    return _by_cell().get((architecture, dataset, method, metric))
