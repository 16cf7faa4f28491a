"""Send to MLflow what the run folders and studies have and it has not: after an outage, or into another store."""

from cskd.utils import cli
from cskd.utils.errors import UserError, without_password
from experiments.runs.plan import load_plans
from experiments.tracking.grids import sync_plan
from experiments.tracking.studies import sync_study
from experiments.tuning.storage import storage_address, storage_exists, study_names


def main() -> int:
    parser = cli.Parser(prog="python -m experiments sync", description=__doc__)
    parser.parse_args()
    plans = load_plans(cli.runs_dir())
    studies = study_names(storage_address()) if storage_exists(storage_address()) else []
    if not plans and not studies:
        raise UserError(f"no grid has been launched into {cli.runs_dir()}: there is nothing to send")
    store = without_password(cli.tracking_uri())
    for plan in plans:
        sync_plan(cli.tracking_uri(), plan, cli.runs_dir())
        print(f"{plan.experiment}: {sum(len(cell.runs) for cell in plan.cells)} runs are tracked in {store}")
    for name in studies:
        results = cli.results_dir() / "studies" / name
        sync_study(cli.tracking_uri(), storage_address(), name, cli.runs_dir(), results)
        print(f"study {name} is tracked in {store}")
    return 0
