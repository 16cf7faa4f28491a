"""Servers: a tracking server that fails loses nothing, passwords are written nowhere, pages are served locally only."""

import base64
import importlib.util
import signal
import time
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
from faults.disturbed import Disturbed, assert_uploaded_once, rows, tagged
from faults.servers import Network, Server, free_port, kill_with_descendants, wait_until_listening, with_descendants
from place import Place, epoch_options
from run_folders import make_grid, make_run, make_spec, plan_of

from cskd.utils.errors import UserError, first_line
from experiments.runs.folder import RUNNING
from experiments.runs.stored_plan import load_plans
from experiments.tracking import uploader as module
from experiments.tracking.grids import GridTracker, sync_plan
from experiments.tracking.uploader import Uploader

FAULT = "MLflow server away, killed, back later, answering 500, slow by 10 s, cutting connections"
PASSWORD_KEPT = "a tracking server with user and password: works, and the password is nowhere"
CASES = [(fault, moment) for fault in ("error", "killed", "hang", "slow") for moment in ("middle", "start")]
WAIT_SECONDS = 120  # generous: a limit only against hanging
PASSWORD = "xX-s3cr3t+word-Yy"
SPELLINGS = (PASSWORD, quote(PASSWORD), base64.b64encode(f"admin:{PASSWORD}".encode()).decode())


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def network(monkeypatch):
    # In this process the analysis, which only reads, may have set other values.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    network = Network(monkeypatch)
    yield network
    network.set_mode("pass")


@pytest.mark.fault(FAULT)
@pytest.mark.slow_fault
def test_lost_replies_create_nothing_twice(server, network, tally, tmp_path):
    """The server executes the requests, but the client never gets the replies."""
    place = Place(tmp_path)
    network.set_mode("cut")
    make_grid(place.runs, "cs-kd", seeds=2, epochs=100)
    (plan,) = load_plans(place.runs)
    with tally:
        for _ in range(100):
            before = network.cut.total()
            try:
                sync_plan(server.uri, plan, place.runs)
                break
            except UserError as error:
                assert "try again" in str(error)
                assert network.cut.total() > before
        assert network.cut["POST create"] == 4  # the experiment, the cell and its two runs
        for _ in range(2):
            assert_uploaded_once(server.database, place.folders(), server.artifacts)
            sync_plan(server.uri, plan, place.runs)


@pytest.mark.fault(FAULT)
@pytest.mark.slow_fault
@pytest.mark.parametrize(("fault", "moment"), CASES)
def test_run_that_ends_during_a_fault_is_uploaded_later(fault, moment, server, network, tally, tmp_path, monkeypatch):
    """The uploader gives up after its time at the end of the launch; a later upload sends the rest."""
    for name, seconds in (("INTERVAL_SECONDS", 0.1), ("RETRY_SECONDS", 0.1), ("QUIET_SECONDS", 1), ("END_SECONDS", 2)):
        monkeypatch.setattr(module, name, seconds)
    # Each case has its own cell: within a process, MLflow caches the address of a run's artifacts.
    place, spec = Place(tmp_path), make_spec(0, epochs=3 + CASES.index((fault, moment)))
    make_run(place.runs, spec, RUNNING, 1)
    plan = plan_of(spec)
    plan.save(place.runs)

    def break_server():
        server.kill() if fault == "killed" else network.set_mode(fault)

    with tally:
        if moment == "start":
            break_server()
        with Uploader(lambda: GridTracker(server.uri, plan.experiment, place.runs)) as uploader:
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
        network.set_mode("pass")
        sync_plan(server.uri, plan, place.runs)
        assert_uploaded_once(server.database, place.folders(), server.artifacts)


@pytest.mark.fault("the UI and the dashboard bind to 127.0.0.1")
@pytest.mark.slow_fault
@pytest.mark.parametrize("command", ["experiments ui", "experiments dashboard"])
def test_page_is_served_to_this_machine_only(tally, tmp_path, command):
    place, port = Disturbed(tmp_path), free_port()
    (tmp_path / "journal.log").touch()
    process = place.start(command, "--port", str(port), OPTUNA_STORAGE=str(tmp_path / "journal.log"))
    try:
        with tally:
            assert wait_until_listening(process, port) == {"127.0.0.1"}
            processes = with_descendants(process)
            assert not [one for one in processes if place.uri in one.cmdline()]
            process.send_signal(signal.SIGINT)  # not to its children
            assert psutil.wait_procs(processes, timeout=WAIT_SECONDS)[1] == []
    finally:
        if process.poll() is None:
            kill_with_descendants(process)


@pytest.mark.fault(PASSWORD_KEPT)
@pytest.mark.parametrize(
    "address", ["http://me:{0}@host/x", "postgresql+psycopg://me:{0}@host", "x://h/d?password={0}"]
)
def test_error_with_an_address_hides_the_password(tally, address):
    with tally:
        for padding in (0, 170, 190):  # the line is cut at 200 characters, also inside the password
            message = first_line(ValueError("." * padding + f" cannot reach {address.format(PASSWORD)} now"))
            assert not any(PASSWORD[:length] in message for length in range(6, len(PASSWORD)))


@pytest.fixture
def guarded(tmp_path):
    """An MLflow server with basic authentication."""
    folder, modules = tmp_path / "server", tmp_path / "modules"
    folder.mkdir()
    if importlib.util.find_spec("flask_wtf") is None:  # imported for the sign-up page, but not installed by MLflow
        (modules / "flask_wtf").mkdir(parents=True)
        (modules / "flask_wtf" / "__init__.py").touch()
        (modules / "flask_wtf" / "csrf.py").write_text("class CSRFProtect:\n    def init_app(self, app): pass\n")
    (folder / "auth.ini").write_text(
        "[mlflow]\ndefault_permission = NO_PERMISSIONS\nadmin_username = admin\n"
        f"database_uri = sqlite:///{folder / 'auth.db'}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    with Server(
        folder, "--app-name", "basic-auth",
        MLFLOW_AUTH_CONFIG_PATH=str(folder / "auth.ini"), MLFLOW_AUTH_ADMIN_PASSWORD=PASSWORD,
        MLFLOW_FLASK_SERVER_SECRET_KEY="a test key", PYTHONPATH=str(modules),
    ) as server:  # fmt: skip
        yield server


def files_with_password(folder: Path) -> list[Path]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return [path for path in files if any(text.encode() in path.read_bytes() for text in SPELLINGS)]


@pytest.mark.fault(PASSWORD_KEPT)
@pytest.mark.slow_fault
def test_password_of_a_server_is_written_nowhere(tally, tmp_path, guarded):
    host = guarded.uri.removeprefix("http://")
    environments = {
        "environment": {
            "MLFLOW_TRACKING_URI": guarded.uri,
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": PASSWORD,
        },
        "address": {"MLFLOW_TRACKING_URI": f"http://admin:{quote(PASSWORD)}@{host}"},
        "wrong": {"MLFLOW_TRACKING_URI": f"http://admin:{quote(PASSWORD)}x@{host}"},
        "away": {"MLFLOW_TRACKING_URI": f"http://admin:{quote(PASSWORD)}@127.0.0.1:{free_port()}"},
    }
    grid = ("experiments grid", "demo", "--methods", "cs-kd", "--seeds", "0", *epoch_options(2), "--set")
    for number, (case, environment) in enumerate(environments.items()):
        place = Place(tmp_path / "places" / case)
        place.environment |= environment
        works = case in ("environment", "address")
        commands = ["experiments sync"]
        if case == "address":
            commands += ["experiments ui", "analysis tables", "analysis report"]
        with tally:
            status, output, errors = place.run(*grid, f"schedule.lr=0.1{number}")  # each has its own cell
            assert (status, errors) == (0, "")
            assert ("All is tracked in MLflow" in output) is works
            for command in commands:
                status, *printed = place.run(command)
                output += "".join(printed)
                assert (status == 0) is works, output
            if works:
                assert_uploaded_once(guarded.database, place.folders(), guarded.artifacts)
            assert not any(text in output for text in SPELLINGS), output
            assert files_with_password(place.folder) == []
    with tally:
        assert files_with_password(guarded.folder) == []
        assert not rows(guarded.database, "SELECT * FROM tags WHERE value LIKE ?", f"%{PASSWORD}%")
