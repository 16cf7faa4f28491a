"""Upload the runs and studies that MLflow lacks, after an outage or to another store."""

from functools import partial

from cskd.utils import cli
from cskd.utils.errors import UserError, without_password
from experiments.runs.stored_plan import load_plans
from experiments.tracking.grids import sync_plan
from experiments.tracking.studies import sync_study
from experiments.tuning.storage import is_of_runs_dir, load_study, storage_address, storage_exists, study_names


def main() -> int:
    parser = cli.Parser(prog="python -m experiments sync", description=__doc__)
    parser.parse_args()
    plans, address = load_plans(cli.runs_dir()), storage_address()
    studies = study_names(address) if storage_exists(address) else []
    if not plans and not studies:
        raise UserError(f"{cli.runs_dir()} holds no grid and no study: launch one first")
    uri = cli.tracking_uri()
    store = without_password(uri)
    for plan in plans:
        sync_plan(uri, plan, cli.runs_dir())
        print(f"{plan.experiment}: {sum(len(cell.runs) for cell in plan.cells)} runs are tracked in {store}")
    for name in studies:
        if not is_of_runs_dir(address, name, cli.runs_dir() / "studies"):
            print(f"study {name} is left out: its runs are in another RUNS_DIR")
            continue
        results = cli.results_dir() / "studies" / name
        sync_study(uri, name, partial(load_study, address, name), cli.runs_dir(), results)
        print(f"study {name} is tracked in {store}")
    return 0
