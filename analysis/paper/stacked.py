"""Ours beside the paper's in the paper's own layout: below each method a line for each thing to say of it."""

import math

import pandas as pd

from analysis.load.pools import PAPER, Pool
from analysis.paper.panels import Panel, metrics_of, panel_frame, part_of
from analysis.stats.comparability import comparability
from analysis.tables.metrics import (
    BASELINE,
    EPOCHS,
    LAST_EPOCH,
    OURS,
    PAPER_TOLD,
    PLAIN,
    footnote_mark,
    incomparable_notes,
    missing_value_notes,
)
from analysis.tables.model import ABSENT, Best, Block, Column, Table, signed
from analysis.tables.provenance import footer, introduction
from cskd.evaluate.metrics import Metric

INDENT = 2 * "\N{NO-BREAK SPACE}"  # of the lines below a method's name
PUBLISHED, LAST, BEST_EPOCH = "paper", "our last epoch", "our best test epoch"
DIFFERENCE, RELATIVE, SEEDS = "difference", f"vs {BASELINE}", "n"
LINES = (PUBLISHED, LAST, BEST_EPOCH, DIFFERENCE, RELATIVE, SEEDS)
OURS_TOLD = f"{OURS} hyper-parameters ours: the paper gives none for this method here; the recipe names their source."
SINGLE = "Paper: single values, as published."
DIFFERENCE_TOLD = (
    "Difference: our last epoch minus paper. The best test epoch is the paper's own protocol: its difference from the "
    "paper is in the CSV file."
)
RELATIVE_TOLD = f"{RELATIVE.capitalize()}: relative change of our last epoch, where all other settings are the same."
BOLD = "Bold: the best mean of a column, as printed, among several: the lowest, unless higher is better."


def stacked_table(title: str, panels: list[Panel], pool: Pool, notes: tuple[str, ...] = ()) -> Table:
    """A block a panel, all with the same headers; the paper's numbers beside ours in the pool of its recipe.

    Every cell of the panels is there: one without finished runs says so. Lines without anything to say are left out.
    notes: those that come before what is said of every such table.
    """
    pool = part_of(pool, panels)
    frame = panel_frame(panels, pool)
    rows = {(row.metric, row.architecture, row.dataset, row.method): row for row in frame.itertuples()}
    return Table(
        title=f"{title}, {pool.name}",
        columns=(Column("method"), *(Column(header, number=True) for header in panels[0].columns)),
        blocks=tuple(_block(panel, rows) for panel in panels),
        frame=frame,
        intro=_introduction(pool),
        notes=(*notes, *_notes(frame, metrics_of(panels), pool), *footer(pool)),
        small=True,
    )


def _block(panel: Panel, rows: dict[tuple[str, ...], tuple]) -> Block:
    groups = []
    for method in panel.methods:
        cells = [(rows[metric.name, *place, method], metric) for metric, *place in panel.columns.values()]
        texts = [_texts(row, metric) for row, metric in cells]
        lines = [(INDENT + line, *(text.get(line, "") for text in texts)) for line in LINES]
        head = (method, *(footnote_mark(row) for row, _ in cells))
        groups.append((head, *(line for line in lines if any(line[1:]))))
    return Block(panel.heading, tuple(groups))


def _texts(row, metric: Metric) -> dict[str, str]:
    """What each line says of one cell."""
    texts = {LAST: _text(row.last_mean, row.last_std, metric, row.bold) if row.n else row.status}
    if row.n:
        texts[SEEDS] = str(row.n) if row.n == row.seeds_planned else f"{row.n}/{row.seeds_planned:.0f} seeds"
    if not math.isnan(row.relative_change):
        texts[RELATIVE] = signed(f"{100 * row.relative_change:+.1f} %")
    if not hasattr(row, "paper_mean"):
        return texts
    texts[PUBLISHED] = ABSENT
    if not math.isnan(row.paper_mean):
        std = None if math.isnan(row.paper_std) else row.paper_std
        texts[PUBLISHED] = _text(row.paper_mean, std, metric, row.paper_bold)
    if row.best_n:
        texts[BEST_EPOCH] = _text(row.best_mean, row.best_std, metric)
    if not math.isnan(row.difference):
        texts[DIFFERENCE] = signed(f"{row.difference:+.{metric.decimals}f}")
    return texts


def _text(mean: float, std: float | None, metric: Metric, best: bool = False) -> str:
    text = f"{mean:.{metric.decimals}f}" + ("" if std is None else f"±{std:.{metric.decimals}f}")
    return Best(text) if best else text


def _introduction(pool: Pool) -> tuple[str, ...]:
    if pool.name == PAPER:
        return ()
    if comparability(pool).comparable.any():
        return ("Tuned hyper-parameters: the paper's numbers are of others.",)
    return introduction(pool)


def _notes(frame: pd.DataFrame, metrics: dict[str, Metric], pool: Pool) -> list[str]:
    with_paper = "paper_mean" in frame
    notes = []
    if frame.n.any():
        notes += [PLAIN, EPOCHS if with_paper and frame.best_n.any() else LAST_EPOCH]
    if with_paper:
        notes.append(SINGLE if frame.paper_std.isna().all() else PAPER_TOLD)
        notes += [DIFFERENCE_TOLD] if frame.difference.notna().any() else []
    notes += [RELATIVE_TOLD] if frame.relative_change.notna().any() else []
    notes += _bold(frame, metrics)
    notes += [OURS_TOLD] if any(footnote_mark(row) == OURS for row in frame.itertuples()) else []
    if with_paper:
        notes += incomparable_notes(frame[frame.comparable_reason != ""])
    return notes + [note for metric in metrics.values() for note in missing_value_notes(pool, metric)]


def _bold(frame: pd.DataFrame, metrics: dict[str, Metric]) -> list[str]:
    """What the best is, and which of them rest on one seed."""
    if not frame.bold.any() and not frame.get("paper_bold", frame.bold).any():
        return []
    higher = dict.fromkeys(metric.label for metric in metrics.values() if metric.higher_is_better)
    notes = [BOLD, *(f"{title}: higher is better." for title in higher)]
    single = frame[frame.bold & (frame.n == 1)]
    if len(single):
        cells = dict.fromkeys(f"{row.dataset}/{row.architecture}/{row.method}" for row in single.itertuples())
        notes.append(f"Bold, but of one seed (n = 1): {', '.join(cells)}.")
    return notes
