"""Confidence against accuracy, bin by bin, over the seeds of a cell: tables and diagrams."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analysis.load.frames import NAME, Experiment, file_part, format_seeds
from analysis.tables.files import Drawing
from analysis.tables.model import Block, Column, Table
from analysis.tables.provenance import footer, introduction
from cskd.evaluate.bins import DIAGRAM_BINS, ReliabilityBins
from cskd.evaluate.evaluation import RAW, Evaluations
from cskd.utils.numbers import ABSENT, number_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = (
    Column("confidence in"),
    Column("samples", number=True),
    Column("mean confidence", number=True),
    Column("accuracy", number=True),
    Column("gap", number=True),
)
NOTE = (
    "Test predictions after the last epoch, pooled over the finished seeds of a cell; 20 bins of equal width. Gap: "
    "accuracy minus mean confidence, negative if the network is over-confident. ECE: the mean of the seeds' ECE (20 "
    "bins)."
)


@dataclass(frozen=True)
class CellReliability:
    """The calibration of a cell: 20 bins pooled over its seeds, and the mean of the seeds' ECE (a fraction)."""

    dataset: str
    architecture: str
    method: str
    seeds: tuple[int, ...]
    bins: ReliabilityBins
    ece: float

    @property
    def panel(self) -> str:
        """The name of its diagram, shared by all methods of a dataset and architecture."""
        return file_part(f"{self.dataset}-{self.architecture}")

    @property
    def name(self) -> str:
        return f"{self.panel}-{self.method}"

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per bin; NaN for the means of an empty bin."""
        columns = {name: getattr(self, name) for name in NAME} | {"seeds_pooled": len(self.seeds)}
        names = ("lower", "upper", "count", "confidence", "accuracy", "gap")
        return pd.DataFrame(columns | {name: getattr(self.bins, name) for name in names})


def pooled(bins: Iterable[ReliabilityBins]) -> ReliabilityBins:
    """Return the bins of all samples together. bins: one or more, with the same edges."""
    bins = list(bins)
    arrays = (np.stack([getattr(part, name) for part in bins]) for name in ("count", "confidence", "accuracy"))
    return ReliabilityBins(bins[0].lower, bins[0].upper, *_merged(*arrays))


def coarser(bins: ReliabilityBins, number: int) -> ReliabilityBins:
    """Return the bins merged into ``number`` wider bins. Their number must be a multiple of ``number``."""
    arrays = (values.reshape(number, -1).T for values in (bins.count, bins.confidence, bins.accuracy))
    step = len(bins.count) // number
    return ReliabilityBins(bins.lower[::step], bins.upper[step - 1 :: step], *_merged(*arrays))


def _merged(count: np.ndarray, confidence: np.ndarray, accuracy: np.ndarray) -> tuple[np.ndarray, ...]:
    """Merge parts: return total counts (bins,) and means (bins,) of arrays (parts, bins)."""
    total = count.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return total, *(np.nansum(count * mean, axis=0) / total for mean in (confidence, accuracy))


def cell_reliabilities(experiment: Experiment, evaluated: Evaluations) -> list[CellReliability]:
    """Return every cell with an evaluated run, in the grid's order."""
    cells = []
    finished = experiment.done[["cell_key", "run_key", "seed"]]  # a few columns are much faster to divide
    finished = finished[finished.run_key.isin(evaluated.keys())]
    for cell in experiment.cells.itertuples():
        done = finished[finished.cell_key == cell.cell_key]
        if not done.empty:
            runs = [evaluated[key] for key in done.run_key]
            mean_ece = fmean(run.metrics[RAW]["ece"] for run in runs) / 100
            names = (cell.dataset, cell.architecture, cell.method)
            cells.append(CellReliability(*names, tuple(done.seed), pooled(run.bins for run in runs), mean_ece))
    return cells


def reliability_table(experiment: Experiment, cells: list[CellReliability], notes: list[str]) -> Table:
    """Return one block per cell, one row per bin."""
    return Table(
        title=f"Reliability, {experiment.name}",
        columns=COLUMNS,
        blocks=tuple(_block(cell) for cell in cells),
        frame=pd.concat([cell.frame for cell in cells], ignore_index=True),
        intro=introduction(experiment),
        notes=(NOTE, *notes, *footer(experiment)),
    )


def _block(cell: CellReliability) -> Block:
    seeds, mean_ece = format_seeds(cell.seeds), number_text(100 * cell.ece, 2)
    heading = f"{cell.dataset}, {cell.architecture}, {cell.method}: {seeds}, ECE {mean_ece} %"
    rows = []
    for row in cell.frame.itertuples():
        means = (ABSENT,) * 3
        if row.count:
            means = number_text(row.confidence, 3), number_text(row.accuracy, 3), number_text(row.gap, 3, sign=True)
        rows.append((f"({row.lower:.2f}, {row.upper:.2f}]", str(row.count), *means))
    return Block(heading, (tuple(rows),))


def reliability_diagrams(experiment: Experiment, cells: list[CellReliability]) -> dict[str, Drawing]:
    """Return ``{panel: drawing}``, the methods side by side."""
    drawings = {}
    for panel in dict.fromkeys(cell.panel for cell in cells):
        row = [cell for cell in cells if cell.panel == panel]
        seeds = " or ".join(dict.fromkeys(format_seeds(cell.seeds) for cell in row))
        title = f"{row[0].dataset}, {row[0].architecture} ({experiment.name}, {seeds})"
        panels = {cell.method: (coarser(cell.bins, DIAGRAM_BINS), cell.ece) for cell in row}
        drawings[panel] = Drawing(draw_panels, title, panels)
    return drawings


def draw_panels(title: str, panels: dict[str, tuple[ReliabilityBins, float]]) -> "Figure":
    """Return reliability diagrams side by side."""
    from cskd.plots import reliability_panels  # noqa: PLC0415 - imports matplotlib

    return reliability_panels(title, panels)
