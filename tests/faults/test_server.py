"""A tracking server that fails in every way: the training goes on, and everything arrives afterwards, once."""

import signal
import threading
import time

import pytest
from faults.backend import assert_told_once, rows
from faults.made_up import made_up_runs
from faults.servers import Proxy, Server
from place import Place

from cskd.utils.errors import UserError
from experiments.runs.folder import DONE
from experiments.runs.plan import load_plans
from experiments.tracking.grids import sync_plan

FAULT = "MLflow server away, killed, back later, answering 500, slow by 10 s, cutting connections"
NOT_ALL = "not all is tracked in MLflow ("
WAIT_SECONDS = 240  # only against hanging


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    one = Server(tmp_path_factory.mktemp("server")).start()
    yield one
    one.kill()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("data"))
    assert place.run("experiments data", "digits")[0] == 0
    return place.environment["DATA_DIR"]


class Launch:
    """A grid of two short runs that is tracked by a server; each case changes a setting, and so has its own runs."""

    def __init__(self, folder, data, uri, case, epochs=2, seeds=("0", "1")):
        self.place = Place(folder)
        self.place.environment |= {"DATA_DIR": data, "MLFLOW_TRACKING_URI": uri, "OMP_NUM_THREADS": "1"}
        self.seeds = seeds
        self.arguments = ["demo", "--methods", "cs-kd", "--seeds", *seeds, "--set", f"schedule.epochs={epochs}"]
        self.arguments += ["--set", "schedule.milestones=[1]", "--set", f"schedule.lr=0.1{case}"]

    def start(self):
        self.process = self.place.start("experiments grid", *self.arguments)
        return self

    def end(self) -> str:
        output, errors = self.process.communicate(timeout=WAIT_SECONDS)
        assert (self.process.returncode, errors) == (0, "")
        assert f"{len(self.seeds)} of {len(self.seeds)} runs are done." in output
        return output

    def wait_for(self, happened) -> None:
        until = time.monotonic() + WAIT_SECONDS
        while not happened():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < until
            time.sleep(0.05)

    def trained(self) -> bool:
        folders = self.place.folders()
        return len(folders) == len(self.seeds) and all(folder.state()["state"] == DONE for folder in folders)

    def sync(self) -> None:
        status, output, errors = self.place.run("experiments sync")
        assert (status, errors) == (0, "")
        assert f"{len(self.seeds)} runs are tracked" in output


def tracked_epochs(server, launch) -> int:
    keys = [folder.path.name for folder in launch.place.folders()]
    query = (
        "SELECT COUNT(*) FROM metrics JOIN tags USING (run_uuid) WHERE metrics.key = 'train/loss' AND tags.value = ?"
    )
    return sum(rows(server.database, query, key)[0][0] for key in keys)


def away_at_start(server, proxy, launch):
    server.kill()
    output = launch.start().end()
    assert output.count(NOT_ALL) == 1
    server.start()
    launch.sync()


def killed_in_the_middle(server, proxy, launch):
    launch.start()
    launch.wait_for(lambda: tracked_epochs(server, launch) > 0)
    server.kill()
    output = launch.end()
    assert NOT_ALL in output
    server.start()
    launch.sync()


def killed_and_back_before_the_end(server, proxy, launch):
    launch.start()
    launch.wait_for(lambda: tracked_epochs(server, launch) > 0)
    server.kill()
    server.start()
    launch.end()
    launch.sync()  # there is nothing left to send, or what the one that was killed swallowed


def answering_500(server, proxy, launch):
    proxy.become("error")
    output = launch.start().end()
    assert output.count(NOT_ALL) == 1
    proxy.become("pass")
    launch.sync()


def slow_by_ten_seconds(server, proxy, launch):
    proxy.become("slow")
    launch.start()
    launch.wait_for(launch.trained)
    proxy.become("pass")
    launch.end()
    launch.sync()


def never_answering(server, proxy, launch):
    """Training ends while not one request has been answered; Ctrl-C ends the wait for the server."""
    proxy.become("hang")
    launch.start()
    launch.wait_for(launch.trained)
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(launch.process.stdout), daemon=True)
    reader.start()
    launch.wait_for(lambda: any("waiting for MLflow, at most 60 s" in line for line in lines))
    launch.process.send_signal(signal.SIGINT)
    assert launch.process.wait(timeout=WAIT_SECONDS) == 0
    reader.join(timeout=WAIT_SECONDS)
    assert sum(f"{NOT_ALL}it was not waited for)" in line for line in lines) == 1
    proxy.become("pass")
    launch.sync()


CASES = [
    away_at_start,
    killed_in_the_middle,
    killed_and_back_before_the_end,
    answering_500,
    slow_by_ten_seconds,
    never_answering,
]


@pytest.mark.fault(FAULT)
def test_whoever_is_cut_off_sends_it_again_and_makes_nothing_twice(server, tally, tmp_path, monkeypatch):
    """The worst for that: the server does the work, and the client never hears of it."""
    # As in every command that tracks. In this process the analysis, which only reads, may have set it first.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    place, proxy = Place(tmp_path), Proxy(server, "cut")
    made_up_runs(place, "cs-kd", seeds=2, epochs=100)
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
        assert_told_once(server.database, place.folders(), server.folder / "artifacts")
        sync_plan(server.uri, plan, place.runs)
        assert_told_once(server.database, place.folders(), server.folder / "artifacts")
    proxy.shutdown()
    proxy.server_close()


@pytest.mark.fault(FAULT)
@pytest.mark.slow_fault
def test_training_goes_on_and_everything_arrives_once(server, request, tally, tmp_path):
    lost, data = [], request.getfixturevalue("data")
    for number, case in enumerate(CASES, start=1):
        proxy = Proxy(server)
        launch = Launch(tmp_path / case.__name__, data, proxy.uri, number)
        try:
            with tally:
                case(server, proxy, launch)
                assert_told_once(server.database, launch.place.folders(), server.folder / "artifacts")
        except AssertionError as error:
            lost.append(f"{case.__name__}: {error}")
        proxy.become("pass")
        proxy.shutdown()
        proxy.server_close()
    assert not lost, "\n\n".join(lost)
