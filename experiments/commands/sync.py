"""Upload the runs and studies that MLflow lacks, after an outage or to another store."""

import sys
from functools import partial

from cskd.utils import cli
from cskd.utils.errors import UserError, one_line, without_password
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
    uploads = {}  # by the line that says that it is done
    for plan in plans:
        done = f"{plan.experiment}: {sum(len(cell.runs) for cell in plan.cells)} runs are tracked in {store}"
        uploads[done] = partial(sync_plan, uri, plan, cli.runs_dir())
    for name in studies:
        if is_of_runs_dir(address, name, cli.runs_dir() / "studies"):
            done, load = f"study {name} is tracked in {store}", partial(load_study, address, name)
            results = cli.results_dir() / "studies" / name
            uploads[done] = partial(sync_study, uri, name, load, cli.runs_dir(), results)
        else:
            print(f"study {name} is left out: its runs are in another RUNS_DIR")
    errors = []
    for done, upload in uploads.items():
        try:
            upload()
        except UserError as error:  # such as a damaged run folder
            errors.append(error)
        else:
            print(done)
    for error in errors:
        print(f"error: {one_line(error)}", file=sys.stderr)
    return 2 if errors else 0
