"""Our means beside the paper's, cell by cell: whether they agree within the spread of both."""

import math

import pandas as pd

from analysis.load.frames import NAME
from analysis.load.pools import PAPER, Pool
from analysis.paper.published import published
from analysis.stats.comparability import comparability
from analysis.stats.summary import Summary, finite, summary
from analysis.tables.model import ABSENT, Block, Column, Table
from cskd.evaluate.metrics import TRACKED

NOTES = (
    "Within or beyond two combined standard deviations, 2 sqrt(ours^2 + paper^2), of single seeds (ddof=1). The "
    "paper's numbers follow the best test epoch, so that is the column that compares like with like.",
    "Nothing is called reproduced from one seed.",
)
WITHIN, BEYOND = "within 2 std", "beyond 2 std"
ONE_SEED = "one seed: not judged"
NO_STD = "the paper has no std: not judged"
COLUMNS = (
    *(*NAME, "metric", "paper_mean", "paper_std"),
    *(f"{epoch}_{part}" for epoch in ("last", "best") for part in ("mean", "std", "n", "difference", "judgement")),
)


def against_paper(pool: Pool) -> pd.DataFrame:
    """A row for each cell and metric of ours that may stand beside a number of the paper; no row where there is none,
    nor in any other pool than that of the paper's own recipe.

    ``last_...`` is our last epoch, ``best_...`` the best test epoch, which is the protocol of the paper's released
    code (NaN and "" for a metric that is not computed at every epoch). Difference: ours - the paper's.
    judgement: whether |difference| <= 2 sqrt(std_ours^2 + std_paper^2), with the std of single seeds (ddof=1); nothing
    is judged, and so called reproduced, from one seed.
    """
    allowed = _comparable_cells(pool) if pool.name == PAPER else set()
    done = {key: runs for key, runs in pool.done.groupby("cell_key", sort=False)}
    records = []
    for cell in pool.cells.itertuples():
        if cell.cell_key not in allowed or cell.cell_key not in done:
            continue
        for metric in TRACKED:
            number = published(cell.architecture, cell.dataset, cell.method, metric.name)
            if number is None:
                continue
            runs = done[cell.cell_key]
            last = summary(finite(runs[metric.last]))
            best = summary(finite(runs[metric.best]) if metric.at_best_epoch else [])
            record = {part: getattr(cell, part) for part in NAME} | {"metric": metric.name}
            record |= {"paper_mean": number[0], "paper_std": number[1]}
            records.append(record | _beside("last", last, *number) | _beside("best", best, *number))
    return pd.DataFrame(records, columns=list(COLUMNS))


def against_paper_table(pool: Pool) -> Table | None:
    """The frame of ``against_paper``, readable; None where nothing of the pool may stand beside the paper."""
    frame = against_paper(pool)
    if frame.empty:
        return None
    titles = {metric.name: metric.label for metric in TRACKED}
    rows = []
    for row in frame.itertuples():
        texts = [row.dataset, row.architecture, row.method, titles[row.metric], _text(row.paper_mean, row.paper_std)]
        for epoch in ("last", "best"):
            mean, std, n = (getattr(row, f"{epoch}_{part}") for part in ("mean", "std", "n"))
            texts += [f"{_text(mean, std)} ({n})", getattr(row, f"{epoch}_judgement")] if n else [ABSENT, ""]
        rows.append(tuple(texts))
    columns = [Column(name) for name in ("dataset", "network", "method", "metric")] + [Column("paper", number=True)]
    for epoch in ("last epoch", "best test epoch"):
        columns += [Column(f"ours, {epoch} (n)", number=True), Column(f"{epoch}: differs by")]
    return Table(
        f"Ours against the paper's numbers, {pool.name}", tuple(columns), (Block("", (tuple(rows),)),), frame, (), NOTES
    )


def _text(mean: float, std: float) -> str:
    return f"{mean:.2f}" if math.isnan(std) else f"{mean:.2f} ± {std:.2f}"


def _comparable_cells(pool: Pool) -> set[str]:
    """The cell keys that every experiment which launched them calls comparable."""
    compared = comparability(pool)
    return set(compared.index[compared.comparable])


def _beside(epoch: str, ours: Summary, mean: float, std: float) -> dict:
    difference = ours.mean - mean
    parts = {"mean": ours.mean, "std": ours.std, "n": ours.n, "difference": difference}
    parts["judgement"] = _judgement(ours, difference, std)
    return {f"{epoch}_{part}": value for part, value in parts.items()}


def _judgement(ours: Summary, difference: float, std: float) -> str:
    if not ours.n:
        return ""
    if ours.n == 1:
        return ONE_SEED
    if math.isnan(std):
        return NO_STD
    return WITHIN if abs(difference) <= 2 * math.hypot(ours.std, std) else BEYOND
