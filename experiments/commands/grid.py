"""Run a grid: datasets x methods x seeds. It prints the plan, and skips runs that are done."""

from cskd.utils import cli
from experiments.commands.launch_grid import launch_grid
from experiments.commands.options import GridOptions, add_grid_arguments, method_or_all
from experiments.config.grid import grid_names, load_grid


def main() -> int:
    parser = cli.Parser(prog="python -m experiments grid", description=__doc__)
    parser.add_argument("grid", help=f"one of {', '.join(grid_names())}")
    parser.add_argument("--datasets", nargs="+", metavar="NAME", help="replace the grid's datasets")
    parser.add_argument("--methods", type=method_or_all, nargs="+", metavar="NAME", help="replace the grid's")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="replace the grid's seeds")
    add_grid_arguments(parser)
    arguments = parser.parse_args()
    grid = load_grid(
        arguments.grid,
        datasets=arguments.datasets,
        architectures=arguments.architectures,
        methods=arguments.methods,
        seeds=arguments.seeds,
    )
    options = GridOptions.from_arguments(arguments)
    if not options.dry_run:
        cli.check_writable(RESULTS_DIR=cli.results_dir())  # the tables are written there after the training
    return launch_grid(arguments.grid, grid, options)
