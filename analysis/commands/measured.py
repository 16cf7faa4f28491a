"""Write tracked results to results/measured/, as data that can be committed.

A pool is all runs of one profile with the same tuning and overrides. runs-<pool>.csv has a row for each finished run,
verdicts-<pool>.csv has one for each claim, dataset and network. Rows of runs that are not tracked on this machine stay
in the files, and are judged with the others. 'make readme' generates the tables of the documentation from them.
"""

from pathlib import Path

from rich.console import Console

from analysis.load.pools import Pool, pools
from analysis.load.store import Store
from analysis.measured.csv_files import MEASURED
from analysis.measured.export import export_pool
from cskd.utils import cli
from cskd.utils.errors import UserError

DEMO = "demo"


def main(arguments: list[str] | None = None) -> int:
    parser = cli.Parser(prog="python -m analysis measured", description=__doc__)
    parser.add_argument("--experiment", nargs="+", metavar="NAME", help="only these tracked grids; default: all")
    parser.add_argument("--pool", nargs="+", metavar="NAME", help=f"only these pools; default: all but {DEMO} runs")
    parser.add_argument("--measured-dir", type=Path, default=MEASURED, help="where to write (default: %(default)s)")
    parser.add_argument(
        "--results-dir",
        type=Path,
        default=cli.results_dir(),
        help="the cache of evaluated predictions (RESULTS_DIR, %(default)s)",
    )
    parser.add_argument("--replace", action="store_true", help="replace verdicts even if some lose seeds")
    options = parser.parse_args(arguments)
    console = Console(highlight=False, soft_wrap=True)

    def log(line: str) -> None:
        console.print(line, markup=False)

    store = Store(cli.tracking_uri(), cli.runs_dir())
    try:
        options.measured_dir.mkdir(parents=True, exist_ok=True)
        for pool in _select(pools(store.load(options.experiment)), options.pool, with_demo=bool(options.experiment)):
            export_pool(pool, store, options.measured_dir, options.results_dir, log, options.replace)
    except OSError as error:
        path = f"{error.filename or options.measured_dir} cannot be written ({error.strerror})"
        raise UserError(f"{path}: set RESULTS_DIR, --results-dir or --measured-dir") from error
    return 0


def _select(all_pools: list[Pool], names: list[str] | None, with_demo: bool) -> list[Pool]:
    """Return the pools with these names; without names, all pools, those of demo runs only ``with_demo``."""
    by_name = {pool.name: pool for pool in all_pools}
    if names:
        return [by_name[cli.check_choice("pool", name, by_name)] for name in dict.fromkeys(names)]
    selected = [pool for pool in all_pools if pool.profile != DEMO or with_demo]
    if not selected:
        demo = all_pools[0].experiments[0].name
        raise UserError(f"only {DEMO} runs are tracked: to write them, give EXPERIMENT={demo} (--experiment {demo})")
    return selected
