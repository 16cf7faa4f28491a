"""Several processes that upload to one SQLite database at once."""

from multiprocessing import get_context

import pytest
from faults.backend import assert_uploaded_once
from place import Place
from run_folders import make_grid

from experiments.runs.plan import load_plans
from experiments.tracking.grids import sync_plan

FAULT = "SQLite with 4 workers writing"


@pytest.mark.fault(FAULT)
def test_simultaneous_uploads_to_a_new_database_lose_nothing(tally, tmp_path):
    """Each process has its own RUNS_DIR; all upload to the same experiment."""
    methods = ["cross-entropy", "cs-kd", "label-smoothing", "max-entropy"][: tally.cases(4, 2)]
    seeds, epochs = tally.cases(3, 1), tally.cases(150, 30)
    uri, processes = f"sqlite:///{tmp_path / 'mlflow.db'}", []
    places = [Place(tmp_path / method) for method in methods]
    for place, method in zip(places, methods, strict=True):
        make_grid(place.runs, method, seeds, epochs)
        (plan,) = load_plans(place.runs)
        processes.append(get_context("fork").Process(target=sync_plan, args=(uri, plan, place.runs)))
    for process in processes:
        process.start()
    for place, process in zip(places, processes, strict=True):
        process.join(timeout=300)
        with tally:
            assert process.exitcode == 0
            assert_uploaded_once(tmp_path / "mlflow.db", place.folders())
