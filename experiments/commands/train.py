"""Train one run: one dataset, one method, one seed. Its results go to the experiment ``train``."""

from cskd.methods import canonical_name
from cskd.utils import cli
from experiments.commands.execute import execute
from experiments.commands.options import add_launch_arguments, wish
from experiments.config.grid import Grid, check_grid

GRID = "train"


def main() -> int:
    parser = cli.Parser(prog="python -m experiments train", description=__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--method", type=canonical_name, required=True)
    parser.add_argument("--seed", type=int, default=0)
    add_launch_arguments(parser)
    arguments = parser.parse_args()
    grid = Grid(
        title="Single runs",
        datasets=[arguments.dataset],
        architectures=arguments.architectures or ["resnet18"],
        methods=[arguments.method],
        seeds=[arguments.seed],
    )
    return execute(GRID, check_grid(grid), wish(arguments))
