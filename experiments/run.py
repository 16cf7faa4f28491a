"""Train one run: one dataset, one method, one seed. Its results go to the experiment ``train``."""

from cskd import cli
from cskd.methods import canonical_name
from experiments.execute import execute
from experiments.options import add_wish, wish
from experiments.plan import Grid, checked

GRID = "train"


def main() -> int:
    parser = cli.Parser(prog="python -m experiments.run", description=__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--method", type=canonical_name, required=True)
    parser.add_argument("--seed", type=int, default=0)
    add_wish(parser)
    arguments = parser.parse_args()
    grid = Grid(
        title="Single runs",
        datasets=[arguments.dataset],
        architectures=arguments.architectures or ["resnet18"],
        methods=[arguments.method],
        seeds=[arguments.seed],
    )
    return execute(GRID, checked(grid), wish(arguments))


if __name__ == "__main__":
    cli.run(main)
