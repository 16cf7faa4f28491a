"""The table of one metric: methods on datasets, ours beside the paper's if the two are comparable."""

import itertools
import math
from collections.abc import Iterable

import pandas as pd

from analysis.load.frames import Experiment, format_count
from analysis.paper.against_paper import cell_means
from analysis.paper.published import BASELINE, published_methods
from analysis.tables.format import count_text
from analysis.tables.model import Block, Column, Row, Table, name_once
from analysis.tables.provenance import footer, introduction
from cskd.evaluate.metrics import Metric
from cskd.utils.numbers import MEAN_STD, mean_std_text, number_text

OURS, NOT_IN_PAPER = "\N{DAGGER}", "\N{DOUBLE DAGGER}"
FOOTNOTES = {
    OURS: f"{OURS} hyper-parameters ours: the paper gives none for this method here; the recipe names their source.",
    NOT_IN_PAPER: f"{NOT_IN_PAPER} not one of the paper's methods.",
}
MEAN_STD_NOTE = f"{MEAN_STD.capitalize()} over n finished seeds. One seed has no std."
LAST_EPOCH = "Last epoch: nothing is chosen on the test set."
EPOCHS = f"{LAST_EPOCH} Best test epoch: the epoch with the lowest test error, which the released code reports."
PAPER_PROTOCOL = "Paper: 3 seeds, as published, by the protocol of its released code."
RELATIVE_CHANGE = f"Relative change: our last epoch against {BASELINE}, if all other settings are equal."


def is_tracked(experiment: Experiment, metric: Metric) -> bool:
    """Return whether any finished run has the metric."""
    return bool(experiment.done[metric.last].notna().any())


def metric_table(experiment: Experiment, metric: Metric) -> Table:
    """Return one block per architecture, one group per dataset, one row per method."""
    frame = cell_means(experiment, metric)
    with_paper = "paper_mean" in frame
    columns = [Column("dataset"), Column("method")]
    columns += [Column("paper", number=True)] if with_paper else []
    columns += [Column("ours, last epoch", number=True)]
    columns += [Column("ours, best test epoch", number=True)] if metric.at_best_epoch else []
    columns += [Column("n"), Column("relative change", number=True)]
    blocks = []
    for architecture, rows in frame.groupby("architecture", sort=False):
        groups = [
            name_once(_texts(row, metric, with_paper) for row in group.itertuples())
            for _, group in rows.groupby("dataset", sort=False)
        ]
        blocks.append(Block(architecture, tuple(groups)))
    notes = [MEAN_STD_NOTE, *([EPOCHS] if metric.at_best_epoch else []), *([PAPER_PROTOCOL] if with_paper else [])]
    notes += [*footnotes(map(footnote_mark, frame.itertuples())), RELATIVE_CHANGE]
    notes += incomparable_notes(frame) if with_paper else []
    notes += missing_value_notes(experiment, metric)
    return Table(
        title=f"{metric.label}, {experiment.title}",
        columns=tuple(columns),
        blocks=tuple(blocks),
        frame=frame,
        intro=introduction(experiment),
        notes=(*notes, *footer(experiment)),
    )


def _texts(row, metric: Metric, with_paper: bool) -> Row:
    texts = [row.dataset, f"{row.method} {footnote_mark(row)}".rstrip()]
    texts += [mean_std_text(row.paper_mean, row.paper_std, metric.decimals)] if with_paper else []
    texts.append(mean_std_text(row.last_mean, row.last_std, metric.decimals) if row.n else row.status)
    texts += [mean_std_text(row.best_mean, row.best_std, metric.decimals)] if metric.at_best_epoch else []
    change = row.relative_change
    change_text = "" if math.isnan(change) else number_text(100 * change, 1, sign=True, unit=" %")
    return (*texts, count_text(row.n, row.seeds_planned), change_text)


def footnote_mark(row) -> str:
    """Return the mark of a row with ``method`` and CELL_MARKS: tuned, not the paper's method, our values, or ""."""
    if getattr(row, "tuned_values", ""):
        return "(tuned)"
    if row.method not in published_methods():
        return NOT_IN_PAPER
    return OURS if getattr(row, "hyperparameter_source", "") == "ours" else ""


def footnotes(marks: Iterable[str]) -> list[str]:
    """Return the meaning of the marks that are present."""
    present = set(marks)
    return [note for mark, note in FOOTNOTES.items() if mark in present]


def incomparable_notes(frame: pd.DataFrame) -> list[str]:
    """Return why cells of a table with paper numbers are not comparable, one sentence per reason."""
    reasons = frame[~frame.comparable].groupby("comparable_reason", sort=False)
    return [
        f"Not comparable with the paper: {', '.join(dict.fromkeys(rows.dataset))} ({reason})."
        for reason, rows in reasons
    ]


def missing_value_notes(experiment: Experiment, metric: Metric) -> list[str]:
    """Return a sentence for each missing value of a finished run, which a mean leaves out.

    The runs that never tracked the metric share one sentence.
    """
    names = [metric.last, metric.best] if metric.at_best_epoch else [metric.last]
    runs = experiment.done.filter(items=["run", "untracked", *names]).to_dict("records")
    tracked = [run for run in runs if metric.last not in run["untracked"].split()]
    notes = [
        f"{run['run']}: {name} is {'missing or NaN' if math.isnan(value) else 'infinite'}: left out of the mean."
        for run, name in itertools.product(tracked, names)
        if not math.isfinite(value := run.get(name, math.nan))
    ]
    count = len(runs) - len(tracked)
    if count:
        notes.append(f"{metric.last} was never tracked in {format_count(count, 'run')}: left out of the mean.")
    return notes
