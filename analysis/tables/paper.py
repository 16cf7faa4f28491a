"""The paper's tables 1 to 6 and figure 4 from a pool of runs, and a list of every number beside the paper's."""

import math

import pandas as pd

from analysis.load.pools import PAPER, Pool
from analysis.paper.against_paper import against_paper
from analysis.paper.layout import Layout, Panel, layout_frame, layouts
from analysis.paper.published import BASELINE, FIGURE4
from analysis.stats.comparability import comparability
from analysis.tables.format import count_text
from analysis.tables.metrics import (
    EPOCHS,
    LAST_EPOCH,
    MEAN_STD_NOTE,
    PAPER_PROTOCOL,
    footnote_mark,
    footnotes,
    incomparable_notes,
    missing_value_notes,
)
from analysis.tables.model import Best, Block, Column, Row, Table, plain_table
from analysis.tables.provenance import footer, introduction
from cskd.evaluate.metrics import Metric, all_metrics
from cskd.utils.numbers import COMPACT, mean_std_text, number_text

INDENT = 2 * "\N{NO-BREAK SPACE}"  # before the lines below a method's name
PUBLISHED, LAST, BEST_EPOCH = "paper", "our last epoch", "our best test epoch"
DIFFERENCE, RELATIVE, SEEDS = "difference", f"vs {BASELINE}", "n"
LINES = (PUBLISHED, LAST, BEST_EPOCH, DIFFERENCE, RELATIVE, SEEDS)
SINGLE_VALUES = "Paper: single values, as published."
DIFFERENCE_NOTE = (
    "Difference: our last epoch minus paper. The paper reports the best test epoch; the CSV file has the difference of "
    "our best test epoch too."
)
RELATIVE_NOTE = f"{RELATIVE.capitalize()}: relative change of our last epoch, if all other settings are equal."
BOLD_NOTE = "Bold: the best of two or more means in a column, as printed: the lowest, unless higher is better."
DOMAIN_NOTE = "Domain accuracy: the share of a domain's images whose predicted class is in the domain."
AGAINST_NOTES = (
    "At 95 %: agrees if Welch's 95 % interval of the difference includes 0, from the mean and std (ddof=1) of our n "
    "seeds and the paper's 3. One seed agrees if it lies in the 95 % prediction interval of one more run.",
    "The paper reports the best test epoch, so the columns of the best test epoch compare equal protocols.",
)


def paper_tables(pool: Pool) -> dict[str, Table]:
    """Return the tables that the pool fills, by name: table1 to table6, figure4."""
    return {
        name: _paper_table(layout, pool, (DOMAIN_NOTE,) if name == FIGURE4 else ())
        for name, layout in layouts(pool).items()
    }


def _paper_table(layout: Layout, pool: Pool, notes: tuple[str, ...]) -> Table:
    """Return one block per panel, with one line per kind of number below each method. Empty lines are left out."""
    pool = layout.part_of(pool)
    frame = layout_frame(layout, pool)
    rows = {(row.metric, row.architecture, row.dataset, row.method): row for row in frame.itertuples()}
    return Table(
        title=f"{layout.title}, {pool.title}",
        columns=(Column("method"), *(Column(header, number=True) for header in layout.panels[0].columns)),
        blocks=tuple(_block(panel, rows) for panel in layout.panels),
        frame=frame,
        intro=_introduction(pool),
        notes=(*notes, *_notes(frame, layout.metrics, pool), *footer(pool)),
        small=True,
    )


def _block(panel: Panel, rows: dict[tuple[str, ...], tuple]) -> Block:
    groups = []
    for method in panel.methods:
        cells = [(rows[metric.name, *names, method], metric) for metric, *names in panel.columns.values()]
        texts = [_texts(row, metric) for row, metric in cells]
        lines = [(INDENT + line, *(text.get(line, "") for text in texts)) for line in LINES]
        head = (method, *(footnote_mark(row) for row, _ in cells))
        groups.append((head, *(line for line in lines if any(line[1:]))))
    return Block(panel.heading, tuple(groups))


def _texts(row, metric: Metric) -> dict[str, str]:
    """Return the text of one cell in each line."""

    def mean_std(mean: float, std: float, best: bool = False) -> str:
        text = mean_std_text(mean, std, metric.decimals, separator=COMPACT)
        return Best(text) if best else text

    texts = {LAST: mean_std(row.last_mean, row.last_std, row.bold) if row.n else row.status}
    if row.n:
        texts[SEEDS] = count_text(row.n, row.seeds_planned)
    if not math.isnan(row.relative_change):
        texts[RELATIVE] = number_text(100 * row.relative_change, 1, sign=True, unit=" %")
    if not hasattr(row, "paper_mean"):
        return texts
    texts[PUBLISHED] = mean_std(row.paper_mean, row.paper_std, row.paper_bold)
    if row.best_n:
        texts[BEST_EPOCH] = mean_std(row.best_mean, row.best_std)
    if not math.isnan(row.difference):
        texts[DIFFERENCE] = number_text(row.difference, metric.decimals, sign=True)
    return texts


def _introduction(pool: Pool) -> tuple[str, ...]:
    if pool.name == PAPER:
        return ()
    if comparability(pool).comparable.any():
        return ("Tuned hyper-parameters: the paper's numbers are for other values.",)
    return introduction(pool)


def _notes(frame: pd.DataFrame, metrics: dict[str, Metric], pool: Pool) -> list[str]:
    with_paper = "paper_mean" in frame
    notes = []
    if frame.n.any():
        notes += [MEAN_STD_NOTE, EPOCHS if with_paper and frame.best_n.any() else LAST_EPOCH]
    if with_paper:
        notes.append(SINGLE_VALUES if frame.paper_std.isna().all() else PAPER_PROTOCOL)
        notes += [DIFFERENCE_NOTE] if frame.difference.notna().any() else []
    notes += [RELATIVE_NOTE] if frame.relative_change.notna().any() else []
    notes += _bold_notes(frame, metrics)
    notes += footnotes(map(footnote_mark, frame.itertuples()))
    notes += incomparable_notes(frame) if with_paper else []
    return notes + [note for metric in metrics.values() for note in missing_value_notes(pool, metric)]


def _bold_notes(frame: pd.DataFrame, metrics: dict[str, Metric]) -> list[str]:
    if not frame.bold.any() and not frame.get("paper_bold", frame.bold).any():
        return []
    higher = dict.fromkeys(metric.label for metric in metrics.values() if metric.higher_is_better)
    notes = [BOLD_NOTE, *(f"{label}: higher is better." for label in higher)]
    single = frame[frame.bold & (frame.n == 1)]
    if len(single):
        cells = dict.fromkeys(f"{row.dataset}/{row.architecture}/{row.method}" for row in single.itertuples())
        notes.append(f"Bold, but from one seed (n = 1): {', '.join(cells)}.")
    return notes


def against_paper_table(pool: Pool) -> Table | None:
    """Return the frame of ``against_paper`` as a table, or None if it has no row."""
    frame = against_paper(pool)
    if frame.empty:
        return None
    columns = [Column(name) for name in ("dataset", "network", "method", "metric")] + [Column("paper", number=True)]
    for epoch in ("last epoch", "best test epoch"):
        columns += [Column(f"ours, {epoch}", number=True), Column(f"{epoch}: at 95 %")]
    rows = [_against_row(row) for row in frame.itertuples()]
    return plain_table(f"Ours against the paper's numbers, {pool.title}", columns, rows, frame, AGAINST_NOTES)


def _against_row(row) -> Row:
    metric = all_metrics()[row.metric]
    texts = [row.dataset, row.architecture, row.method, metric.label]
    texts.append(mean_std_text(row.paper_mean, row.paper_std, metric.decimals))
    for epoch in ("last", "best"):
        mean, std, n, judgement = (getattr(row, f"{epoch}_{part}") for part in ("mean", "std", "n", "judgement"))
        texts += [mean_std_text(mean, std, metric.decimals, n=n), judgement]
    return tuple(texts)
