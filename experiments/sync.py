"""Send to MLflow what the run folders have and it has not: after an outage, or into another store."""

from cskd import cli
from cskd.errors import UserError
from experiments.plan import load_plans
from experiments.tracking.grids import sync_plan


def main() -> int:
    parser = cli.Parser(prog="python -m experiments.sync", description=__doc__)
    parser.parse_args()
    plans = load_plans(cli.runs_dir())
    if not plans:
        raise UserError(f"no grid has been launched into {cli.runs_dir()}: there is nothing to send")
    store = cli.without_password(cli.tracking_uri())
    for plan in plans:
        sync_plan(cli.tracking_uri(), plan, cli.runs_dir())
        print(f"{plan.experiment}: {sum(len(cell.runs) for cell in plan.cells)} runs are tracked in {store}")
    return 0


if __name__ == "__main__":
    cli.run(main)
