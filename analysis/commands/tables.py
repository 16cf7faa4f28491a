"""Write and show the tables of tracked grids: every metric, each run, reliability with its diagrams.

They go to RESULTS_DIR/<experiment>/ as CSV, Markdown and LaTeX, the diagrams as PNG and PDF. From all experiments
together the paper's own tables are made: RESULTS_DIR/paper/<profile>/table1 to table6, and figure4. Nothing is
trained: all is rebuilt from what MLflow has, and the same runs give the same files.
"""

import argparse
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from analysis.load.frames import Experiment
from analysis.load.pools import Pool, pools
from analysis.load.store import Store
from analysis.paper.domains import domain_table
from analysis.paper.paper_tables import TITLES, paper_tables
from analysis.tables.export import save_table, save_text
from analysis.tables.format import show, to_csv
from analysis.tables.metrics import is_tracked, metric_table
from analysis.tables.model import Table
from analysis.tables.reliability import bin_frame, cell_reliabilities, reliability_diagrams, reliability_table
from analysis.tables.runs import run_frame
from cskd.evaluate.metrics import TRACKED
from cskd.plots import save_figure
from cskd.utils import cli
from cskd.utils.errors import UserError

SHOWN = ("error", "ece")  # the tables that are printed unless others are asked for
OF_EXPERIMENTS = tuple(metric.short_name for metric in TRACKED)
OF_POOLS = (*(f"table{number}" for number in TITLES), "figure4")
OFF_TERMINAL = 100  # columns where there is no terminal to ask


def main(arguments: list[str] | None = None) -> int:
    parser = cli.Parser(
        prog="python -m analysis tables", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--experiment", nargs="+", metavar="NAME", help="a tracked grid, such as table1-mini; default: all of them"
    )
    parser.add_argument("--latest", action="store_true", help="only the experiment that was launched last")
    parser.add_argument(
        "--show",
        nargs="+",
        metavar="TABLE",
        default=SHOWN,
        help=f"the tables to print, of {', '.join((*OF_EXPERIMENTS, *OF_POOLS))} (default: {' '.join(SHOWN)})",
    )
    parser.add_argument(
        "--results-dir", type=Path, default=cli.results_dir(), help="where to write (RESULTS_DIR, %(default)s)"
    )
    options = parser.parse_args(arguments)
    for name in options.show:
        cli.check_choice("table", name, (*OF_EXPERIMENTS, *OF_POOLS))
    everything = not options.latest and not options.experiment
    if not everything and (of_pools := [name for name in options.show if name in OF_POOLS]):
        raise UserError(f"{', '.join(of_pools)}: made of all experiments; leave out --experiment and --latest")
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=OFF_TERMINAL)
    store = Store(cli.tracking_uri())
    names = [store.latest()] if options.latest else options.experiment
    experiments = store.load(names)
    for experiment in experiments:
        folder = options.results_dir / experiment.name
        with written_to(folder):
            shown, notes = write(experiment, store, folder, options.results_dir / ".predictions", options.show)
        for table in shown:
            show(table, console)
        for note in notes:
            console.print(note, markup=False)
        _say_files(folder, console)
    for pool in pools(experiments) if everything else ():
        folder = options.results_dir / "paper" / pool.name
        with written_to(folder):
            tables = write_paper_tables(pool, folder)
        asked = [name for name in options.show if name in OF_POOLS]
        for name in asked:
            if name in tables:
                show(tables[name], console)
            else:
                console.print(f"{name}, {pool.name}: no method of it was launched.\n", markup=False)
        if tables:
            _say_files(folder, console)
    return 0


def write(
    experiment: Experiment, store: Store, folder: Path, cache: Path, printed: Collection[str] = SHOWN
) -> tuple[list[Table], list[str]]:
    """All tables and diagrams of one experiment into ``folder``; returns what is to be shown of them.

    That is the tables named in ``printed``, the reliability of the first dataset, and notes that stand in none of them.
    cache: where predictions go that are not on this machine. Raises OSError for what cannot be written.
    """
    shown = []
    diagrams = folder / "reliability"
    diagrams.mkdir(parents=True, exist_ok=True)
    for metric in TRACKED:
        if metric.short_name not in printed and not is_tracked(experiment, metric):
            continue
        table = metric_table(experiment, metric)
        save_table(folder, metric.short_name, table)
        if metric.short_name in printed:
            shown.append(table)
    save_text(folder / "runs.csv", to_csv(run_frame(experiment)))
    cells, notes = cell_reliabilities(experiment, store, cache)
    if not cells:
        return shown, notes
    save_table(folder, "reliability", reliability_table(experiment, cells, notes))
    for cell in cells:
        save_text(diagrams / f"{cell.name}.csv", to_csv(bin_frame(cell)))
    for name, figure in reliability_diagrams(experiment, cells).items():
        for ending in (".png", ".pdf"):
            save_figure(figure, diagrams / f"{name}{ending}")
    first = [cell for cell in cells if cell.panel == cells[0].panel]
    return [*shown, reliability_table(experiment, first, notes, empty_bins=False)], []


def write_paper_tables(pool: Pool, folder: Path) -> dict[str, Table]:
    """The paper's tables and its figure 4 of one pool into ``folder``; returns them by the names of their files."""
    tables = {f"table{number}": table for number, table in paper_tables(pool).items()}
    if domains := domain_table(pool):
        tables["figure4"] = domains
    for name, table in tables.items():
        folder.mkdir(parents=True, exist_ok=True)
        save_table(folder, name, table)
    return tables


@contextmanager
def written_to(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = f"{error.filename or folder} cannot be written ({error.strerror})"
        raise UserError(f"{where}: set RESULTS_DIR or --results-dir") from error


def _say_files(folder: Path, console: Console) -> None:
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    endings: dict[Path, list[str]] = {}
    for file in files:
        endings.setdefault(file.with_suffix(""), []).append(file.suffix)
    console.print(f"Written to {folder}:", markup=False, soft_wrap=True)
    for stem, found in endings.items():
        names = found[0] if len(found) == 1 else "{" + ",".join(ending[1:] for ending in found) + "}"
        console.print(f"  {stem}{names if len(found) == 1 else '.' + names}", markup=False, soft_wrap=True)
    console.print()
