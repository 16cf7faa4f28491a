"""Send to MLflow what the run folders have and it has not: after an outage, or into another store."""

import argparse

from cskd import cli
from cskd.errors import UserError
from experiments.plan import load_plans
from experiments.tracking import Tracker


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.sync", description=__doc__)
    parser.parse_args()
    plans = load_plans(cli.runs_dir())
    if not plans:
        raise UserError(f"no grid has been launched into {cli.runs_dir()}: there is nothing to send")
    for plan in plans:
        tracker = Tracker(cli.tracking_uri(), plan, cli.runs_dir())
        tracker.open()
        tracker.sync_all()
        print(f"{plan.experiment}: {sum(len(cell.runs) for cell in plan.cells)} runs are tracked in {tracker.uri}")
    return 0


if __name__ == "__main__":
    cli.run(main)
