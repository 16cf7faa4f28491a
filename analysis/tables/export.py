"""The files of ``python -m analysis tables``: the tables of one experiment, and the paper's tables of a pool."""

from collections.abc import Collection
from pathlib import Path

from analysis.load.frames import Experiment
from analysis.load.pools import Pool
from analysis.tables.files import save_drawing, save_table, save_text
from analysis.tables.format import to_csv
from analysis.tables.metrics import is_tracked, metric_table
from analysis.tables.model import Table
from analysis.tables.paper import paper_tables
from analysis.tables.reliability import cell_reliabilities, reliability_diagrams, reliability_table
from analysis.tables.runs import run_frame
from cskd.evaluate.evaluation import Evaluations
from cskd.evaluate.metrics import TRACKED


def export_experiment(
    experiment: Experiment, evaluated: Evaluations, notes: list[str], folder: Path, caches: Path, shown: Collection[str]
) -> list[Table]:
    """Write all tables and diagrams of an experiment; return the tables to print.

    Args:
        notes: on the runs without an evaluation, for the table of reliability.
        caches: the folder of the caches.
        shown: short names of the metrics to print.
    """
    printed = []
    for metric in TRACKED:
        if metric.short_name in shown or is_tracked(experiment, metric):
            table = metric_table(experiment, metric)
            save_table(folder, metric.short_name, table)
            printed += [table] if metric.short_name in shown else []
    save_text(folder / "runs.csv", to_csv(run_frame(experiment)))
    cells = cell_reliabilities(experiment, evaluated)
    if not cells:
        return printed
    save_table(folder, "reliability", reliability_table(experiment, cells, notes))
    diagrams = folder / "reliability"
    diagrams.mkdir(exist_ok=True)
    for cell in cells:
        save_text(diagrams / f"{cell.name}.csv", to_csv(cell.frame))
    for name, drawing in reliability_diagrams(experiment, cells).items():
        save_drawing(drawing, [diagrams / f"{name}.png"], caches / ".drawings" / experiment.name / f"{name}.json")
    return printed


def export_paper_tables(pool: Pool, folder: Path) -> dict[str, Table]:
    """Write the paper's tables and figure 4 of a pool; return them by name."""
    tables = paper_tables(pool)
    for name, table in tables.items():
        folder.mkdir(parents=True, exist_ok=True)
        save_table(folder, name, table)
    return tables
