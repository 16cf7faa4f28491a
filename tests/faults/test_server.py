"""A tracking server that fails in many ways: training continues, and everything is uploaded once afterwards."""

import signal
import threading
import time

import pytest
from faults.backend import assert_uploaded_once, rows
from faults.servers import Proxy, Server
from place import Place
from run_folders import make_grid

from cskd.utils.errors import UserError
from experiments.runs.folder import DONE
from experiments.runs.plan import load_plans
from experiments.tracking.grids import sync_plan

FAULT = "MLflow server away, killed, back later, answering 500, slow by 10 s, cutting connections"
INCOMPLETE = "not all is tracked in MLflow ("
WAIT_SECONDS = 240  # generous: a limit only against hanging


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server")).start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("data"))
    assert place.run("experiments data", "digits")[0] == 0
    return place.environment["DATA_DIR"]


class Launch:
    """A grid of two short runs that is uploaded to a server. Each case changes a setting and so has its own runs."""

    def __init__(self, folder, data, uri, case):
        self.place = Place(folder)
        self.place.environment |= {"DATA_DIR": data, "MLFLOW_TRACKING_URI": uri, "OMP_NUM_THREADS": "1"}
        self.arguments = ["demo", "--methods", "cs-kd", "--seeds", "0", "1", "--set", "schedule.epochs=2"]
        self.arguments += ["--set", "schedule.milestones=[1]", "--set", f"schedule.lr=0.1{case}"]

    def start(self):
        self.process = self.place.start("experiments grid", *self.arguments)
        return self

    def end(self) -> str:
        output, errors = self.process.communicate(timeout=WAIT_SECONDS)
        assert (self.process.returncode, errors) == (0, "")
        assert "2 of 2 runs are done." in output
        return output

    def wait_for(self, condition) -> None:
        until = time.monotonic() + WAIT_SECONDS
        while not condition():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < until
            time.sleep(0.05)

    def is_trained(self) -> bool:
        return [folder.state()["state"] for folder in self.place.folders()] == [DONE, DONE]

    def has_epochs_in(self, server: Server) -> bool:
        query = "SELECT 1 FROM metrics JOIN tags USING (run_uuid) WHERE metrics.key = 'train/loss' AND tags.value = ?"
        return any(rows(server.database, query, folder.path.name) for folder in self.place.folders())

    def sync(self) -> None:
        status, output, errors = self.place.run("experiments sync")
        assert (status, errors) == (0, "")
        assert "2 runs are tracked" in output


def absent_at_start(server, proxy, launch):
    server.kill()
    output = launch.start().end()
    assert output.count(INCOMPLETE) == 1
    server.start()


def killed_in_the_middle(server, proxy, launch):
    launch.start().wait_for(lambda: launch.has_epochs_in(server))
    server.kill()
    assert INCOMPLETE in launch.end()
    server.start()


def killed_and_restarted(server, proxy, launch):
    launch.start().wait_for(lambda: launch.has_epochs_in(server))
    server.kill()
    server.start()
    launch.end()


def answering_500(server, proxy, launch):
    proxy.set_mode("error")
    assert launch.start().end().count(INCOMPLETE) == 1


def slow_by_ten_seconds(server, proxy, launch):
    proxy.set_mode("slow")
    launch.start().wait_for(launch.is_trained)
    proxy.set_mode("pass")
    launch.end()


def never_answering(server, proxy, launch):
    """Training ends although no request was answered; Ctrl-C ends the wait for the server."""
    proxy.set_mode("hang")
    launch.start().wait_for(launch.is_trained)
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(launch.process.stdout), daemon=True)
    reader.start()
    launch.wait_for(lambda: any("waiting for MLflow, at most 60 s" in line for line in lines))
    launch.process.send_signal(signal.SIGINT)
    assert launch.process.wait(timeout=WAIT_SECONDS) == 0
    reader.join(timeout=WAIT_SECONDS)
    assert sum(INCOMPLETE in line for line in lines) == 1


CASES = [
    absent_at_start,
    killed_in_the_middle,
    killed_and_restarted,
    answering_500,
    slow_by_ten_seconds,
    never_answering,
]


@pytest.mark.fault(FAULT)
def test_lost_replies_create_nothing_twice(server, tally, tmp_path, monkeypatch):
    """The server executes the requests, but the client never gets the replies."""
    # As in every command that uploads. In this process the analysis may have set another value.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    place, proxy = Place(tmp_path), Proxy(server, "cut")
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
    proxy.stop()


@pytest.mark.fault(FAULT)
@pytest.mark.slow_fault
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_training_continues_and_everything_is_uploaded_once(case, server, data, tally, tmp_path):
    proxy = Proxy(server)
    launch = Launch(tmp_path, data, proxy.uri, CASES.index(case) + 1)
    with tally:
        case(server, proxy, launch)
        proxy.set_mode("pass")
        launch.sync()
        assert_uploaded_once(server.database, launch.place.folders(), server.folder / "artifacts")
    proxy.stop()
