"""Run a grid: datasets x methods x seeds. The plan is printed first; what is done is not done again."""

from cskd.utils import cli
from experiments.commands.execute import execute
from experiments.commands.options import add_launch_arguments, method_or_all, wish
from experiments.config.grid import grid_names, load_grid


def main() -> int:
    parser = cli.Parser(prog="python -m experiments grid", description=__doc__)
    parser.add_argument("grid", help=f"one of {', '.join(grid_names())}")
    parser.add_argument("--datasets", nargs="+", metavar="NAME", help="in place of the grid's")
    parser.add_argument("--methods", type=method_or_all, nargs="+", metavar="NAME", help="in place of the grid's")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="in place of the grid's")
    add_launch_arguments(parser)
    arguments = parser.parse_args()
    grid = load_grid(
        arguments.grid,
        datasets=arguments.datasets,
        architectures=arguments.architectures,
        methods=arguments.methods,
        seeds=arguments.seeds,
    )
    if not arguments.dry_run:
        cli.check_writable(RESULTS_DIR=cli.results_dir())  # where the tables go, once all is trained
    return execute(arguments.grid, grid, wish(arguments))
