"""The table of one metric: methods on datasets, ours beside the paper's where the two can be compared."""

import itertools
import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from analysis.load.frames import CELL_MARKS, DONE, Experiment
from analysis.load.pools import Pool
from analysis.paper.published import BASELINE, published, published_methods
from analysis.stats.comparability import comparability, settings_of
from analysis.stats.summary import Summary, finite, relative_change, summary
from analysis.tables.model import ABSENT, Block, Column, Table, signed
from analysis.tables.provenance import footer, introduction
from cskd.evaluate.metrics import Metric

OURS = "\N{DAGGER}"  # marks rows whose hyper-parameters the paper does not give
OURS_TOLD = f"{OURS} hyper-parameters ours: the paper gives none for this row; the recipe names their source."
OTHERS = "\N{DOUBLE DAGGER}"  # marks rows of a method that the paper does not have
OTHERS_TOLD = f"{OTHERS} not one of the paper's methods."
BEST = "best test epoch: released code's protocol"
PLAIN = "mean ± std (ddof=1) over n finished seeds; ± nan: one seed has no std."
LAST_EPOCH = "Last epoch: nothing is chosen on the test set."
EPOCHS = f"{LAST_EPOCH} Best test epoch: the epoch with the lowest test error, which the released code reports."
PAPER_TOLD = "Paper: 3 seeds, as published, by the protocol of its released code."


def is_tracked(experiment: Experiment, metric: Metric) -> bool:
    """Whether any finished run has the metric."""
    return bool(experiment.done[metric.last].notna().any())


def metric_table(experiment: Experiment, metric: Metric) -> Table:
    """One block an architecture, one group a dataset, one row a method. Runs without a value are named."""
    frame = metric_frame(experiment, metric)
    with_paper = "paper_mean" in frame
    columns = [Column("dataset"), Column("method")]
    columns += [Column("paper", number=True)] if with_paper else []
    columns.append(Column("ours, last epoch", number=True))
    columns += [Column(f"ours, {BEST}", number=True)] if metric.at_best_epoch else []
    columns += [Column("n"), Column("relative change", number=True)]
    blocks = []
    for architecture, rows in frame.groupby("architecture", sort=False):
        groups = []
        for _, group in rows.groupby("dataset", sort=False):
            texts = [_texts(row, metric, with_paper) for row in group.itertuples()]
            # a dataset is named once, above its methods
            groups.append(tuple((text if not index else ("", *text[1:])) for index, text in enumerate(texts)))
        blocks.append(Block(architecture, tuple(groups)))
    notes = [PLAIN, *([EPOCHS] if metric.at_best_epoch else [])]
    notes += [PAPER_TOLD] if with_paper else []
    notes += marks_told(map(footnote_mark, frame.itertuples()))
    notes.append(f"Relative change: our last epoch against {BASELINE}, where all other settings are the same.")
    if with_paper:
        notes += incomparable_notes(frame)
    notes += missing_value_notes(experiment, metric)
    return Table(
        title=f"{metric.label}, {experiment.name}",
        columns=tuple(columns),
        blocks=tuple(blocks),
        frame=frame,
        intro=introduction(experiment),
        notes=(*notes, *footer(experiment)),
    )


def metric_frame(experiment: Experiment | Pool, metric: Metric) -> pd.DataFrame:
    """A row a cell: what the table says, in plain numbers.

    ``paper_mean`` and ``paper_std`` are there only where the paper has a number for a cell that can be
    compared; ``status`` says why a cell has no number.
    """
    compared = comparability(experiment)
    with_paper = compared.comparable.any()
    runs = {key: group for key, group in experiment.runs.groupby("cell_key", sort=False)}
    records, settings = [], []
    for cell in experiment.cells.itertuples():
        seeds = runs.get(cell.cell_key, experiment.runs[:0])
        done = seeds[seeds.state == DONE]
        settings.append(settings_of(done))
        last = summary(finite(done[metric.last]))
        best = summary(finite(done[metric.best])) if metric.at_best_epoch else None
        record = {
            "profile": cell.profile,
            "architecture": cell.architecture,
            "dataset": cell.dataset,
            "method": cell.method,
            "metric": metric.name,
        }
        if with_paper:
            number = published(cell.architecture, cell.dataset, cell.method, metric.name)
            shown = number if number and compared.comparable[cell.cell_key] else (np.nan, np.nan)
            record |= {"paper_mean": shown[0], "paper_std": shown[1]}
        record |= {mark: getattr(cell, mark) for mark in CELL_MARKS if (experiment.cells[mark] != "").any()}
        record |= {"last_mean": last.mean, "last_std": last.std, "n": last.n}
        if best is not None:
            record |= {"best_mean": best.mean, "best_std": best.std, "best_n": best.n}
        records.append(
            record
            | {
                "seeds_planned": len(set(cell.seeds_planned) | set(seeds.seed)),
                "relative_change": np.nan,
                "status": _status(seeds, last.n),
                "comparable": compared.comparable[cell.cell_key],
                "comparable_reason": compared.comparable_reason[cell.cell_key],
            }
        )
    frame = pd.DataFrame(records)
    if with_paper and frame.paper_mean.isna().all():
        frame = frame.drop(columns=["paper_mean", "paper_std"])
    baselines = {(row.architecture, row.dataset): row for row in frame[frame.method == BASELINE].itertuples()}
    for row in frame[frame.method != BASELINE].itertuples():
        baseline = baselines.get((row.architecture, row.dataset))
        if baseline is not None and settings[row.Index] == settings[baseline.Index]:
            frame.loc[row.Index, "relative_change"] = relative_change(row.last_mean, baseline.last_mean)
    return frame


def _status(seeds: pd.DataFrame, n: int) -> str:
    """done where there is a number, else the state of the most advanced seed."""
    if n:
        return DONE
    if (seeds.state == DONE).any():
        return "no value"
    return next((state for state in ("running", "failed", "interrupted") if (seeds.state == state).any()), "not run")


def _texts(row, metric: Metric, with_paper: bool) -> tuple[str, ...]:
    texts = [row.dataset, f"{row.method} {footnote_mark(row)}".rstrip()]
    if with_paper:
        texts.append(_paper_text(row.paper_mean, row.paper_std, metric.decimals))
    texts.append(_text(Summary(row.last_mean, row.last_std, row.n), metric.decimals) if row.n else row.status)
    if metric.at_best_epoch:
        best = Summary(row.best_mean, row.best_std, row.best_n)
        texts.append(_text(best, metric.decimals) if best.n else ABSENT)
    texts.append(str(row.n) if row.n == row.seeds_planned else f"{row.n}/{row.seeds_planned} seeds")
    change = row.relative_change
    texts.append("" if math.isnan(change) else signed(f"{100 * change:+.1f} %"))
    return tuple(texts)


def footnote_mark(row) -> str:
    """What is to be said of a row: tuned, not a method of the paper, hyper-parameters of the recipe alone, or ""."""
    if getattr(row, "tuned_values", ""):
        return "(tuned)"
    if row.method not in published_methods():
        return OTHERS
    return OURS if getattr(row, "hyperparameter_source", "") == "ours" else ""


def marks_told(marks: Iterable[str]) -> list[str]:
    """What the marks among these mean."""
    found = set(marks)
    return [message for mark, message in ((OURS, OURS_TOLD), (OTHERS, OTHERS_TOLD)) if mark in found]


def _text(values: Summary, decimals: int) -> str:
    return f"{values.mean:.{decimals}f} ± {values.std:.{decimals}f}"


def _paper_text(mean: float, std: float, decimals: int) -> str:
    if math.isnan(mean):
        return ABSENT
    return f"{mean:.{decimals}f}" if math.isnan(std) else f"{mean:.{decimals}f} ± {std:.{decimals}f}"


def incomparable_notes(frame: pd.DataFrame) -> list[str]:
    """Why some cells of a table with paper numbers have none."""
    against = frame[~frame.comparable.astype(bool)]
    return [
        f"Not comparable with the paper: {', '.join(dict.fromkeys(rows.dataset))} ({reason})."
        for reason, rows in against.groupby("comparable_reason", sort=False)
    ]


def missing_value_notes(experiment: Experiment | Pool, metric: Metric) -> list[str]:
    """The finished runs that a mean had to leave out."""
    names = [metric.last, metric.best] if metric.at_best_epoch else [metric.last]
    return [
        f"{run['run']}: {name} is {'missing or NaN' if math.isnan(run[name]) else 'infinite'}: left out of the mean."
        for run, name in itertools.product(experiment.done.to_dict("records"), names)
        if not math.isfinite(run[name])
    ]
