"""Write results/report.html: every table, figure and verdict of the tracked runs, in one self-contained page.

Nothing is trained. The evaluation of a run's predictions is computed once and cached by run key in RESULTS_DIR; the
same runs give the same page. Its tables and figures are also written to files, below RESULTS_DIR/report/.
"""

from pathlib import Path

from rich.console import Console

from analysis.load.store import Store
from analysis.report.report import write_report
from analysis.tables.files import results_in
from cskd.utils import cli


def main(arguments: list[str] | None = None) -> int:
    parser = cli.Parser(prog="python -m analysis report", description=__doc__)
    parser.add_argument("--experiment", nargs="+", metavar="NAME", help="only these tracked grids; default: all")
    parser.add_argument(
        "--results-dir", type=Path, default=cli.results_dir(), help="where to write (RESULTS_DIR, %(default)s)"
    )
    options = parser.parse_args(arguments)
    console = Console(highlight=False)
    store = Store(cli.tracking_uri(), cli.runs_dir())
    with results_in(options.results_dir):
        path = write_report(store, options.experiment, options.results_dir, console)
    console.print(f"Written to {path}: open it in a browser.", markup=False, soft_wrap=True)
    return 0
