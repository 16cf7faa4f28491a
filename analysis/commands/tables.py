"""Write and show the tables of tracked grids: every metric, each run, reliability with its diagrams.

Tables are written to RESULTS_DIR/<experiment>/ as CSV, Markdown and LaTeX, diagrams as PNG. The runs of all
experiments fill the paper's own tables: RESULTS_DIR/paper/<profile>/table1 to table6, and figure4. Nothing is trained:
everything is rebuilt from MLflow, and the same runs give the same files.
"""

import argparse
import textwrap
from pathlib import Path

from rich.console import Console

from analysis.load.frames import Experiment
from analysis.load.pools import pools
from analysis.load.store import Store
from analysis.paper.layout import TITLES
from analysis.stats.run_evaluations import evaluations
from analysis.tables.export import export_experiment, export_paper_tables
from analysis.tables.files import results_in
from analysis.tables.format import show, table_console
from analysis.tables.reading import reading
from cskd.evaluate.evaluation import Evaluations
from cskd.evaluate.metrics import TRACKED
from cskd.utils import cli
from cskd.utils.errors import UserError

SHOWN = ("error", "ece")  # printed by default
METRICS = tuple(metric.short_name for metric in TRACKED)
PAPER_TABLES = tuple(TITLES)


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    console = table_console()
    store = Store(cli.tracking_uri(), cli.runs_dir())
    experiments = store.load(options.experiment)
    for experiment in experiments:
        results, folder = options.results_dir, options.results_dir / experiment.name
        with results_in(folder):
            evaluated, notes = evaluations(experiment.done, store, results / ".evaluations", results / ".predictions")
            tables = export_experiment(experiment, evaluated, notes, folder, results, options.show)
        for table in tables:
            show(table, console)
        for line in [] if evaluated else notes:  # otherwise, they are in the table of reliability
            console.print(line, markup=False, highlight=False)
        _print_files(folder, console)
        _print_reading(experiment, evaluated, console)
    if options.experiment:
        return 0
    for pool in pools(experiments):
        folder = options.results_dir / "paper" / pool.name
        with results_in(folder.parent):
            tables = export_paper_tables(pool, folder)
        for name in options.show:
            if name in tables:
                show(tables[name], console)
            elif name in PAPER_TABLES:
                console.print(f"{name}, {pool.name}: none of its methods was launched.\n", markup=False)
        if tables:
            _print_files(folder, console)
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m analysis tables", description=__doc__)
    parser.add_argument(
        "--experiment", nargs="+", metavar="NAME", help="a tracked grid, such as table1-mini; default: all of them"
    )
    parser.add_argument(
        "--show",
        nargs="+",
        metavar="TABLE",
        default=SHOWN,
        help=f"the tables to print: {', '.join((*METRICS, *PAPER_TABLES))} (default: {' '.join(SHOWN)})",
    )
    parser.add_argument(
        "--results-dir", type=Path, default=cli.results_dir(), help="where to write (RESULTS_DIR, %(default)s)"
    )
    options = parser.parse_args(arguments)
    for name in options.show:
        cli.check_choice("table", name, (*METRICS, *PAPER_TABLES))
    paper_tables = [name for name in options.show if name in PAPER_TABLES]
    if paper_tables and options.experiment:
        raise UserError(f"{', '.join(paper_tables)}: needs all experiments; leave out --experiment")
    return options


def _print_reading(experiment: Experiment, evaluated: Evaluations, console: Console) -> None:
    """Print what CS-KD changes in an experiment."""
    for pool in pools([experiment]):
        for part in reading(pool, evaluated):
            for line in part:
                text = textwrap.fill(line, console.width, subsequent_indent=" " * len("  reading  "))
                console.print(text, markup=False, highlight=False, soft_wrap=True)
            console.print()


def _print_files(folder: Path, console: Console) -> None:
    endings: dict[Path, list[str]] = {}
    for path in sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file()):
        endings.setdefault(path.with_suffix(""), []).append(path.suffix[1:])
    console.print(f"Written to {folder}:", markup=False, soft_wrap=True)
    for stem, suffixes in endings.items():
        ending = suffixes[0] if len(suffixes) == 1 else f"{{{','.join(suffixes)}}}"
        console.print(f"  {stem}.{ending}", markup=False, soft_wrap=True)
    console.print()
