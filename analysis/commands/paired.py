"""Compare two experiments, or two methods of one experiment, seed by seed.

With two EXPERIMENTS, runs with the same dataset, architecture, method and seed are a pair: the table shows the effect
of the settings that differ. With two METHODS of one EXPERIMENT, such as cross-entropy and your own, runs with the same
dataset, architecture and seed are a pair. The difference, second minus first, has a 95 % interval over seeds. The table
and its pairs are written to RESULTS_DIR/paired/.
"""

from pathlib import Path

from analysis.load.store import Store
from analysis.tables.files import results_in, save_table, save_text
from analysis.tables.format import show, table_console, to_csv
from analysis.tables.paired import Pairing, compare_experiments, compare_methods, paired_table
from cskd.utils import cli
from cskd.utils.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    parser = cli.Parser(prog="python -m analysis paired", description=__doc__)
    parser.add_argument("experiments", nargs="+", metavar="EXPERIMENT", help="a tracked grid, such as table1-mini")
    parser.add_argument(
        "--methods", nargs="+", metavar="METHOD", help="two methods of one experiment: the second minus the first"
    )
    parser.add_argument(
        "--results-dir", type=Path, default=cli.results_dir(), help="where to write (RESULTS_DIR, %(default)s)"
    )
    options = parser.parse_args(arguments)
    pairing = _pairing(options.experiments, options.methods or [])
    table, pairs = paired_table(pairing)
    folder = options.results_dir / "paired"
    with results_in(folder):
        save_table(folder, pairing.file, table)
        save_text(folder / f"{pairing.file}-runs.csv", to_csv(pairs))
    console = table_console()
    show(table, console)
    console.print(f"Written to {folder}", markup=False, soft_wrap=True)
    return 0


def _pairing(experiments: list[str], methods: list[str]) -> Pairing:
    if (len(experiments), len(methods)) not in ((2, 0), (1, 2)):
        given = " with methods ".join(", ".join(names) for names in (experiments, methods) if names)
        raise UserError(f"{given}: give two experiments, or one experiment and two of its methods")
    kind, (first, second) = ("methods", methods) if methods else ("experiments", experiments)
    if first == second:
        raise UserError(f"{first} is compared with itself: give two {kind}")
    loaded = {experiment.name: experiment for experiment in Store(cli.tracking_uri(), cli.runs_dir()).load(experiments)}
    if methods:
        return compare_methods(loaded[experiments[0]], first, second)
    return compare_experiments(loaded[first], loaded[second])
