"""A tracking server that fails in many ways: training continues, and everything is uploaded once afterwards."""

import time

import pytest
from faults.backend import assert_uploaded_once, tagged
from faults.servers import Proxy, Server
from place import Place
from run_folders import make_grid, make_run, make_spec, plan_of

from cskd.utils.errors import UserError
from experiments.runs.folder import RUNNING
from experiments.runs.plan import load_plans
from experiments.tracking import uploader as module
from experiments.tracking.grids import GridTracker, sync_plan
from experiments.tracking.uploader import Uploader

FAULT = "MLflow server away, killed, back later, answering 500, slow by 10 s, cutting connections"
ALL_CASES = [(fault, moment) for fault in ("error", "killed", "hang", "slow") for moment in ("middle", "start")]
CASES = [ALL_CASES[0], *(pytest.param(*case, marks=pytest.mark.slow_fault) for case in ALL_CASES[1:])]
WAIT_SECONDS = 120  # generous: a limit only against hanging


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server")).start()
    yield server
    server.kill()


@pytest.fixture
def proxy(server, monkeypatch):
    # In this process the analysis, which only reads, may have set other values.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    proxy = Proxy(server)
    yield proxy
    proxy.stop()


@pytest.mark.fault(FAULT)
def test_lost_replies_create_nothing_twice(server, proxy, tally, tmp_path):
    """The server executes the requests, but the client never gets the replies."""
    place = Place(tmp_path)
    proxy.set_mode("cut")
    make_grid(place.runs, "cs-kd", seeds=2, epochs=100)
    (plan,) = load_plans(place.runs)
    with tally:
        for _ in range(100):
            before = proxy.cut.total()
            try:
                sync_plan(proxy.uri, plan, place.runs)
                break
            except UserError as error:
                assert "try again" in str(error)
                assert proxy.cut.total() > before
        assert proxy.cut["POST create"] == 4  # the experiment, the cell and its two runs
        for _ in range(2):
            assert_uploaded_once(server.database, place.folders(), server.folder / "artifacts")
            sync_plan(server.uri, plan, place.runs)


@pytest.mark.fault(FAULT)
@pytest.mark.parametrize(("fault", "moment"), CASES)
def test_run_that_ends_during_a_fault_is_uploaded_later(fault, moment, server, proxy, tally, tmp_path, monkeypatch):
    """The uploader gives up after its time at the end of the launch; a later upload sends the rest."""
    for name, seconds in (("INTERVAL_SECONDS", 0.1), ("RETRY_SECONDS", 0.1), ("QUIET_SECONDS", 1), ("END_SECONDS", 2)):
        monkeypatch.setattr(module, name, seconds)
    # Each case has its own cell: within a process, MLflow caches the address of a run's artifacts.
    place, spec = Place(tmp_path), make_spec(0, epochs=3 + ALL_CASES.index((fault, moment)))
    make_run(place.runs, spec, RUNNING, 1)
    plan = plan_of(spec)
    plan.save(place.runs)

    def break_server():
        server.kill() if fault == "killed" else proxy.set_mode(fault)

    with tally:
        if moment == "start":
            break_server()
        with Uploader(lambda: GridTracker(proxy.uri, plan.experiment, place.runs)) as uploader:
            uploader.watch(spec.run_key)
            if moment == "middle":
                until = time.monotonic() + WAIT_SECONDS
                while not tagged(server.database, run_key=spec.run_key, state=RUNNING):
                    assert time.monotonic() < until
                    time.sleep(0.1)
                break_server()
            make_run(place.runs, spec)
        assert uploader.problem
        if fault == "killed":
            server.start()
        proxy.set_mode("pass")
        sync_plan(proxy.uri, plan, place.runs)
        assert_uploaded_once(server.database, place.folders(), server.folder / "artifacts")
