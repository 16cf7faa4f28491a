"""Confidence against accuracy, bin by bin, over the seeds of a cell: tables and diagrams."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.load.frames import Experiment
from analysis.load.store import Store, UnusableRun
from analysis.stats.summary import summary
from analysis.tables.model import ABSENT, Block, Column, Table, signed
from analysis.tables.provenance import footer, introduction
from cskd.evaluate.scores import ReliabilityBins, reliability_bins
from cskd.plots import DIAGRAM_BINS, reliability_panels

TABLE_BINS = 20
COLUMNS = (
    Column("confidence in"),
    Column("samples", number=True),
    Column("mean confidence", number=True),
    Column("accuracy", number=True),
    Column("gap", number=True),
)
NOTE = (
    "Test predictions after the last epoch, those of a cell's finished seeds pooled; 20 bins of equal width. "
    "Gap: accuracy minus mean confidence, negative where the network is over-confident. ECE: the mean of the "
    "single seeds' (20 bins)."
)


@dataclass(frozen=True)
class CellReliability:
    """The calibration of a cell: 20 bins pooled over its seeds, and the mean of the seeds' ECE (a fraction)."""

    dataset: str
    architecture: str
    method: str
    seeds: int
    bins: ReliabilityBins
    ece: float

    @property
    def panel(self) -> str:
        """The diagram it stands in."""
        return f"{self.dataset}-{self.architecture}"

    @property
    def name(self) -> str:
        return f"{self.panel}-{self.method}"


def pooled(bins: Iterable[ReliabilityBins]) -> ReliabilityBins:
    """The bins that all samples together have. ``bins``: one or more, over the same edges."""
    bins = list(bins)
    count, confidence, accuracy = (
        np.stack([getattr(each, name) for each in bins]) for name in ("count", "confidence", "accuracy")
    )
    return ReliabilityBins(bins[0].lower, bins[0].upper, *_merged(count, confidence, accuracy))


def coarser(bins: ReliabilityBins, number: int) -> ReliabilityBins:
    """``number`` bins in place of a multiple of it: the same as if they had been filled with the samples."""
    count, confidence, accuracy = (
        values.reshape(number, -1).T for values in (bins.count, bins.confidence, bins.accuracy)
    )
    step = len(bins.count) // number
    return ReliabilityBins(bins.lower[::step], bins.upper[step - 1 :: step], *_merged(count, confidence, accuracy))


def ece(bins: ReliabilityBins) -> float:
    """The ECE of bins that are filled already; cskd.metrics.expected_calibration_error of their samples."""
    return float(np.nansum(bins.count * np.abs(bins.gap)) / bins.count.sum())


def _merged(count: np.ndarray, confidence: np.ndarray, accuracy: np.ndarray) -> tuple[np.ndarray, ...]:
    """Counts and means (parts, bins) of parts of the same bins, put together: (bins,) each."""
    total = count.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return total, *(np.nansum(count * mean, axis=0) / total for mean in (confidence, accuracy))


def cell_reliabilities(experiment: Experiment, store: Store, cache: Path) -> tuple[list[CellReliability], list[str]]:
    """Every cell with predictions, in the grid's order; and a note on each finished run that has none."""
    cells, notes = [], []
    done = {key: runs for key, runs in experiment.done.groupby("cell_key", sort=False)}
    for cell in experiment.cells.itertuples():
        found = []
        for _, run in done.get(cell.cell_key, experiment.done[:0]).iterrows():
            try:
                predictions = store.load_predictions(run, cache)
            except UnusableRun as error:
                notes.append(f"{error}: not in the reliability tables.")
                continue
            found.append(reliability_bins(predictions.logits, predictions.labels, TABLE_BINS))
        if found:
            name = (cell.dataset, cell.architecture, cell.method, len(found))
            cells.append(CellReliability(*name, pooled(found), summary([ece(bins) for bins in found]).mean))
    return cells, notes


def reliability_table(
    experiment: Experiment, cells: list[CellReliability], notes: list[str], *, empty_bins: bool = True
) -> Table:
    """One block a cell, one row a bin; without the empty bins where space counts."""
    return Table(
        title=f"Reliability, {experiment.name}",
        columns=COLUMNS,
        blocks=tuple(_block(cell, empty_bins) for cell in cells),
        frame=pd.concat([bin_frame(cell) for cell in cells], ignore_index=True),
        intro=introduction(experiment),
        notes=(NOTE, *notes, *footer(experiment)),
    )


def bin_frame(cell: CellReliability) -> pd.DataFrame:
    """A row a bin in plain numbers; no means in empty bins."""
    bins = cell.bins
    return pd.DataFrame(
        {
            "dataset": cell.dataset,
            "architecture": cell.architecture,
            "method": cell.method,
            "seeds_pooled": cell.seeds,
            "lower": bins.lower,
            "upper": bins.upper,
            "count": bins.count,
            "confidence": bins.confidence,
            "accuracy": bins.accuracy,
            "gap": bins.gap,
        }
    )


def reliability_diagrams(experiment: Experiment, cells: list[CellReliability]) -> dict[str, Figure]:
    """``{panel: figure}``: the methods side by side."""
    figures = {}
    for panel in dict.fromkeys(cell.panel for cell in cells):
        row = [cell for cell in cells if cell.panel == panel]
        seeds = sorted({cell.seeds for cell in row})
        message = " or ".join(map(str, seeds)) + (" seed" if seeds == [1] else " seeds pooled")
        title = f"{row[0].dataset}, {row[0].architecture} ({experiment.name}, {message})"
        figures[panel] = reliability_panels(
            title, {cell.method: (coarser(cell.bins, DIAGRAM_BINS), cell.ece) for cell in row}
        )
    return figures


def _block(cell: CellReliability, empty_bins: bool) -> Block:
    seeds = "1 seed" if cell.seeds == 1 else f"{cell.seeds} seeds pooled"
    heading = f"{cell.dataset}, {cell.architecture}, {cell.method}: {seeds}, ECE {100 * cell.ece:.2f} %"
    rows = []
    for row in bin_frame(cell).itertuples():
        means = (ABSENT,) * 3
        if row.count:
            means = (f"{row.confidence:.3f}", f"{row.accuracy:.3f}", signed(f"{row.gap:+.3f}"))
        if row.count or empty_bins:
            rows.append((f"({row.lower:.2f}, {row.upper:.2f}]", str(row.count), *means))
    return Block(heading, (tuple(rows),))
