"""Methods of measured runs beside cross-entropy and CS-KD: tables and a figure with Dunnett's intervals."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis.claims.verdicts import NOT_RUN
from analysis.figures.controls import Panel, controls_figure
from analysis.load.frames import NAME
from analysis.measured.csv_files import runs_path
from analysis.measured.runs import cell_text, column_of, load_runs, paper_order, provenance, setting
from analysis.stats.multiplicity import Simultaneous, many_to_one
from analysis.tables.format import to_markdown
from analysis.tables.methods import COMPARED, CONTROLS, SPREADS_DIFFER, difference_text
from analysis.tables.model import Block, Column, Table
from cskd.evaluate.metrics import all_metrics
from cskd.utils.errors import UserError
from cskd.utils.numbers import MEAN_STD

MEANING = (
    f"{MEAN_STD.capitalize()} over n seeds after the last epoch, on all test images of the classes. Lower is better.",
    "In brackets: Dunnett's simultaneous 95 % intervals over seeds. All intervals of a column hold at once, for these "
    "test images. In the figure, the grey band is the margin of equivalence (docs/judgement.md).",
)


def methods(pool: str, folder: Path, base: Path) -> str:
    """Return the methods of a pool beside the two as Markdown, with a figure; arguments and errors as in ``results``.

    Raises UserError if the pool has several datasets or networks.
    """
    path = runs_path(folder, pool)
    runs, names, notes = _load(path)
    table = differences_table(runs, names)
    tuned = runs.drop_duplicates("method").query("tuned_values != ''")
    notes = [f"Tuned: {row.method}: {row.tuned_values}." for row in tuned.itertuples()] + notes
    table = Table("", table.columns, table.blocks, runs, notes=(*table.notes, *setting(runs), *notes))
    return "\n\n".join([figure_link(methods_path(pool)), to_markdown(table).rstrip(), provenance(runs, path, base)])


def methods_path(pool: str) -> str:
    """Return the path of the figure, relative to the document."""
    return f"images/methods-{pool}.png"


def methods_figure(pool: str, folder: Path) -> Figure:
    """Return the figure of ``methods``."""
    runs, names, _ = _load(runs_path(folder, pool))
    return differences_figure(runs, names)


def _load(path: Path) -> tuple[pd.DataFrame, list[str], list[str]]:
    """Return the runs, their methods in the paper's order, and notes."""
    runs, notes = load_runs(path)
    if len(groups := runs[NAME[:2]].drop_duplicates()) != 1:
        raise UserError(f"{path} has runs on {len(groups)} datasets and networks: a table of methods needs one of each")
    return runs, paper_order(runs.method, "method"), notes


def figure_link(path: str) -> str:
    return f"![Differences from cross-entropy and CS-KD with intervals, as in the tables]({path})"


def differences_table(runs: pd.DataFrame, names: Sequence[str]) -> Table:
    """Return one block for each metric: a row for each method, with its difference from each control.

    runs: of one dataset and network. names: the methods in order; those without runs are *not run*.
    """
    columns = [Column("method"), Column("n"), Column("test images", number=True)]
    columns += [Column(f"\N{MINUS SIGN} {control} [95 %]", number=True) for control in CONTROLS]
    blocks, has_marks = [], False
    for name in COMPARED:
        metric, column, rows = all_metrics()[name], column_of(name), []
        found = _differences(runs, names, column)
        has_marks |= any(one.spreads_differ for beside in found.values() for one in beside.values())
        for method in names:
            cell = runs[runs.method == method]
            texts = [difference_text(found[control].get(method), metric) for control in CONTROLS]
            rows.append((method, str(len(cell)), NOT_RUN if cell.empty else cell_text(cell, column, name), *texts))
        blocks.append(Block(f"{metric.label}, {_seeds_text(runs)}", (tuple(rows),)))
    notes = (*MEANING, *([SPREADS_DIFFER] if has_marks else []))
    return Table("", tuple(columns), tuple(blocks), runs, notes=notes)


def differences_figure(runs: pd.DataFrame, names: Sequence[str]) -> Figure:
    """Return the figure of ``differences_table``."""
    panels = [
        Panel(metric.label, metric.equivalence_margin, _differences(runs, names, column_of(metric.name)))
        for metric in map(all_metrics().get, COMPARED)
    ]
    dataset, network = runs[NAME[:2]].iloc[0]
    title = f"{dataset}, {network}, {_seeds_text(runs)}: difference [95 %, Dunnett]"
    return controls_figure(title, names, panels)


def _differences(runs: pd.DataFrame, names: Sequence[str], column: str) -> dict[str, dict[str, Simultaneous]]:
    """Return the difference of each method from each control: {control: {method: difference}}."""
    values = {method: list(runs[runs.method == method][column].dropna()) for method in names}
    return {
        control: many_to_one(values[control], {method: values[method] for method in names if method != control})
        for control in CONTROLS
    }


def _seeds_text(runs: pd.DataFrame) -> str:
    return f"seeds {runs.seed.min():.0f} to {runs.seed.max():.0f}"
