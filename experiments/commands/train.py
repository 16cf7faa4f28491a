"""Train one run: one dataset, one method, one seed. Its results go to the experiment ``train``."""

from cskd.methods import canonical_name
from cskd.utils import cli
from experiments.commands.grid import launch_grid
from experiments.config.grid import Grid, check_grid
from experiments.launch.options import GridOptions, add_grid_arguments


def main() -> int:
    parser = cli.Parser(prog="python -m experiments train", description=__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--method", type=canonical_name, required=True)
    parser.add_argument("--seed", type=int, default=0)
    add_grid_arguments(parser)
    arguments = parser.parse_args()
    grid = Grid(
        title="Single runs",
        datasets=[arguments.dataset],
        architectures=arguments.architectures or ["resnet18"],
        methods=[arguments.method],
        seeds=[arguments.seed],
    )
    return launch_grid("train", check_grid(grid), GridOptions.from_arguments(arguments))
