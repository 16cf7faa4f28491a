"""Every method beside cross-entropy and CS-KD: differences with simultaneous intervals."""

import math
from collections.abc import Iterable
from statistics import fmean

import pandas as pd

from analysis.claims.comparison import side_of
from analysis.load.frames import NAME
from analysis.load.pools import Pool
from analysis.paper.published import BASELINE, CS_KD
from analysis.stats.multiplicity import Simultaneous, many_to_one
from analysis.tables.format import interval_text
from analysis.tables.model import Column, Row, Table, plain_table
from analysis.tables.provenance import footer
from cskd.evaluate.evaluation import Evaluations
from cskd.evaluate.metrics import Metric, all_metrics
from cskd.utils.numbers import ABSENT, number_text

CONTROLS = (BASELINE, CS_KD)
COMPARED = ("top1_error", "scaled_nll", "debiased_ece")  # the primary claims' metrics
IN_TABLE = ("top1_error", "ece", *COMPARED[1:])
DIFFERENT = "\N{SECTION SIGN}"  # marks intervals of methods whose spreads differ
SPREADS_DIFFER = (
    f"{DIFFERENT} The spreads of the methods differ (Bartlett's test at 20 %), but the intervals take them as equal."
)
NOTES = (
    "The mean of the method minus that of the column's method after the last epoch [95 %: Dunnett's simultaneous "
    "intervals over seeds; all intervals of a column on one dataset and network hold at once]. Both sides have equal "
    "settings; an interval needs two seeds of each. The intervals hold for these test images.",
    SPREADS_DIFFER,
)


def methods_table(pool: Pool, evaluations: Evaluations) -> Table | None:
    """Return one row per metric, dataset, network and method; None if no two methods can be compared."""
    rows, records = [], []
    for name in IN_TABLE:
        metric = all_metrics()[name]
        for dataset, architecture in pool.groups:
            for row, record in _rows(pool, metric, dataset, architecture, evaluations):
                rows.append(row)
                records.append(record)
    if not rows:
        return None
    columns = [Column(header) for header in ("metric", "dataset", "network", "method", "n")]
    columns += [Column(f"\N{MINUS SIGN} {control} [95 %]", number=True) for control in CONTROLS]
    title = f"Every method beside cross-entropy and CS-KD, {pool.title}"
    return plain_table(title, columns, rows, pd.DataFrame(records), (*NOTES, *footer(pool)))


def _rows(
    pool: Pool, metric: Metric, dataset: str, architecture: str, evaluations: Evaluations
) -> Iterable[tuple[Row, dict]]:
    """Yield (texts, numbers) of each method that can be compared with a control."""
    sides = {
        method: side_of(pool, dataset, architecture, method, metric.name, evaluations)
        for method in pool.methods_on(dataset, architecture)
    }
    values = {method: list(side.values.values()) for method, side in sides.items()}
    settings = {method: side.settings for method, side in sides.items()}
    found: dict[str, dict[str, Simultaneous]] = {}
    for control in CONTROLS:
        if control in values:
            others = {
                method: of_method
                for method, of_method in values.items()
                if method != control and of_method and values[control] and settings[method] == settings[control]
            }
            alone = {method: _without_interval(of_method, values[control]) for method, of_method in others.items()}
            found[control] = alone | many_to_one(values[control], others)
    for method, of_method in values.items():
        compared = [found.get(control, {}).get(method) for control in CONTROLS]
        if any(compared):
            texts = [difference_text(one, metric) for one in compared]
            record = dict(zip(NAME, (dataset, architecture, method), strict=True)) | {"metric": metric.name}
            record |= {"n": len(of_method)}
            for control, one in zip(CONTROLS, compared, strict=True):
                record |= _numbers(control.replace("-", "_"), one)
            yield (metric.label, dataset, architecture, method, str(len(of_method)), *texts), record


def _without_interval(values: list[float], control: list[float]) -> Simultaneous:
    return Simultaneous(fmean(values) - fmean(control), (math.nan, math.nan), math.nan)


def difference_text(one: Simultaneous | None, metric: Metric) -> str:
    """Return "effect [low, high]" with a mark if the spreads differ, or ``ABSENT``."""
    if one is None:
        return ABSENT
    mark = f" {DIFFERENT}" if one.spreads_differ else ""
    interval = interval_text(one.interval, metric.decimals, sign=True)
    return f"{number_text(one.effect, metric.decimals, sign=True)} {interval}{mark}".rstrip()


def _numbers(control: str, one: Simultaneous | None) -> dict[str, float]:
    low, high = one.interval if one else (math.nan, math.nan)
    return {
        f"minus_{control}": one.effect if one else math.nan,
        f"minus_{control}_low": low,
        f"minus_{control}_high": high,
        f"minus_{control}_p": one.p_value if one else math.nan,
        f"minus_{control}_spreads_differ": bool(one) and one.spreads_differ,
    }
