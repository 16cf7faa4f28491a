"""Central stores: a real PostgreSQL, and MLflow's server on it with artifacts in an S3."""

import filecmp
import os
from pathlib import Path

import pytest
from clusters.packages import require_commands
from clusters.stores import ROOT, objects, postgresql, s3
from faults.servers import Server
from place import Place, epoch_options
from studies import open_study

from cskd.utils.errors import UserError
from experiments.tracking.store import ARTIFACT_ROOT, open_store
from experiments.tuning.storage import study_names

TABLES = {".csv", ".md", ".tex", ".png"}
WAIT_SECONDS = 240  # so that a defect does not make the tests hang
SMALL = ("experiments grid", "demo", "--set", "width=4", *epoch_options(2))

pytestmark = pytest.mark.cluster("PostgreSQL and S3")


@pytest.fixture(scope="module")
def database_server():
    pytest.importorskip("psycopg")
    require_commands("initdb", "postgresql")
    with postgresql() as server:
        yield server


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """An S3; the environment of its clients."""
    pytest.importorskip("moto")
    with s3(tmp_path_factory.mktemp("s3")) as access:
        yield access


@pytest.fixture
def server(database_server, bucket, tmp_path):
    """MLflow's server on PostgreSQL, with its artifacts in S3; the clients have no credentials of S3."""
    stores = ("--backend-store-uri", database_server.create_database("mlflow"), "--artifacts-destination", f"{ROOT}/a")
    with Server(tmp_path, *stores, **bucket) as server:
        yield server


def tables_of(place: Place) -> Path:
    """Return the folder of the tables, made in a process of their own."""
    status, output, errors = place.run("analysis tables")
    assert (status, errors) == (0, ""), output
    return Path(place.environment["RESULTS_DIR"])


def test_tables_on_a_machine_without_run_folders_are_byte_identical(tally, server, tmp_path):
    first, other = Place(tmp_path / "first"), Place(tmp_path / "other")
    for place in (first, other):
        place.folder.mkdir()
        place.environment["MLFLOW_TRACKING_URI"] = server.uri
    with tally:
        status, output, errors = first.run(*SMALL, "--seeds", "0", "1", "--workers", "4")
        assert (status, errors, "All is tracked in MLflow" in output) == (0, "", True), output
        made, rebuilt = (tables_of(place) for place in (first, other))
        assert not other.runs.exists()
        names = [path.relative_to(made) for path in sorted(made.rglob("*.*")) if path.suffix in TABLES]
        assert {path.suffix for path in names} == TABLES
        assert filecmp.cmpfiles(made, rebuilt, names, shallow=False) == (names, [], [])


def test_two_first_launches_at_once_both_succeed(tally, database_server, bucket, tmp_path):
    """On an empty database, without MLflow's server, from machines that share no folder."""
    address, processes = database_server.create_database("launches"), []
    for seed in ("0", "1"):
        place = Place(tmp_path / seed)
        place.folder.mkdir()
        environment = bucket | {"MLFLOW_TRACKING_URI": address, ARTIFACT_ROOT: f"{ROOT}/direct"}
        processes.append(place.start(*SMALL, "--seeds", seed, "--workers", "2", **environment))
    with tally:
        for process in processes:
            output, errors = process.communicate(timeout=WAIT_SECONDS)
            assert (process.returncode, errors, "All is tracked in MLflow" in output) == (0, "", True), output
        client = open_store(address)
        (experiment,) = client.search_experiments(filter_string="tags.experiment LIKE '%'")
        runs = client.search_runs([experiment.experiment_id])
        kinds = [run.data.tags["kind"] for run in runs]
        assert (kinds.count("cell"), kinds.count("run")) == (2, 4)
        assert all(run.info.artifact_uri.startswith(f"{ROOT}/direct/") for run in runs)
        assert len([name for name in objects(bucket, "direct/") if name.endswith("/predictions.npz")]) == 4


def test_study_on_postgresql_is_of_one_runs_dir(tally, database_server, tmp_path):
    """Processes start at once on an empty database; those that do not share the first one's RUNS_DIR are refused."""
    address = database_server.create_database("optuna")
    outcomes = {}
    for number in range(4):
        folder = tmp_path / "runs" if number < 2 else tmp_path / f"other{number}"
        pid = os.fork()
        if not pid:
            try:
                open_study(folder, address=address)
                os._exit(0)
            except UserError as error:
                os._exit(3 if "has another RUNS_DIR: give STUDY=" in str(error) else 4)
            finally:
                os._exit(5)
        outcomes[pid] = folder
    ended = [(outcomes[pid], os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])) for pid in outcomes]
    with tally:
        (used,) = {folder for folder, status in ended if status == 0}
        assert all(status == (0 if folder == used else 3) for folder, status in ended), ended
        assert study_names(address) == ["s"]
